"""Histograms and moments: the same bits however the elements are cut up, and what counting one by one finds."""

from __future__ import annotations

import functools
import itertools
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fcdeploy.arithmetic.histogram import (
    CHANNEL_POSITIONS,
    LARGEST_MOMENT,
    POSITIONS,
    HistogramBuilder,
    carry_over_tails,
    compute_moments,
    get_bin_edges,
    make_histogram,
    merge_histograms,
    merge_moments,
)
from fcdeploy.records.calibration import Histogram, Moments

any_float = st.floats(width=32)  # NaN, infinities, -0.0 and subnormals among them
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays(np.float32, st.integers(0, 30), elements=any_float)
EMPTY = make_histogram(np.zeros(0, np.float32))


def same(a: Histogram, b: Histogram) -> bool:
    """Equal to the bit, the sign of a zero included."""
    ends = [np.array([h.low, h.high], np.float64).tobytes() for h in (a, b)]
    return a.codes.tobytes() == b.codes.tobytes() and a.counts.tobytes() == b.counts.tobytes() and ends[0] == ends[1]


def same_moments(a: Moments, b: Moments) -> bool:
    return a.samples == b.samples and a.limbs.tobytes() == b.limbs.tobytes()


def splits(x: np.ndarray, draw: st.DataObject) -> list[np.ndarray]:
    """The rows of x in any order, cut anywhere."""
    order = draw.draw(st.permutations(range(len(x))))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    return np.split(x[list(order)], cuts)


@given(vectors)
def test_a_bin_is_the_upper_half_of_the_pattern(x) -> None:
    expected = Counter(int(bits) >> 16 for bits in x.view(np.uint32))
    h = make_histogram(x)
    assert dict(zip(h.codes.tolist(), h.counts.tolist(), strict=True)) == expected
    assert h.codes.tolist() == sorted(expected)
    assert h.total == len(x)
    assert h.nonfinite == sum(not np.isfinite(v) for v in x)
    some = [float(v) for v in x if np.isfinite(v)]
    assert (h.low, h.high) == ((min(some), max(some)) if some else (0.0, 0.0))


@given(vectors, vectors, vectors)
def test_merging_is_associative_and_commutative_and_has_a_zero(x, y, z) -> None:
    a, b, c = make_histogram(x), make_histogram(y), make_histogram(z)
    assert same(merge_histograms(a, b), merge_histograms(b, a))
    assert same(merge_histograms(merge_histograms(a, b), c), merge_histograms(a, merge_histograms(b, c)))
    assert same(merge_histograms(a, EMPTY), a)
    assert same(merge_histograms(merge_histograms(a, b), c), make_histogram(np.concatenate([x, y, z])))


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(0, 7)), elements=any_float), st.data())
def test_batches_in_any_order_are_one_batch(x, data) -> None:
    whole = HistogramBuilder()
    whole.add(x)
    parts = splits(x, data)
    tally, merged = HistogramBuilder(), EMPTY
    for part in parts:
        tally.add(part)
        own = HistogramBuilder()
        own.add(part)
        merged = merge_histograms(merged, own.histogram())
    assert same(tally.histogram(), whole.histogram())
    assert same(merged, whole.histogram())


def test_the_sign_of_zero_does_not_depend_on_the_order() -> None:
    x = np.array([0.0, -0.0, 0.0, -0.0], np.float32)
    assert same(make_histogram(x), make_histogram(x[::-1]))
    assert make_histogram(x).codes.tolist() == [0, 0x8000]


def test_infinities_and_nan_are_counted_and_leave_the_ends_alone() -> None:
    x = np.array([[1.0, np.inf, -2.0], [np.nan, -np.inf, 3.0], [0.5, 0.5, 0.5]], np.float32)
    h = make_histogram(x)
    assert (h.low, h.high, h.nonfinite, h.total) == (-2.0, 3.0, 3, 9)
    h = make_histogram(np.array([np.nan, np.inf], np.float32))
    assert (h.low, h.high, h.nonfinite, h.total) == (0.0, 0.0, 2, 2)
    assert all(len(part) == 0 for part in get_bin_edges(h))


