"""Recording arrays so that the result does not depend on how they were cut up: histograms and moments that add.

A histogram's bins are the upper 16 bits of the float32 pattern; a channel's moments are summed within a sample in
float64 in a fixed order, rounded once to a 2^-52 grid, and from there on added as integers.  Float sums are not
associative; these are, so any batch size, order or split gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fcdeploy.records.calibration import Histogram, Moments

BINS = 1 << 16
UPPER = 1 if np.little_endian else 0  # which half of a float32 holds sign, exponent and 7 bits of mantissa
# Of a large sample one element in about STEP is counted, but POSITIONS at least. A bin's share p is then known to
# sqrt(p (1 - p) / (1024 samples)) or better: at 100 samples 0.16 points for a bin that holds half of all, 0.01 points
# for one that holds a thousandth.
POSITIONS, STEP = 1024, 61
# Positions of a channel in a sample that its moments are taken over at least: the mean is then known to a quarter of
# the channel's spread for one sample, to a fortieth for 100.
CHANNEL_POSITIONS = 16
WAITING = 1 << 16  # elements of a tensor that wait to be counted together
PIECE = 1 << 18  # elements counted at once: eight times their bytes are needed
FRACTION_BITS = 52
LARGEST_MOMENT = 2.0**40  # leaves room for 2^22 samples of it in the whole part


@dataclass
class Tally:
    """A histogram under way.

    Every bin is there, empty or not, so that adding a batch costs little more than counting it.  `floor` is a number
    that no element can be below: once one was there, the smallest is known.
    """

    floor: float = -np.inf
    dense: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    low: float = np.inf
    high: float = -np.inf
    waiting: list[NDArray[np.uint16]] = field(default_factory=list)
    waiting_size: int = 0

    def add(self, x: NDArray[np.float32]) -> None:
        """Count a batch, samples first: exact ends of all elements, bins of every k-th element of each sample.

        k is at most STEP and leaves at least POSITIONS elements of a sample; smaller samples are counted whole, and so
        is one that holds a NaN or an infinity.  It depends on the size of a sample alone, never on the batch.
        """
        if not x.size:
            return
        rows = np.ascontiguousarray(x, dtype=np.float32).reshape(len(x), -1)
        high = float(rows.max())
        low = self.floor if self.low == self.floor else float(rows.min())
        if not (np.isfinite(low) and np.isfinite(high)):
            low, high, rows = self._add_broken(rows)
        self._count(rows, _stride(rows.shape[1], POSITIONS, STEP))
        self.low, self.high = min(self.low, low), max(self.high, high)

    def _add_broken(self, rows: NDArray[np.float32]) -> tuple[float, float, NDArray[np.float32]]:
        """Count whole the samples that are not all finite; return the finite ends of all, and the other samples."""
        finite = np.isfinite(rows)
        whole = finite.all(axis=1)
        self._count(rows[~whole], 1)
        some = rows[finite]
        return (float(some.min()), float(some.max()), rows[whole]) if some.size else (np.inf, -np.inf, rows[whole])

    def _count(self, rows: NDArray[np.float32], stride: int) -> None:
        upper = rows.view(np.uint16)[:, UPPER::2]
        self.waiting.append(upper[:, ::stride].flatten())  # never a view, which would keep the whole batch alive
        self.waiting_size += self.waiting[-1].size
        if self.waiting_size > WAITING:
            self._add_waiting()

    def _add_waiting(self) -> None:
        """Count what waits; adding up all the bins costs as much as counting some ten thousand elements."""
        codes = np.concatenate(self.waiting) if self.waiting else np.zeros(0, np.uint16)
        for begin in range(0, codes.size, PIECE):
            # bincount wants the machine's integers and would make them of 16 bits itself, with a pass to check them
            counts = np.bincount(codes[begin : begin + PIECE].astype(np.intp))
            self.dense[: len(counts)] += counts
        self.waiting, self.waiting_size = [], 0

    def histogram(self) -> Histogram:
        """What was counted so far; ends are 0 where nothing finite was."""
        self._add_waiting()
        codes = np.flatnonzero(self.dense != 0)  # of booleans: three times as fast
        # which of -0 and 0 is the smaller depends on their order: adding 0 makes both of them 0
        low, high = (self.low + 0.0, self.high + 0.0) if self.low <= self.high else (0.0, 0.0)
        return Histogram(codes.astype(np.uint16), self.dense[codes], low, high)


def histogram(x: NDArray[np.float32]) -> Histogram:
    """The histogram of every element of `x`, with exact finite ends."""
    tally = Tally()
    flat = x.reshape(-1, 1)
    for at in range(0, max(len(flat), 1), PIECE):
        tally.add(flat[at : at + PIECE])
    return tally.histogram()


def merge_histograms(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of both sets of elements: associative and commutative, exactly."""
    finite = [h for h in (a, b) if h.total > h.nonfinite]
    dense = np.zeros(BINS, np.int64)
    dense[a.codes] += a.counts
    dense[b.codes] += b.counts
    codes = np.flatnonzero(dense != 0)
    low = min((h.low for h in finite), default=0.0)
    high = max((h.high for h in finite), default=0.0)
    return Histogram(codes.astype(np.uint16), dense[codes], low, high)


