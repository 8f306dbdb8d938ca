"""Held, not held, or too few samples; and how many would tell, against counting up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdeploy.arithmetic import significance
from fcdeploy.evaluate.loss import Loss
from fcdeploy.search.verdict import count_samples_needed, judge_drop, standard_error


def answers(lost: int, won: int, n: int) -> Loss:
    low, high = (100 * end for end in significance.estimate_paired_interval(lost, won, n))
    return Loss(
        0.9, 0.9 - (lost - won) / n, 100 * (lost - won) / n, low, high, significance.compute_mcnemar_p(lost, won)
    )


@pytest.mark.parametrize(
    ("loss", "bound", "expected"),
    [
        (answers(0, 0, 3000), 0.1, "held"),
        (answers(0, 0, 800), 0.1, "too few samples"),
        (answers(60, 5, 1000), 1.0, "not held"),
        (answers(12, 4, 1000), 1.0, "too few samples"),
        (answers(3, 9, 1000), 1.0, "held"),
        (Loss(0.9, 0.8, 10.0, None, None, None), 1.0, "too few samples"),
    ],
)
def test_the_interval_decides(loss: Loss, bound: float, expected: str) -> None:
    assert judge_drop(loss, bound) == expected


@given(st.integers(0, 6), st.integers(0, 6), st.integers(50, 400), st.sampled_from([0.5, 1.0, 3.0]))
def test_so_many_samples_would_tell_and_one_fewer_would_not(lost: int, won: int, n: int, bound: float) -> None:
    """The same shares of changed answers on more samples, counted up one by one."""

    def tells(m: int) -> bool:
        low, high = (100 * end for end in significance.estimate_paired_interval(lost * m / n, won * m / n, m))  # type: ignore[arg-type]
        return high <= bound or low > bound

    needed = count_samples_needed(answers(lost, won, n), bound, n, (lost, won))
    if needed is None:
        assert not tells(10**9)
    elif needed < 20_000:
        assert tells(needed)
        assert needed == n or not tells(needed - 1)
    else:
        assert tells(needed)
        assert not tells(needed - 1)


def test_agreement_has_the_interval_of_a_share() -> None:
    low, high = (100 * end for end in significance.estimate_share_interval(0, 800))
    needed = count_samples_needed(Loss(1.0, 1.0, 0.0, low, high, None), 0.1, 800, (0, None))
    assert needed == math.ceil(
        significance.Z**2 * (1 / 0.001 - 1)
    )  # Wilson's upper end for none of n is z^2 / (n + z^2)


def test_of_other_figures_the_interval_narrows_with_the_root_of_their_number() -> None:
    loss = Loss(0.5, 0.6, 0.1, -0.1, 0.4, 0.3)
    assert count_samples_needed(loss, 0.25, 100) == 400
    assert count_samples_needed(loss, 0.0, 100) == 401  # at 400 the lower end is 0, which is not above it yet
    assert count_samples_needed(loss, 0.1, 100) is None
    assert count_samples_needed(Loss(0.5, 0.6, 0.1, None, None, None), 0.2, 1) is None


def test_the_standard_error_is_that_of_the_interval() -> None:
    random = np.random.default_rng(0)
    drops = [100 * float(np.mean(random.random(1000) < 0.02)) for _ in range(2000)]
    assert standard_error(answers(20, 0, 1000)) == pytest.approx(np.std(drops), rel=0.1)
    assert standard_error(Loss(0.5, 0.5, 0.0, None, None, None)) == 0
