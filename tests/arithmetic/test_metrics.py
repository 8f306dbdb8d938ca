"""Metrics against scikit-learn, and against the same thing written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import (
    confusion_matrix,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
    top_k_accuracy_score,
)

from fcdeploy.arithmetic import metrics
from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity

numbers = st.floats(-1e3, 1e3, width=32)


def pair(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(array_shapes(max_dims=3, max_side=6))
    return draw(arrays(np.float32, shape, elements=numbers)), draw(arrays(np.float32, shape, elements=numbers))


pairs = st.composite(pair)()


@given(pairs)
def test_sqnr_and_cosine_are_their_definitions(fq) -> None:
    f, q = fq
    found = measure_fidelity(f, q)
    signal = math.fsum(float(a) ** 2 for a in f.flat)
    noise = math.fsum((float(a) - float(b)) ** 2 for a, b in zip(f.flat, q.flat, strict=True))
    if noise == 0:
        assert found.sqnr_db == math.inf
        assert found.cosine == 1.0
    elif signal == 0:
        assert found.sqnr_db == -math.inf
        assert found.cosine == 0.0
    else:
        assert found.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
        product = math.fsum(float(a) * float(b) for a, b in zip(f.flat, q.flat, strict=True))
        length = math.sqrt(signal) * math.sqrt(math.fsum(float(b) ** 2 for b in q.flat))
        assert found.cosine == pytest.approx(product / length if length else 0.0, abs=1e-9)
    assert found.largest == max(abs(float(a) - float(b)) for a, b in zip(f.flat, q.flat, strict=True))


@given(st.integers(1, 40), st.sampled_from([1, 2, 7, 129, 1000]), st.data())
def test_fidelity_has_the_same_bits_however_samples_are_cut_into_batches(count, size, data) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    f, q = random.normal(size=(2, count, size)).astype(np.float32)
    found = Fidelity()
    for i in range(count):
        found = found + measure_fidelity(f[i], q[i])
    cut = data.draw(st.integers(0, count))
    rows = [metrics.compute_fidelity_rows(f[part], q[part]) for part in (slice(cut), slice(cut, None))]
    assert metrics.add_rows(metrics.add_rows(Fidelity(), rows[0]), rows[1]) == found


@given(pairs, pairs)
def test_fidelity_of_two_halves_adds(one, other) -> None:
    both = measure_fidelity(*(np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(one, other, strict=True)))
    added = measure_fidelity(*one) + measure_fidelity(*other)
    for name in ("reference", "approximation", "noise", "largest", "count"):
        assert getattr(added, name) == pytest.approx(getattr(both, name), rel=1e-12)
    assert added.product == pytest.approx(both.product, rel=1e-9, abs=1e-6)
    assert Fidelity() + added == added


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_outputs_that_are_no_numbers_are_as_far_off_as_can_be(wrong: float) -> None:
    found = measure_fidelity(np.ones(3), np.array([1, 1, wrong]))
    assert (found.sqnr_db, found.cosine) == (-math.inf, 0.0)
    assert not metrics.is_in_top_k(np.array([[wrong and np.nan, 1.0, 2.0]]), np.array([0]), 3).any()


def test_sums_are_float64() -> None:
    f = np.full(1_000_000, 1e-4, np.float32)
    f[0] = 1e3  # in float32 the rest would vanish beside its square
    assert measure_fidelity(f, f * 0).noise == pytest.approx(float(f[0]) ** 2 + 999_999 * float(f[1]) ** 2, rel=1e-11)


def test_ten_percent_of_noise_is_twenty_decibels() -> None:
    assert measure_fidelity(np.array([10.0, -10.0]), np.array([11.0, -9.0])).sqnr_db == pytest.approx(20.0)


@given(
    arrays(np.float32, (7, 5), elements=st.integers(0, 3).map(float)),  # many ties
    arrays(np.int64, 7, elements=st.integers(0, 4)),
    st.integers(1, 5),
)
def test_top_k_ranks_ties_by_index(scores, labels, k) -> None:
    expected = [
        label in sorted(range(5), key=lambda i, row=row: (-row[i], i))[:k]
        for row, label in zip(scores, labels, strict=True)
    ]
    assert metrics.is_in_top_k(scores, labels, k).tolist() == expected
    assert metrics.is_in_top_k(scores, labels, 1).tolist() == (scores.argmax(axis=1) == labels).tolist()


def test_top_k_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(300, 9)), random.integers(0, 9, 300)
    for k in (1, 2, 5):
        assert metrics.is_in_top_k(scores, labels, k).mean() == pytest.approx(
            top_k_accuracy_score(labels, scores, k=k, labels=range(9))
        )


@given(arrays(np.int64, 20, elements=st.integers(0, 3)), arrays(np.int64, 20, elements=st.integers(0, 3)))
def test_confusion_is_scikit_learns_and_adds(labels, predicted) -> None:
    found = metrics.count_confusion(labels, predicted, 4)
    assert found.tolist() == confusion_matrix(labels, predicted, labels=range(4)).tolist()
    parts = metrics.count_confusion(labels[:7], predicted[:7], 4) + metrics.count_confusion(
        labels[7:], predicted[7:], 4
    )
    assert parts.tolist() == found.tolist()


@given(arrays(np.int64, (4, 6), elements=st.integers(-1, 3)), arrays(np.int64, (4, 6), elements=st.integers(0, 3)))
def test_token_hits_leave_padding_out(labels, predicted) -> None:
    expected = [
        [sum(p == y for p, y in zip(ps, ys, strict=True) if y != -1), sum(y != -1 for y in ys)]
        for ps, ys in zip(predicted, labels, strict=True)
    ]
    assert metrics.count_token_hits(predicted, labels, ignore=-1).tolist() == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(-1e6, 1e6))
@settings(max_examples=50)
def test_regression_is_scikit_learns_however_it_is_batched(seed, columns, offset) -> None:
    random = np.random.default_rng(seed)
    y = offset + random.normal(size=(30, columns))
    p = y + 0.3 * random.normal(size=(30, columns))
    parts = slice(0, 4), slice(4, 5), slice(5, 30)
    sums = sum(metrics.sum_errors(p[part], y[part]).sum(axis=0) for part in parts)
    spread = (
        metrics.compute_spread(y[parts[0]]) + metrics.compute_spread(y[parts[1]]) + metrics.compute_spread(y[parts[2]])
    )
    assert float(metrics.rmse(sums)) == pytest.approx(root_mean_squared_error(y.ravel(), p.ravel()), rel=1e-9)
    assert float(metrics.mae(sums)) == pytest.approx(mean_absolute_error(y, p), rel=1e-9)
    expected = r2_score(y, p, multioutput="variance_weighted")
    assert metrics.r2(float(sums[0]), spread) == pytest.approx(expected, rel=1e-6)


def test_r2_of_constant_labels_is_not_a_number() -> None:
    assert math.isnan(metrics.r2(1.0, metrics.compute_spread(np.ones(5))))


corner = st.integers(0, 6)


@given(arrays(np.float32, (3, 4), elements=corner.map(float)), arrays(np.float32, (3, 4), elements=corner.map(float)))
def test_iou_of_whole_boxes_counts_cells(one, other) -> None:
    def cells(box):
        x1, y1, x2, y2 = (int(v) for v in box)
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    for a, b, found in zip(one, other, metrics.compute_box_iou(one, other), strict=True):
        union = cells(a) | cells(b)
        assert found == pytest.approx(len(cells(a) & cells(b)) / len(union) if union else 0.0)


def test_iou_of_a_quarter() -> None:
    assert metrics.compute_box_iou(np.array([0, 0, 2, 2]), np.array([1, 1, 3, 3])) == pytest.approx(1 / 7)
