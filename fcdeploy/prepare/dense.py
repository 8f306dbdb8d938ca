"""Dense layers in one form: Gemm(x, W, b) with W (in, out), alpha = beta = 1 and nothing transposed.

 1. MatMul(x, W)        ->  Gemm(x, W)          x of rank 2, W constant
 2. Gemm(..., transB=1) ->  Gemm(x, W^T)        the orientation in which a MatMul already stores its weight
 3. Gemm(alpha, beta)   ->  Gemm(x, alpha W, beta b)
 4. Gemm(x, W) + b      ->  Gemm(x, W, b)       by the pass that folds scales and shifts into layers

Both orientations become an integer Gemm with one scale per output channel, equally fast; (in, out) is chosen because a
MatMul then needs no copy, and the output channel is the last axis of every dense weight.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.prepare.changes import (
    Array,
    Changes,
    Edits,
    array_of,
    attribute,
    input_of,
    is_constant,
    rank_of,
    shape_of,
)

LAZY_FROM = 1 << 22  # elements; a transposed copy of 16 MB or more is made when it is written, not before


def dense(model: ir.Model) -> Changes:
    """Bring each dense layer into the one form, or say why it cannot be."""
    edits = Edits(model, "dense")
    for node in edits.nodes("MatMul"):
        reason = _unlike_gemm(node)
        if reason is not None:
            edits.decline(node, f"stays: {reason}")
            continue
        edits.replace(node, "Gemm", [node.inputs[0], node.inputs[1]])
        edits.count += 1
    for node in edits.nodes("Gemm"):
        reason = _normalise(edits, node)
        if reason is not None:
            edits.decline(node, f"keeps its form: {reason}")
    return edits.changes()


def _unlike_gemm(node: ir.Node) -> str | None:
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


def _normalise(edits: Edits, node: ir.Node) -> str | None:
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    trans_b = bool(attribute(node, "transB", 0))
    if attribute(node, "transA", 0):
        return "its input is transposed (transA)"
    if alpha == beta == 1.0 and not trans_b:
        _drop_defaults(node)
        return _give_row(edits, node)
    weight, bias = node.inputs[1], input_of(node, 2)
    if not is_constant(weight):
        return f"its weight {weight.name!r} is computed at run time"  # type: ignore[union-attr]
    if bias is not None and beta != 1.0 and not is_constant(bias):
        return f"its bias {bias.name!r} is computed at run time and has factor beta = {beta}"
    assert weight is not None
    node.replace_input_with(1, _weight(edits, weight, alpha, trans_b))
    if bias is not None and beta != 1.0:
        node.replace_input_with(2, edits.constant(f"{bias.name}.beta", _times(array_of(bias), beta)))
    for name in ("alpha", "beta", "transB"):
        node.attributes.pop(name, None)
    edits.count += 1
    return _give_row(edits, node)


def _drop_defaults(node: ir.Node) -> None:
    """Attributes that say what is so anyway."""
    for name in ("alpha", "beta", "transA", "transB"):
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
    if weight.shape is None or not isinstance(weight.shape[-1], int):
        return f"its weight {weight.name!r} is computed at run time"
    outputs = weight.shape[-1]
    if array.ndim == 1 and array.size == outputs:
        return None
    if array.size not in (1, outputs) or (array.ndim == 2 and array.shape[0] != 1):
        return f"its bias {bias.name!r} has shape {array.shape}, not one number per output"
    node.replace_input_with(2, edits.constant(f"{bias.name}.row", np.broadcast_to(array.reshape(-1), (outputs,))))
    edits.count += 1
    return None


def _weight(edits: Edits, value: ir.Value, alpha: float, transposed: bool) -> ir.Value:
    """alpha W, or alpha W^T, as a new initializer; made only when it is read if it is large."""
    tensor = value.const_value
    assert tensor is not None

    def make() -> Array:
        array = tensor.numpy()
        return _times(array.T if transposed else array, alpha)

    name = edits.fresh(f"{value.name}.{'transposed' if transposed else 'alpha'}")
    if tensor.size < LAZY_FROM:
        return edits.tensor(ir.Tensor(np.ascontiguousarray(make()), name=name))
    shape = ir.Shape(list(shape_of(tensor))[::-1]) if transposed else shape_of(tensor)
    return edits.tensor(ir.LazyTensor(lambda: ir.Tensor(make()), dtype=tensor.dtype, shape=shape, name=name))


def _times(array: Array | None, factor: float) -> Array:
    assert array is not None
    if factor == 1.0:
        return array
    product: Array = (array.astype(np.float64) * factor).astype(array.dtype)
    return product
