"""What each operator does to the samples of a batch: which axis counts them behind it, or why they are no longer apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fcdeploy.graph.light_reader import LightConstant, Node

DYNAMIC = "quantizes activations as it runs, so that an answer depends on its batch"
ROWS_ALONE = {
    "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "AveragePool", "MaxPool", "SpaceToDepth",
    "QLinearConv", "QLinearGlobalAveragePool", "QLinearAveragePool", "FusedConv",
}  # fmt: skip
"""Operators that treat each row of the leading axis of their first input alone; their other inputs are constants."""

POINTWISE = {
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf",
    "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "QuantizeLinear", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    "QLinearSigmoid", "QLinearLeakyRelu",
}  # fmt: skip
"""Operators that treat each number of their first input alone."""

ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Mod", "Where", "PRelu", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "BitShift",
}  # fmt: skip
ALONG_AXIS = {
    "Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "ArgMax": 0, "ArgMin": 0, "LpNormalization": -1,
    "LayerNormalization": -1, "RMSNormalization": -1, "TopK": -1, "Split": 0, "QLinearSoftmax": -1,
}  # fmt: skip
"""Operators that mix along one axis -> its default."""

REDUCED = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
REDUCTIONS = {f"Reduce{kind}" for kind in REDUCED}
SAME_FROM_13 = {"Softmax", "LogSoftmax", "Hardmax"}  # below opset 13 they flatten from their axis, 1 by default


@dataclass(frozen=True)
class ConstantTensor:
    """A tensor that no input reaches; its shape and small integers where they are known."""

    dims: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = None
    dequantized: bool = False


@dataclass(frozen=True)
class BatchedTensor:
    """A tensor of `rank` axes, one of which counts samples."""

    rank: int
    axis: int = 0
    dequantized: bool = False


State = ConstantTensor | BatchedTensor


class UnprovenError(Exception):
    """Why the proof ends here."""


def to_constant(constant: LightConstant) -> ConstantTensor:
    return ConstantTensor(constant.dims, constant.values)


def derive_constant(node: Node, states: list[State | None]) -> ConstantTensor:
    """What a node makes of constants; shapes only where rules below need them."""
    if node.op == "Constant":
        value = node.attributes.get("value")
        if isinstance(value, LightConstant):
            return to_constant(value)
        listed = node.attributes.get("value_ints", node.attributes.get("value_int"))
        if isinstance(listed, tuple):
            return ConstantTensor((len(listed),), listed)
        return ConstantTensor((), (listed,) if isinstance(listed, int) else None)
    first = states[0] if states else None
    if node.op in ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity") and isinstance(first, ConstantTensor):
        return ConstantTensor(first.dims, dequantized=node.op == "DequantizeLinear" or first.dequantized)
    if node.op in ELEMENTWISE:
        shapes = [state.dims if isinstance(state, ConstantTensor) else None for state in states]
        if all(shape is not None for shape in shapes):
            return ConstantTensor(_broadcast([shape for shape in shapes if shape is not None]))
    return ConstantTensor()


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(axis) for axis in zip(*padded, strict=True))


def derive_samples(node: Node, states: list[State | None], where: str, opset: int) -> BatchedTensor:
    if node.op in DYNAMIC_OPS or "DynamicQuantize" in node.op:
        raise UnprovenError(f"{where} {DYNAMIC}")
    if node.op in ELEMENTWISE or node.op in ("QLinearAdd", "QLinearMul"):
        return _elementwise(states[0:4:3] if node.op.startswith("QLinear") else states, where)
    rule = RULES.get(node.op)
    first = states[0]
    if node.op in ROWS_ALONE or node.op in POINTWISE or node.op in ALONG_AXIS or node.op in REDUCTIONS:
        if not isinstance(first, BatchedTensor) or any(isinstance(state, BatchedTensor) for state in states[1:]):
            raise UnprovenError(f"{where} reads samples where constants are expected")
        if node.op in REDUCTIONS:
            return _reduction(node, first, states, where)
        if node.op in ALONG_AXIS:
            return _along_axis(node, first, where, opset)
        return _alone(node, first, states, where)
    if rule is None:
        raise UnprovenError(f"{where} is not known to keep samples apart")
    return rule(node, states, where)


def _alone(node: Node, x: BatchedTensor, states: list[State | None], where: str) -> BatchedTensor:
    if x.axis and node.op in ROWS_ALONE:
        raise UnprovenError(f"{where} reads samples along its axis {x.axis}")
    if node.op == "MaxPool" and len(node.outputs) > 1:
        raise UnprovenError(f"{where} counts positions over the whole batch")
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        scale = states[1]
        per_tensor = isinstance(scale, ConstantTensor) and scale.dims in ((), (1,))
        if not per_tensor and _get_axis(node, "axis", 1, x.rank, where) == x.axis:
            raise UnprovenError(f"{where} has a scale per sample")
    if (node.op == "Dropout" and len(node.inputs) > 2) or node.attributes.get("training_mode", 0):
        raise UnprovenError(f"{where} may be in training mode")
    return BatchedTensor(x.rank, x.axis, dequantized=node.op == "DequantizeLinear")


def _elementwise(states: list[State | None], where: str) -> BatchedTensor:
    """Axes are matched from the last: those of samples have to meet each other, and constants of length 1."""
    samples = [state for state in states if isinstance(state, BatchedTensor)]
    rank, behind = max(state.rank for state in samples), samples[0].rank - samples[0].axis
    for state in states:
        if isinstance(state, BatchedTensor) and state.rank - state.axis != behind:
            raise UnprovenError(f"{where} matches the batch axis with another axis")
        if isinstance(state, ConstantTensor):
            if state.dims is None:
                raise UnprovenError(f"{where} reads a constant of unknown shape")
            if len(state.dims) >= behind and (state.dims[-behind] != 1 or len(state.dims) > rank):
                raise UnprovenError(f"{where} has a constant along the batch axis")
    return BatchedTensor(rank, rank - behind)


def _along_axis(node: Node, x: BatchedTensor, where: str, opset: int) -> BatchedTensor:
    default, from_axis_on = ALONG_AXIS[node.op], node.op in ("LayerNormalization", "RMSNormalization")
    if node.op in SAME_FROM_13 and opset < 13:
        default, from_axis_on = 1, True
    axis = _get_axis(node, "axis", default, x.rank, where)
    if axis == x.axis or (from_axis_on and x.axis > axis):
        raise UnprovenError(f"{where} works along the batch axis")
    dropped = node.op in ("ArgMax", "ArgMin") and node.attributes.get("keepdims", 1) == 0
    return BatchedTensor(x.rank - dropped, x.axis - (dropped and axis < x.axis))


def _reduction(node: Node, x: BatchedTensor, states: list[State | None], where: str) -> BatchedTensor:
    axes = {axis % x.rank for axis in _get_integers(node, "axes", states, 1)}
    if not axes:
        raise UnprovenError(f"{where} reduces all axes, or axes computed at run time")
    if x.axis in axes:
        raise UnprovenError(f"{where} reduces the batch axis")
    if node.attributes.get("keepdims", 1):
        return BatchedTensor(x.rank, x.axis)
    return BatchedTensor(x.rank - len(axes), x.axis - sum(axis < x.axis for axis in axes))


def derive_states(node: Node, states: list[State | None], where: str) -> list[State]:
    """LSTM, GRU and RNN read (steps, samples, numbers); the states before and behind are (directions, samples, numbers)."""
    x = states[0]
    if not isinstance(x, BatchedTensor) or x.axis != 1 or node.attributes.get("layout", 0):
        raise UnprovenError(f"{where} reads samples along another axis than its second")
    if any(isinstance(state, BatchedTensor) for state in states[1:4]):
        raise UnprovenError(f"{where} reads samples where weights are expected")
    for place, state in enumerate(states[4:], start=4):
        wanted = 0 if place == 4 else 1  # lengths of sequences; then states
        if place < 7 and state is not None and not (isinstance(state, BatchedTensor) and state.axis == wanted):
            raise UnprovenError(f"{where} begins with states that are not a sample's own")
    return [BatchedTensor(4, 2), BatchedTensor(3, 1), BatchedTensor(3, 1)]


def _gemm(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    a, b = states[0], states[1] if node.op == "Gemm" else states[3]
    c = states[2] if node.op == "Gemm" and len(states) > 2 else None
    if (
        not isinstance(a, BatchedTensor)
        or not isinstance(b, ConstantTensor)
        or a.axis
        or node.attributes.get("transA", 0)
    ):
        raise UnprovenError(f"{where} multiplies samples with each other")
    if isinstance(c, ConstantTensor) and (c.dims is None or (len(c.dims) == 2 and c.dims[0] != 1)):
        raise UnprovenError(f"{where} adds a constant along the batch axis")
    _whole_weight(a, b, where)
    return BatchedTensor(2)


def _matmul(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    a, b = states[0], states[1] if node.op == "MatMul" else states[3]
    if (
        isinstance(a, BatchedTensor)
        and isinstance(b, BatchedTensor)
        and a.rank == b.rank
        and a.axis == b.axis < a.rank - 2
    ):
        return BatchedTensor(a.rank, a.axis)
    if not isinstance(a, BatchedTensor) or not isinstance(b, ConstantTensor) or a.axis == a.rank - 1:
        raise UnprovenError(f"{where} multiplies samples with each other")
    most = 2 if a.axis or a.rank == 2 else a.rank - 1
    if b.dims is None or not 2 <= len(b.dims) <= most:
        raise UnprovenError(f"{where} multiplies with a constant that may reach the batch axis")
    _whole_weight(a, b, where)
    return BatchedTensor(a.rank, a.axis)


def _whole_weight(a: BatchedTensor, b: ConstantTensor, where: str) -> None:
    """Float activations with a weight that is dequantized: onnxruntime makes MatMulNBits of it."""
    if b.dequantized and not a.dequantized:
        raise UnprovenError(f"{where} becomes MatMulNBits, which {DYNAMIC}")


def _concat(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    samples = {(state.rank, state.axis) for state in states if isinstance(state, BatchedTensor)}
    if len(samples) != 1 or not all(isinstance(state, BatchedTensor) for state in states):
        raise UnprovenError(f"{where} joins samples with constants, or along different axes")
    rank, axis = samples.pop()
    if _get_axis(node, "axis", 0, rank, where) == axis:
        raise UnprovenError(f"{where} joins along the batch axis")
    return BatchedTensor(rank, axis)


def _flatten(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    if x.axis or _get_axis(node, "axis", 1, x.rank, where) != 1:
        raise UnprovenError(f"{where} flattens the batch axis")
    return BatchedTensor(2)


def _reshape(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    """Into rows of a fixed size, in the order of samples."""
    x = _get_only_samples(states, where)
    shape = _get_integers(node, "shape", states, 1)
    if not shape:
        raise UnprovenError(f"{where} has a shape computed at run time")
    if x.axis:
        raise UnprovenError(f"{where} reshapes samples along axis {x.axis}")
    if shape[0] not in (0, -1) or (shape[0] == 0 and node.attributes.get("allowzero", 0)):
        raise UnprovenError(f"{where} makes a leading axis of {shape[0]}")
    if shape[0] == -1 and any(n <= 0 for n in shape[1:]):
        raise UnprovenError(f"{where} copies axes behind a free one")
    return BatchedTensor(len(shape))


def _transpose(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    order = node.attributes.get("perm", tuple(reversed(range(x.rank))))
    if not isinstance(order, tuple) or x.axis not in order:
        raise UnprovenError(f"{where} loses the batch axis")
    return BatchedTensor(x.rank, order.index(x.axis))


def _squeeze(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    given = _get_integers(node, "axes", states, 1)
    rank = x.rank if node.op == "Squeeze" else x.rank + len(given)
    axes = {axis % rank for axis in given}
    if not axes or (node.op == "Squeeze" and x.axis in axes):
        raise UnprovenError(f"{where} changes the batch axis")
    if node.op == "Squeeze":
        return BatchedTensor(x.rank - len(axes), x.axis - sum(axis < x.axis for axis in axes))
    return BatchedTensor(rank, [axis for axis in range(rank) if axis not in axes][x.axis])


def _slice(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    axes = _get_integers(node, "axes", states, 3)
    if not axes or any(axis % x.rank == x.axis for axis in axes):
        raise UnprovenError(f"{where} cuts the batch axis, or axes computed at run time")
    return BatchedTensor(x.rank, x.axis)


def _pad(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    pads = _get_integers(node, "pads", states, 1)
    if len(states) > 3 and states[3] is not None:
        axes = _get_integers(node, "-", states, 3)
        clean = axes and all(axis % x.rank != x.axis for axis in axes)
    else:
        clean = len(pads) == 2 * x.rank and pads[x.axis] == pads[x.rank + x.axis] == 0
    if not clean:
        raise UnprovenError(f"{where} pads the batch axis, or axes computed at run time")
    return BatchedTensor(x.rank, x.axis)


def _gather(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    data, indices = states[0], states[1]
    if isinstance(data, ConstantTensor) and isinstance(indices, BatchedTensor) and data.dims:
        table_rank = len(data.dims)
        if _get_axis(node, "axis", 0, table_rank, where) == 0:
            return BatchedTensor(indices.rank + table_rank - 1, indices.axis)
    if isinstance(data, BatchedTensor) and isinstance(indices, ConstantTensor) and indices.dims is not None:
        added = len(indices.dims) - 1
        axis = _get_axis(node, "axis", 0, data.rank, where)
        if axis != data.axis:
            return BatchedTensor(data.rank + added, data.axis + (added if axis < data.axis else 0))
    raise UnprovenError(f"{where} picks along the batch axis")


def _resize(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    """By factors that leave the batch axis alone; sizes would hold its length."""
    x = _get_only_samples(states, where)
    if "axes" in node.attributes:
        axes = _get_integers(node, "axes", states, 9)
        if axes and all(axis % x.rank != x.axis for axis in axes):
            return BatchedTensor(x.rank, x.axis)
    raise UnprovenError(f"{where} may resize the batch axis")


def _get_only_samples(states: list[State | None], where: str) -> BatchedTensor:
    if not isinstance(states[0], BatchedTensor) or any(isinstance(state, BatchedTensor) for state in states[1:]):
        raise UnprovenError(f"{where} reads samples where constants are expected")
    return states[0]


def _get_axis(node: Node, name: str, default: int, rank: int, where: str) -> int:
    axis = node.attributes.get(name, default)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise UnprovenError(f"{where} has an {name} of {axis}")
    return axis % rank


def _get_integers(node: Node, name: str, states: list[State | None], position: int) -> tuple[int, ...]:
    """Integers given as an attribute, or as a constant input at that position; () where they are neither."""
    attribute = node.attributes.get(name)
    if isinstance(attribute, tuple):
        return attribute
    state = states[position] if len(states) > position else None
    return (state.values or ()) if isinstance(state, ConstantTensor) else ()


RECURRENT = {"LSTM", "GRU", "RNN"}
DYNAMIC_OPS = {"MatMulNBits", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "MatMulBnb4", "MatMulFpQ4"}
RULES: dict[str, Callable[[Node, list[State | None], str], BatchedTensor]] = {
    "Gemm": _gemm, "QGemm": _gemm, "MatMul": _matmul, "QLinearMatMul": _matmul, "Concat": _concat, "Flatten": _flatten,
    "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _squeeze, "Slice": _slice, "Pad": _pad,
    "Gather": _gather, "Resize": _resize,
}  # fmt: skip
