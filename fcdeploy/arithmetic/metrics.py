"""How well one array stands in for another, and how well either fits its labels.

Everything is accumulated in float64.  What can be summed over batches is a value that adds: `Fidelity`, `Spread` and
confusion matrices of two halves of the data, added, are those of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Float64


@dataclass(frozen=True)
class Fidelity:
    """Running sums over a reference f and its approximation q; two of them add."""

    reference: float = 0.0  # sum f^2
    approximation: float = 0.0  # sum q^2
    product: float = 0.0  # sum f q
    noise: float = 0.0  # sum (f - q)^2
    largest: float = 0.0  # max |f - q|
    count: int = 0

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(
            self.reference + other.reference,
            self.approximation + other.approximation,
            self.product + other.product,
            self.noise + other.noise,
            max(self.largest, other.largest),
            self.count + other.count,
        )

    @property
    def sqnr_db(self) -> float:
        """10 log10(sum f^2 / sum (f-q)^2) in dB: inf where nothing differs, -inf where a zero signal, or no number, is kept."""
        if self.noise == 0:
            return math.inf
        if not math.isfinite(self.noise):
            return -math.inf
        return 10 * math.log10(self.reference / self.noise) if self.reference > 0 else -math.inf

    @property
    def cosine(self) -> float:
        """sum f q / sqrt(sum f^2 sum q^2), between -1 and 1: 1 where nothing differs, 0 where only one is all zero."""
        if self.noise == 0:
            return 1.0
        if not math.isfinite(self.product):
            return 0.0
        norm = math.sqrt(self.reference) * math.sqrt(self.approximation)
        return max(-1.0, min(1.0, self.product / norm)) if norm > 0 else 0.0


def measure_fidelity(reference: Array, approximation: Array) -> Fidelity:
    """Compare two arrays of one shape."""
    return add_rows(Fidelity(), compute_fidelity_rows(reference[None], approximation[None]))


def compute_fidelity_rows(reference: Array, approximation: Array) -> Float64:
    """The fields of `Fidelity` for every sample, (n, 6), from two arrays (n, ...).

    A row has the same bits whichever samples are beside it and with any number of threads: no BLAS, which splits a
    long sum among them.
    """
    assert reference.shape == approximation.shape
    n, size = len(reference), math.prod(reference.shape[1:])
    f = np.ascontiguousarray(reference, np.float64).reshape(n, size)
    q = np.ascontiguousarray(approximation, np.float64).reshape(n, size)
    with np.errstate(invalid="ignore"):  # infinite values on both sides, whose difference is NaN
        e = f - q
    products = np.empty_like(e)  # one for all: of large arrays most of the time goes into memory that is new
    largest = np.abs(e, out=products).max(axis=1) if e.size else np.zeros(n)
    sums = [np.multiply(a, b, out=products).sum(axis=1) for a, b in ((f, f), (q, q), (f, q), (e, e))]
    return np.stack([*sums, largest, np.full(n, float(size))], axis=1)


def add_rows(total: Fidelity, rows: Float64) -> Fidelity:
    """`total` plus these rows of `compute_fidelity_rows`, added in order: the same bits however they are batched."""
    if not len(rows):
        return total
    start = [[total.reference, total.approximation, total.product, total.noise]]
    # running totals, which are taken in order, where NumPy is free to add a column in pairs
    reference, approximation, product, noise = np.add.accumulate(np.concatenate([start, rows[:, :4]]))[-1].tolist()
    largest = max(total.largest, float(rows[:, 4].max()))
    return Fidelity(reference, approximation, product, noise, largest, total.count + int(rows[:, 5].sum()))


def is_in_top_k(scores: Array, labels: Array, k: int) -> NDArray[np.bool_]:
    """Is the label (n,) among the k highest scores (n, classes)? Equal scores rank by index, as arg max has it."""
    rows = np.arange(len(scores))
    own = scores[rows, labels][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return np.asarray((rank < k) & ~np.isnan(own[:, 0]))


def count_confusion(labels: Array, predicted: Array, classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes): row = label, column = prediction. Matrices of two halves add."""
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def count_token_hits(predicted: Array, labels: Array, ignore: int) -> Float64:
    """Per sample (n, 2): positions predicted right, and positions that count (their label is not `ignore`)."""
    n = len(labels)
    counts = (labels != ignore).reshape(n, -1)
    right = (predicted == labels).reshape(n, -1) & counts
    return np.stack([right.sum(axis=1), counts.sum(axis=1)], axis=1).astype(np.float64)


def sum_errors(predicted: Array, labels: Array) -> Float64:
    """Per sample (n, 3): sum of squared errors, sum of absolute errors, number of elements."""
    n = len(labels)
    e = np.asarray(predicted, np.float64).reshape(n, -1) - np.asarray(labels, np.float64).reshape(n, -1)
    return np.stack([(e * e).sum(axis=1), np.abs(e).sum(axis=1), np.full(n, float(e.shape[1]))], axis=1)


def rmse(sums: Float64) -> Float64:
    """Root mean square error, in the labels' unit, of sums or means (..., 3) of what `sum_errors` returns."""
    return np.asarray(np.sqrt(sums[..., 0] / sums[..., 2]))


def mae(sums: Float64) -> Float64:
    """Mean absolute error, in the labels' unit, of sums or means (..., 3) of what `sum_errors` returns."""
    return np.asarray(sums[..., 1] / sums[..., 2])


@dataclass(frozen=True)
class Spread:
    """Count, means and summed squared deviations of labels, one per output column; two of them add.

    Deviations from the mean are merged (Chan, Golub and LeVeque, 1979), since sum y^2 - (sum y)^2 / n loses
    every digit where the mean is large.
    """

    count: int
    mean: Float64
    deviations: Float64

    def __add__(self, other: Spread) -> Spread:
        count = self.count + other.count
        step = other.mean - self.mean
        return Spread(
            count,
            self.mean + step * (other.count / count),
            self.deviations + other.deviations + step**2 * (self.count * other.count / count),
        )


def compute_spread(labels: Array) -> Spread:
    """The spread of labels (n, ...), each position of a sample being a column."""
    y = np.asarray(labels, np.float64).reshape(len(labels), -1)
    mean = y.mean(axis=0)
    return Spread(len(y), mean, ((y - mean) ** 2).sum(axis=0))


def r2(squared_error: float, labels: Spread) -> float:
    """1 - SSE / SST over all columns (scikit-learn's `variance_weighted`); NaN where the labels never vary."""
    total = float(labels.deviations.sum())
    return 1 - squared_error / total if total > 0 else math.nan


def compute_box_iou(one: Array, other: Array) -> Float64:
    """Intersection over union of corresponding boxes (..., 4) = (x1, y1, x2, y2), x1 <= x2 and y1 <= y2.

    A box whose corners are swapped, or without area, overlaps nothing: 0.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = sum(np.clip(box[..., 2:] - box[..., :2], 0, None).prod(axis=-1) for box in (a, b))
    union = np.asarray(areas) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
