"""Integer multipliers that scale a layer's sums to the bytes that a float32 factor gives.

CMSIS-NN scales by an integer M of 31 bits and a shift: floor(s M / 2^r + 1/2), r = 31 - shift (`arm_nn_requantize` where
CMSIS_NN_USE_SINGLE_ROUNDING is defined).  Both that and round(float32(s) * factor) never fall as s grows, so they agree on all
sums from `low` to `high` where they reach each byte at the same sum: that of byte k asks for

    b M >= (2 k - 1) 2^(r - 1) > (b - 1) M,    b the smallest sum that the factor scales to k or more,

and M is any integer in all those intervals.  There is none where float32 rounds a product to a half that then goes to the even
byte.  The nearest M is then as far off as it says: by one level, for the sums between both borders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import frexp

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array
from fcdeploy.native.program.layers import IntegerLayer, Layer
from fcdeploy.native.program.steps import Program, Step

LONGEST = 31  # shifts of CMSIS-NN are from -31 to 30
OVER = 1 << 31


@dataclass(frozen=True)
class Handed:
    """What becomes of a layer: `why` it is not CMSIS-NN's, or at how many of its sums the byte is one level off."""

    node: str
    what: str
    why: str = ""
    differ: int = 0
    sums: int = 0


def hand_over(program: Program, *, ties: bool) -> tuple[Program, tuple[Handed, ...]]:
    """The program with every layer that CMSIS-NN computes as an IntegerLayer; with `ties` those, too, whose bytes differ."""
    steps, rows = list[Step](), []
    for step in program.steps:
        if not isinstance(step, Layer):
            steps.append(step)
            continue
        made, row = _choose(step, ties=ties)
        steps.append(made)
        rows.append(row)
    return replace(program, steps=tuple(steps)), tuple(rows)


def _choose(step: Layer, *, ties: bool) -> tuple[Layer, Handed]:
    row = Handed(step.node, step.what())
    why = _find_reason(step)
    if why:
        return step, replace(row, why=why)
    each = [find_multiplier(step, channel) for channel in range(len(step.weight))]
    row = replace(row, differ=sum(e.differ for e in each), sums=sum(e.sums for e in each))
    if row.differ and not ties:
        channels = sum(e.differ > 0 for e in each)
        return step, replace(
            row, why=f"no integer multiplier gives the same bytes for {channels} of {len(each)} channels"
        )
    made = IntegerLayer(
        **{name: getattr(step, name) for name in step.__dataclass_fields__},
        multiplier=np.array([e.multiplier for e in each], np.int32),
        shift=np.array([e.shift for e in each], np.int32),
    )
    return made, row


def _find_reason(step: Layer) -> str:
    """Why CMSIS-NN has no function for a layer; empty where it has."""
    to, source = step.output.coding, step.inputs[0]
    if to is None or source.coding is None:
        return "it writes floats"
    if step.weight.dtype != np.int8:
        return "its weights have more than 8 bits"
    if step.groups > 1 and not step.depthwise:
        return f"it has {step.groups} groups"
    if step.depthwise and source.shape[0] != 1:
        return "a depthwise layer of several pictures"
    low, high = find_sums(step)
    reach = np.maximum(np.abs(low), np.abs(high))
    total = np.abs(fold_zero_point(step)) + 255 * np.abs(_flat(step)).sum(axis=1)
    scaled = reach * np.broadcast_to(step.factor, len(low)).astype(np.float64)
    if (
        max(total.max(), scaled.max() * 2) >= OVER
        or not (step.factor > 2.0**-LONGEST).all()
        or (step.factor >= 0.5).any()
    ):
        return "its sums or factors are beyond what CMSIS-NN's integers hold"
    return ""


def _flat(step: Layer) -> NDArray[np.int64]:
    flat: NDArray[np.int64] = step.weight.reshape(len(step.weight), -1).astype(np.int64)
    return flat


