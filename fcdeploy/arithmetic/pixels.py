"""The 8-bit pixel values that a normalised image was made from, and a first layer that reads them directly.

A picture is decoded to bytes b and then normalised: x = (b / 255 - mean) / std, or b - mean, with other numbers in each
channel.  So a channel holds at most 256 evenly spaced values, x = lowest + step * b.  One scale for all channels lies
across these grids and rounds the image a second time, which in a small network is the largest single error.  The bytes
themselves are exact, and the layer takes the rest:

    sum_c w_c x_c = sum_c (w_c step_c) b_c + (sum_c w_c lowest_c / 255) * 255

with one channel more that is 255 in the image and 0 in its padding, where every x is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Float32, Float64

Pixels = tuple[tuple[float, float], ...]
"""(step, lowest) of each channel."""

HIGHEST = 255
LEAST_STEPS, LEAST_VALUES = 128, 64  # of a channel: fewer are no picture, and values between them may come tomorrow
NOISE = 1e-5  # of a channel's reach: values that are nearer are the same one
NEAR = 0.02  # of a step: how far a value may lie from its place
PADDING = 1 / 32  # of all positions, those where a weight meets padding
APART = 0.05  # of a step: how far one grid for all channels must be off before each gets its own


def find_pixel_grids(x: NDArray[np.floating]) -> Pixels:
    """Find the grid of each channel of `x` (samples, channels, *positions); empty where there is none, or one scale serves all.

    Every value must lie on the grid of its channel, and zero within its reach.  A channel that was not seen from end to
    end gets as much room below as above.
    """
    grids = [_find_grid(x[:, channel]) for channel in range(x.shape[1])]
    complete = tuple(grid for grid in grids if grid is not None)
    return complete if len(complete) == len(grids) and complete and not share_scale(complete) else ()


def share_scale(grid: Pixels) -> bool:
    """Whether one scale, at which zero is an integer, holds the grids of all channels exactly."""
    step, lowest = np.array(grid).T
    beside = np.abs(lowest / step - np.rint(lowest / step)).max()  # zero is not on the grid
    spread = np.ptp(step) / step[0] * HIGHEST + np.ptp(lowest) / step[0]
    return bool(max(beside, spread) <= APART)


def lies_on(x: NDArray[np.floating], grid: Pixels) -> bool:
    """Whether every value of `x` is one of the 256 of the grid of its channel: (samples, channels, ...)."""
    step, lowest = (row.reshape([-1 if at == 1 else 1 for at in range(x.ndim)]) for row in np.array(grid).T)
    places = (x - lowest) / step
    near = np.abs(places - np.rint(places)) <= NEAR
    return bool((near & (places > -0.5) & (places < HIGHEST + 0.5)).all())  # NaN lies on none


def _find_grid(x: NDArray[np.floating]) -> tuple[float, float] | None:
    """(step, lowest) of the 256-point grid that all of `x` lies on, or None."""
    values = np.unique(x).astype(np.float64)
    reach = float(values[-1] - values[0]) if len(values) else 0.0
    if not np.isfinite(reach) or not reach:
        return None
    values = values[np.concatenate([[True], np.diff(values) > NOISE * reach])]
    if not LEAST_VALUES <= len(values) <= HIGHEST + 1:
        return None
    step = float(np.diff(values).min())
    for _ in range(2):  # the smallest gap carries the noise of two values, the whole reach hardly any
        steps = max(float(np.rint(reach / step)), 1.0)
        step = reach / steps
    places = (values - values[0]) / step
    if not LEAST_STEPS <= steps <= HIGHEST or np.abs(places - np.rint(places)).max() > NEAR:
        return None
    lowest = float(values[0]) - step * ((HIGHEST - int(steps)) // 2 if steps < HIGHEST else 0)
    return (step, lowest) if lowest <= NEAR * step and lowest + HIGHEST * step >= -NEAR * step else None


def scale_weight_for_bytes(weight: NDArray[np.floating], grid: Pixels, channels: int) -> Float32:
    """The weight (out, in, *kernel) that reads bytes: (out, channels, *kernel), the channel of 255 next to the image's."""
    step, lowest = (np.reshape(row, (1, -1) + (1,) * (weight.ndim - 2)) for row in np.array(grid).T)
    wide = np.zeros((len(weight), channels, *weight.shape[2:]))
    wide[:, : len(grid)] = weight * step
    wide[:, len(grid)] = (weight * lowest).sum(axis=1) / HIGHEST
    return wide.astype(np.float32)


def compute_byte_means(mean: Float64, grid: Pixels, channels: int) -> Float64:
    """E[b] of the channels that `scale_weight_for_bytes` reads, (channels,), from E[x] of the image's."""
    step, lowest = np.array(grid).T
    means = np.zeros(channels)
    means[: len(grid)], means[len(grid)] = (mean - lowest) / step, HIGHEST
    return means


def compute_byte_importance(mean: Float64, mean_square: Float64, grid: Pixels, channels: int) -> Float64:
    """How much a weight's error on these channels counts, (channels,), when its mean is taken off the bias.

    The variance of b in the image, and in its padding, where b is 0, the square of the mean that was taken off.
    """
    step, _ = np.array(grid).T
    variance = np.zeros(channels)
    variance[: len(grid)] = np.maximum(mean_square - mean**2, 0) / step**2
    return variance + PADDING * compute_byte_means(mean, grid, channels) ** 2
