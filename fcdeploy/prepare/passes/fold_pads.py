"""A Pad of zeros around the spatial axes becomes the padding of the convolutions or pools that read it.

An AveragePool counts the added zeros (count_include_pad=1), as it did when they were part of its input.  A MaxPool pads
with minus infinity, which is the same only where its input is never negative and every window holds a part of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, attribute_of, describe, input_of, ints_of, is_op, rank_of


def fold_pads(model: ir.Model) -> Changes:
    """Move each Pad into all of its readers, or say why it stays."""
    edits = Edits(model, "fold_pads")
    for node in edits.nodes("Pad"):
        value = node.inputs[0]
        assert value is not None
        pads = _read_pads(node, value)
        reason = pads if isinstance(pads, str) else _why_reader_cannot(edits, node, pads)
        if reason is not None or isinstance(pads, str):
            edits.decline(node, f"keeps: {reason}")
            continue
        for reader in node.outputs[0].consumers():
            _widen(reader, pads)
        node.outputs[0].replace_all_uses_with(value)
        edits.graph.remove(node, safe=True)
        edits.count += 1
    return edits.changes()


def _read_pads(node: ir.Node, value: ir.Value) -> list[int] | str:
    """ONNX pads of the spatial axes, all begins and then all ends; or why they cannot move."""
    mode = attribute_of(node, "mode", "constant")
    if mode != "constant":
        return f"its mode is {mode!r}, a convolution pads with zeros"
    fill = input_of(node, 2)
    filled_with = attribute_of(node, "value", 0.0) if fill is None else array_of(fill)
    if filled_with is None or np.any(np.asarray(filled_with) != 0):
        return "it does not pad with a constant zero"
    rank, pads, axes = rank_of(value), ints_of(node, "pads", 1), ints_of(node, "axes", 3)
    if rank is None or not pads or axes is None:
        return f"its pads or the rank of its input {value.name!r} are not known before it runs"
    axes = tuple(axis % rank for axis in axes) or tuple(range(rank))
    begins, ends = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[position], pads[position + len(axes)]
    if any(begins[:2]) or any(ends[:2]):
        return "it pads the batch or the channels"
    if min(begins + ends) < 0:
        return "it crops (a pad is negative)"
    return begins[2:] + ends[2:]


def _why_reader_cannot(edits: Edits, node: ir.Node, pads: list[int]) -> str | None:
    """Why one of the readers cannot take the pads over, or None."""
    output = node.outputs[0]
    if output.is_graph_output() or not output.uses():
        return f"its output {output.name!r} is an output of the graph"
    for reader in output.consumers():
        name = describe(reader)
        if not is_op(reader, "Conv", *POOLS) or reader.graph is not edits.graph:
            return f"its output {output.name!r} is read by {name}, which has no padding of its own"
        if reader.inputs[0] is not output or sum(value is output for value in reader.inputs) != 1:
            return f"its output {output.name!r} is a parameter of {name}"
        if attribute_of(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return f"{name} computes its padding itself (auto_pad)"
        reason = POOLS[reader.op_type](reader, node, pads) if is_op(reader, *POOLS) else None
        if reason is not None:
            return f"{name} {reason}"
    return None


def _why_average_cannot(pool: ir.Node, _pad: ir.Node, pads: list[int]) -> str | None:
    own = attribute_of(pool, "pads", (0,) * len(pads))
    if any(own) and not attribute_of(pool, "count_include_pad", 0):
        return "leaves its own padding out of the mean, but not these zeros"
    return _why_window_cannot(pool, pads)


def _why_max_cannot(pool: ir.Node, pad: ir.Node, pads: list[int]) -> str | None:
    source = pad.inputs[0]
    assert source is not None
    if not _is_never_negative(source.producer()):
        return f"pads with minus infinity, and {source.name!r} may be negative"
    if len(pool.outputs) > 1 or any(step != 1 for step in attribute_of(pool, "dilations", ())):
        return "is dilated or returns indices"
    return _why_window_cannot(pool, pads)


def _why_window_cannot(pool: ir.Node, pads: list[int]) -> str | None:
    own = attribute_of(pool, "pads", (0,) * len(pads))
    if attribute_of(pool, "ceil_mode", 0):
        return "rounds its output size up, which counts padding differently"
    kernel = attribute_of(pool, "kernel_shape", ())
    if any(a + b >= k for a, b, k in zip(pads, own, [*kernel, *kernel], strict=True)):
        return f"has kernel {list(kernel)}, which must be larger than the padding"
    return None


def _is_never_negative(node: ir.Node | None) -> bool:
    if node is None or not is_op(node, "Clip"):
        return is_op(node, "Relu", "Sigmoid", "HardSigmoid", "Softmax")
    low = array_of(input_of(node, 1))
    return float(attribute_of(node, "min", -1.0) if low is None else low.reshape(-1)[0]) >= 0


POOLS = {"AveragePool": _why_average_cannot, "MaxPool": _why_max_cannot}


def _widen(reader: ir.Node, pads: list[int]) -> None:
    own = attribute_of(reader, "pads", (0,) * len(pads))
    if attribute_of(reader, "auto_pad", "NOTSET") == "VALID":
        own = (0,) * len(pads)
    reader.attributes.pop("auto_pad", None)
    reader.attributes.add(ir.AttrInt64s("pads", [a + b for a, b in zip(pads, own, strict=True)]))
    if is_op(reader, "AveragePool") and any(pads):
        reader.attributes.add(ir.AttrInt64("count_include_pad", 1))
