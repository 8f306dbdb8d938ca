"""Channels whose activations are large made smaller, and the weights that read them larger.

Guangxuan Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
arXiv:2211.10438, section 4: s_j = max|X_j|^alpha / max|W_j|^(1 - alpha).  X S^-1 is easier to represent with one scale for all
channels, S W a little harder with one for each output.

Here s_j = max|X_j|^alpha alone.  Small weights of a column cost nothing that rounding by the Gram matrix (gptq.py) does not
make good, and on convolutional networks the quotient measured worse than leaving the weights out of it.
"""

from __future__ import annotations

import numpy as np

from fcdeploy.arrays import Float64

ALPHA = 0.5
FURTHEST = 16.0  # a factor is at most so many times larger or smaller than the geometric mean


def choose_smoothing(activation: Float64, alpha: float = ALPHA) -> Float64:
    """s (channels,), with a geometric mean of 1; `activation` is the largest magnitude of each channel.

    A channel that is never active keeps its scale.
    """
    used = activation > 0
    s = np.ones(len(activation))
    if used.any():
        exponent = alpha * np.log(activation[used])
        s[used] = np.clip(np.exp(exponent - exponent.mean()), 1 / FURTHEST, FURTHEST)
    return s
