"""Recording arrays so that the result does not depend on how they were cut up: histograms and moments that add.

A histogram's bins are the upper 16 bits of the float32 pattern; a channel's moments are summed within a sample in
float64 in a fixed order, rounded once to a 2^-52 grid, and from there on added as integers.  Float sums are not
associative; these are, so any batch size, order or split gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Float32, Float64
from fcdeploy.records.calibration import Histogram, Moments

BINS = 1 << 16
UPPER = 1 if np.little_endian else 0  # which half of a float32 holds sign, exponent and 7 bits of mantissa
# Of a large sample a part is counted: POSITIONS elements at least, and CHANNEL_POSITIONS of every channel.  A bin's
# share p is then known to sqrt(p (1 - p) / (768 samples)) or better: at 100 samples 0.18 points for a bin that holds
# half of all, 0.011 points for one that holds a thousandth.  A channel's mean is known to a quarter of its spread for
# one sample, to a fortieth for 100.
POSITIONS, CHANNEL_POSITIONS = 768, 16
STEP = 16  # at most one element in so many is left
# along both sides of an image, and the positions it has to leave: with fewer than 7 by 7 behind a large step too many of
# them would lie on the border, which convolutions pad.  Odd for all but the smallest, because much in a picture repeats
# by powers of two: blocks of a compressed one, pixels of an enlarged one, what a ConvTranspose writes
IMAGE_STEPS = ((7, 48), (5, 48), (3, 16), (2, 16))
WAITING = 1 << 16  # elements of a tensor that wait to be counted together
WAITING_SUMS = 1 << 14  # moments of a tensor that wait to be added up together
PIECE = 1 << 18  # elements counted at once: eight times their bytes are needed
FRACTION_BITS = 52
LARGEST_MOMENT = 2.0**40  # leaves room for 2^22 samples of it in the whole part


@dataclass
class HistogramBuilder:
    """A histogram being built, and with `with_moments` the moments of every channel.

    Every bin is there, empty or not, so that adding a batch costs little more than counting it.  `floor` is a number
    that no element can be below: once one was there, the smallest is known.
    """

    floor: float = -np.inf
    with_moments: bool = False
    dense: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    low: float = np.inf
    high: float = -np.inf
    waiting: Float32 = field(default_factory=lambda: np.empty(WAITING, np.float32))
    filled: int = 0  # how many elements wait
    form: tuple[int, ...] = ()  # of what waits: channels, positions
    sums: list[Float64] = field(default_factory=list)
    total: Moments | None = None
    without_moments: bool = False  # there are no moments

    def clear(self) -> None:
        """Forget what was added, and keep the memory: another builder beside this one would be one more at the peak."""
        self.dense[self.dense != 0] = 0
        self.low, self.high, self.filled, self.form = np.inf, -np.inf, 0, ()
        self.sums, self.total, self.without_moments = [], None, False

    def add(self, x: Float32, axis: int = 1) -> None:
        """Count a batch, samples first, channels along `axis`: exact ends of all elements, bins of a `subsample`.

        A sample that holds a NaN or an infinity is counted whole.
        """
        if not x.size:
            return
        few = subsample(x, axis)
        high = float(x.max())
        low = self.floor if self.low == self.floor else float(x.min())
        if np.isfinite(low) and np.isfinite(high):
            self.add_subsample(low, high, few)
        else:
            self._add_nonfinite(x.reshape(len(x), -1), few)

    def add_subsample(self, low: float, high: float, few: Float32) -> None:
        """The same from the finite ends of a batch and its `subsample`."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.filled + few.size > WAITING or few.shape[1:] != self.form:
            self._add_waiting()
            self.form = few.shape[1:]
        if few.size > WAITING:
            self._record(few)
            return
        self.waiting[self.filled : self.filled + few.size].reshape(few.shape)[...] = few
        self.filled += few.size

    def _add_nonfinite(self, rows: Float32, few: Float32) -> None:
        """Count samples some of which hold NaN or infinity; those are counted whole."""
        finite = np.isfinite(rows)
        whole = finite.all(axis=1)
        self._count(rows[~whole])
        self._count(few[whole])
        self._add_moments(few)
        if finite.any():
            some = rows[finite]
            self.low, self.high = min(self.low, float(some.min())), max(self.high, float(some.max()))

    def _add_waiting(self) -> None:
        """Count the waiting elements together; adding up all bins costs as much as counting a few thousand elements."""
        if self.filled:
            self._record(self.waiting[: self.filled].reshape(-1, *self.form))
            self.filled = 0

    def _record(self, few: Float32) -> None:
        self._count(few)
        self._add_moments(few)

    def _count(self, x: Float32) -> None:
        codes = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint16)[UPPER::2]
        for begin in range(0, codes.size, PIECE):
            # bincount wants the machine's integers and would make them of 16 bits itself, with a pass to check them
            counts = np.bincount(codes[begin : begin + PIECE].astype(np.intp))
            self.dense[: len(counts)] += counts

    def _add_moments(self, few: Float32) -> None:
        """Add the moments of samples; a tensor whose channels vary in number has none."""
        if not self.with_moments or self.without_moments:
            return
        sums = compute_sample_moments(few)
        known = self.sums[0].shape[1] if self.sums else len(self.total.limbs) if self.total else sums.shape[1]
        if known != sums.shape[1]:
            self.drop_moments()
            return
        self.sums.append(sums)
        if sum(values.size for values in self.sums) > WAITING_SUMS:
            self._add_sums()

    def drop_moments(self) -> None:
        """Discard the moments and record none from here on."""
        self.without_moments, self.sums, self.total = True, [], None

    def _add_sums(self) -> None:
        if self.sums:
            part = sum_moments(np.concatenate(self.sums))
            self.total, self.sums = part if self.total is None else merge_moments(self.total, part), []

    def histogram(self) -> Histogram:
        """The histogram so far; its ends are 0 where nothing finite was seen."""
        self._add_waiting()
        codes = np.flatnonzero(self.dense != 0)  # of booleans: three times as fast
        # which of -0 and 0 is the smaller depends on their order: adding 0 makes both of them 0
        low, high = (self.low + 0.0, self.high + 0.0) if self.low <= self.high else (0.0, 0.0)
        return Histogram(codes.astype(np.uint16), self.dense[codes], low, high)

    def moments(self) -> Moments | None:
        """The moments so far; None without `with_moments`, or where the channels varied in number."""
        self._add_waiting()
        self._add_sums()
        return self.total


