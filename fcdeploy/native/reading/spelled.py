"""Operators that are others put together: each is spelled out when it is reached, so that all shapes are known.

The nodes that stand in its place have its name, and are read as if the file had them: bytes stay bytes where they can.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import attribute_of
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading import spelled_moves as moves
from fcdeploy.native.reading import spelled_recurrent as recurrent
from fcdeploy.native.reading import spelled_sums as sums
from fcdeploy.native.reading.operands import Fixed, Operand
from fcdeploy.native.reading.reader import Reader, read_shape
from fcdeploy.native.reading.spelling import Spell, Spelling

MICROSOFT = "com.microsoft"
SPELLED: dict[tuple[str, str], Spell] = {
    ("", "InstanceNormalization"): sums.instance_normalization,
    ("", "GroupNormalization"): sums.group_normalization,
    ("", "RMSNormalization"): sums.rms_normalization,
    ("", "SimplifiedLayerNormalization"): sums.rms_normalization,
    ("", "MeanVarianceNormalization"): sums.mean_variance_normalization,
    ("", "LpNormalization"): sums.lp_normalization,
    ("", "LRN"): sums.local_response,
    **{("", f"Reduce{kind}"): sums.reduction for kind in ("L1", "L2", "SumSquare", "LogSum", "LogSumExp")},
    ("", "CumSum"): sums.running_sum,
    ("", "Trilu"): sums.triangle,
    ("", "GatherElements"): moves.gather_elements,
    ("", "GatherND"): moves.gather_nd,
    ("", "ScatterElements"): moves.scatter_elements,
    ("", "ScatterND"): moves.scatter_nd,
    ("", "Einsum"): moves.einsum,
    ("", "LpPool"): moves.lp_pool,
    ("", "RNN"): recurrent.rnn,
    **{(MICROSOFT, op): sums.fast_gelu for op in ("Gelu", "BiasGelu", "FastGelu")},
    (MICROSOFT, "QuickGelu"): sums.quick_gelu,
    (MICROSOFT, "FusedMatMul"): sums.fused_matmul,
    (MICROSOFT, "FusedConv"): sums.fused_layer,
    (MICROSOFT, "FusedGemm"): sums.fused_layer,
    (MICROSOFT, "SkipLayerNormalization"): sums.skip_normalization,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): sums.skip_normalization,
}
"""Domain and operator -> what it is put together from."""
OF_ANY_TYPE = (moves.gather_elements, moves.gather_nd, moves.scatter_elements, moves.scatter_nd, moves.pool_3d)
"""These move or choose what they read; the others compute floats."""
IN_SPACE: dict[str, Spell] = {"Conv": moves.conv_3d, "MaxPool": moves.pool_3d, "AveragePool": moves.pool_3d}
"""Operators that have kernels along one and two axes: along three."""


def may_spell(node: ir.Node) -> bool:
    """Whether the operator is among those that are spelled out, in all of its forms or some."""
    return _key(node) in SPELLED or node.op_type in (*IN_SPACE, "Resize")


def find_spelling(reader: Reader, node: ir.Node) -> Spell | None:
    """What the node is put together from; None where it has a kernel of its own, or none at all, and where it is a constant."""
    domain, op = _key(node)
    if not domain and all(value is None or isinstance(reader.read(value), Fixed) for value in node.inputs):
        return None
    if domain or op not in (*IN_SPACE, "Resize"):
        return SPELLED.get((domain, op))
    shape = read_shape(reader.read(node.inputs[0]))
    if op == "Resize":
        return moves.resize_by_matrices if _has_no_kernel(node, len(shape)) else None
    if len(shape) == 5:
        return IN_SPACE[op]
    rounds_up = attribute_of(node, "ceil_mode", 0) and attribute_of(node, "count_include_pad", 0)
    return moves.average_counted if op == "AveragePool" and rounds_up else None


def _has_no_kernel(resize: ir.Node, rank: int) -> bool:
    mode = attribute_of(resize, "mode", "nearest")
    symmetric = attribute_of(resize, "coordinate_transformation_mode", "") == "half_pixel_symmetric"
    more = rank not in (3, 4) or "axes" in resize.attributes or symmetric
    return mode == "cubic" or (mode == "linear" and bool(more))


def spell(reader: Reader, node: ir.Node, write: Spell) -> list[ir.Node]:
    """Put others in the place of the node, and return them. Raises FcdeployError where an output that is read has no place."""
    kind = _read_type(reader.read(node.inputs[0]))
    if write not in OF_ANY_TYPE and np.dtype(kind).kind in "iub":
        raise reader.refuse(node, f"it reads {kind}, expected floats")
    spelling = Spelling(reader, node)
    written = write(spelling)
    results = list(written) if isinstance(written, tuple) else [written]
    if any(value.uses() or value.is_graph_output() for value in node.outputs[len(results) :]):
        raise reader.refuse(node, "only its first output has a kernel")
    results = [each if each.producer() in spelling.nodes else spelling("Identity", each) for each in results]
    count = len(node.outputs)
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], spelling.nodes, node.outputs[: len(results)], results[:count]
    )
    return spelling.nodes


def _read_type(operand: Operand) -> str:
    if isinstance(operand, Fixed):
        return operand.array.dtype.name
    return operand.dtype if isinstance(operand, Tensor) else "float32"


def _key(node: ir.Node) -> tuple[str, str]:
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type
