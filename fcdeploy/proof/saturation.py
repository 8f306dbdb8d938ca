"""The proof that no 16-bit pair sum of a quantized model can overflow, layer by layer, or where it can and by how much.

Facts about onnxruntime's CPU kernels (MLAS): unsigned activations times signed weights is the pair that x86 without
VNNI adds in 16 bits.  Exact on every CPU are: unsigned weights; depthwise convolutions; signed activations in an
integer operator of the file; and ConvInteger, whose operands are both unsigned.  Signed activations between
QuantizeLinear and DequantizeLinear are rewritten by the runtime to unsigned ones, 128 higher, so they count.

On ARM signed weights times bytes wrap around in 16 bits where two weights are -128 and both activations at the lowest byte
(arithmetic/kernels/neon.py): in depthwise convolutions on every ARM CPU, elsewhere on those without dot product
instructions, products of two signed activations included.

Weights in blocks (MatMulNBits) of 4 and 8 bits are exact as well, although their kernels round activations to bytes: two
products of 4 bits cannot leave 16 bits, and of 8 bits each is added alone (tests/test_matmul_nbits.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.interval_arithmetic import Interval, make_interval
from fcdeploy.arithmetic.kernels import neon
from fcdeploy.arithmetic.kernels.avx2 import HIGHEST, LOWEST, pair_range
from fcdeploy.arithmetic.quantization import LIMITS, broadcast_along, round_to_integers
from fcdeploy.arithmetic.weights.layout import lay_out_importance, to_rows
from fcdeploy.arrays import Array
from fcdeploy.graph.model import works_on_integers
from fcdeploy.graph.nodes import array_of, attribute_of, name_of, producer_of, tensor_of
from fcdeploy.proof.byte_bounds import CHOOSES, TensorBounds, find_byte_type, read_scalars

EXACT = "exact everywhere"
SATURATES = "saturates on x86 without VNNI, e.g. AVX2"
ELSEWHERE = "; exact with VNNI and on ARM"
WRAPS = {
    "plain": "wraps around on ARM without dot product, e.g. Cortex-A53 and A72",
    "depthwise": "wraps around on every ARM CPU",
}
UNPROVEN = "not proven"
DEPTHWISE = "depthwise: one input channel per output, added in 32 bits"
FULL = make_interval(0, 255)
BLOCK = 1 << 20  # weights looked at together
INTEGER_OPS: dict[str, tuple[int | None, tuple[int, ...], int | None]] = {
    # operator: input that holds activations (None: quantized inside), inputs that hold weights, activation zero point
    "QLinearConv": (0, (3,), 2),
    "QLinearMatMul": (0, (3,), 2),
    "QGemm": (0, (3,), 2),
    "MatMulInteger": (0, (1,), 2),
    "MatMulIntegerToFloat": (0, (1,), 4),
    "ConvInteger": (0, (1,), 2),
    "DynamicQuantizeMatMul": (None, (1,), None),
    "QAttention": (0, (1,), 6),
    "DynamicQuantizeLSTM": (None, (1, 2), None),
}
FLOAT_OPS = {"Conv", "Gemm", "MatMul"}  # between DequantizeLinear and QuantizeLinear
BLOCKS = {  # bits of a weight: why no sum of its products leaves 16 bits
    2: "two products of 2 bits and a byte cannot leave 16 bits",
    4: "two products of 4 bits and a byte cannot leave 16 bits",
    8: "kernels of 8-bit blocks add each product in 32 bits",
}
IN_FLOAT = ("MatMulNBits", "MatMulBnb4")  # unless the accuracy level of a MatMulNBits says otherwise
MULTIPLY = re.compile("MatMul|Gemm|Conv|Attention|LSTM|GRU|MoE")  # in names of operators on integers


@dataclass(frozen=True)
class SaturationProof:
    """The proof for one layer: how large its 16-bit pair sums can get.

    `worst` is the pair sum closest to, or farthest beyond, its `limit` (32767, or -32768 where it is negative);
    `margin` the distance to it in percent of the limit, negative when it is passed.  `channels` and `pairs` count what
    can overflow.  A kernel that adds in 32 bits has neither, and `why` says so, as it does where nothing is `proven`.
    `wraps` names where a sum may wrap around on ARM: a key of WRAPS, or empty.
    """

    node: str
    op: str
    adds_pairs: bool
    worst: int | None
    limit: int | None
    margin: float | None
    channels: int
    pairs: int
    why: str
    proven: bool = True
    wraps: str = ""

    @property
    def exact_on_x86(self) -> bool:
        return self.proven and (self.margin is None or self.margin >= 0)

    @property
    def safe(self) -> bool:
        return self.exact_on_x86 and not self.wraps

    @property
    def verdict(self) -> str:
        if not self.proven:
            return UNPROVEN
        if not self.wraps:
            return EXACT if self.safe else SATURATES + ELSEWHERE
        where = WRAPS[self.wraps]
        return f"{where}; exact on x86" if self.exact_on_x86 else f"{SATURATES}; {where}"


@dataclass(frozen=True)
class ByteProduct:
    """The operands of a layer as its kernel gets them: types, weights as rows (out, K) per matrix, activation bounds.

    `rows` is None where weights are computed at run time.  `bounds` has one pair for all, or one a channel, of unsigned
    bytes; signed ones count from -128.
    """

    node: ir.Node
    activation: str
    weight: str
    rows: tuple[Array, ...] | None
    bounds: Interval
    exact: str = ""

    @property
    def groups(self) -> int:
        return attribute_of(self.node, "group", 1)


def prove_no_saturation(model: ir.Model) -> tuple[SaturationProof, ...]:
    """One proof for each layer that multiplies bytes, in the graph's order; layers that compute in float have none.

    What a layer writes bounds the next one's activations, but only where it is proven itself.
    """
    proofs, known = [], TensorBounds()
    for node in model.graph.all_nodes():
        product = find_product(node, known)
        proof = _judge_other(node) if product is None else _prove_product(product)
        if proof is not None:
            proofs.append(proof)
        known.add(node, exact=proof is None or proof.safe)
    return tuple(proofs)


def find_product(node: ir.Node, known: TensorBounds) -> ByteProduct | None:
    """The byte product that a node computes, None for a node that computes none."""
    if node.op_type in INTEGER_OPS:
        return _read_integer_operator(node, known)
    return _read_qdq_layer(node, known) if node.op_type in FLOAT_OPS else None


def bound_pair_sums(rows: Array, low: Array | int, high: Array | int) -> tuple[int, int, int, int]:
    """Worst pair sum, its limit, how many channels and pairs can overflow.

    Weights (out, K), activations from `low` to `high`: one number each, (K,) or (out, K).
    """
    worst, limit, channels, pairs = 0, HIGHEST, 0, 0
    size = max(1, BLOCK // max(1, rows.shape[1]))
    for at in range(0, len(rows), size):
        ends = (end[at : at + size] if np.ndim(end) == 2 else end for end in (np.asarray(low), np.asarray(high)))
        least, greatest = pair_range(rows[at : at + size], *ends)
        over = (least < LOWEST) | (greatest > HIGHEST)
        channels, pairs = channels + int(over.any(axis=1).sum()), pairs + int(over.sum())
        ends_here = (int(greatest.max(initial=0)), HIGHEST), (int(least.min(initial=0)), LOWEST)
        worst, limit = max((worst, limit), *ends_here, key=lambda each: each[0] / each[1])
    return worst, limit, channels, pairs


def _prove_product(product: ByteProduct) -> SaturationProof:
    name, op = name_of(product.node), product.node.op_type
    wraps = _find_wraps(product)
    if product.exact:
        why = product.exact + ("; on ARM in 16 bits, and weights of -128 meet the lowest byte" if wraps else "")
        return SaturationProof(name, op, False, None, None, None, 0, 0, why, wraps=wraps)
    low, high = (int(end) for end in product.bounds.ends())
    if product.rows is None:
        worst, limit, channels, pairs = *bound_pair_sums(np.full((1, 2), LIMITS["int8"][0]), low, high)[:2], 0, 0
        why = f"weights are computed at run time: any byte, activations in {low} .. {high}"
    else:
        reached = [
            bound_pair_sums(rows, *ends) for rows, ends in zip(product.rows, _lay_out_bounds(product), strict=True)
        ]
        worst, limit = max(((f[0], f[1]) for f in reached), key=lambda pair: pair[0] / pair[1])
        channels, pairs = sum(f[2] for f in reached), sum(f[3] for f in reached)
        narrow = int((product.bounds.high < high).sum())
        why = f"activations in {low} .. {high}"
        why += f", lower in {narrow} of {product.bounds.high.size} channels" if narrow else ""
    if product.activation == "int8":
        why += ", made unsigned by the runtime"
    return SaturationProof(name, op, True, worst, limit, 100 * (1 - worst / limit), channels, pairs, why, wraps=wraps)


def _find_wraps(product: ByteProduct) -> str:
    """Where a sum of two products may wrap around on ARM, a key of WRAPS; empty where none can."""
    if product.weight == "uint8" or product.node.op_type == "ConvInteger":
        return ""
    if product.rows is None:
        return "" if product.bounds.low.min() > 0 else "plain"
    depthwise = product.exact == DEPTHWISE
    for rows, (low, _) in zip(product.rows, _lay_out_bounds(product), strict=True):
        if not (rows == neon.LOWEST).any():
            continue
        length = rows.shape[1]
        pairs = neon.depthwise_pairs(length, len(rows)) if depthwise else neon.dense_pairs(length)
        reached = np.broadcast_to(np.asarray(low) <= 0, rows.shape)
        if neon.find_lowest_pairs(np.where(reached, rows, 0), pairs).any():
            return "depthwise" if depthwise else "plain"
    return ""


def _judge_other(node: ir.Node) -> SaturationProof | None:
    """The proof for a node that multiplies integers in another way, None for one that multiplies none."""
    bits = _find_block_bits(node)
    if bits in BLOCKS:
        return SaturationProof(name_of(node), node.op_type, False, None, None, None, 0, 0, BLOCKS[bits])
    multiplies = works_on_integers(node) and MULTIPLY.search(node.op_type) and node.op_type not in IN_FLOAT
    if bits is None and not multiplies:
        return None
    why = "how its kernels add products is not known to fcdeploy"
    return SaturationProof(name_of(node), node.op_type, False, None, None, None, 0, 0, why, proven=False)


def _find_block_bits(node: ir.Node) -> int | None:
    """Bits of the weights of a layer whose kernel rounds activations by itself: MatMulNBits, or what becomes one.

    That is a MatMul of floats with a constant that is dequantized, for which the runtime takes accuracy level 4.
    """
    if node.op_type == "MatMulNBits":
        return attribute_of(node, "bits", 4) if attribute_of(node, "accuracy_level", 0) == 4 else None
    weight = _find_dequantize(node.inputs[1]) if node.op_type == "MatMul" and len(node.inputs) > 1 else None
    held = None if weight is None else tensor_of(weight.inputs[0])
    if weight is None or held is None or _find_dequantize(node.inputs[0]) is not None:
        return None
    scale, axis = array_of(weight.inputs[1]), attribute_of(weight, "axis", 1)
    along_inputs = scale is None or (scale.size > 1 and axis % len(held.shape) != len(held.shape) - 1)
    if along_inputs and "block_size" not in weight.attributes:
        return None  # stays float
    return held.dtype.bitwidth if held.dtype.is_integer() and held.dtype.bitwidth <= 8 else None


def _lay_out_bounds(product: ByteProduct) -> list[tuple[Array | int, Array | int]]:
    """The bounds of a layer's activations laid out as its rows: (K,), (out, K) with groups, or one number for all."""
    bounds: list[tuple[Array | int, Array | int]] = []
    for rows in product.rows or ():
        ends: list[Array] = [product.bounds.low, product.bounds.high]
        if ends[0].ndim and "Conv" in product.node.op_type:
            shape = (len(rows), len(ends[0]) // product.groups, rows.shape[1] * product.groups // len(ends[0]))
            ends = [lay_out_importance(end, shape, product.groups) for end in ends]
        if ends[0].ndim and ends[0].shape[-1] != rows.shape[1]:
            ends = [ends[0].min(), ends[1].max()]
        ends = [end.astype(np.int64) for end in ends]
        bounds.append((ends[0], ends[1]))
    return bounds


def _read_integer_operator(node: ir.Node, known: TensorBounds) -> ByteProduct | None:
    """QLinearConv and its kind: the file itself says what is multiplied."""
    data, weights, zero = INTEGER_OPS[node.op_type]
    inputs = list(node.inputs)
    activation = "uint8" if data is None else find_byte_type(inputs[data]) or "uint8"
    held = [_read_weight(inputs[index]) for index in weights if index < len(inputs)]
    types = [find_byte_type(inputs[index]) or (a.dtype.name if a is not None else "int8")
             for index, a in zip(weights, held, strict=True)]  # fmt: skip
    kind = "int8" if "int8" in types else "uint8"
    reasons = (  # the first that holds
        (node.op_type == "ConvInteger", "ConvInteger multiplies unsigned bytes, in 32 bits"),
        (kind == "uint8", "unsigned weights are multiplied in 32 bits"),
        (node.op_type == "QLinearConv" and _is_depthwise(node, held[0]), DEPTHWISE),
        (activation == "int8", "signed activations are multiplied in 32 bits"),
    )
    exact = next((why for holds, why in reasons if holds), "")
    bounds = FULL
    source = None if data is None else inputs[data]
    if source is not None and activation == "uint8":
        point = array_of(inputs[zero]) if zero is not None and len(inputs) > zero else None
        read = _bound_by_channel(node, known.of(source).clip(*LIMITS["uint8"]))
        bounds = read.hull(0 if point is None else int(point.reshape(-1)[0]))
    return ByteProduct(node, activation, kind, _to_rows(node, held), bounds, exact)


def _read_qdq_layer(node: ir.Node, known: TensorBounds) -> ByteProduct | None:
    """Conv, Gemm or MatMul whose operands are dequantized bytes: the runtime makes an integer kernel of it.

    A Conv needs a QuantizeLinear behind it for that; Gemm and MatMul may write floats.
    """
    data, weight = (_find_dequantize(node.inputs[i]) if len(node.inputs) > i else None for i in (0, 1))
    if data is None or weight is None or (node.op_type == "Conv" and not _is_requantized(node.outputs[0])):
        return None
    activation, kind = find_byte_type(data.inputs[0]), find_byte_type(weight.inputs[0])
    if activation is None or kind is None or data.inputs[0] is None or weight.inputs[0] is None:
        return None
    held = _read_weight(node.inputs[1])
    exact = ""
    if kind == "uint8":
        exact = "unsigned weights are multiplied in 32 bits"
    elif node.op_type == "Conv" and _is_depthwise(node, held):
        exact = DEPTHWISE
    elif held is None and _is_made_unsigned(weight.inputs[0]):
        exact = "both operands are made unsigned by the runtime and multiplied in 32 bits"
    raised = 128 if activation == "int8" else 0
    seen = _bound_bytes_read(node, data, activation, known)
    bounds = Interval(seen.low + raised, seen.high + raised)
    return ByteProduct(node, activation, kind, _to_rows(node, [held]), bounds, exact)


def _bound_by_channel(node: ir.Node, x: Interval) -> Interval:
    """By what a layer's weights are multiplied with one by one; a Gemm may read its rows as columns."""
    if attribute_of(node, "transA", 0):
        return x.whole()
    return x.channels(1 if "Conv" in node.op_type else -1)


def _bound_bytes_read(node: ir.Node, data: ir.Node, kind: str, known: TensorBounds) -> Interval:
    """The integers that a layer reads, by channel; a convolution also reads zero points, at its borders."""
    scale, zero = read_scalars(data)
    if scale is None or zero is None:
        return make_interval(*LIMITS[kind])
    x = _bound_by_channel(node, known.of(node.inputs[0])).hull(0.0)
    low, high = (np.clip(np.rint(end / float(scale)) + zero, *LIMITS[kind]) for end in (x.low, x.high))
    return Interval(low, high)


def _find_dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear a float tensor comes from; what only moves elements is exchanged with it by the runtime."""
    node = producer_of(value)
    while node is not None and node.op_type in CHOOSES:
        node = producer_of(node.inputs[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _is_requantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear follows, at once or behind a clip or what moves elements."""
    readers = list(value.consumers())
    return any(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in CHOOSES | {"Relu", "Clip"} and any(_is_requantized(out) for out in reader.outputs))
        for reader in readers
    )


