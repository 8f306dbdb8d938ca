"""What a convolution multiplies its weights with, position by position, as rows of a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Float32


@dataclass(frozen=True)
class Im2colWindow:
    """How a kernel moves over an input: the attributes of a convolution, one number per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int


def extract_patches(x: Float32, window: Im2colWindow, most: int) -> Float32:
    """(samples, channels, *spatial) -> (groups, rows, K): a row for each position, at most about `most` for each sample.

    K walks kernel positions slowly and input channels fast, as `layout.to_rows` lays out weights.  Of more positions every
    k-th is taken, k odd so that it falls on all columns of an image, the same in every sample.
    """
    spatial = len(window.kernel)
    x = np.pad(x, ((0, 0), (0, 0), *window.pads))
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    axes = tuple(range(2, 2 + spatial))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    steps = [slice(None, None, s) for s in window.strides]
    inside = [slice(None, None, d) for d in window.dilations]
    seen = seen[(slice(None), slice(None), *steps, *inside)]  # (samples, channels, *positions, *kernel)
    places = seen.shape[2 : 2 + spatial]
    step = max(math.prod(places) // max(most, 1), 1) | 1
    chosen = np.unravel_index(np.arange(0, math.prod(places), step), places)
    taken = seen[(slice(None), slice(None), *chosen)]  # type: ignore[arg-type]  # (samples, channels, rows, *kernel)
    samples, channels, rows = taken.shape[:3]
    taken = taken.reshape(samples, window.groups, channels // window.groups, rows, -1)
    ordered = np.transpose(taken, (1, 0, 3, 4, 2))  # (groups, samples, rows, kernel, channels / group)
    return ordered.reshape(window.groups, samples * rows, -1)


def compute_same_pads(
    lengths: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> tuple[tuple[int, int], ...]:
    """The pads that auto_pad SAME_UPPER or SAME_LOWER stands for: as many outputs as inputs / stride, rounded up."""
    pads = []
    for n, k, s, d in zip(lengths, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if upper else (more, less))
    return tuple(pads)
