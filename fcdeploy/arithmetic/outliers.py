"""What one scale for a whole tensor does not fit: tails that few numbers reach, channels far above the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fcdeploy.arithmetic.histogram_summary import estimate_quantiles
from fcdeploy.records.calibration import Moments, TensorRecord

RARE, COMMON = 1e-4, 0.1  # of a tensor's numbers, on either side: a tail, and a channel of ten or more
FAR, FAR_COMMON = 8.0, 32.0  # times the rest: three of eight bits are for them, and five where they are common


@dataclass(frozen=True)
class Outlier:
    """A tensor whose largest number is `times` what all but a `share` on either side stay within; or a channel the median."""

    tensor: str
    times: float
    share: float = 0.0
    channel: int | None = None

    def __str__(self) -> str:
        if self.channel is None:
            rest = f"{100 * (1 - 2 * self.share):.4g} %"
            return f"the largest number of {self.tensor!r} is {self.times:.0f} times what {rest} stay within"
        return f"channel {self.channel} of {self.tensor!r} is {self.times:.0f} times as large as others"


def find_outliers(tensors: Iterable[TensorRecord]) -> list[Outlier]:
    """Tensors with a tail or an outlier channel, the furthest first; of a tensor whose tail is one channel, the channel."""
    found = []
    for record in tensors:
        outlier = (record.moments and _find_channel(record.name, record.moments)) or _find_tail(record)
        if outlier is not None:
            found.append(outlier)
    return sorted(found, key=lambda one: (-one.times, one.tensor))


def _find_tail(record: TensorRecord) -> Outlier | None:
    h = record.histogram
    for share, far in ((RARE, FAR), (COMMON, FAR_COMMON)):
        within = max(abs(q) for q in estimate_quantiles(h, [share, 1 - share]))
        times = max(-h.low, h.high) / within if within else 0.0
        if times >= far:
            return Outlier(record.name, times, share)
    return None


def _find_channel(tensor: str, moments: Moments) -> Outlier | None:
    """The largest channel by its root mean square, where it is FAR above the median one."""
    sizes = np.sqrt(np.maximum(moments.mean_square(), 0.0))
    at, usual = int(np.argmax(sizes)), float(np.median(sizes))
    return Outlier(tensor, float(sizes[at]) / usual, channel=at) if sizes[at] >= FAR * usual > 0 else None
