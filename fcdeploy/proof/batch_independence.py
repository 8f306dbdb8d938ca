"""Proof that the samples of a batch are computed independently, so that requests may share a run.

A walk over the graph with one question per node: when the leading axis of its inputs counts samples, does each sample of
its output depend on that sample of the inputs alone?  Conservative: an operator that no rule knows, or whose axes are
computed at run time, ends the proof with a reason.  Never proven are operators that quantize activations as they run
(DynamicQuantize*, MatMulNBits, MatMulInteger): their scale is the whole batch's.  What a rule leaves open, such as a
Reshape that would cut samples in pieces, fails at a batch of one already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fcdeploy.graph.light_reader import Constant, Node, Outline

DOMAINS = {"", "ai.onnx", "com.microsoft"}
DYNAMIC = "quantizes activations as it runs, so that an answer depends on its batch"
ROWS_ALONE = {
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip",
    "Conv", "ConvTranspose", "Cos", "Cosh", "DepthToSpace", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LeakyRelu", "Log", "LpPool",
    "AveragePool", "MaxPool", "Mish", "Neg", "Not", "QuantizeLinear", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "QLinearConv", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool",
    "QLinearAveragePool", "FusedConv",
}  # fmt: skip
"""Operators that treat each sample of their first input alone, whatever their attributes; the others are constants."""

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
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


@dataclass(frozen=True)
class ConstantTensor:
    """A tensor that no input reaches; its shape and small integers where they are known."""

    dims: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = None
    dequantized: bool = False


@dataclass(frozen=True)
class BatchedTensor:
    """A tensor of `rank` axes whose leading one counts samples."""

    rank: int
    dequantized: bool = False


State = ConstantTensor | BatchedTensor
Known = dict[str, State]


class _UnprovenError(Exception):
    """Why the proof ends here."""


def explain_dependence(outline: Outline) -> str:
    """Why samples of a batch may depend on each other, in a sentence; '' where it is proven that they do not."""
    try:
        known = _read_ends(outline)
        for node in outline.nodes:
            _add_node(node, known, outline.opset)
        for name in outline.outputs:
            if not isinstance(known.get(name), BatchedTensor):
                return f"output {name!r} does not begin with the batch axis"
    except _UnprovenError as reason:
        return str(reason)
    return ""


def _read_ends(outline: Outline) -> Known:
    leading = {dims[0] if dims else None for dims in outline.inputs.values()}
    for name, dims in outline.inputs.items():
        if not dims:
            raise _UnprovenError(f"input {name!r} has no axes")
        if isinstance(dims[0], int) and dims[0] > 0:
            raise _UnprovenError(f"input {name!r} has a leading axis of {dims[0]}, not a free one")
    if len(leading) > 1:
        raise _UnprovenError(f"the inputs begin with different axes: {', '.join(sorted(map(str, leading)))}")
    known: Known = {name: _to_constant(constant) for name, constant in outline.constants.items()}
    return known | {name: BatchedTensor(len(dims)) for name, dims in outline.inputs.items()}


def _to_constant(constant: Constant) -> ConstantTensor:
    return ConstantTensor(constant.dims, constant.values)


def _add_node(node: Node, known: Known, opset: int) -> None:
    """Add the states of a node's outputs."""
    where = f"{node.op} {node.name!r}" if node.name else node.op
    states = [known.get(name) if name else None for name in node.inputs]
    if any(state is None and name for state, name in zip(states, node.inputs, strict=True)):
        raise _UnprovenError(f"{where} reads what no node wrote before")
    if node.domain not in DOMAINS:
        raise _UnprovenError(f"{where} is of the domain {node.domain!r}")
    if node.subgraphs:
        raise _UnprovenError(f"{where} holds a graph of its own")
    if node.op in RANDOM:
        raise _UnprovenError(f"{where} draws random numbers")
    if not any(isinstance(state, BatchedTensor) for state in states):
        written: State = _derive_constant(node, states)
    else:
        written = _derive_samples(node, states, where, opset)
    known.update((name, written) for name in node.outputs if name)


def _derive_constant(node: Node, states: list[State | None]) -> ConstantTensor:
    """What a node makes of constants; shapes only where rules below need them."""
    if node.op == "Constant":
        value = node.attributes.get("value")
        if isinstance(value, Constant):
            return _to_constant(value)
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


def _derive_samples(node: Node, states: list[State | None], where: str, opset: int) -> BatchedTensor:
    if node.op in DYNAMIC_OPS or "DynamicQuantize" in node.op:
        raise _UnprovenError(f"{where} {DYNAMIC}")
    if node.op in ELEMENTWISE or node.op in ("QLinearAdd", "QLinearMul"):
        return _elementwise(states[0:4:3] if node.op.startswith("QLinear") else states, where)
    rule = RULES.get(node.op)
    first = states[0]
    if rule is None and (node.op in ROWS_ALONE or node.op in ALONG_AXIS or node.op in REDUCTIONS):
        if not isinstance(first, BatchedTensor) or any(isinstance(state, BatchedTensor) for state in states[1:]):
            raise _UnprovenError(f"{where} reads samples where constants are expected")
        if node.op in REDUCTIONS:
            return _reduction(node, first, states, where)
        if node.op in ALONG_AXIS:
            return _along_axis(node, first, where, opset)
        return _alone(node, first, states, where)
    if rule is None:
        raise _UnprovenError(f"{where} is not known to keep samples apart")
    return rule(node, states, where)


