"""The shift of a layer's bias that gives what the next layer reads float's mean: behind the activation, not in front of it.

Behind hard-swish, SiLU or a gate an error does not go on as it is: where the function is flat nothing of it is left, and
elsewhere it bends.  Matched in front, means are off behind by more than rounding had moved them.  Channel by channel the
mean of f(y + shift) is brought to that of float by Newton's method with the first slope, and of the shift so much is left
as is beyond the samples' chance: 1 - (variance of the mean error) / (mean error)^2, as in James and Stein's estimator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Float32, Float64
from fcdeploy.int8.planning.elementwise import Function, function_behind

POSITIONS = 4096  # of a channel, of all samples together, on which functions are computed
LEAST_POSITIONS, MOST_POSITIONS = 32, 1024  # of a sample's channel: more look alike, fewer are chance
STEPS = 3
FURTHEST = 2.0  # times the shift that matches means in front: further away the error is something else
LEAST_SLOPE = 0.1  # of the mean of f(y + shift): below it a bias hardly changes what is read


def find_bend(value: ir.Value) -> Function | None:
    """The function behind a layer's output, None where there is none, or a Relu, which an integer kernel's clip is part of."""
    function = function_behind(value)
    if function is None:
        return None
    few = np.array([-1e3, -1.0, -1e-2, 0.0, 1e-2, 1.0, 1e3])
    relu = np.array_equal(function(few), np.maximum(few, 0.0))
    return None if relu or np.array_equal(function(few), few) else function


def share_positions(samples: int) -> int:
    """How many positions of a channel each of so many samples gives."""
    return min(max(POSITIONS // max(samples, 1), LEAST_POSITIONS), MOST_POSITIONS)


def pick_positions(y: Float32, positions: int) -> Float64:
    """Of an output (rows, channels, ...) so many `positions` of each row's channel at most: (rows, channels, positions)."""
    flat = y.reshape(*y.shape[:2], -1)
    step = -(-flat.shape[2] // positions) | 1  # odd: much in a picture repeats by powers of two
    return flat[:, :, ::step].astype(np.float64)


def measure_rows(picked: Float64, function: Function, shift: Float64 | float = 0.0) -> Float64:
    """Mean of f(y + shift) of each row and channel, (rows, channels), of what `pick_positions` gave; shift: (channels,)."""
    column = np.reshape(shift, (-1, 1))
    # row by row, so that what a function computes on the way stays in the caches: a third of the time
    return np.asarray([function(row + column).mean(axis=1) for row in picked]).reshape(picked.shape[:2])


def find_shift(
    written: Sequence[Float32], function: Function, truth: Float64, front: Float64, positions: int
) -> Float64:
    """What to add to each channel, (channels,); `truth` are float's `measure_rows`, `front` the shift that matches in front."""
    picked = np.concatenate([pick_positions(y, positions) for y in written])
    far, target = FURTHEST * np.abs(front), truth.mean(axis=0)
    apart = np.full(len(front), 1e-2 * max(float(np.std(written[0])), 1e-9))
    shift = np.zeros(len(front))
    now = measure_rows(picked, function)
    errors = now - truth
    # the slope at the start is that of all steps: shifts are small beside what activations span
    ahead, behind = (measure_rows(picked, function, way) for way in (apart, -apart))
    slope = (ahead - behind).mean(axis=0) / (2 * apart)
    passes = slope > LEAST_SLOPE
    for taken in range(STEPS):
        now = measure_rows(picked, function, shift) if taken else now
        step = (now.mean(axis=0) - target) / np.where(passes, slope, 1.0)
        shift = np.clip(shift - np.where(passes, step, 0.0), -far, far)
    if len(errors) < 2:
        return shift
    chance = errors.var(axis=0, ddof=1) / len(errors) / np.maximum(errors.mean(axis=0) ** 2, 1e-300)
    return np.asarray(shift * np.clip(1.0 - chance, 0.0, 1.0))
