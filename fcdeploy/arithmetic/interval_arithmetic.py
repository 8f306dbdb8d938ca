"""Interval arithmetic over tensors, a pair of ends per channel (R. E. Moore, "Interval Analysis", 1966).

A layer with weights w on inputs in [l, h] lies, channel by channel, in

    sum over k of  max(w, 0) l + min(w, 0) h   ..   sum over k of  max(w, 0) h + min(w, 0) l

Every result is widened by what float32 may round on the way, so that it holds for an integer kernel and a float one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Array, Float64

ROUNDING = 2.0**-22  # relative, of a few float32 operations
BLOCK = 1 << 20  # weights that are looked at together


@dataclass(frozen=True)
class Interval:
    """Ends of a tensor's elements: one number each, or an array of the tensor's rank, lengths 1 or the tensor's."""

    low: Float64
    high: Float64

    @property
    def largest(self) -> Float64:
        """The largest magnitude."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def ends(self) -> tuple[float, float]:
        """The smallest low and the largest high of all elements."""
        return float(self.low.min()), float(self.high.max())

    def whole(self) -> Interval:
        """One pair for all elements."""
        return make_interval(*self.ends())

    def channels(self, axis: int) -> Interval:
        """One pair per index of `axis`, as vectors; a single pair where there are no axes, or one index."""
        if self.low.ndim == 0 or self.low.shape[axis] == 1:
            return self.whole()
        others = tuple(i for i in range(self.low.ndim) if i != axis % self.low.ndim)
        return Interval(self.low.min(axis=others), self.high.max(axis=others))

    def places(self) -> Interval:
        """One pair per channel, for all spatial positions."""
        axes = tuple(range(2, self.low.ndim))
        if not axes:
            return self
        return Interval(self.low.min(axis=axes, keepdims=True), self.high.max(axis=axes, keepdims=True))

    def hull(self, number: float) -> Interval:
        """The interval widened to hold this number."""
        return Interval(np.minimum(self.low, number), np.maximum(self.high, number))

    def clip(self, low: float, high: float) -> Interval:
        """Clipped as ONNX defines Clip: where the limits cross, the upper one wins."""
        return Interval(*(np.minimum(np.maximum(end, low), high) for end in (self.low, self.high)))

    def wider(self, by: Float64 | float) -> Interval:
        return Interval(self.low - by, self.high + by)

    def rounded(self) -> Interval:
        """The interval widened by the rounding of a few float32 operations."""
        return Interval(self.low - np.abs(self.low) * ROUNDING, self.high + np.abs(self.high) * ROUNDING)


def make_interval(low: float, high: float) -> Interval:
    """One pair for all elements."""
    return Interval(np.asarray(low, np.float64), np.asarray(high, np.float64))


ANY = make_interval(-math.inf, math.inf)


def add_intervals(a: Interval, b: Interval) -> Interval:
    return Interval(a.low + b.low, a.high + b.high).wider(ROUNDING * (a.largest + b.largest))


def subtract_intervals(a: Interval, b: Interval) -> Interval:
    return add_intervals(a, Interval(-b.high, -b.low))


def multiply_intervals(a: Interval, b: Interval) -> Interval:
    ends = np.stack(np.broadcast_arrays(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high))
    return Interval(ends.min(axis=0), ends.max(axis=0)).rounded()


def apply_leaky_relu(x: Interval, slope: float) -> Interval:
    """x where it is positive, slope * x where not; of two pieces, each is extreme at an end or at zero."""
    ends = np.stack([*(np.where(end >= 0, end, slope * end) for end in (x.low, x.high))])
    crossing = (x.low < 0) & (x.high > 0)
    low, high = ends.min(axis=0), ends.max(axis=0)
    return Interval(
        np.where(crossing, np.minimum(low, 0), low), np.where(crossing, np.maximum(high, 0), high)
    ).rounded()


def bound_row_sums(rows: Array, unit: Float64, low: Float64, high: Float64) -> Interval:
    """Each row's products with activations in [low, high], (K,) or (N, K): (N, K) -> vectors (N,), times `unit`.

    A float32 sum of K terms errs by at most K 2^-24 of the sum of their sizes (N. J. Higham, "Accuracy and Stability of
    Numerical Algorithms", section 3.1), twice that with products and unit.
    """
    ends_of_blocks = []
    size = max(1, BLOCK // max(1, rows.shape[1]))
    for at in range(0, len(rows), size):
        w = rows[at : at + size].astype(np.float64)
        least, most = (end if end.ndim == 1 else end[at : at + size] for end in (low, high))
        up, down = np.maximum(w, 0), np.minimum(w, 0)
        slack = _dot(np.abs(w), np.maximum(np.abs(least), np.abs(most))) * (w.shape[1] + 8) * 2.0**-23
        ends = _dot(up, least) + _dot(down, most), _dot(up, most) + _dot(down, least)
        ends_of_blocks.append(np.stack([ends[0] - slack, ends[1] + slack]))
    ends_of_all = np.concatenate(ends_of_blocks, axis=1) * unit
    return Interval(ends_of_all[0], ends_of_all[1])


def _dot(weight: Float64, end: Float64) -> Float64:
    """Row sums of weight * end, where a weight of zero times an infinite end is zero."""
    products = np.multiply(weight, end, out=np.zeros_like(weight), where=weight != 0)
    return np.asarray(products.sum(axis=1))