def _is_made_unsigned(value: ir.Value) -> bool:
    """Signed bytes that the runtime makes unsigned: written by a QuantizeLinear with one reader."""
    node = value.producer()
    return node is not None and node.op_type == "QuantizeLinear" and len(list(value.consumers())) == 1


def _read_weight(value: ir.Value | None) -> Array | None:
    """The integers of a weight: stored ones, stored floats behind a QuantizeLinear, either of them transposed."""
    held = array_of(value)
    if held is not None:
        return held if held.dtype in (np.int8, np.uint8) else None
    node = producer_of(value)
    if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Identity", "Transpose", "Reshape"):
        return None
    if node.op_type == "QuantizeLinear":
        return _quantize_constant(node)
    inner = _read_weight(node.inputs[0])
    if inner is None or node.op_type in ("DequantizeLinear", "Identity"):
        return inner
    if node.op_type == "Transpose":
        order = attribute_of(node, "perm", tuple(reversed(range(inner.ndim))))
        return inner.transpose(order)
    shape = array_of(node.inputs[1])
    return None if shape is None or 0 in shape else inner.reshape(shape)


def _quantize_constant(node: ir.Node) -> Array | None:
    """A float weight that the runtime quantizes once, when it loads the model."""
    weight, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
    kind = find_byte_type(node.outputs[0])
    point = array_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.int8)
    if weight is None or scale is None or point is None or kind is None or weight.dtype != np.float32:
        return None
    axis = attribute_of(node, "axis", 1) % max(weight.ndim, 1) if scale.size > 1 else None
    if axis is not None and (scale.ndim != 1 or len(scale) != weight.shape[axis]):
        return None  # in blocks: no integer kernel multiplies those
    step, zero = (
        broadcast_along(each.astype(np.float64), axis if each.size > 1 else None, weight.ndim)
        for each in (scale, point)
    )
    return round_to_integers(weight, step, zero, kind).astype(kind)


def _is_depthwise(node: ir.Node, weight: Array | None) -> bool:
    return (
        weight is not None
        and weight.ndim > 1
        and weight.shape[1] == 1
        and weight.shape[0] == attribute_of(node, "group", 1)
    )


def _to_rows(node: ir.Node, weights: list[Array | None]) -> tuple[Array, ...] | None:
    """Weights as (out, K) in the order of the kernel; a stack of matrices (..., K, out) as the rows of all."""
    rows = []
    for weight in weights:
        if weight is None:
            return None
        if "Conv" in node.op_type:
            rows.append(to_rows(weight, 0))
        elif node.op_type in ("Gemm", "QGemm") and attribute_of(node, "transB", 0) == 1:
            rows.append(weight)
        elif weight.ndim <= 1:
            rows.append(np.atleast_2d(weight))
        else:
            rows.append(np.moveaxis(weight, -2, -1).reshape(-1, weight.shape[-2]))
    return tuple(rows)