def _alone(node: Node, x: BatchedTensor, states: list[State | None], where: str) -> BatchedTensor:
    if node.op == "MaxPool" and len(node.outputs) > 1:
        raise _UnprovenError(f"{where} counts positions over the whole batch")
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        scale = states[1]
        per_tensor = isinstance(scale, ConstantTensor) and scale.dims in ((), (1,))
        if not per_tensor and _get_axis(node, "axis", 1, x.rank, where) == 0:
            raise _UnprovenError(f"{where} has a scale per sample")
    if (node.op == "Dropout" and len(node.inputs) > 2) or node.attributes.get("training_mode", 0):
        raise _UnprovenError(f"{where} may be in training mode")
    return BatchedTensor(x.rank, dequantized=node.op == "DequantizeLinear")


def _elementwise(states: list[State | None], where: str) -> BatchedTensor:
    """Axes are matched from the last: the leading ones meet only where ranks are equal."""
    rank = max(state.rank for state in states if isinstance(state, BatchedTensor))
    for state in states:
        if isinstance(state, BatchedTensor) and state.rank != rank:
            raise _UnprovenError(f"{where} matches the batch axis with another axis")
        if isinstance(state, ConstantTensor):
            if state.dims is None:
                raise _UnprovenError(f"{where} reads a constant of unknown shape")
            if len(state.dims) > rank or (len(state.dims) == rank and state.dims[0] != 1):
                raise _UnprovenError(f"{where} has a constant along the batch axis")
    return BatchedTensor(rank)


def _along_axis(node: Node, x: BatchedTensor, where: str, opset: int) -> BatchedTensor:
    default = ALONG_AXIS[node.op]
    if node.op in SAME_FROM_13 and opset < 13:
        default = 1
    if _get_axis(node, "axis", default, x.rank, where) == 0:
        raise _UnprovenError(f"{where} works along the batch axis")
    dropped = node.op in ("ArgMax", "ArgMin") and node.attributes.get("keepdims", 1) == 0
    return BatchedTensor(x.rank - dropped)


def _reduction(node: Node, x: BatchedTensor, states: list[State | None], where: str) -> BatchedTensor:
    axes = _get_integers(node, "axes", states, 1)
    if not axes:
        raise _UnprovenError(f"{where} reduces all axes, or axes computed at run time")
    if any(axis % x.rank == 0 for axis in axes):
        raise _UnprovenError(f"{where} reduces the batch axis")
    return BatchedTensor(x.rank if node.attributes.get("keepdims", 1) else x.rank - len(axes))


