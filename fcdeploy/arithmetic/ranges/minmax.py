"""The whole range: nothing seen in calibration is clipped."""

from __future__ import annotations

from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import Range


def minmax(h: Histogram) -> Range:
    """The exact ends."""
    return Range(min(h.low, 0.0), max(h.high, 0.0))
