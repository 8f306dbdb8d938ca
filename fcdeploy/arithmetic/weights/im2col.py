"""What a convolution multiplies its weights with, position by position, as rows of a matrix."""

from __future__ import annotations

import math

import numpy as np

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Float32


def extract_patches(x: Float32, window: Window, groups: int, most: int) -> Float32:
    """(samples, channels, *spatial) -> (groups, rows, K): a row for each position, at most about `most` for each sample.

    K walks kernel positions slowly and input channels fast, as `layout.to_rows` lays out weights.  Of more positions every
    k-th is taken, k odd so that it falls on all columns of an image, the same in every sample.
    """
    spatial = len(window.kernel)
    x = np.pad(x, ((0, 0), (0, 0), *zip(window.begins, window.ends, strict=True)))
    axes = tuple(range(2, 2 + spatial))
    seen = np.lib.stride_tricks.sliding_window_view(x, window.reach, axis=axes)
    steps = [slice(None, None, s) for s in window.strides]
    inside = [slice(None, None, d) for d in window.dilations]
    seen = seen[(slice(None), slice(None), *steps, *inside)]  # (samples, channels, *positions, *kernel)
    places = seen.shape[2 : 2 + spatial]
    step = max(math.prod(places) // max(most, 1), 1) | 1
    chosen = np.unravel_index(np.arange(0, math.prod(places), step), places)
    taken = seen[(slice(None), slice(None), *chosen)]  # type: ignore[arg-type]  # (samples, channels, rows, *kernel)
    samples, channels, rows = taken.shape[:3]
    taken = taken.reshape(samples, groups, channels // groups, rows, -1)
    ordered = np.transpose(taken, (1, 0, 3, 4, 2))  # (groups, samples, rows, kernel, channels / group)
    return ordered.reshape(groups, samples * rows, -1)
