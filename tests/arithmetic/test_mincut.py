"""The cheapest split against every split there is."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdeploy.arithmetic.mincut import find_cheapest_split

COST = st.integers(0, 20).map(float)


def cost_of(
    sides: tuple[bool, ...], left: list[float], right: list[float], arcs: list[tuple[int, int, float]]
) -> float:
    nodes = sum(a if is_left else b for is_left, a, b in zip(sides, left, right, strict=True))
    return nodes + sum(c for i, j, c in arcs if sides[i] and not sides[j])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[float], list[float], list[tuple[int, int, float]]]:
    count = draw(st.integers(1, 7))
    left = draw(st.lists(COST | st.just(math.inf), min_size=count, max_size=count))
    right = [draw(COST) if math.isinf(cost) else draw(COST | st.just(math.inf)) for cost in left]
    index = st.integers(0, count - 1)
    arcs = draw(st.lists(st.tuples(index, index, COST), max_size=12))
    return left, right, arcs


@given(problems())
def test_no_split_is_cheaper(problem: tuple[list[float], list[float], list[tuple[int, int, float]]]) -> None:
    left, right, arcs = problem
    sides, cost = find_cheapest_split(left, right, arcs)
    every = {s: cost_of(s, left, right, arcs) for s in itertools.product([True, False], repeat=len(left))}
    assert cost == pytest.approx(min(every.values()))
    assert cost_of(tuple(sides), left, right, arcs) == pytest.approx(cost)
    assert sum(sides) == max(sum(s) for s, c in every.items() if c == min(every.values()))


def test_a_node_that_fits_nowhere_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="neither side"):
        find_cheapest_split([math.inf], [math.inf], [])
