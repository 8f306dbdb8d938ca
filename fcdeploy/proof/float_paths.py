"""Do the float nodes of a quantized model compute the same on every path through the runtime?

The model is cut at every integer tensor and at every float tensor that an integer kernel writes; what the model as it
runs computed there is fed in.  So every stretch of float nodes starts from the very same numbers, and is run again with
graph optimization off, with it on, and with `session.x64quantprecision`: its kernels, fusions and layouts are others each
time.  What it gives, a float output or the bytes a QuantizeLinear makes of it, is compared with what the model gave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import array_of, name_of
from fcdeploy.prepare.passes.remove_unused import remove_unused
from fcdeploy.proof.byte_bounds import find_byte_type
from fcdeploy.runtime.session import Session

AGAIN = "/again"
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class FloatEnd:
    """A tensor at which a stretch of float nodes ends: the node that computes it, and the tensor's name."""

    node: str
    op: str
    tensor: str
    floats: bool


@dataclass(frozen=True)
class FloatRegions:
    """The cut model in each way to run it, what to feed it, and its ends in the order of its outputs."""

    sessions: tuple[Session, ...]
    precise: Session | None
    starts: tuple[str, ...]
    ends: tuple[FloatEnd, ...]

    def run(self, feeds: Mapping[str, Array], computed: Mapping[str, Array]) -> list[list[Array]]:
        """For each way, what the stretches end with, given what the whole model `computed`."""
        given = dict(feeds) | {name: computed[name] for name in self.starts}
        ways = [[np.asarray(value) for value in session.run(given)] for session in self.sessions]
        if self.precise is not None:
            with suppress(FcdeployError):  # or fail in a run
                ways.append([np.asarray(value) for value in self.precise.run(given)])
        return ways


def find_byte_tensors(model: ir.Model) -> dict[str, str]:
    """Find the integer tensors that QuantizeLinears of the main graph write at run time: name -> type."""
    nodes = [node for node in model.graph if node.op_type == "QuantizeLinear" and array_of(node.inputs[0]) is None]
    types = {name_of(node.outputs[0]): find_byte_type(node.outputs[0]) for node in nodes}
    return {name: kind for name, kind in types.items() if kind is not None}


def find_float_ends(model: ir.Model, known: Collection[str]) -> tuple[FloatEnd, ...]:
    """Where stretches of float nodes end; `known` are the nodes whose integers are recomputed or skipped elsewhere."""
    float_ends = []
    for node in model.graph:
        if node.op_type in CONVERSIONS or name_of(node) in known:
            continue
        for value in node.outputs:
            if value.dtype not in (None, ir.DataType.FLOAT) or _is_constant_folded(node):
                continue
            behind = [user.outputs[0] for user in value.consumers() if user.op_type == "QuantizeLinear"]
            tensors = [(name_of(each), False) for each in behind if find_byte_type(each)]
            tensors += [(name_of(value), True)] if value.is_graph_output() and value.dtype else []
            float_ends += [FloatEnd(name_of(node), node.op_type, tensor, floats) for tensor, floats in tensors]
    return tuple(float_ends)


def cut_float_regions(
    model: ir.Model, starts: Mapping[str, str], ends: tuple[FloatEnd, ...], computed: Mapping[str, Array]
) -> FloatRegions:
    """The model cut at `starts` (tensor name -> type), in three ways to run it; `computed` is what a batch has there.

    A length that the file gives a tensor wrongly, as exporters and inference do, is a free one.
    """
    cut = model.clone()
    values = {value.name: value for node in cut.graph for value in node.outputs}
    outputs = {end.tensor: values[end.tensor] for end in ends}
    for name, dtype in starts.items():
        written = values[name]
        shape = _free_wrong_lengths(written.shape, computed[name].shape)
        given = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))))
        written.replace_all_uses_with(given, replace_graph_outputs=True)
        written.name = f"{name}{AGAIN}"
        written.type = given.type
        cut.graph.inputs.append(given)
    cut.graph.outputs.clear()
    cut.graph.outputs.extend(outputs[end.tensor] for end in ends)
    remove_unused(cut)
    sessions = Session(cut, optimize=False), Session(cut)
    precise = None
    with suppress(FcdeployError):  # files of some tools do not load so: fcdeploy.transform.repair has the forms
        precise = Session(cut, precise=True)
    return FloatRegions(sessions, precise, tuple(starts), ends)


def _free_wrong_lengths(shape: ir.Shape | None, real: tuple[int, ...]) -> ir.Shape | None:
    """The shape that a tensor has in the file, with what is true of it."""
    if shape is None or len(shape) != len(real):
        return None
    return ir.Shape([None if isinstance(n, int) and n != m else n for n, m in zip(shape, real, strict=True)])


def _is_constant_folded(node: ir.Node) -> bool:
    """Whether the node only prepares a weight, which the runtime does when it loads the model."""
    return all(value is None or array_of(value) is not None for value in node.inputs)
