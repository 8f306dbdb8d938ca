"""One initializer for each weight slot, so that each layer can have a scale of its own."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import STANDARD, constant_tensor, is_constant

WEIGHT_SLOTS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1)}


def separate_shared_weights(model: ir.Model) -> Changes:
    """Give every weight or bias of Conv, ConvTranspose, Gemm and MatMul that something else reads too its own copy.

    The original stays with its first reader, or with the readers that are no weight slot (a bias that is also added
    somewhere, a subgraph).  Copies share the memory of the original until they are written.
    """
    edits = Edits(model, "separate_shared_weights")
    order = {node: position for position, node in enumerate(model.graph)}
    for value in list(model.graph.initializers.values()):
        if not is_constant(value):
            continue
        uses = value.uses()
        weights = [use for use in uses if _is_weight(use.node, use.idx, order)]
        weights.sort(key=lambda use: (order[use.node], use.idx))
        read_otherwise = len(weights) < len(uses) or value.is_graph_output()
        for use in weights if read_otherwise else weights[1:]:
            use.node.replace_input_with(use.idx, _copy_weight(edits, value))
            edits.count += 1
    return edits.changes()


def _is_weight(node: ir.Node, slot: int, order: dict[ir.Node, int]) -> bool:
    """Whether input `slot` of a node of the main graph is a weight or bias."""
    return node in order and node.domain in STANDARD and slot in WEIGHT_SLOTS.get(node.op_type, ())


def _copy_weight(edits: Edits, value: ir.Value) -> ir.Value:
    tensor = constant_tensor(value)
    name, shape = f"{value.name}.copy", ir.Shape(tensor.shape.numpy())
    if isinstance(tensor, ir.ExternalTensor):  # stays outside the file, in the same place
        where = (tensor.location, tensor.offset, tensor.length, tensor.dtype)
        return edits.constant(name, ir.ExternalTensor(*where, shape=shape, name=name, base_dir=tensor.base_dir))
    return edits.constant(name, ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=shape))
