"""A histogram in a few numbers: quantiles, and counts in cells of equal width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcdeploy.arithmetic.histogram import get_bin_edges
from fcdeploy.arrays import Float64
from fcdeploy.records.calibration import Histogram


def estimate_quantiles(h: Histogram, shares: Sequence[float]) -> list[float]:
    """The values below which these shares (0 to 1) of the finite elements lie, spread evenly inside each bin.

    0 and 1 are the exact ends; all are 0 where nothing finite was seen.
    """
    lower, upper, counts = get_bin_edges(h)
    if not counts.size:
        return [0.0] * len(shares)
    above = np.cumsum(counts)
    wanted = np.asarray(shares) * above[-1]
    at = np.minimum(np.searchsorted(above, wanted), len(counts) - 1)
    inside = (wanted - (above[at] - counts[at])) / counts[at]
    values = lower[at] + (upper[at] - lower[at]) * np.clip(inside, 0, 1)
    values[np.abs(values) < np.finfo(np.float32).tiny] = 0.0  # the bin of zero is that of the smallest subnormals too
    return [h.low if s <= 0 else h.high if s >= 1 else float(v) for s, v in zip(shares, values, strict=True)]


def count_in_cells(h: Histogram, number: int) -> Float64:
    """How many finite elements lie in each of `number` cells of equal width from the least to the largest.

    A bin that spans several cells is spread evenly over them, so a cell may hold a fraction.
    """
    lower, upper, counts = get_bin_edges(h)
    if not counts.size or h.low == h.high:
        return np.append(np.zeros(number - 1), float(counts.sum()))
    edges = np.linspace(h.low, h.high, number + 1)
    below = np.zeros(number + 1)
    width = np.where(upper > lower, upper - lower, 1.0)
    for i, edge in enumerate(edges[1:], 1):  # a bin of no width counts below every edge at or above it
        below[i] = (counts * np.where(upper <= edge, 1.0, np.clip(edge - lower, 0, width) / width)).sum()
    return np.diff(below)
