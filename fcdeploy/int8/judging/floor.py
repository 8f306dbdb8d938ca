"""The least that an int8 model is accepted for, unless a reader says otherwise: `judge` measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fcdeploy.errors import FcdeployError
from fcdeploy.int8.judging.fidelity import EXACT_DB


@dataclass(frozen=True)
class Floor:
    """The least that is accepted: the share of equal decisions, and decibels of the worst output without decisions."""

    decisions: float = 0.99
    sqnr_db: float = 20.0


def parse_floor(given: str | float | None) -> Floor | None:
    """`PERCENT` of equal decisions, or `PERCENT,DB` with decibels of outputs that decide nothing; None for `none`.

    Raises FcdeployError for anything else.
    """
    if given is None:
        return Floor()
    text = str(given)
    if text == "none":
        return None
    try:
        percent, _, db = text.partition(",")
        floor = Floor(float(percent) / 100, float(db) if db else Floor().sqnr_db)
    except ValueError:
        floor = Floor(math.nan, math.nan)
    if not (0 <= floor.decisions <= 1 and -EXACT_DB <= floor.sqnr_db <= EXACT_DB):
        raise FcdeployError(
            f"--floor {text!r} is not PERCENT, PERCENT,DECIBELS or none", "--floor 99,20 is what it is unless given"
        )
    return floor
