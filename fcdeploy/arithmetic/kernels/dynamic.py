"""Dense layers on float activations as onnxruntime's kernels compute them, every sum of products in 32 bits.

DynamicQuantizeMatMul rounds all activations of a run by one scale, as ONNX defines DynamicQuantizeLinear (onnx.ai,
operators): with 0 among them, (max - min) / 255, and the zero point that minimum rounds to.  MatMulNBits at accuracy
level 4 rounds each row block by block, by max |x| / 127, to signed bytes (MLAS, QuantizeARow_CompInt8).
"""

from __future__ import annotations

import numpy as np

from fcdeploy.arithmetic.kernels import avx2
from fcdeploy.arithmetic.quantization import round_to_integers
from fcdeploy.arrays import Array


def choose_dynamic_qparams(x: Array) -> tuple[np.float32, int]:
    """Scale and zero point of a tensor as uint8, computed in float32 as ONNX does."""
    low, high = min(np.float32(0), x.min(initial=0)), max(np.float32(0), x.max(initial=0))
    scale = np.float32((high - low) / np.float32(255))
    if scale == 0:
        return np.float32(1), 0
    return scale, int(np.clip(np.rint(np.float32(-low / scale)), 0, 255))


def dynamic_dense(x: Array, weight: Array, scale: Array, zero_point: Array, qparams: tuple[np.float32, int]) -> Array:
    """Float activations (M, K) times rows (N, K) of bytes with a scale and a zero point each -> (M, N)."""
    step, zero = qparams
    integers = round_to_integers(x, step, zero, "uint8").astype(np.uint8)
    points = zero_point.astype(np.int64) if zero_point.size > 1 else zero_point.astype(np.int64).reshape(())
    sums = avx2.dense_sums(integers, weight, zero_point=zero, weight_zero_point=points, exact=True)
    return sums * (np.float64(step) * scale.astype(np.float64))


def blockwise_dense(x: Array, integers: Array, scales: Array, block: int) -> Array:
    """Float activations (M, K) times rows (N, K) of signed integers with a scale for each block (N, blocks) -> (M, N)."""
    total = np.zeros((len(x), len(integers)))
    for index, begin in enumerate(range(0, x.shape[1], block)):
        part = x[:, begin : begin + block]
        largest = np.abs(part).max(axis=1, keepdims=True)
        factor = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
        rounded = np.rint(part * factor).astype(np.float64)
        sums = rounded @ integers[:, begin : begin + block].T.astype(np.float64)  # below 2^53
        total += sums * (largest / np.float32(127)).astype(np.float64) * scales[:, index].astype(np.float64)
    return total
