"""The range with the smallest mean squared error of quantizing the tensor.

Yoni Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference", arXiv:1902.06822, section 3.1;
Markus Nagel et al., "A White Paper on Neural Network Quantization", arXiv:2106.08295, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcdeploy.arithmetic.histogram import get_bin_edges
from fcdeploy.arrays import Array, Float64
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import Range

CANDIDATES = 96  # per end: 1.0 to 0.05 of the exact end, evenly
# Rounding errors are independent and average out over the products of the next layer; clipping errors have one sign and
# fall on the strongest features. 3 to 10 measured best on residual networks and a detector (0.2 to 2 dB above 1); behind
# hard-swish and gates, whose tails are long and weigh little, 1 is better by up to 10 dB.
CLIPPING = 6.0
Function = Callable[[Float64], Float64]


def mse(h: Histogram, levels: int = 256, function: Function | None = None, clipping: float = CLIPPING) -> Range:
    """The pair of ends, among 96 x 96 shrunken ones, with the least expected squared error, of clipping `clipping` times.

    For a step s: an element inside the range and beyond s / 2 of zero errs by s^2 / 12 on average, one within s / 2 of
    zero becomes zero and errs by itself, and one outside errs by its distance to the end.  All three are sums over
    the histogram's bins that running totals give, so the whole grid of candidates costs a few searches.

    With a `function`, the error is that of f(x), where all that reads x sees f(x): f'(x)^2 s^2 / 12 inside, the distance of
    f(x) to f at the end outside.

    An end that lies beyond all that was counted, since large samples are counted in part, is one more element: without it
    a detector's rarest and strongest answers would be clipped for nothing.
    """
    lower, upper, counts = get_bin_edges(h)
    if not len(counts):
        return Range(0.0, 0.0)
    if function is not None:
        return _behind(function, h, (lower, upper, counts), levels, clipping)
    uncounted = [end for end in (h.low, h.high) if not ((lower <= end) & (end <= upper)).any()]
    lower, upper = (np.concatenate([edges, uncounted]) for edges in (lower, upper))
    order = np.argsort(lower, kind="stable")
    lower, upper, counts = lower[order], upper[order], np.concatenate([counts, np.ones(len(uncounted))])[order]
    middle = (lower + upper) / 2
    square = middle**2 + (upper - lower) ** 2 / 12  # E[x^2] of elements spread evenly over the bin
    totals = np.stack([np.cumsum(counts * power) for power in (np.ones_like(middle), middle, square)])
    totals = np.concatenate([np.zeros((3, 1)), totals], axis=1)  # (3, bins + 1)
    shrink = np.linspace(1.0, 0.05, CANDIDATES)
    lows, highs = min(h.low, 0.0) * shrink, max(h.high, 0.0) * shrink
    if h.low >= 0:
        lows = lows[:1]
    if h.high <= 0:
        highs = highs[:1]

    def below(x: Float64) -> Float64:
        """Count, sum and sum of squares of the elements below x: shape (3,) + x.shape."""
        return totals[:, np.searchsorted(middle, x)]

    n, first, second = below(lows)
    clipped_low, lost_low = second - 2 * lows * first + lows**2 * n, second
    n, first, second = totals[:, -1:] - below(highs)
    clipped_high, lost_high = second - 2 * highs * first + highs**2 * n, second
    low, high = lows[:, None], highs[None, :]
    step = (high - low) / (levels - 1)
    # an end within s / 2 of zero is itself rounded to zero: what lies beyond errs by all of itself
    clipped = np.where(-low < step / 2, lost_low[:, None], clipped_low[:, None])
    clipped += np.where(high < step / 2, lost_high, clipped_high)
    inside = below(highs)[0][None, :] - below(lows)[0][:, None]
    dead = below(np.minimum(step / 2, high)) - below(np.maximum(-step / 2, low))  # what is clipped counts only once
    error = clipping * clipped + (inside - dead[0]) * step**2 / 12 + dead[2]
    i, j = np.unravel_index(int(np.argmin(error)), error.shape)
    return Range(float(lows[i]), float(highs[j]))


def _behind(
    function: Function, h: Histogram, bins: tuple[Float64, Float64, Array], levels: int, clipping: float
) -> Range:
    """The range with the least expected squared error of f(x), clipping counted as above."""
    lower, upper, counts = bins
    low, high = min(h.low, 0.0), max(h.high, 0.0)
    order = np.argsort(lower, kind="stable")
    x, counts = ((lower + upper) / 2)[order], counts[order].astype(np.float64)
    y, apart = function(x), np.maximum(upper - lower, 1e-6 * (high - low))[order]
    slope = (function(x + apart / 2) - function(x - apart / 2)) / apart
    totals = np.stack([np.cumsum(counts * each) for each in (np.ones_like(y), y, y**2, slope**2)])
    totals = np.concatenate([np.zeros((4, 1)), totals], axis=1)  # (4, bins + 1)
    shrink = np.linspace(1.0, 0.05, CANDIDATES)
    lows, highs = low * shrink if low < 0 else np.zeros(1), high * shrink if high > 0 else np.zeros(1)

    n, first, second, steep = totals[:, np.searchsorted(x, lows)]
    at = function(lows)
    clipped_low, steep_low = second - 2 * at * first + at**2 * n, steep
    n, first, second, steep = totals[:, -1:] - totals[:, np.searchsorted(x, highs)]
    at = function(highs)
    clipped_high, steep_high = second - 2 * at * first + at**2 * n, steep

    step = (highs[None, :] - lows[:, None]) / (levels - 1)
    inside = totals[3, -1] - steep_low[:, None] - steep_high[None, :]
    error = clipping * (clipped_low[:, None] + clipped_high[None, :]) + np.maximum(inside, 0.0) * step**2 / 12
    i, j = np.unravel_index(int(np.argmin(error)), error.shape)
    return Range(float(lows[i]), float(highs[j]))
