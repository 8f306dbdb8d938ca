"""Whole byte convolutions by the package's emulators of dense sums, group by group, to compare with real kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.kernels import avx2, neon
from fcdeploy.arithmetic.weights.layout import to_rows

Array = np.ndarray[Any, Any]
Sums = NDArray[np.int64]


def by_groups(
    activation: Array, weight: Array, fill: int, groups: int, geometry: Mapping[str, Sequence[int] | None],
    one: Callable[[Array, Array], Sums],
) -> Sums:  # fmt: skip
    """`one` of the windows (M, K) and the weights as rows (N, K) of every group: (B, C, *space) -> (B, O, *space')."""
    patches = avx2.gather_windows(activation, weight.shape[2:], fill, **geometry)  # (B, *space', positions, C)
    each, outs, rows = weight.shape[1], len(weight) // groups, to_rows(weight, 0)
    parts = [
        one(patches[..., group * each : (group + 1) * each].reshape(-1, rows.shape[1]),
            rows[group * outs : (group + 1) * outs])
        for group in range(groups)
    ]  # fmt: skip
    return np.moveaxis(np.concatenate(parts, axis=1).reshape(*patches.shape[:-2], -1), -1, 1)


def convolution_sums(
    activation: Array, weight: Array, *, zero_point: int = 0, weight_zero_point: int = 0, groups: int = 1,
    exact: bool = False, **geometry: Sequence[int] | None,
) -> Sums:  # fmt: skip
    """Sums of a convolution as x86 CPUs without VNNI add them, zero points corrected; depthwise ones are exact."""
    exact = exact or (weight.shape[1] == 1 and len(weight) == groups)

    def one(own: Array, rows: Array) -> Sums:
        return avx2.dense_sums(own, rows, zero_point=zero_point, weight_zero_point=weight_zero_point, exact=exact)

    return by_groups(activation, weight, zero_point, groups, geometry, one)


def convolution_wraps(
    activation: Array, weight: Array, *, zero_point: int = 0, weight_zero_point: int = 0, groups: int = 1,
    dot_product: bool = False, **geometry: Sequence[int] | None,
) -> Sums:  # fmt: skip
    """How many pairs wrap around on ARM; depthwise kernels and those for signed bytes want weights without zero point."""
    depthwise = weight.shape[1] == len(weight) // groups == 1 and weight_zero_point == 0
    length = weight[0].size
    pairs = neon.depthwise_pairs(length, groups) if depthwise else neon.dense_pairs(length)
    exact = not depthwise and (dot_product or (activation.dtype == np.int8 and weight_zero_point == 0))
    if exact or weight.dtype != np.int8:
        pairs = pairs[:0]
    return by_groups(
        activation, weight, zero_point, groups, geometry, lambda own, rows: neon.count_wraps(own, rows, pairs)
    )


def add_fused(sums: NDArray[np.int64], scales: tuple[np.float32, Array], bias: Array) -> Array:
    """Floats as MatMulIntegerToFloat writes them on ARM, where product and bias are rounded once (`fmla`)."""
    x, w = scales
    exact = sums.astype(np.float32).astype(np.float64) * (x * w).astype(np.float64) + bias.astype(np.float64)
    return np.asarray(exact.astype(np.float32))
