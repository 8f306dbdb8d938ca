"""A model that gives its tensors: whole ones, or what is counted of them and enough to know that nothing was missed.

onnxruntime keeps images in blocks of channels (NCHWc).  To give one out it has to be turned around, which costs as much
as several reads; pooling it costs one.  So of an image behind a clip the graph gives three small tensors: every k-th
row and column, the largest of each channel, and the mean of each channel, which is finite if all of them are.  The
smallest is the clip's bound if that is among what is counted, as it nearly always is.  Where one of this does not hold
the tensor is exposed whole: the record is the same bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.histogram import choose_step
from fcdeploy.graph.nodes import clip_bounds, is_op, name_of


def is_dense(value: ir.Value) -> bool:
    """Whether a MatMul reads or writes it, which has channels last."""
    producer = value.producer()
    return (producer is not None and producer.op_type == "MatMul") or any(
        user.op_type == "MatMul" and user.inputs[0] is value for user in value.consumers()
    )


def channel_axis(rank: int, *, dense: bool) -> int | None:
    """The axis that counts channels: the second of an image or sequence, the last where a MatMul is."""
    if rank < 2:
        return None
    return rank - 1 if dense else 1


def lower_bound(value: ir.Value) -> float:
    """A number that no element can be below, by what computes it; -inf where that does not say."""
    producer = value.producer()
    return -math.inf if producer is None or not is_op(producer, "Relu", "Clip") else clip_bounds(producer)[0]


def pooled_step(value: ir.Value, axis: int | None) -> int:
    """Every how-manieth row and column of an image is enough to be exposed; 1 where the whole tensor is.

    `axis` is that of its samples.
    """
    sizes = [n for n in value.shape[1:] if isinstance(n, int)] if value.shape is not None else []
    if len(sizes) != 3 or value.dtype != ir.DataType.FLOAT or axis != 0 or is_dense(value):
        return 1
    return choose_step(sizes[0], tuple(sizes[1:])) if np.isfinite(lower_bound(value)) else 1


def expose_tensors(
    model: ir.Model, values: Mapping[str, ir.Value], wanted: Collection[str], pooled: Mapping[str, int]
) -> ir.Model:
    """A copy of the model whose outputs are the `wanted` ones of these values; of the others the first element.

    Those that are `pooled` (with which step) come as three tensors, see `outputs_of`.  Something reads each value,
    whichever are wanted: what the runtime may fuse decides the last bits of a float, and must not depend on the pass.
    """
    copy = model.clone()
    results = {name_of(value): value for node in copy.graph for value in node.outputs if value.name in values}
    numbers = [ir.Value(name=f"pass'{n}", const_value=ir.tensor(np.array([n]), name=f"pass'{n}")) for n in (-1, 0, 1)]
    copy.graph.outputs.clear()
    for name, value in results.items():
        if name in pooled and name in wanted:
            few = {"kernel_shape": [1, 1], "strides": [pooled[name]] * 2}
            pools = [("MaxPool", few), ("GlobalMaxPool", {}), ("GlobalAveragePool", {})]
            nodes = [
                ir.node(op, [value], attributes=attributes, outputs=[ir.Value(name=output)])
                for (op, attributes), output in zip(pools, outputs_of(name, pooled), strict=True)
            ]
        elif name in wanted:
            copy.graph.outputs.append(value)
            continue
        else:
            flat = ir.node("Reshape", [value, numbers[0]], outputs=[ir.Value(name=f"pass'{name}")])
            first = ir.node("Slice", [flat.outputs[0], *numbers[1:]], outputs=[ir.Value(name=f"pass'{name}'s first")])
            nodes = [flat, first]
        copy.graph.insert_after(value.producer(), nodes)  # type: ignore[arg-type]  # results of nodes only
        copy.graph.outputs.extend(node.outputs[0] for node in nodes if not node.outputs[0].uses())
    for number in numbers:
        if number.uses():
            copy.graph.register_initializer(number)
    return copy


def outputs_of(name: str, pooled: Collection[str]) -> tuple[str, ...]:
    """What the exposing model calls what it gives of a tensor: itself, or what is counted, the largest, the means."""
    return (f"pass'{name}'s few", f"pass'{name}'s largest", f"pass'{name}'s means") if name in pooled else (name,)