def find_sums(step: Layer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the largest sum that a channel's weights can reach, whatever the bytes are."""
    weights, bias = _flat(step), step.bias.astype(np.int64)
    return bias + 255 * np.minimum(weights, 0).sum(axis=1), bias + 255 * np.maximum(weights, 0).sum(axis=1)


def fold_zero_point(step: Layer) -> NDArray[np.int64]:
    """What is added to the sums of (byte - zero point) * weight, which CMSIS-NN adds up, in place of those of byte * weight."""
    coding = step.inputs[0].coding
    assert coding is not None
    folded: NDArray[np.int64] = step.bias.astype(np.int64) + coding.zero_point * _flat(step).sum(axis=1)
    return folded


@dataclass(frozen=True)
class Multiplier:
    """An integer and its shift; `differ` of `sums` sums that the channel can reach are scaled to another byte."""

    multiplier: int
    shift: int
    differ: int
    sums: int


def find_multiplier(step: Layer, channel: int) -> Multiplier:
    """The integer nearest to the factor that gives the same bytes for every sum, or the nearest one where there is none."""
    coding = step.output.coding
    assert coding is not None
    least, most = (int(each[channel]) for each in find_sums(step))
    factor = float(np.broadcast_to(step.factor, len(step.weight))[channel])
    shift = frexp(factor)[1]  # factor 2^(31 - shift) has 31 bits
    near = min(OVER - 1, round(factor * 2.0 ** (31 - shift)))
    borders = list(_find_borders(step, factor, least, most, coding.zero_point))
    low, high = 1, OVER - 1
    for level, border in borders:
        half = (2 * level - 1) << (30 - shift)  # of both sides 2^r, in which a sum of M is counted
        if border <= most:
            low, high = _narrow_to_reach(low, high, border, half)
        if border > least:
            low, high = _narrow_to_miss(low, high, border - 1, half)
    best = min(max(near, low), high) if low <= high else near
    differ = 0
    for level, border in borders:
        half = (2 * level - 1) << (30 - shift)
        differ += abs(min(max(-(-half // best), least), most + 1) - border)
    return Multiplier(best, shift, differ, most - least + 1)


def _narrow_to_reach(low: int, high: int, total: int, half: int) -> tuple[int, int]:
    """What is left of the integers M from `low` to `high` where total * M >= half."""
    if total > 0:
        low = max(low, -(-half // total))
    elif total < 0:
        high = min(high, half // total)
    elif half > 0:
        return 1, 0
    return low, high


def _narrow_to_miss(low: int, high: int, total: int, half: int) -> tuple[int, int]:
    """The same where total * M < half."""
    if total > 0:
        high = min(high, (half - 1) // total)
    elif total < 0:
        low = max(low, -(-(half - 1) // total))
    elif half <= 0:
        return 1, 0
    return low, high


def _find_borders(step: Layer, factor: float, least: int, most: int, zero: int) -> Iterator[tuple[int, int]]:
    """Each byte, less the zero point, that the channel reaches, and the smallest sum that gives it or more.

    Of the lowest byte that is the least sum; of the one above the highest, one beyond the largest.  Where all sums beyond are
    clipped to a byte anyway, there is none.
    """

    def encode(sums: Array) -> Array:
        real = sums.astype(np.float32) * np.float32(factor)
        return np.asarray(np.clip(np.rint(real.astype(np.float64)) + zero, step.low, step.high), np.int64)

    first, last = (int(encode(np.array([end]))[0]) for end in (least, most))
    bytes_ = np.arange(first + 1, last + 1)
    below, above = np.full(len(bytes_), least, np.int64), np.full(len(bytes_), most, np.int64)
    while len(bytes_) and (above - below).max() > 1:
        middle = (below + above) // 2
        reached = encode(middle) >= bytes_
        above = np.where(reached & (middle > below), middle, above)
        below = np.where(~reached, middle, below)
    if first > step.low:
        yield first - zero, least
    yield from zip((bytes_ - zero).tolist(), above.tolist(), strict=True)
    if last < step.high:
        yield last + 1 - zero, most + 1