def _gemm(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    a, b = states[0], states[1] if node.op == "Gemm" else states[3]
    c = states[2] if node.op == "Gemm" and len(states) > 2 else None
    if not isinstance(a, BatchedTensor) or not isinstance(b, ConstantTensor) or node.attributes.get("transA", 0):
        raise _UnprovenError(f"{where} multiplies samples with each other")
    if isinstance(c, ConstantTensor) and (c.dims is None or (len(c.dims) == 2 and c.dims[0] != 1)):
        raise _UnprovenError(f"{where} adds a constant along the batch axis")
    _whole_weight(a, b, where)
    return BatchedTensor(2)


def _matmul(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    a, b = states[0], states[1] if node.op == "MatMul" else states[3]
    if isinstance(a, BatchedTensor) and isinstance(b, BatchedTensor) and a.rank == b.rank >= 3:
        return BatchedTensor(a.rank)
    if not isinstance(a, BatchedTensor) or not isinstance(b, ConstantTensor) or a.rank < 2:
        raise _UnprovenError(f"{where} multiplies samples with each other")
    if b.dims is None or len(b.dims) < 2 or (len(b.dims) >= a.rank > 2) or (a.rank == 2 and len(b.dims) > 2):
        raise _UnprovenError(f"{where} multiplies with a constant that may reach the batch axis")
    _whole_weight(a, b, where)
    return BatchedTensor(a.rank)


def _whole_weight(a: BatchedTensor, b: ConstantTensor, where: str) -> None:
    """Float activations with a weight that is dequantized: onnxruntime makes MatMulNBits of it."""
    if b.dequantized and not a.dequantized:
        raise _UnprovenError(f"{where} becomes MatMulNBits, which {DYNAMIC}")


def _concat(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    ranks = {state.rank for state in states if isinstance(state, BatchedTensor)}
    if len(ranks) != 1 or not all(isinstance(state, BatchedTensor) for state in states):
        raise _UnprovenError(f"{where} joins samples with constants")
    rank = ranks.pop()
    if _get_axis(node, "axis", 0, rank, where) == 0:
        raise _UnprovenError(f"{where} joins along the batch axis")
    return BatchedTensor(rank)


def _flatten(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    if _get_axis(node, "axis", 1, x.rank, where) != 1:
        raise _UnprovenError(f"{where} flattens the batch axis")
    return BatchedTensor(2)


def _reshape(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    """Into rows of a fixed size, in the order of samples."""
    _get_only_samples(states, where)
    shape = _get_integers(node, "shape", states, 1)
    if not shape:
        raise _UnprovenError(f"{where} has a shape computed at run time")
    if shape[0] not in (0, -1) or (shape[0] == 0 and node.attributes.get("allowzero", 0)):
        raise _UnprovenError(f"{where} makes a leading axis of {shape[0]}")
    if shape[0] == -1 and any(n <= 0 for n in shape[1:]):
        raise _UnprovenError(f"{where} copies axes behind a free one")
    return BatchedTensor(len(shape))


def _transpose(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    order = node.attributes.get("perm", tuple(reversed(range(x.rank))))
    if not isinstance(order, tuple) or not order or order[0] != 0:
        raise _UnprovenError(f"{where} moves the batch axis")
    return BatchedTensor(x.rank)


def _squeeze(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    axes = _get_integers(node, "axes", states, 1)
    rank = x.rank if node.op == "Squeeze" else x.rank + len(axes)
    if not axes or any(axis % rank == 0 for axis in axes):
        raise _UnprovenError(f"{where} changes the batch axis")
    return BatchedTensor(x.rank - len(axes) if node.op == "Squeeze" else rank)


def _slice(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    axes = _get_integers(node, "axes", states, 3)
    if not axes or any(axis % x.rank == 0 for axis in axes):
        raise _UnprovenError(f"{where} cuts the batch axis, or axes computed at run time")
    return BatchedTensor(x.rank)


def _pad(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    x = _get_only_samples(states, where)
    pads = _get_integers(node, "pads", states, 1)
    if len(states) > 3 and states[3] is not None:
        axes = _get_integers(node, "-", states, 3)
        clean = axes and all(axis % x.rank for axis in axes)
    else:
        clean = len(pads) == 2 * x.rank and pads[0] == pads[x.rank] == 0
    if not clean:
        raise _UnprovenError(f"{where} pads the batch axis, or axes computed at run time")
    return BatchedTensor(x.rank)


def _gather(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    data, indices = states[0], states[1]
    if isinstance(data, ConstantTensor) and isinstance(indices, BatchedTensor) and data.dims:
        table_rank = len(data.dims)
        if _get_axis(node, "axis", 0, table_rank, where) == 0:
            return BatchedTensor(indices.rank + table_rank - 1)
    if isinstance(data, BatchedTensor) and isinstance(indices, ConstantTensor) and indices.dims is not None:
        added = len(indices.dims) - 1
        if _get_axis(node, "axis", 0, data.rank, where) != 0:
            return BatchedTensor(data.rank + added)
    raise _UnprovenError(f"{where} picks along the batch axis")


def _resize(node: Node, states: list[State | None], where: str) -> BatchedTensor:
    """By factors that leave the batch axis alone; sizes would hold its length."""
    x = _get_only_samples(states, where)
    if "axes" in node.attributes:
        axes = _get_integers(node, "axes", states, 9)
        if axes and all(axis % x.rank for axis in axes):
            return BatchedTensor(x.rank)
    raise _UnprovenError(f"{where} may resize the batch axis")


def _get_only_samples(states: list[State | None], where: str) -> BatchedTensor:
    if not isinstance(states[0], BatchedTensor) or any(isinstance(state, BatchedTensor) for state in states[1:]):
        raise _UnprovenError(f"{where} reads samples where constants are expected")
    return states[0]


def _get_axis(node: Node, name: str, default: int, rank: int, where: str) -> int:
    axis = node.attributes.get(name, default)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise _UnprovenError(f"{where} has an {name} of {axis}")
    return axis % rank


def _get_integers(node: Node, name: str, states: list[State | None], position: int) -> tuple[int, ...]:
    """Integers given as an attribute, or as a constant input at that position; () where they are neither."""
    attribute = node.attributes.get(name)
    if isinstance(attribute, tuple):
        return attribute
    state = states[position] if len(states) > position else None
    return (state.values or ()) if isinstance(state, ConstantTensor) else ()


DYNAMIC_OPS = {"MatMulNBits", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "MatMulBnb4", "MatMulFpQ4"}
RULES: dict[str, Callable[[Node, list[State | None], str], BatchedTensor]] = {
    "Gemm": _gemm, "QGemm": _gemm, "MatMul": _matmul, "QLinearMatMul": _matmul, "Concat": _concat, "Flatten": _flatten,
    "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _squeeze, "Slice": _slice, "Pad": _pad,
    "Gather": _gather, "Resize": _resize,
}  # fmt: skip
