"""Cross-layer equalization: the channels of a tensor brought to one magnitude by rescaling the weights before and after it.

Markus Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.1:
where f is positively homogeneous, W2 f(W1 x + b) = W2 S f(S^-1 (W1 x + b)) for any positive diagonal S, and with r1 the
range of a row of W1 and r2 that of the column of W2 that reads it, s = sqrt(r1 / r2) makes both equal to sqrt(r1 r2).

The factors here are powers of two, so that a rescaled network computes the very same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Float64

SPREAD = 3  # |log2 s| from which a tensor is rescaled at all: ordinary networks stay as they were trained
FURTHEST = 16  # |log2 s| at most: no weight may leave float32
SMALLEST = 2.0**-40  # a range below is that of a channel which is never written or never read


def choose_exponents(written: Float64, read: Float64) -> NDArray[np.int64]:
    """log2 of S, (channels,): the channel is to be divided by 2^exponent, its readers' weights multiplied by it.

    `written` and `read` (channels,) are r1 and r2.  All zero when no channel is further than SPREAD from the others.
    """
    used = (written > SMALLEST) & (read > SMALLEST)
    if not used.any():
        return np.zeros(len(written), np.int64)
    s = np.zeros(len(written))
    s[used] = np.log2(written[used] / read[used]) / 2
    s[used] -= np.median(s[used])  # a factor common to all channels changes nothing
    exponents = np.where(used, np.clip(np.rint(s), -FURTHEST, FURTHEST), 0).astype(np.int64)
    return exponents if np.abs(exponents).max() >= SPREAD else np.zeros_like(exponents)
