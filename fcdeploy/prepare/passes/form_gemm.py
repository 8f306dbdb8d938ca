"""Dense layers in one form: Gemm(x, W, b) with W (in, out), alpha = beta = 1 and nothing transposed.

 1. MatMul(x, W)        ->  Gemm(x, W)          x of rank 2, W constant
 2. Gemm(..., transB=1) ->  Gemm(x, W^T)        the orientation in which a MatMul already stores its weight; a large
                                                 weight stays as it is, since a transposed copy would have to be kept
 3. Gemm(alpha, beta)   ->  Gemm(x, alpha W, beta b)
 4. Gemm(x, W) + b      ->  Gemm(x, W, b)       by the pass that folds scales and shifts into layers

Both orientations become an integer Gemm with one scale per output channel, equally fast; (in, out) is chosen because a
MatMul then needs no copy.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, attribute_of, constant_tensor, input_of, is_constant, rank_of, tensor_of
from fcdeploy.graph.weights import read_whole

LARGE_FROM = 1 << 22  # elements; a weight of 16 MB or more is not transposed, and scaled when it is written, not before


def form_gemm(model: ir.Model) -> Changes:
    """Bring each dense layer into the one form, or say why it cannot be."""
    edits = Edits(model, "form_gemm")
    for node in edits.nodes("MatMul"):
        reason = _why_not_gemm(node)
        if reason is not None:
            edits.decline(node, f"stays: {reason}")
            continue
        edits.replace(node, "Gemm", [node.inputs[0], node.inputs[1]])
        edits.count += 1
    for node in edits.nodes("Gemm"):
        reason = _normalize(edits, node)
        if reason is not None:
            edits.decline(node, f"keeps its form: {reason}")
    return edits.changes()


def _why_not_gemm(node: ir.Node) -> str | None:
    x, weight = node.inputs
    if not is_constant(weight):
        return f"its second factor {weight.name!r} is computed at run time"  # type: ignore[union-attr]
    if rank_of(x) != 2:
        rank = rank_of(x)
        return f"its input {x.name!r} has {f'rank {rank}' if rank is not None else 'an unknown rank'}, Gemm wants 2"  # type: ignore[union-attr]
    if x.dtype != ir.DataType.FLOAT:  # type: ignore[union-attr]
        return f"its input {x.name!r} is {x.dtype}, not float32"  # type: ignore[union-attr]
    if rank_of(weight) != 2:
        return f"its weight {weight.name!r} has rank {rank_of(weight)}, Gemm wants 2"  # type: ignore[union-attr]
    return None


def _normalize(edits: Edits, node: ir.Node) -> str | None:
    alpha, beta = attribute_of(node, "alpha", 1.0), attribute_of(node, "beta", 1.0)
    trans_b = bool(attribute_of(node, "transB", 0))
    if attribute_of(node, "transA", 0):
        return "its input is transposed (transA)"
    weight, bias = node.inputs[1], input_of(node, 2)
    turned = trans_b and not _stays_large(weight)
    if alpha == beta == 1.0 and not turned:
        _drop_defaults(node, keep=trans_b)
        return _give_row(edits, node)
    if not is_constant(weight):
        return f"its weight {weight.name!r} is computed at run time"  # type: ignore[union-attr]
    if bias is not None and beta != 1.0 and not is_constant(bias):
        return f"its bias {bias.name!r} is computed at run time and has factor beta = {beta}"
    assert weight is not None
    if turned or alpha != 1.0:
        node.replace_input_with(1, _make_weight(edits, weight, alpha, turned))
    if bias is not None and beta != 1.0:
        node.replace_input_with(2, edits.constant(f"{bias.name}.beta", _multiply(array_of(bias), beta)))
    _drop_defaults(node, keep=trans_b and not turned)
    edits.count += 1
    return _give_row(edits, node)


def _stays_large(weight: ir.Value | None) -> bool:
    return (tensor := tensor_of(weight)) is not None and tensor.size >= LARGE_FROM


def _drop_defaults(node: ir.Node, *, keep: bool) -> None:
    """Attributes that say what is so anyway; `keep` leaves the weight transposed."""
    for name in ("alpha", "beta", "transA", *(() if keep else ("transB",))):
        node.attributes.pop(name, None)


def _give_row(edits: Edits, node: ir.Node) -> str | None:
    """A constant bias of one number, or (1, out), becomes (out,)."""
    bias, weight = input_of(node, 2), node.inputs[1]
    if bias is None:
        return None
    array = array_of(bias)
    if array is None:
        return f"its bias {bias.name!r} is computed at run time"
    assert weight is not None
    outputs = None if weight.shape is None else weight.shape[0 if attribute_of(node, "transB", 0) else -1]
    if not isinstance(outputs, int):
        return f"its weight {weight.name!r} is computed at run time"
    if array.ndim == 1 and array.size == outputs:
        return None
    if array.size not in (1, outputs) or (array.ndim == 2 and array.shape[0] != 1):
        return f"its bias {bias.name!r} has shape {array.shape}, not one number per output"
    node.replace_input_with(2, edits.constant(f"{bias.name}.row", np.broadcast_to(array.reshape(-1), (outputs,))))
    edits.count += 1
    return None


def _make_weight(edits: Edits, value: ir.Value, alpha: float, transposed: bool) -> ir.Value:
    """alpha W, or alpha W^T, as a new initializer; made only when it is read if it is large."""
    tensor = constant_tensor(value)

    def make() -> Array:
        array = read_whole(tensor)
        return _multiply(array.T if transposed else array, alpha)

    name = f"{value.name}.{'transposed' if transposed else 'alpha'}"
    if tensor.size < LARGE_FROM:
        return edits.constant(name, make())
    shape = ir.Shape(tensor.shape.numpy()[:: -1 if transposed else 1])
    return edits.constant(name, ir.LazyTensor(lambda: ir.Tensor(make()), dtype=tensor.dtype, shape=shape))


def _multiply(array: Array | None, factor: float) -> Array:
    assert array is not None
    if factor == 1.0:
        return array
    product: Array = (array.astype(np.float64) * factor).astype(array.dtype)
    return product
