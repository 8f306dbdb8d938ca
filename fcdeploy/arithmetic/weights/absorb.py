"""Each channel's common offset, moved into the biases around the tensor, so that its range gets narrower.

Markus Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.1.3:

    W2 r(W1 x + b1) + b2  =  W2 r(W1 x + (b1 - c)) + (b2 + W2 c)      wherever W1 x + b1 >= c >= 0, r a Relu

The paper takes c = max(0, mean - 3 deviations) of each channel; here it is the least value seen, so that nothing seen is
clipped.  Without a Relu the same holds for every c and every x, and the middle of what was seen is taken.
"""

from __future__ import annotations

import numpy as np

from fcdeploy.arrays import Float64

WORTH = 0.95  # of the range before: a range that hardly gets narrower is left as it was


def choose_offsets(low: Float64, high: Float64, *, clipped: bool) -> Float64:
    """c (channels,) for a tensor whose channels reached from `low` to `high`, behind a Relu where `clipped`.

    All zero where the tensor's range, which holds 0, would not get narrower than WORTH of what it is.
    """
    c = np.maximum(low, 0.0) if clipped else (low + high) / 2
    before, after = _measure_width(low, high), _measure_width(low - c, high - c)
    return c if after < WORTH * before else np.zeros_like(c)


def _measure_width(low: Float64, high: Float64) -> float:
    return float(max(high.max(initial=0), 0) - min(low.min(initial=0), 0))
