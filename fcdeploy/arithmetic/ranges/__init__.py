"""From a histogram to the range its integers should cover: pure functions, so another method costs no run."""

from __future__ import annotations

from collections.abc import Callable

from fcdeploy.arithmetic.ranges.entropy import entropy
from fcdeploy.arithmetic.ranges.minmax import minmax
from fcdeploy.arithmetic.ranges.mse import mse
from fcdeploy.arithmetic.ranges.percentile import percentile
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import Range

METHODS: dict[str, Callable[[Histogram], Range]] = {
    "mse": mse,
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
}
DEFAULT = "mse"
