"""The proof that no 16-bit pair sum of a quantized model can overflow, layer by layer, or where it can and by how much.

Facts about onnxruntime's CPU kernels (MLAS): unsigned activations times signed weights is the pair that x86 without
VNNI adds in 16 bits.  Exact on every CPU are: unsigned weights; depthwise convolutions; signed activations in an
integer operator of the file; and ConvInteger, whose operands are both unsigned.  Signed activations between
QuantizeLinear and DequantizeLinear are rewritten by the runtime to unsigned ones, 128 higher, so they count.

On ARM signed weights times bytes wrap around in 16 bits where two weights are -128 and both activations at the lowest byte
(arithmetic/kernels/neon.py): in depthwise convolutions on every ARM CPU, elsewhere on those without dot product
instructions, products of two signed activations included.

Weights in blocks (MatMulNBits) of 4 and 8 bits are exact as well, although their kernels round activations to bytes: two
products of 4 bits cannot leave 16 bits, and of 8 bits each is added alone (tests/proof/test_matmul_nbits.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.kernels import neon
from fcdeploy.arithmetic.kernels.avx2 import HIGHEST, LOWEST, pair_range
from fcdeploy.arithmetic.quantization import LIMITS
from fcdeploy.arithmetic.weights.layout import lay_out_importance
from fcdeploy.arrays import Array
from fcdeploy.graph.model import works_on_integers
from fcdeploy.graph.nodes import array_of, attribute_of, name_of, tensor_of
from fcdeploy.proof.byte_bounds import TensorBounds
from fcdeploy.proof.byte_products import (
    DEPTHWISE,
    ByteProduct,
    find_dequantize,
    find_product,
)

EXACT = "exact everywhere"
SATURATES = "saturates on x86 without VNNI, e.g. AVX2"
ELSEWHERE = "; exact with VNNI and on ARM"
WRAPS = {
    "plain": "wraps around on ARM without dot product, e.g. Cortex-A53 and A72",
    "depthwise": "wraps around on every ARM CPU",
}
UNPROVEN = "not proven"
BLOCK = 1 << 20  # weights looked at together
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
    weight = find_dequantize(node.inputs[1]) if node.op_type == "MatMul" and len(node.inputs) > 1 else None
    held = None if weight is None else tensor_of(weight.inputs[0])
    if weight is None or held is None or find_dequantize(node.inputs[0]) is not None:
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
