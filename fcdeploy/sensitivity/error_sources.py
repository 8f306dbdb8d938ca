"""Where the error of a Q/DQ model comes from: each layer's weights, and each tensor that is rounded on its way.

Keeping one layer in float does not undo the rounding of what it reads: the integer kernel before it writes bytes.  So
the sources of error are roundings, not nodes, and `group` says which nodes must leave int8 to undo one: for weights the
layer, for a tensor the node that writes it and all that compute with it.  `ablation.py` undoes one, `rank.py` says what
each costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir

from fcdeploy.evaluate.quantized_tensors import find_producer
from fcdeploy.graph.nodes import array_of, name_of, operator_of, producer_of
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.sensitivity.stored_constants import find_integers, read_grid, strip_marks

WIDE = ("int32", "int64")  # biases: a step is a product of two scales, far below any other
CONVERTS = ("QuantizeLinear", "DequantizeLinear")
HELD = "/held"  # behind the name of a node that keeps the runtime from rounding the float layer of that name
PACKED = ("MatMulNBits", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")  # operators that hold integers themselves


@dataclass(frozen=True)
class ErrorSource:
    """One rounding; or several that are one, since bytes that were only moved are not changed by rounding them again.

    `name` is what the float model calls the constant or the tensor.  `node` and `op` are the layer that multiplies with
    the weights, or what writes the tensor ("" and "input" for an input of the graph, also where the bytes of a picture are found
    again in it).  `group` are the nodes that must
    leave int8 to undo it, in the graph's order, `share` what they are of all multiplications.  `integers` are the
    tensors of the int8 model that hold the bytes.
    """

    name: str
    kind: Literal["weights", "tensor"]
    node: str
    op: str
    group: tuple[str, ...]
    share: float
    integers: tuple[str, ...]


def find_sources(int8: ir.Model) -> list[ErrorSource]:
    """Every source of error in the main graph of a Q/DQ model: weights by layer, then tensors, in the graph's order."""
    macs = count_macs_by_node(int8)
    total = max(sum(macs.values()), 1)
    order = {node: index for index, node in enumerate(int8.graph)}

    def make_source(name: str, kind: Literal["weights", "tensor"], node: ir.Node | None, nodes: set[ir.Node],
               integers: tuple[str, ...]) -> ErrorSource:  # fmt: skip
        names = [name_of(each).removesuffix(HELD) for each in sorted(nodes & order.keys(), key=order.__getitem__)]
        group = tuple(dict.fromkeys(names))
        share = sum(macs.get(each, 0) for each in group) / total
        made, op = ("", "input") if node is None else (name_of(node).removesuffix(HELD), node.op_type)
        return ErrorSource(name, kind, made, op, group, share, integers)

    weights = [
        make_source(strip_marks(stored), "weights", node, {node}, (name_of(stored),))
        for node in int8.graph
        for stored in _find_rounded_constants(node)
    ]
    tensors = []
    for chain in find_chains(int8):
        tensor = chain[0].inputs[0]
        assert tensor is not None
        if read_grid(tensor):
            tensor = tensor.producer().inputs[0]  # type: ignore[union-attr]
            assert tensor is not None
        writer = find_producer(tensor)
        nodes = {*([writer] if writer else []), *_find_readers(chain)}
        written = tuple(name_of(node.outputs[0]) for node in chain)
        tensors.append(make_source(name_of(tensor), "tensor", writer, nodes, written))
    return weights + tensors


def find_rounded_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of a node that are read back from constants of few bits."""
    if node.op_type in CONVERTS:
        return []
    inputs = dict.fromkeys(value for value in node.inputs if value is not None)
    pairs = [(value, array_of(find_integers(value))) for value in inputs]
    return [value for value, stored in pairs if stored is not None and stored.dtype.name not in WIDE]


def find_chains(model: ir.Model) -> list[list[ir.Node]]:
    """The QuantizeLinears of activations, each with those that only round its bytes again, after moving them."""
    chain_of: dict[ir.Node, list[ir.Node]] = {}
    for node in model.graph:
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None or array_of(node.inputs[0]) is not None:
            continue
        before = _find_same_bytes(node)
        chain = chain_of.get(before, []) if before is not None else []
        chain.append(node)
        chain_of[node] = chain
    return list({id(chain): chain for chain in chain_of.values()}.values())


def _find_rounded_constants(node: ir.Node) -> Iterator[ir.Value]:
    """The constants of few bits that a node multiplies or adds."""
    if node.op_type in PACKED and node.inputs[1] is not None:
        yield node.inputs[1]
    for value in find_rounded_inputs(node):
        stored = find_integers(value)
        assert stored is not None
        yield stored


def _find_same_bytes(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear whose integers this one reproduces, because the nodes between only move them."""
    value = node.inputs[0]
    while value is not None and (before := value.producer()) is not None:
        if before.op_type == "DequantizeLinear":
            source = before.inputs[0]
            first = producer_of(source)
            same = first is not None and first.op_type == "QuantizeLinear" and _read_steps(first) == _read_steps(node)
            return first if same else None
        if operator_of(before).role != "passthrough" or before.op_type == "Resize" or not before.inputs:
            return None  # a Resize may mix neighbours
        value = before.inputs[0]
    return None


def _read_steps(node: ir.Node) -> tuple[Any, ...]:
    arrays = [array_of(value) for value in node.inputs[1:]]
    return tuple(None if array is None else (array.dtype.name, array.shape, array.tobytes()) for array in arrays)


def _find_readers(chain: Sequence[ir.Node]) -> set[ir.Node]:
    """The nodes that compute with these integers once dequantized; nodes that only move them do not count."""
    readers: set[ir.Node] = set()
    waiting = [node.outputs[0] for node in chain]
    while waiting:
        for reader in waiting.pop().consumers():
            if reader.op_type == "DequantizeLinear":
                readers.update(node for node in reader.outputs[0].consumers() if node.op_type not in CONVERTS)
            else:
                waiting += reader.outputs
    return {node for node in readers if operator_of(node).role != "passthrough"}
