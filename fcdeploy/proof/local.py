"""What each source of error (sources.py) does on the spot: how exact it is, what it clips, what part of its range it uses.

That says where to look first, not what it costs: errors grow, cancel or vanish on their way to the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, fidelity
from fcdeploy.arithmetic.quantization import LIMITS, along
from fcdeploy.proof import layers
from fcdeploy.proof.layers import Tap
from fcdeploy.proof.sources import Source, rounded_inputs
from fcdeploy.proof.stored import held, integers_of, original
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Local:
    """Running sums over the values of a source before and after rounding; two of them add.

    `clipping` is the squared error of the values beyond the range, `outside` their number.  `lowest` to `highest` are
    the integers that were used of `levels`; weights have no range to clip to, and 0 levels.
    """

    sums: Fidelity
    clipping: float = 0.0
    outside: int = 0
    lowest: float = 0.0
    highest: float = 0.0
    levels: int = 0

    def __add__(self, other: Local) -> Local:
        return Local(
            self.sums + other.sums,
            self.clipping + other.clipping,
            self.outside + other.outside,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.levels,
        )

    @property
    def sqnr_db(self) -> float:
        """Of the rounding alone."""
        return self.sums.sqnr_db

    @property
    def clipped(self) -> float | None:
        """The share of values outside the range."""
        return self.outside / max(self.sums.count, 1) if self.levels else None

    @property
    def used(self) -> float | None:
        """The share of the range between the smallest and the largest integer there was."""
        return (self.highest - self.lowest) / self.levels if self.levels else None

    @property
    def by_clipping(self) -> float:
        """The share of the error that clipping makes."""
        return self.clipping / self.sums.noise if self.sums.noise > 0 else 0.0


def behind_bytes(tap: Tap, x: Array) -> Local:
    """What becomes of a float tensor."""
    kind = tap.zero_point.dtype.name
    low, high = LIMITS[kind if kind in LIMITS else "uint8"]
    steps, point = (along(each, tap.axis, x.ndim) for each in (tap.scale, tap.zero_point))
    exact = x / steps + point
    integers = np.clip(np.rint(exact), low, high)
    back = (integers - point) * steps
    outside = (exact < low - 0.5) | (exact > high + 0.5)
    clipping = float(((back - x)[outside] ** 2).sum())
    ends = (float(integers.min()), float(integers.max())) if integers.size else (0.0, 0.0)
    return Local(fidelity(x, back), clipping, int(outside.sum()), *ends, high - low)


def local_weights(int8: ir.Model, floats: Sequence[ir.Model], found: Sequence[Source]) -> dict[Source, Local]:
    """A row per source of weights whose floats are known."""
    nodes = {node.name: node for node in int8.graph}
    result = {}
    for source in found:
        if source.kind == "tensor":
            continue
        for value in rounded_inputs(nodes[source.node]):
            stored = integers_of(value)
            if stored is not None and stored.name == source.integers[0]:
                real = original(nodes[source.node], value, floats)
                if real is not None:
                    result[source] = Local(fidelity(real.weight, held(value)))
    return result


def local_tensors(
    int8: ir.Model, floats: Sequence[ir.Model], found: Sequence[Source], inputs: Mapping[str, Array]
) -> dict[Source, Local]:
    """A row per tensor that a float model knows, as it is there on these `inputs` (n, ...), all in memory at once."""
    wanted = {source.integers[0]: source for source in found if source.kind == "tensor"}
    taps = [tap for tap in layers.taps(int8) if tap.integers in wanted]
    where = layers.match(taps, int8, floats)
    values: dict[tuple[int, str], Array] = {}
    for index in sorted({index for index, _ in where.values()}):
        names = list(dict.fromkeys(name for which, name in where.values() if which == index))
        copy = floats[index].clone()
        layers.expose(copy, names)
        computed = [name for name in names if name not in inputs]
        values |= {(index, name): inputs[name] for name in names if name in inputs}
        values |= {(index, name): x for name, x in zip(computed, Session(copy).run(inputs, computed), strict=True)}
    return {
        wanted[tap.integers]: behind_bytes(tap, values[where[tap.integers]]) for tap in taps if tap.integers in where
    }