def test_subnormals_are_not_zero() -> None:
    tiny = np.array([1e-45, -1e-45, 1e-39, -1e-39], np.float32)
    h = make_histogram(tiny)
    assert (h.low, h.high) == (float(tiny[3]), float(tiny[2]))
    assert h.codes.tolist() == sorted(int(bits) >> 16 for bits in tiny.view(np.uint32))


def test_other_layouts_count_the_same() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    tally, expected = HistogramBuilder(), HistogramBuilder()
    tally.add(np.asfortranarray(x))
    expected.add(x)
    assert same(tally.histogram(), expected.histogram())


SHAPES = [  # of a sample, channels first, and every how-manieth position is counted
    ((100_000,), 1), ((7, 9), 1), ((1, POSITIONS - 1), 1), ((1, 3 * POSITIONS), 1), ((1, 3 * POSITIONS + 1), 3),
    ((512, 40), 1), ((512, 81), 5), ((4, 100_000), 13), ((64, 4, 6, 9), 13),
    ((1, 8, 8), 1), ((16, 32, 32), 5), ((32, 16, 16), 3), ((64, 7, 7), 2), ((64, 56, 56), 7), ((256, 14, 14), 3),
    ((3, 224, 224), 7), ((64, 49, 1), 3), ((64, 1, 200), 3),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "k"), SHAPES)
