"""What each source of error (sources.py) does on the spot: how exact it is, what it clips, what part of its range it uses.

That says where to look first, not what it costs: errors grow, cancel or vanish on their way to the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import fidelity
from fcdeploy.arithmetic.quantization import LIMITS, along
from fcdeploy.proof import layers
from fcdeploy.proof.layers import Tap
from fcdeploy.proof.sources import Source, rounded_inputs
from fcdeploy.proof.stored import held, integers_of, original
from fcdeploy.runtime.session import Session

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Local:
    """SQNR of the rounding alone; of a tensor, the share of values outside its range, and the share of it they use."""

    sqnr_db: float
    clipped: float | None = None
    used: float | None = None


def local(
    int8: ir.Model, floats: Sequence[ir.Model], found: Sequence[Source], inputs: Mapping[str, Array]
) -> dict[Source, Local]:
    """A row per source whose floats are known; tensors as they are in the float model on these `inputs` (n, ...).

    All tensors of the batch are in memory at once.
    """
    nodes = {node.name: node for node in int8.graph}
    result = {}
    for source in found:
        node = nodes.get(source.node)
        for value in rounded_inputs(node) if source.kind == "weights" and node is not None else ():
            stored = integers_of(value)
            if stored is not None and stored.name == source.integers[0]:
                real = original(node, value, floats) if node is not None else None
                if real is not None:
                    result[source] = Local(fidelity(real.weight, held(value)).sqnr_db)
    return result | _tensors(int8, floats, found, inputs)


def rounded(tap: Tap, x: Array) -> tuple[Array, float, float]:
    """What a float tensor becomes behind its bytes, the share of it that is clipped, and the share of the range in use."""
    low, high = LIMITS[tap.zero_point.dtype.name] if tap.zero_point.dtype.name in LIMITS else LIMITS["uint8"]
    steps, point = (along(each, tap.axis, x.ndim) for each in (tap.scale, tap.zero_point))
    exact = x / steps + point
    integers = np.clip(np.rint(exact), low, high)
    outside = (exact < low - 0.5) | (exact > high + 0.5)
    used = float(integers.max() - integers.min()) / (high - low) if integers.size else 0.0
    return (integers - point) * steps, float(outside.mean()) if outside.size else 0.0, used


def _tensors(
    int8: ir.Model, floats: Sequence[ir.Model], found: Sequence[Source], inputs: Mapping[str, Array]
) -> dict[Source, Local]:
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
        values |= {
            (index, name): array for name, array in zip(computed, Session(copy).run(inputs, computed), strict=True)
        }
    result = {}
    for tap in taps:
        if tap.integers in where:
            x = values[where[tap.integers]]
            back, clipped, used = rounded(tap, x)
            result[wanted[tap.integers]] = Local(fidelity(x, back).sqnr_db, clipped, used)
    return result