def subsample(x: Float32, axis: int) -> Float32:
    """The part of a batch that is counted, as a view (samples, channels, positions); channels lie along `axis`.

    Every channel at every k-th position; of an image (samples, channels, rows, columns), every k-th of both.
    """
    if x.ndim < 3:  # a number for each channel, or a single one
        return x.reshape(len(x), -1, 1)
    if axis != 1:
        x = np.moveaxis(x, axis, 1)
    samples, channels, *lengths = x.shape
    k = choose_step(channels, tuple(lengths))
    if len(lengths) == 2:
        return x[:, :, ::k, ::k]
    return x.reshape(samples, channels, math.prod(lengths))[:, :, ::k]


@lru_cache(4096)
def choose_step(channels: int, lengths: tuple[int, ...]) -> int:
    """The step between counted positions of a sample, chosen by its size alone.

    As large as leaves POSITIONS elements and CHANNEL_POSITIONS in a channel: one of IMAGE_STEPS along both sides of an
    image, and otherwise up to STEP without a factor in common with the number of positions, so that it goes through all
    columns.
    """
    wanted = max(CHANNEL_POSITIONS, -(-POSITIONS // max(channels, 1)))
    if len(lengths) == 2:
        left = {k: math.prod(-(-n // k) for n in lengths) for k, _ in IMAGE_STEPS}
        return next((k for k, least in IMAGE_STEPS if left[k] >= max(wanted, least)), 1)
    return choose_stride(math.prod(lengths), wanted)


def choose_stride(positions: int, wanted: int) -> int:
    """The largest step up to STEP that leaves `wanted` positions and has no factor in common with their number."""
    return next((k for k in range(min(positions // wanted, STEP), 1, -1) if math.gcd(k, positions) == 1), 1)


def make_histogram(x: Float32) -> Histogram:
    """The histogram of every element of `x`, with exact finite ends."""
    tally = HistogramBuilder()
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


def carry_over_tails(changed: Histogram, few: Histogram, many: Histogram) -> Histogram:
    """The histogram of a rescaled or shifted tensor over few elements, with the tails that it would have over many, estimated.

    `few` and `many` are of the tensor as it was.  What lies beyond the ends of `few` is moved along the line that takes these to
    the ends of `changed`, and is as frequent as it was.
    """
    known = few.total and few.low < few.high and not many.ends_only
    if not known or (few.low <= many.low and many.high <= few.high):
        return changed
    times = max(1, round(many.total / few.total))
    slope = (changed.high - changed.low) / (few.high - few.low)
    values = (many.codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    values = np.clip(np.where(np.isfinite(values), values, few.low), many.low, many.high)
    ends = np.array([few.low, few.high], np.float32).view(np.uint16)[UPPER::2]
    tail = ((values > few.high) | (values < few.low)) & ~np.isin(many.codes, ends)  # which may be of what few show
    moved = (changed.low + (values[tail] - few.low) * slope).astype(np.float32)
    dense = np.zeros(BINS, np.int64)
    dense[changed.codes] += changed.counts * times
    np.add.at(dense, moved.view(np.uint16)[UPPER::2], many.counts[tail])
    codes = np.flatnonzero(dense != 0)
    low, high = (changed.low + (end - few.low) * slope for end in (many.low, many.high))
    return Histogram(codes.astype(np.uint16), dense[codes], min(changed.low, low), max(changed.high, high))


def get_bin_edges(h: Histogram) -> tuple[Float64, Float64, NDArray[np.int64]]:
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


def compute_moments(x: Float32, axis: int) -> Moments:
    """Mean and mean square per channel of the counted part of each sample of `x`, summed over the samples."""
    return sum_moments(compute_sample_moments(subsample(x, axis)))


def compute_sample_moments(few: Float32) -> Float64:
    """Mean and mean square per sample and channel of what `subsample` returned: (samples, channels, 2)."""
    samples, channels = few.shape[:2]
    rows = few.reshape(samples * channels, math.prod(few.shape[2:]))
    rows = rows[:, :: choose_stride(rows.shape[1], CHANNEL_POSITIONS)]
    positions = rows.shape[1]
    values = np.zeros((len(rows), 2))
    block = max(1, (1 << 16) // max(positions, 1))  # rows widened at once, so that they stay in the cache
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        for at in range(0, len(rows), block):
            # order C: along other strides the sum of a row would be taken in another order
            wide = rows[at : at + block].astype(np.float64, order="C")
            np.einsum("rp->r", wide, out=values[at : at + block, 0])
            np.einsum("rp,rp->r", wide, wide, out=values[at : at + block, 1])
    values /= max(positions, 1)
    return values.reshape(samples, channels, 2)


def sum_moments(values: Float64) -> Moments:
    """Sum what `compute_sample_moments` returned, each number rounded to the grid first.

    A mean beyond 2^40 is cut there: such a tensor is not one that bytes can carry, and its ends say so exactly.
    """
    if not np.abs(values).max(initial=0.0) < LARGEST_MOMENT:  # or it is NaN
        values = np.clip(np.nan_to_num(values, nan=0.0), -LARGEST_MOMENT, LARGEST_MOMENT)
    limbs = np.empty((*values.shape, 2), np.int64)
    whole = np.floor(values)
    limbs[..., 0] = whole
    limbs[..., 1] = np.rint((values - whole) * 2.0**FRACTION_BITS)
    return Moments(_sum_with_carry(limbs), len(values))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """The moments of both sets of samples: associative and commutative, exactly."""
    return Moments(_sum_with_carry(np.stack([a.limbs, b.limbs])), a.samples + b.samples)


def _sum_with_carry(limbs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum over the first axis, with what exceeds a fraction moved to the whole part, 2^10 rows at a time."""
    total = np.zeros(limbs.shape[1:], np.int64)
    for at in range(0, len(limbs), 1 << 10):  # 2^10 fractions below 2^52, and one carried, stay below 2^63
        total += limbs[at : at + (1 << 10)].sum(axis=0)
        total[..., 0] += total[..., 1] >> FRACTION_BITS
        total[..., 1] &= (1 << FRACTION_BITS) - 1
    return total
