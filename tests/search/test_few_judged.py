"""The fewer samples are judged, the more another method for ranges must be better by, above the floor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fcdeploy.search import hold_floor
from fcdeploy.search.candidates import choose


def tried(decibels: float, shortfall: float = 0.0) -> Any:
    judgement = SimpleNamespace(decisive_db=decibels, changed=0.0, shortfall=lambda _: shortfall)
    return SimpleNamespace(judgement=judgement)


@pytest.mark.parametrize(
    ("samples", "gain", "shortfall", "taken"),
    [
        (8, 2.7, 0.0, False),  # percentile ranges on keywords: 5 dB worse on 1,000 others
        (8, 3.1, 0.0, True), (8, 1.1, 0.5, True), (16, 1.1, 0.0, False), (24, 1.1, 0.0, True), (200, 0.9, 0.0, False),
    ],
)  # fmt: skip
def test_another_method_needs_more_evidence_of_few_samples(
    samples: int, gain: float, shortfall: float, *, taken: bool
) -> None:
    usual, other = tried(43.8, shortfall), tried(43.8 + gain)
    judge: Any = SimpleNamespace(samples=samples)
    floor: Any = None
    worth = hold_floor._find_worth(usual, judge, floor)
    assert (choose((usual, other), worth) is other) is taken
