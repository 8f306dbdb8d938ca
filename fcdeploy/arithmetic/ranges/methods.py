"""From a histogram to the range its integers should cover: pure functions, so another method costs no run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from fcdeploy.arithmetic.ranges.entropy import entropy
from fcdeploy.arithmetic.ranges.minmax import minmax
from fcdeploy.arithmetic.ranges.mse import CLIPPING, mse
from fcdeploy.arithmetic.ranges.percentile import percentile
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import Range

Method = Callable[[Histogram], Range]

WEIGHED = {"mse": CLIPPING, "mse-unweighted": 1.0}  # methods of squared error: how often clipping counts
METHODS: dict[str, Method] = {
    "mse": mse,
    "mse-unweighted": partial(mse, clipping=WEIGHED["mse-unweighted"]),
    "minmax": minmax,
    "percentile": percentile,
    "percentile-99.9": partial(percentile, kept=99.9),
    "entropy": entropy,
}
DEFAULT = "mse"


@dataclass(frozen=True)
class Methods:
    """The method for the range of every tensor, but for those that have their `own`, by name."""

    usual: Method
    own: Mapping[str, Method] = field(default_factory=dict)

    def find(self, tensor: str) -> Method:
        return self.own.get(tensor, self.usual)


def find_method(name: str, levels: int = 256) -> Method:
    """The method of METHODS for so many levels; only those that weigh rounding against clipping depend on them."""
    return (
        METHODS[name] if name not in WEIGHED or levels == 256 else partial(mse, levels=levels, clipping=WEIGHED[name])
    )
