"""What is said first of a model that holds the floor."""

from __future__ import annotations

import numpy as np
import pytest

from fcdeploy.evaluate.decision import Decision
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.int8.judging.judgement import Judgement
from fcdeploy.records.costs import Choice, TimeTrial
from fcdeploy.records.report import Report
from fcdeploy.reporting.floor import lead_with_cost, lead_with_doubt, lead_with_share

NEAR = "no change needed: the outputs match float's to 40.6 dB"
BARE = "the outputs match float's to 40.6 dB"
LEFT = "84 % of the multiplications left int8 to hold the floor"


@pytest.mark.parametrize(
    ("advice", "share", "ratio", "said"),
    [
        (NEAR, 0.84, 0.94, f"{LEFT}, at 0.94 of the float time: the outputs match float's to 40.6 dB"),
        (NEAR, 0.84, None, f"{LEFT}: the outputs match float's to 40.6 dB"),
        ("", 0.84, 0.94, f"{LEFT}, at 0.94 of the float time"),
        (NEAR, 0.1, 0.94, NEAR),
        (NEAR, 0.0, None, NEAR),
    ],
)
def test_what_it_cost_is_said_before_how_near_it_is(advice: str, share: float, ratio: float | None, said: str) -> None:
    usual = None if ratio is None else TimeTrial(Choice(), ratio, ratio - 0.02, ratio + 0.02)
    assert lead_with_cost(advice, share, usual) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.49, "49 % of the multiplications are in integers: the outputs match float's to 40.6 dB"),
        (0.0, "0 % of the multiplications are in integers: the outputs match float's to 40.6 dB"),
        (0.5, NEAR),
        (None, NEAR),
    ],
)
def test_all_is_not_well_where_most_is_left_in_float(share: float | None, said: str) -> None:
    """Whatever kept it there: the floor, the time, or operators without a kernel."""
    report = lead_with_share(Report("quantize", {"integer_share": share, "advice": NEAR}, (), (), advice=NEAR))
    assert (report.advice, report.values["advice"]) == (said, said)
    other = Report("quantize", {"integer_share": share}, (), (), advice="the outputs match float's to 20 dB")
    assert lead_with_share(other) == other


@pytest.mark.parametrize(("changed", "said"), [(0, NEAR), (2, BARE), (30, BARE)])
def test_a_result_that_may_be_below_the_floor_is_not_said_to_need_no_change(changed: int, said: str) -> None:
    """Of 118 samples 2 are 98.3 % equal decisions: less than 99, and no more than chance explains."""
    equal = np.ones((118, 2), np.int64)
    equal[:changed, 0] = 0
    judgement = Judgement(118, {"y": 40.6}, {"y": equal}, {"y": Decision(1, 10)})
    assert lead_with_doubt(NEAR, judgement, Floor()) == said
    assert bool(judgement.misses(Floor())) == (changed == 30)
    assert bool([text for text in judgement.doubts(Floor()) if "chance" in text]) == (changed == 2)
