"""Pairs of products in 16 bits: which weights leave them, however a run is read."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdeploy.native.program.pairs import begin_early, leaves_16_bits, pair_steps, stays_in_16_bits


@given(st.lists(st.integers(-128, 127), min_size=2, max_size=2))
def test_a_pair_leaves_16_bits_where_some_bytes_make_it(pair: list[int]) -> None:
    sums = [a * pair[0] + b * pair[1] for a, b in product((0, 255), repeat=2)]
    assert leaves_16_bits(np.array([pair], np.int8)) == (max(sums) > 32767 or min(sums) < -32768)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_runs_that_begin_early_have_the_same_sums(outs: int, runs: int, length: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, x = random.integers(-128, 128, (outs, runs, length)), random.integers(0, 256, (runs, 12))
    shifted = begin_early(rows)
    for run in range(runs):
        plain = rows[:, run] @ x[run, 1 : 1 + length]
        begin = 1 - run % 2
        assert np.array_equal(shifted[:, run] @ x[run, begin : begin + length + 1], plain)


def test_pairs_of_a_whole_window_are_those_of_runs_that_begin_early() -> None:
    """Five weights a row, bound in pairs of all 25 side by side: the second row begins within a pair."""
    window = np.zeros(25, np.int64)
    window[5:7] = 100, 100  # of two pairs of the window, but one of the row
    rows = window.reshape(1, 5, 5)
    assert leaves_16_bits(np.pad(rows, ((0, 0), (0, 0), (0, 1))).reshape(-1, 2))
    assert stays_in_16_bits(rows)
    assert not stays_in_16_bits(np.full((1, 5, 5), 100))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(0, 200),
    spread=st.sampled_from([5, 30, 60, 127]),
    top=st.sampled_from([127, 255]),
)
def test_steps_whose_four_products_stay_in_16_bits_are_paired(seed: int, steps: int, spread: int, top: int) -> None:
    random = np.random.default_rng(seed)
    weights = np.clip(random.normal(0, spread, (steps, int(random.integers(1, 9)), 2)), -128, 127).astype(np.int8)
    order, pairs = pair_steps(weights, top)
    assert sorted(order) == list(range(steps))
    four = np.concatenate([weights[order[: 2 * pairs : 2]], weights[order[1 : 2 * pairs : 2]]], axis=2).astype(np.int64)
    for signs in product((0, top), repeat=4):  # all sums lie between those of the ends of each byte
        sums = (four * np.array(signs)).sum(axis=2)
        assert np.array_equal(sums, sums.astype(np.int16))
    if spread == 5:  # none is left that has a partner
        assert len(order) - 2 * pairs <= -(-steps // 64)
