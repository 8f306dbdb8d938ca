"""What quantizers write that onnxruntime does not run, and the same model without it.

  an activation with a scale for each     Conv, depthwise too, fuses with it into a node that fails   held apart: the layer
  channel in front of a layer             in every run: its activations have one scale                computes as written
  two layers that read the same zero      does not load under session.x64quantprecision               one each
  point or the same integers
  a weight without a zero point           fails in a run under session.x64quantprecision              written out

The facts are in tables/facts.py: whether the installed runtime does so was asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import add_constant, block_fusion, set_input
from fcdeploy.graph.nodes import (
    array_of,
    input_of,
    integer_type_of,
    is_constant,
    is_op,
    name_of,
    producer_of,
    tensor_of,
)
from fcdeploy.runtime.probes.answers import collect_answers
from fcdeploy.runtime.session import REPAIR
from fcdeploy.wording import list_some

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
DATA, ZERO = 0, 2  # inputs of a Q or DQ
SHOWN = 3  # names in a sentence
Find = Callable[[list[ir.Node]], Iterator[ir.Node]]


@dataclass(frozen=True)
class Fault:
    """Nodes with one kind of fault: `fact` is how its facts begin, `what` is wrong and what it leads to."""

    fact: str
    nodes: tuple[ir.Node, ...]
    what: str
    mend: Callable[[ir.Graph, ir.Node], None]

    def describe(self) -> str:
        return f"{list_some([repr(name_of(node)) for node in self.nodes], SHOWN)}: {self.what}"


def find_faults(model: ir.Model) -> list[Fault]:
    """Every kind that the installed runtime has, of which the model has a node."""
    nodes = list(model.graph)
    kinds: tuple[tuple[str, Find, str, Callable[[ir.Graph, ir.Node], None]], ...] = (
        ("activation scales by channel", _scales_by_channel, "its activations have a scale for each channel, and the node "
         "that onnxruntime makes of it fails in every run", block_fusion),
        ("zero points shared by two weights", _shares_constants, "other weights read the same integers or zero point, and "
         "onnxruntime does not load that under session.x64quantprecision", _give_own),
        *(
            (f"no zero points, {op}", partial(_lacks_zero_point, op=op), "has no zero point, and fails under "
             "session.x64quantprecision", _write_zero_point)
            for op in ("Conv", "MatMul")
        ),
    )  # fmt: skip
    found = [Fault(fact, tuple(find(nodes)), what, mend) for fact, find, what, mend in kinds if _fails(fact)]
    return [fault for fault in found if fault.nodes]


def _fails(fact: str) -> bool:
    """Whether the installed runtime does anything else than run such a model right."""
    return any(answer != "right" for name, answer in collect_answers().items() if name.startswith(fact))


def warn_of_faults(model: ir.Model) -> tuple[str, ...]:
    """A sentence for each kind of fault."""
    return tuple(f"{fault.describe()}; {REPAIR}" for fault in find_faults(model))


def repair(model: ir.Model) -> list[Fault]:
    """Mend all of them in place; what is computed stays the same."""
    faults = find_faults(model)
    for fault in faults:
        for node in fault.nodes:
            fault.mend(model.graph, node)
    return faults


def _scales_by_channel(nodes: list[ir.Node]) -> Iterator[ir.Node]:
    for node in nodes:
        read = producer_of(input_of(node, 0), "DequantizeLinear") if is_op(node, "Conv", "Gemm", "MatMul") else None
        if read is None or is_constant(read.inputs[DATA]) or "block_size" in read.attributes:
            continue
        scale = array_of(read.inputs[1])
        if scale is not None and scale.size > 1 and any(is_op(user, "QuantizeLinear") for user in _readers(node)):
            yield node


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    """What reads a node's result, clips passed over."""
    for user in node.outputs[0].consumers():
        yield from _readers(user) if is_op(user, "Relu", "Clip") else (user,)


def _shares_constants(nodes: list[ir.Node]) -> Iterator[ir.Node]:
    """DequantizeLinears of weights but the first that reads a constant of theirs."""
    read: set[ir.Value] = set()
    for node in nodes:
        if not _dequantizes_weight(node):
            continue
        own = {
            value for value in (node.inputs[DATA], input_of(node, ZERO)) if value is not None and value.is_initializer()
        }
        if not own.isdisjoint(read):
            yield node
        read |= own


def _dequantizes_weight(node: ir.Node) -> bool:
    if not is_op(node, "DequantizeLinear") or not is_constant(node.inputs[DATA]):
        return False
    held = tensor_of(node.inputs[DATA])
    return held is not None and held.dtype in BYTES and len(held.shape) > 1


def _lacks_zero_point(nodes: list[ir.Node], op: str) -> Iterator[ir.Node]:
    """What reads back the operands of such layers; a Gemm is multiplied as a MatMul is."""
    for node in nodes:
        lacks = is_op(node, "DequantizeLinear") and input_of(node, ZERO) is None and "block_size" not in node.attributes
        if not lacks or integer_type_of(node) not in BYTES or array_of(node.inputs[1]) is None:
            continue
        readers = {"MatMul" if user.op_type == "Gemm" else user.op_type for user in node.outputs[0].consumers()}
        if op in readers:
            yield node


def _give_own(graph: ir.Graph, node: ir.Node) -> None:
    for index in (DATA, ZERO):
        value = input_of(node, index)
        held = tensor_of(value)
        if value is not None and held is not None and len(value.uses()) > 1:
            set_input(node, index, add_constant(graph, f"{name_of(value)}/{node.name}", held.numpy()))


def _write_zero_point(graph: ir.Graph, node: ir.Node) -> None:
    scale, kind = array_of(node.inputs[1]), integer_type_of(node)
    assert scale is not None and kind is not None, "only such nodes are mended"
    zeros = np.zeros(scale.shape, kind.numpy())
    set_input(node, ZERO, add_constant(graph, f"{node.name}/zero_point", zeros))
