"""Regions of maps against a flood fill."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fcdeploy.arithmetic.regions import LEAST_AREA, compare_regions, count_common, find_boxes


def flood(mask: np.ndarray) -> set[tuple[int, ...]]:
    """Boxes of 4-connected regions, position by position."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    boxes = set()
    while left:
        region, open_ends = [], [left.pop()]
        while open_ends:
            y, x = open_ends.pop()
            region.append((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    open_ends.append(near)
        (y0, x0), (y1, x1) = np.min(region, axis=0), np.max(region, axis=0) + 1
        if (y1 - y0) * (x1 - x0) > LEAST_AREA:
            boxes.add((int(x0), int(y0), int(x1), int(y1)))
    return boxes


@given(st.integers(1, 24), st.integers(1, 24), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_regions_are_those_of_a_flood_fill(rows: int, columns: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    assert {tuple(box) for box in find_boxes(mask).tolist()} == flood(mask)


def test_a_spiral_is_one_region() -> None:
    mask = np.zeros((33, 33), bool)
    for ring in range(0, 16, 4):
        mask[ring, ring : -ring or None] = mask[ring : -ring or None, -1 - ring] = mask[
            -1 - ring, ring : -ring or None
        ] = True
        mask[ring + 4 : -ring or None, ring] = mask[ring + 4, ring : ring + 5] = True
    assert len(find_boxes(mask)) == len(flood(mask)) == 1


def test_boxes_that_mostly_overlap_are_one() -> None:
    one = np.array([[0, 0, 10, 10], [50, 50, 60, 60]])
    assert count_common(one, one + 2) == 0  # 64 of 136
    assert count_common(one, one + np.array([2, 0, 2, 0])) == 2  # 80 of 120
    maps = np.zeros((2, 1, 40, 40), bool)
    maps[:, 0, 5:15, 5:15] = True
    others = maps.copy()
    others[1, 0, 20:30, 20:30] = True
    np.testing.assert_array_equal(compare_regions(maps, others), [[2, 2], [2, 3]])
