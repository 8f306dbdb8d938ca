"""The range whose quantized distribution diverges least from the float one.

Szymon Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 27 to 38.  Two changes: clipping is bounded by a
coverage floor, without which smooth tensors are clipped absurdly, and zero is left out, because after a Relu it is most
of the distribution and is always represented exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.histogram import get_bin_edges
from fcdeploy.arrays import Float64
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import Range

BINS = 2048
STEP = 16


def entropy(h: Histogram, levels: int = 128, coverage: float = 0.999) -> Range:
    """Cut |x| at the threshold with the least Kullback-Leibler divergence among those that keep `coverage` of it."""
    lower, upper, counts = get_bin_edges(h)
    top = max(abs(h.low), abs(h.high))
    if top == 0 or not len(counts):
        return Range(0.0, 0.0)
    p = _spread_over_equal_bins(lower, upper, counts, top)
    if h.low < 0:
        p = p + _spread_over_equal_bins(-upper[::-1], -lower[::-1], counts[::-1], top)
    p[0] = 0.0
    kept = np.cumsum(p) / max(float(p.sum()), 1.0)
    floor = max(int(np.searchsorted(kept, coverage)) + 1, levels)
    candidates = np.unique([*range(floor, BINS, STEP), BINS])
    best = min(candidates, key=lambda i: _measure_divergence(p, int(i), levels))
    threshold = top * int(best) / BINS
    return Range(max(min(h.low, 0.0), -threshold), min(max(h.high, 0.0), threshold))


def _spread_over_equal_bins(lower: Float64, upper: Float64, counts: NDArray[np.int64], top: float) -> Float64:
    """The elements above zero on BINS equal bins of [0, top], each spread evenly over the bin it was recorded in."""
    some = (upper > lower) & (upper > 0)
    below = np.cumsum(counts[some])
    points = np.stack([lower[some], upper[some]], axis=1).reshape(-1) if some.any() else np.array([0.0, top])
    heights = np.stack([below - counts[some], below], axis=1).reshape(-1) if some.any() else np.zeros(2)
    linear = np.diff(np.interp(np.linspace(0.0, top, BINS + 1), points, heights))
    exact = ~some & (lower > 0)  # a recorded bin cut to a point at the exact end
    np.add.at(linear, np.minimum((lower[exact] / top * BINS).astype(int), BINS - 1), counts[exact])
    return linear


def _measure_divergence(p: Float64, i: int, levels: int) -> float:
    """KL(P || Q) of the first i bins, the tail folded into the last, against the same merged into `levels` groups."""
    reference = p[:i].copy()
    reference[-1] += p[i:].sum()
    group = np.arange(i) * levels // i
    filled = p[:i] > 0
    mass = np.bincount(group, p[:i], minlength=levels)
    width = np.bincount(group, filled, minlength=levels)
    q = np.where(filled, mass[group] / np.maximum(width[group], 1), 0.0)
    total_p, total_q = reference.sum(), q.sum()
    if total_p == 0 or total_q == 0:
        return 0.0
    both = (reference > 0) & (q > 0)
    lost = reference[(reference > 0) & ~both].sum() / total_p
    a, b = reference[both] / total_p, q[both] / total_q
    return float((a * np.log(a / b)).sum() + lost * 10.0)