def bin_edges(h: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Lower edges, upper edges and counts of the finite bins, ascending in value and cut at the exact ends."""
    finite = (h.codes & 0x7F80) != 0x7F80
    codes, counts = h.codes[finite], h.counts[finite]
    near = (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    far = ((codes.astype(np.uint32) + 1) << 16).view(np.float32).astype(np.float64)
    far = np.where(np.isfinite(far), far, np.copysign(float(np.finfo(np.float32).max), near))
    negative = codes >= 0x8000
    lower, upper = np.where(negative, far, near), np.where(negative, near, far)
    order = np.lexsort((upper, lower))
    return np.clip(lower[order], h.low, h.high), np.clip(upper[order], h.low, h.high), counts[order]


def moments(x: NDArray[np.float32], axis: int) -> Moments:
    """Mean and mean square per channel of each sample of `x` (samples first), summed over the samples."""
    return sum_moments(sample_moments(x, axis))


def sample_moments(x: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Mean and mean square per sample and channel of `x` (samples first): (samples, channels, 2).

    Of a channel with many positions every k-th is taken, at least CHANNEL_POSITIONS of a sample, by position alone.
    """
    samples, channels = x.shape[0], x.shape[axis]
    if axis != 1:
        x = np.moveaxis(x, axis, 1)
    rows = x.reshape(samples * channels, math.prod(x.shape[2:]))
    rows = rows[:, :: _stride(rows.shape[1], CHANNEL_POSITIONS)]
    positions = rows.shape[1]
    values = np.zeros((len(rows), 2))
    step = max(1, (1 << 16) // max(positions, 1))  # rows widened at once, so that they stay in the cache
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        for at in range(0, len(rows), step):
            # order C: of a single sample whose channels come last `rows` is a view, and along its strides the sum
            # would be taken in another order than in a larger batch
            block = rows[at : at + step].astype(np.float64, order="C")
            np.einsum("rp->r", block, out=values[at : at + step, 0])
            np.einsum("rp,rp->r", block, block, out=values[at : at + step, 1])
    values /= max(positions, 1)
    return values.reshape(samples, channels, 2)


def sum_moments(values: NDArray[np.float64]) -> Moments:
    """Sum what `sample_moments` gave, each number rounded to the grid first.

    A mean beyond 2^40 is cut there: such a tensor is not one that bytes can carry, and its ends say so exactly.
    """
    if not np.abs(values).max(initial=0.0) < LARGEST_MOMENT:  # or it is NaN
        values = np.clip(np.nan_to_num(values, nan=0.0), -LARGEST_MOMENT, LARGEST_MOMENT)
    limbs = np.empty((*values.shape, 2), np.int64)
    whole = np.floor(values)
    limbs[..., 0] = whole
    limbs[..., 1] = np.rint((values - whole) * 2.0**FRACTION_BITS)
    return Moments(_carried(limbs), len(values))


def _stride(positions: int, wanted: int, most: int | None = None) -> int:
    """The largest step, `most` at most, that leaves `wanted` positions and has no factor in common with their number.

    Without a common factor it goes through every column of an image, and every channel where channels come last.
    """
    step = min(positions // wanted, most or positions)
    return next((k for k in range(step, 1, -1) if math.gcd(k, positions) == 1), 1)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """The moments of both sets of samples: associative and commutative, exactly."""
    return Moments(_carried(np.stack([a.limbs, b.limbs])), a.samples + b.samples)


def _carried(limbs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum over the first axis, with what exceeds a fraction moved to the whole part, 2^10 rows at a time."""
    total = np.zeros(limbs.shape[1:], np.int64)
    for at in range(0, len(limbs), 1 << 10):  # 2^10 fractions below 2^52, and one carried, stay below 2^63
        total += limbs[at : at + (1 << 10)].sum(axis=0)
        total[..., 0] += total[..., 1] >> FRACTION_BITS
        total[..., 1] &= (1 << FRACTION_BITS) - 1
    return total
