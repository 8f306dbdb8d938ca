"""Tensors that share a scale, or whose scales follow from each other because they are the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import LIMITS, choose_activation_qparams
from fcdeploy.records.plan import QParams, Range

SHARE_WITHIN = 2.0  # tensors joined by Concat share a scale when that costs none of them more than one bit
STRETCH = 1.15  # of a step, at most, so that an offset becomes a whole number of steps: 0.06 dB for every 1 / 16


@dataclass(frozen=True)
class Line:
    """value = gain * first + offset, where `first` is the tensor that a group's range is that of. gain > 0."""

    first: ir.Value
    gain: float = 1.0
    offset: float = 0.0

    def range_of_first(self, r: Range) -> Range:
        """What `first` covers where the value covers r."""
        return Range((r.low - self.offset) / self.gain, (r.high - self.offset) / self.gain)

    @property
    def zero(self) -> float:
        """What `first` is where the value is zero."""
        return -self.offset / self.gain


class ScaleGroups:
    """A union-find over tensors, each a line of the first of its group, whose first know what the group covers."""

    def __init__(self, covers: Mapping[ir.Value, Range]) -> None:
        self._parent: dict[ir.Value, Line] = {value: Line(value) for value in covers}
        self._cover: dict[ir.Value, Range | None] = dict(covers)
        self._narrowest: dict[ir.Value, float] = {value: r.high - r.low for value, r in covers.items()}

    def line(self, value: ir.Value) -> Line:
        """The value as a line of the first of its group."""
        root = Line(value)
        while (step := self._parent.setdefault(root.first, Line(root.first))).first is not root.first:
            root = Line(step.first, root.gain * step.gain, root.gain * step.offset + root.offset)
        return root

    def members(self) -> list[ir.Value]:
        """All tensors, in the order in which they came."""
        return list(self._parent)

    def cover(self, value: ir.Value) -> Range:
        """What the group of a value covers, as numbers of its first."""
        covered = self._cover.get(self.line(value).first)
        assert covered is not None, f"{value.name} is read as bytes but nothing writes it"
        return covered

    def follow(self, value: ir.Value, before: ir.Value, gain: float, offset: float) -> None:
        """value = gain * before + offset, by the same bytes; its zero becomes one of them."""
        self.line(before)
        self._parent[value] = Line(before, gain, offset)
        self.widen(value, 0.0)

    def join(self, values: list[ir.Value]) -> None:
        """One group of all groups that `values`, of equal scales, are in; it covers what each of them covered."""
        lines = list({(line := self.line(value)).first: line for value in values}.values())
        to = next((line for line in lines if self._cover.get(line.first) is not None), lines[0])
        for line in lines:
            if line.first is to.first:
                continue
            # gain * line.first + offset and to.gain * to.first + to.offset are the same number
            self._parent[line.first] = Line(to.first, to.gain / line.gain, (to.offset - line.offset) / line.gain)
            cover = self._cover.get(line.first)
            if cover is not None:
                moved = self._parent[line.first].range_of_first(cover)
                self._cover[to.first] = join_ranges(self.cover(to.first), moved)
                narrow = self._narrowest[line.first] / self._parent[line.first].gain
                self._narrowest[to.first] = min(self._narrowest[to.first], narrow)

    def widen(self, value: ir.Value, reach: float) -> None:
        """Let the group of `value` cover `reach` as well."""
        line = self.line(value)
        cover = self._cover.get(line.first)
        if cover is not None:
            point = line.range_of_first(Range(reach, reach))
            zero = line.range_of_first(Range(0.0, 0.0))
            self._cover[line.first] = join_ranges(cover, join_ranges(point, zero))

    def join_if_close(self, values: list[ir.Value]) -> None:
        """Join, unless a member would lose more than SHARE_WITHIN of its resolution to the widest."""
        lines = {(line := self.line(value)).first: line for value in values}
        if any(lines[line.first] != line for line in map(self.line, values)):
            return  # the same bytes, read in two ways
        whole, narrowest = Range(0.0, 0.0), np.inf
        for first, line in lines.items():
            cover = self.cover(first)
            whole = join_ranges(whole, Range(*(line.gain * end + line.offset for end in (cover.low, cover.high))))
            narrowest = min(narrowest, line.gain * self._narrowest[first])
        if whole.high - whole.low <= SHARE_WITHIN * narrowest:
            self.join(values)

    def choose_firsts(self, dtype: str) -> dict[ir.Value, QParams]:
        """Scale and zero point of the first of every group."""
        zeros: dict[ir.Value, list[float]] = {}
        for value in self.members():
            line = self.line(value)
            zeros.setdefault(line.first, []).append(line.zero)
        return {first: snap(self.cover(first), dtype, points) for first, points in zeros.items()}

    def qparams(self, firsts: Mapping[ir.Value, QParams]) -> dict[ir.Value, QParams]:
        """Scale and zero point of every tensor, by those of the first of its group."""
        lines = {value: self.line(value) for value in self.members()}
        return {value: follow(firsts[line.first], line.gain, line.offset) for value, line in lines.items()}


def snap(cover: Range, dtype: str, points: list[float]) -> QParams:
    """Scale and zero point that cover a range, and whose integers stand for these points, as nearly as may be.

    The step is stretched by STRETCH at most, to where the points lie nearest to whole numbers of steps.
    """
    q = choose_activation_qparams(cover, dtype)
    offsets = np.array([abs(point) for point in points if point])
    if not len(offsets):
        return q
    least = q.scale[0]
    counts = np.floor(offsets / least)
    steps = np.concatenate([[least], offsets[counts > 0] / counts[counts > 0]])
    steps = steps[steps <= STRETCH * least]
    off = [np.abs(offsets / step - np.rint(offsets / step)).sum() for step in steps]
    step = float(np.float32(steps[int(np.argmin(np.round(off, 6)))]))
    return q if step <= least else cover_by_step(cover, dtype, step)


def cover_by_step(cover: Range, dtype: str, step: float) -> QParams:
    """That scale with the zero point at which it covers a range."""
    lowest, highest = LIMITS[dtype]
    zero_point = int(np.clip(np.rint(lowest - min(cover.low, 0.0) / step), lowest, highest))
    return QParams(dtype, (step,), zero_point)


def follow(q: QParams, gain: float, offset: float) -> QParams:
    """How the bytes of x are read as gain * x + offset.

    gain * s * (q - z) + offset  =  (gain * s) * (q - (z - offset / (gain * s)))
    """
    if gain == 1.0 and offset == 0.0:
        return q
    lowest, highest = LIMITS[q.dtype]
    scale = float(np.float32(gain * q.scale[0]))
    zero_point = int(np.clip(np.rint(q.zero_point - offset / scale), lowest, highest))
    return QParams(q.dtype, (scale,), zero_point)


def join_ranges(one: Range, other: Range) -> Range:
    """The least range that holds both."""
    return Range(min(one.low, other.low), max(one.high, other.high))
