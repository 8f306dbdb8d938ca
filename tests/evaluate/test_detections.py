"""Boxes that a model found are matched, whatever their order and number: against a matching that tries everything."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdeploy.arithmetic.set_metrics import count_equal_rows, edit_distance, find_nearest, match_boxes
from fcdeploy.evaluate.boxes.compare import compare_boxes, measure_boxes
from fcdeploy.evaluate.boxes.find_detections import find_detections
from fcdeploy.evaluate.boxes.read import read_boxes

Array = np.ndarray[Any, Any]


def boxes(random: np.random.Generator, count: int) -> Array:
    corners = random.integers(0, 6, (count, 2)).astype(np.float64)
    return np.concatenate([corners, corners + random.integers(2, 6, (count, 2))], axis=1)


def iou(a: Array, b: Array) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - shared)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(0, 4))
def test_matches_are_pairs_of_a_class_that_overlap_and_none_is_left(seed: int, n: int, m: int) -> None:
    random = np.random.default_rng(seed)
    one, other, kinds, other_kinds = (
        boxes(random, n),
        boxes(random, m),
        random.integers(0, 2, n),
        random.integers(0, 2, m),
    )
    left, right = match_boxes(one, other, kinds, other_kinds)
    assert len(set(left)) == len(set(right)) == len(left)
    fits = {(i, j) for i in range(n) for j in range(m) if kinds[i] == other_kinds[j] and iou(one[i], other[j]) >= 0.5}
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    assert pairs <= fits
    assert all(i in left or j in right for i, j in fits)  # no two that fit are both left over
    most = max(
        (
            len([1 for pair in zip(range(n), order, strict=False) if pair in fits])
            for order in permutations(range(max(n, m)))
        ),
        default=0,
    )
    assert len(left) * 2 >= most  # a greedy matching has at least half of the largest
    assert set(match_boxes(other, one, other_kinds, kinds)[1].tolist()) == set(left.tolist()) or len(fits) > len(pairs)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=5), st.lists(st.integers(0, 3), max_size=5))
def test_edit_distance(one: list[int], other: list[int]) -> None:
    def distance(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(one, other) == distance(one, other)


def test_rows_and_neighbours() -> None:
    assert count_equal_rows(np.array([[1, 2], [3, 4], [1, 2]]), np.array([[3, 4], [1, 2], [5, 6]])) == (4, 6)
    x = np.random.default_rng(0).normal(size=(20, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = [max((j for j in range(20) if j != i), key=lambda j, i=i: unit[i] @ unit[j]) for i in range(20)]
    assert find_nearest(x).tolist() == near


def found_by(layout: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """Three boxes of two classes as detectors write them; by the other model in another order, one gone and one shifted."""
    corners = np.float32([[0, 0, 10, 10], [20, 20, 30, 34], [50, 0, 60, 9]])
    scores, classes = np.float32([0.9, 0.8, 0.7]), np.array([2, 0, 2])
    answers = []
    for order, move in (([0, 1, 2], 0), ([1, 0], 1)):
        b, s, c = corners[order] + np.float32(move), scores[order], classes[order]
        if layout == "rows":
            answers.append({"boxes": b, "scores": s, "labels": c})
        elif layout == "padded":
            gap = 5 - len(order)
            answers.append({
                "boxes": np.pad(b, ((0, gap), (0, 0)))[None], "classes": np.pad(c, (0, gap)).astype(np.float32)[None],
                "scores": np.pad(s, (0, gap))[None],
            })  # fmt: skip
        elif layout == "six":
            answers.append({"rows": np.concatenate([b, s[:, None], c[:, None]], axis=1).astype(np.float32)[None]})
        else:
            at = np.zeros((len(order), 1))
            answers.append({"rows": np.concatenate([at, b, c[:, None], s[:, None]], axis=1).astype(np.float32)})
    return answers[0], answers[1]


@pytest.mark.parametrize("layout", ["rows", "padded", "six", "seven"])
def test_layouts_of_detectors(layout: str) -> None:
    f, q = found_by(layout)
    found = find_detections(f, list(f))
    assert found is not None
    one, other = (read_boxes(found, each, 1, None) for each in (f, q))
    assert one[0].classes.tolist() == [2, 0, 2]
    assert compare_boxes(found, one, other).tolist() == [[4, 5]]  # an F1 of 0.8: precision 1, recall 2 / 3
    assert measure_boxes(found, f, q, 1, None)[found.boxes].largest == 1
    assert find_detections({"y": np.zeros((3, 4), np.float32)}, ["y"]) is None
