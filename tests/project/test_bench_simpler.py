"""scripts/bench simpler: when the default counts as worse than --effort fast."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scripts.benchmarks.simpler import is_worse


def judged(db: float, equal: float, samples: int = 1000) -> Any:
    return SimpleNamespace(worst_db=db, changed=samples * (1 - equal))


@pytest.mark.parametrize(
    ("fast", "default", "worse"),
    [
        (judged(43.4, 0.996), judged(43.4, 0.995), False),  # one decision, which as floats is a little more than one
        (judged(43.4, 0.996), judged(43.4, 0.994), True),
        (judged(43.4, 0.996), judged(43.5, 0.994), False),  # the other figure is better
        (judged(43.4, 0.996), judged(43.0, 0.996), True),
        (judged(43.4, 0.996), judged(43.2, 0.996), False),
        (judged(70.0, 1.0), judged(65.0, 1.0), False),  # nobody sees a difference
    ],
)
def test_the_default_may_change_one_decision_more_and_no_two(fast: Any, default: Any, worse: bool) -> None:
    assert is_worse(default, fast) is worse