@pytest.mark.parametrize("last", [False, True])
def test_which_elements_count_depends_on_their_position_in_the_sample(shape, k, last) -> None:
    x = np.random.default_rng(k).normal(size=(5, *shape)).astype(np.float32)
    x[(2, *(n - 1 for n in shape))], x[(3, 0, *(n // 2 for n in shape[1:]))] = 1e3, -1e3
    few = x[:, :, ::k, ::k] if len(shape) == 3 else x.reshape(5, shape[0], -1)[:, :, ::k]
    assert few[0].size >= min(x[0].size, POSITIONS)
    assert few[0, 0].size >= min(x[0, 0].size, CHANNEL_POSITIONS)
    expected = make_histogram(few)
    axis = len(shape) if last else 1
    x = np.moveaxis(x, 1, axis)
    whole = HistogramBuilder()
    whole.add(x, axis)
    found = whole.histogram()
    assert found.codes.tolist() == expected.codes.tolist()
    assert found.counts.tolist() == expected.counts.tolist()
    assert (found.low, found.high) == (-1e3, 1e3)  # ends are exact even where the step passes them by
    assert same(functools.reduce(merge_histograms, [single(row, axis) for row in x[::-1]]), found)


def single(row: np.ndarray, axis: int = 1) -> Histogram:
    tally = HistogramBuilder()
    tally.add(row[None], axis)
    return tally.histogram()


def test_a_broken_sample_is_counted_whole_and_the_others_as_ever() -> None:
    x = np.random.default_rng(0).normal(size=(4, 1, 5 * POSITIONS)).astype(np.float32)
    x[1, 0, 2] = np.nan  # no position that is counted
    tally = HistogramBuilder()
    tally.add(x)
    found = tally.histogram()
    assert found.nonfinite == 1
    assert found.total == 5 * POSITIONS + 3 * single(x[0]).total
    assert same(functools.reduce(merge_histograms, [single(row) for row in x]), found)
    assert found.high == float(np.nanmax(x))


@given(arrays(np.float32, st.integers(1, 30), elements=any_float))
def test_edges_hold_the_elements_of_their_bin(x) -> None:
    h = make_histogram(x)
    lower, upper, counts = get_bin_edges(h)
    some = np.sort(x[np.isfinite(x)]).astype(np.float64)
    assert counts.sum() == len(some)
    assert (lower <= upper).all()
    assert (upper[:-1] <= lower[1:]).all()  # ascending and apart
    assert all(h.low <= low and high <= h.high for low, high in zip(lower, upper, strict=True))
    at = 0
    for low, high, count in zip(lower, upper, counts, strict=True):  # the elements in order fall into the bins in order
        assert (low <= some[at : at + count]).all()
        assert (some[at : at + count] <= high).all()
        at += count


def test_bins_are_narrow() -> None:
    x = np.abs(np.random.default_rng(0).normal(size=1000)).astype(np.float32)
    lower, upper, _ = get_bin_edges(make_histogram(x))
    assert ((upper - lower) <= lower / 128).all()


def parts_of(limbs: np.ndarray) -> list[Fraction]:
    return [int(whole) + Fraction(int(part), 2**52) for whole, part in limbs.reshape(-1, 2).tolist()]


small = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-1e4, 1e4, width=32))


@given(small, st.data())
def test_moments_are_the_exact_means(x, data) -> None:
    axis = data.draw(st.integers(1, x.ndim - 1))
    found = compute_moments(x, axis)
    assert found.samples == len(x)
    sums = parts_of(found.limbs)
    for channel in range(x.shape[axis]):
        rows = [[Fraction(float(v)) for v in row.flat] for row in np.take(x, channel, axis=axis)]
        first = sum(sum(row) / len(row) for row in rows)
        second = sum(sum(v * v for v in row) / len(row) for row in rows)
        sizes = sum(sum(abs(v) for v in row) / len(row) for row in rows), second
        for exact, size, given_sum in zip((first, second), sizes, sums[2 * channel :], strict=False):
            # a grid of 2^-52 per sample, and the rounding of at most 125 additions in float64
            assert abs(given_sum - exact) <= Fraction(len(x), 2**52) + size * Fraction(125, 2**52)


def test_moments_are_numpys() -> None:
    x = np.random.default_rng(0).normal(0.3, 2.0, size=(17, 6, 5, 5)).astype(np.float32)
    wide = x.astype(np.float64)
    for axis, others in ((1, (0, 2, 3)), (3, (0, 1, 2))):
        found = compute_moments(x, axis)
        assert found.mean() == pytest.approx(wide.mean(axis=others), rel=1e-12, abs=1e-13)
        assert found.mean_square() == pytest.approx((wide**2).mean(axis=others), rel=1e-12)


def merged(parts: list[np.ndarray], axis: int) -> Moments:
    return functools.reduce(merge_moments, [compute_moments(part, axis) for part in parts if len(part)])


@given(small, st.data())
def test_moments_of_any_split_have_the_same_bits(x, data) -> None:
    axis = data.draw(st.integers(1, x.ndim - 1))
    assert same_moments(merged(splits(x, data), axis), compute_moments(x, axis))


@pytest.mark.parametrize(("shape", "axis"), [
    ((6, 257, 64), 2), ((6, 64, 257), 1), ((6, 3, 300, 301), 1), ((6, 19, 23, 40), 3), ((6, 1, 70_000), 1),
    ((6, 5000), 1),
])  # fmt: skip
def test_large_moments_of_any_split_have_the_same_bits(shape, axis) -> None:
    """Sums of many numbers round differently in another order; channels last was one where a batch of one did."""
    x = (np.random.default_rng(1).normal(size=shape) * np.float32(1e3)).astype(np.float32)
    whole = compute_moments(x, axis)
    assert same_moments(merged([x[i : i + 1] for i in range(6)], axis), whole)
    assert same_moments(merged([x[4:], x[:1], x[1:4]], axis), whole)
    assert same_moments(compute_moments(np.asfortranarray(x), axis), whole)


def test_moments_merge_in_any_order() -> None:
    x = np.random.default_rng(2).normal(size=(5, 3, 11)).astype(np.float32)
    rows = [compute_moments(x[i : i + 1], 1) for i in range(5)]
    for order in itertools.permutations(rows, 5):
        assert same_moments(functools.reduce(merge_moments, order), compute_moments(x, 1))
    left, right = functools.reduce(merge_moments, rows[:2]), functools.reduce(merge_moments, rows[2:])
    assert same_moments(merge_moments(left, right), compute_moments(x, 1))


def test_as_many_samples_as_have_room_do_not_overflow() -> None:
    """2^22 samples, each at what a moment is cut to, or just below: added in Python's integers beside it."""
    for value in (LARGEST_MOMENT, 2.0**40 - 2.0**-12, -(2.0**40)):
        exact = Fraction(value)
        total = Moments(compute_moments(np.float32([[0.0]]), 1).limbs, 1)
        total.limbs[0, 0] = [int(np.floor(value)), int((exact - int(np.floor(value))) * 2**52)]
        for _ in range(22):
            total = merge_moments(total, total)
        assert total.samples == 1 << 22
        assert parts_of(total.limbs)[0] == exact * 2**22
        assert total.mean()[0] == value


def test_more_rows_than_fractions_have_room_for() -> None:
    """2^10 fractions fit 63 bits; 5,000 samples of almost 1 carry in between."""
    x = np.full((5000, 2), np.float32(1) - np.float32(2**-24), np.float32)
    assert parts_of(compute_moments(x, 1).limbs)[0] == 5000 * Fraction(float(x[0, 0]))
    shuffled = [x[:1], x[1:1025], x[1025:]]
    random.Random(0).shuffle(shuffled)
    assert same_moments(merged(shuffled, 1), compute_moments(x, 1))


@pytest.mark.parametrize("axis", [1, 2])
def test_a_tally_has_the_moments_of_its_batches(axis) -> None:
    x = np.random.default_rng(3).normal(size=(40, 6, 8)).astype(np.float32)
    tally = HistogramBuilder(with_moments=True)
    for part in np.split(x, [1, 8, 30]):
        tally.add(part, axis)
    found = tally.moments()
    assert found is not None
    assert same_moments(found, compute_moments(x, axis))
    tally.add(x[:, :3], axis)
    assert (tally.moments() is None) == (axis == 1)  # the channels vary in number


@given(arrays(np.float32, (4, 2, 3), elements=any_float), st.data())
@settings(max_examples=50)
def test_moments_of_broken_and_huge_numbers_stay_in_bounds(x, data) -> None:
    found = compute_moments(x, 1)
    assert np.abs(found.limbs[..., 0]).max() <= 4 * 2**40
    assert ((found.limbs[..., 1] >= 0) & (found.limbs[..., 1] < 2**52)).all()
    assert same_moments(merged(splits(x, data), 1), found)


def test_infinities_of_both_signs_have_no_mean() -> None:
    assert compute_moments(np.array([[[np.inf, -np.inf]]], np.float32), 1).mean().tolist() == [0.0]
    assert compute_moments(np.array([[[np.inf, 1.0]]], np.float32), 1).mean().tolist() == [LARGEST_MOMENT]


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 0, 3)])
def test_moments_of_nothing(shape) -> None:
    found = compute_moments(np.zeros(shape, np.float32), 1)
    assert found.limbs.shape == (shape[1], 2, 2)
    assert not found.limbs.any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 1.0, 3.7]), st.sampled_from([0.0, -3.0, 5.0]))
