"""Whether paired figures say that a drop is held, that it is not, or that the samples are too few to tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from fcdeploy.arithmetic import significance
from fcdeploy.evaluate.loss import Loss

Verdict = Literal["held", "not held", "too few samples"]
MOST = 10**9  # samples that are still worth naming


def judge_drop(loss: Loss, bound: float) -> Verdict:
    """By the 95 % interval of the drop on paired samples: all of it within the bound, all of it beyond, or neither."""
    if loss.low is None or loss.high is None:
        return "too few samples"
    if loss.high <= bound:
        return "held"
    return "not held" if loss.low > bound else "too few samples"


def standard_error(loss: Loss) -> float:
    """The standard error of the drop, from its interval; 0 where it has none."""
    return 0.0 if loss.low is None or loss.high is None else (loss.high - loss.low) / (2 * significance.Z)


def count_samples_needed(
    loss: Loss, bound: float, samples: int, changed: tuple[int, int | None] | None = None
) -> int | None:
    """How many samples would tell, were their figures like these; None where no number would.

    `changed` are the pairs that only the float model and only the int8 model has right, where answers are right or wrong, or
    the decisions that do not agree, and None: their intervals are known for any number.  Of other figures it narrows with
    the root of the number.
    """
    if loss.low is None or loss.high is None:
        return None
    if changed is not None:
        lost, won = changed

        def ends(n: int) -> tuple[float, float]:
            low, high = (
                significance.estimate_share_interval(lost * n / samples, n)  # type: ignore[arg-type]
                if won is None
                else significance.estimate_paired_interval(lost * n / samples, won * n / samples, n)  # type: ignore[arg-type]
            )
            return 100 * low, 100 * high
    else:
        below, above = loss.drop - loss.low, loss.high - loss.drop

        def ends(n: int) -> tuple[float, float]:
            narrower = math.sqrt(samples / n)
            return loss.drop - below * narrower, loss.drop + above * narrower

    return _find_first(lambda n: ends(n)[1] <= bound or ends(n)[0] > bound, samples)


def _find_first(tells: Callable[[int], bool], low: int) -> int | None:
    """The least number, from `low` on, that tells; what tells goes on telling."""
    if tells(low):
        return low
    high = 2 * low
    while not tells(high):
        if high > MOST:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle, high)
    return high
