"""Leave out the rarest values at each end.

Hao Wu et al., "Integer Quantization for Deep Learning Inference", arXiv:2004.09602, section 3.3; two-sided here,
because one-sided tensors (after a Relu) would otherwise lose nothing at the side that has the outliers.
"""

from __future__ import annotations

import numpy as np

from fcdeploy.arithmetic.histogram import get_bin_edges
from fcdeploy.records.calibration import Histogram
from fcdeploy.records.plan import Range


def percentile(h: Histogram, kept: float = 99.99) -> Range:
    """The range that holds `kept` percent of the elements, half of the rest cut off at each end.

    Zeros are not counted: after a Relu they are most elements, and every range represents them exactly.
    """
    lower, upper, counts = get_bin_edges(h)
    counts = np.where((lower <= 0) & (upper >= 0) & (upper - lower < 1e-30), 0, counts)
    total = int(counts.sum())
    if total == 0:
        return Range(0.0, 0.0)
    cut = total * (100.0 - kept) / 200.0
    before = np.cumsum(counts) - counts
    # the bin in which the cut falls, and how far into it, elements taken as spread evenly over the bin
    first = min(int(np.searchsorted(before + counts, cut, side="right")), len(counts) - 1)
    last = max(int(np.searchsorted(before, total - cut, side="left")) - 1, 0)
    low = lower[first] + (upper[first] - lower[first]) * (cut - before[first]) / max(counts[first], 1)
    high = lower[last] + (upper[last] - lower[last]) * (total - cut - before[last]) / max(counts[last], 1)
    return Range(min(float(low), 0.0), max(float(high), 0.0))