def test_tails_carried_over_are_those_of_the_whole_where_all_channels_are_changed_alike(
    seed: int, factor: float, shift: float
) -> None:
    random = np.random.default_rng(seed)
    whole = (random.standard_t(2, size=4000) - random.uniform(-4, 4)).astype(np.float32)
    few = whole[:400]
    rescaled = make_histogram((few * np.float32(factor) + np.float32(shift)).astype(np.float32))
    made = carry_over_tails(rescaled, make_histogram(few), make_histogram(whole))
    expected = (float(whole.min()) * factor + shift, float(whole.max()) * factor + shift)
    np.testing.assert_allclose((made.low, made.high), expected, rtol=1e-4, atol=1e-4)
    beyond = whole[(whole > few.max()) | (whole < few.min())]
    assume(len(beyond))
    ends = np.array([few.min(), few.max()]).view(np.uint32) >> 16
    in_their_bins = np.isin(beyond.view(np.uint32) >> 16, ends)  # of what a bin holds one cannot tell which are beyond
    assert made.total == 10 * rescaled.total + int((~in_their_bins).sum())


def test_nothing_is_carried_over_of_what_few_samples_show() -> None:
    x = np.linspace(-1, 1, 100, dtype=np.float32)
    rescaled = make_histogram(x * 2)
    assert carry_over_tails(rescaled, make_histogram(x), make_histogram(np.tile(x, 5))) is rescaled
    assert carry_over_tails(rescaled, make_histogram(np.ones(9, np.float32)), make_histogram(x * 3)) is rescaled


def test_a_tail_on_the_side_that_few_samples_never_had_is_carried_over() -> None:
    few, many = make_histogram(np.array([0, 3.9], np.float32)), make_histogram(np.array([-5, 3.9], np.float32))
    made = carry_over_tails(make_histogram(np.array([0, 1.95], np.float32)), few, many)
    np.testing.assert_allclose((made.low, made.high), (-2.5, 1.95))
