"""Checks, layer by layer, that the integers computed on this CPU are those of exact arithmetic.

A kernel that adds products in 16 bits saturates in silence; elsewhere the same file is right.  So every byte tensor is
exposed (`evaluate/quantized_tensors.py`: looking at what a QuantizeLinear writes leaves its pattern whole), and each layer is
computed again from what its kernel read, with every product added in 32 bits.  What is left are ties: the last bit of a float32
decides them, one level apart.  A dense layer that rounds floats by itself is computed again from those floats, rounded as
its kernel does (arithmetic/kernels/dynamic.py).  Float nodes in between are run again on every path through the runtime
(`proof/float_paths.py`).

A layer of more multiply-accumulates than the budget is compared at output positions drawn with a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.kernels import avx2, dynamic
from fcdeploy.arithmetic.kernels.reference import QuantizedArray
from fcdeploy.arithmetic.quantization import round_to_integers
from fcdeploy.arithmetic.rounding_ties import is_half
from fcdeploy.arithmetic.weights.layout import to_rows, unpack_blocks
from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.quantized_tensors import expose_tensors
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.graph.nodes import array_of, attribute_of, name_of
from fcdeploy.graph.windows import read_window
from fcdeploy.proof.float_paths import FloatEnd, FloatRegions, cut_float_regions, find_byte_tensors, find_float_ends
from fcdeploy.proof.operands import LAYERS, ROUNDING, RecomputedNode, SkippedNode, find_integer_nodes
from fcdeploy.proof.operators import OPERATORS
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.samples.source import get_fixed_batch

FEW = 2  # samples on which a fresh model is looked at
BUDGET = 50_000_000  # multiply-accumulates of a layer in one run: a tenth of a second in NumPy
WEIGHTS = 8_000_000  # of a dense layer at once: 64 MB in float64
SEED = 0
TIES = 0.001  # share of elements that may differ by one level
CLOSE = 1e-5  # of the largest value: what floats may differ by
LEVELS = 255


@dataclass(frozen=True)
class LayerExactness:
    """One layer: elements compared, of `of` there were, how many differ, and by how much at most.

    A level is one integer; of floats, 1/255 of what the layer's output spans, and those within 1e-5 do not differ.
    `halves` of those that differ, by one level, lie half-way between two: kernels may round them either way.
    """

    node: str
    op: str
    elements: int
    of: int
    differ: int
    levels: float
    floats: bool
    halves: int = 0

    @property
    def share(self) -> float:
        return self.differ / self.elements if self.elements else 0.0

    @property
    def passed(self) -> bool:
        """At most ties: one level on halves, and on one other element in a thousand, or one. Floats have none."""
        most = 0 if self.floats else max(1.0, TIES * self.elements)
        return self.differ - self.halves <= most and self.levels <= 1

    def __add__(self, other: LayerExactness) -> LayerExactness:
        return LayerExactness(
            self.node, self.op, self.elements + other.elements, self.of + other.of, self.differ + other.differ,
            max(self.levels, other.levels), self.floats, self.halves + other.halves,
        )  # fmt: skip


@dataclass(frozen=True)
class Exactness:
    """Rows, worst first; integer nodes that were not compared; and whether exposing tensors left the outputs unchanged.

    `floats` are the ends of stretches of float nodes, against those of every other path, the worst of them.
    """

    rows: tuple[LayerExactness, ...]
    skipped: tuple[SkippedNode, ...]
    undisturbed: bool
    floats: tuple[LayerExactness, ...] = ()

    @property
    def passed(self) -> bool:
        good = all(row.passed for row in (*self.rows, *self.floats))
        return self.undisturbed and good and not (self.skipped and not self.rows)

    @property
    def total(self) -> dict[str, int | float]:
        """All layers in one: elements, how many differ, the largest difference."""
        levels = max((row.levels for row in self.rows), default=0)
        return {
            "elements": sum(row.elements for row in self.rows),
            "differ": sum(row.differ for row in self.rows),
            "levels": levels,
            "halves": sum(row.halves for row in self.rows),
        }


def check_exactness(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], *, budget: int = BUDGET, on_step: OnStep | None = None
) -> Exactness:
    """Compare what the kernels of a Q/DQ model write on this CPU with exact arithmetic. The model is left as it is."""
    nodes = list(find_integer_nodes(model))
    work = [task for task in nodes if isinstance(task, RecomputedNode)]
    ends = find_float_ends(
        model, {name_of(task.node) if isinstance(task, RecomputedNode) else task.node for task in nodes}
    )
    starts = {task.written.name: task.written.dtype for task in work} | find_byte_tensors(model)
    held = {each.name: each.dtype for task in work for each in task.inputs if each.held is None}
    usual, watched = Session(model), Session(_expose_copy(model, held | starts))
    floats: FloatRegions | None = None

    # rows of several batches add, so one batch is in memory
    rows: dict[ir.Node | FloatEnd, LayerExactness] = {}
    undisturbed = True
    for batch in batches:
        feeds = dict(batch)
        computed = feeds | dict(zip(watched.outputs, map(np.asarray, watched.run(feeds)), strict=True))
        floats = floats or (cut_float_regions(model, starts, ends, computed) if ends else None)
        before = zip(usual.outputs, usual.run(feeds), strict=True)
        undisturbed &= all(np.array_equal(value, computed[name], equal_nan=True) for name, value in before)
        compared: Iterator[tuple[ir.Node | FloatEnd, LayerExactness]] = chain(
            _compare_layers(work, computed, budget, on_step),
            _compare_float_nodes(floats, feeds, computed) if floats else (),
        )
        for key, row in compared:
            rows[key] = rows[key] + row if key in rows else row

    worst = sorted(rows.items(), key=lambda item: (item[1].passed, -item[1].levels, -item[1].share))
    integers, reals = ([row for key, row in worst if isinstance(key, kind)] for kind in (ir.Node, FloatEnd))
    skipped = tuple(task for task in nodes if isinstance(task, SkippedNode))
    return Exactness(tuple(integers), skipped, undisturbed, tuple(reals))


def _compare_layers(
    work: Sequence[RecomputedNode], computed: Arrays, budget: int, on_step: OnStep | None
) -> Iterator[tuple[ir.Node, LayerExactness]]:
    for done, task in enumerate(work, 1):
        real, expected, at_half = _compute_pair(task, computed, budget)
        size, name = computed[task.written.name].size, name_of(task.node)
        row = _compare(name, task.node.op_type, real, expected, of=size, floats=task.written.scale is None)
        halves = 0 if at_half is None or row.levels > 1 else int(np.count_nonzero((real != expected) & at_half))
        yield task.node, replace(row, halves=halves)
        if on_step:
            on_step("exact arithmetic", done, len(work))


def _compare_float_nodes(
    floats: FloatRegions, feeds: Arrays, computed: Arrays
) -> Iterator[tuple[FloatEnd, LayerExactness]]:
    """Each end of float nodes on the path that differs most."""
    ways = floats.run(feeds, computed)
    for index, end in enumerate(floats.ends):
        real = computed[end.tensor]
        rows = [_compare(end.node, end.op, real, way[index], of=real.size, floats=end.floats) for way in ways]
        yield end, max(rows, key=lambda row: (row.differ, row.levels))


def count_ties(path: Path, samples: Mapping[str, Array]) -> Exactness | None:
    """What differs from exact arithmetic on two of the samples, or on one batch; None where there are not so many."""
    model = read_model(path)
    count = get_fixed_batch(input_specs(model)) or FEW
    if not samples or (count != FEW and len(next(iter(samples.values()))) < count):
        return None
    return check_exactness(model, [{name: array[:count] for name, array in samples.items()}])


def _expose_copy(model: ir.Model, types: Mapping[str, str]) -> ir.Model:
    """A copy whose outputs are also these tensors, name -> type."""
    copy = model.clone()
    for node in copy.graph:
        for value in node.outputs:
            if value.name in types and value.type is None:
                value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(types[name_of(value)])))
    expose_tensors(copy, types)
    return copy


def _compute_pair(task: RecomputedNode, computed: Arrays, budget: int) -> tuple[Array, Array, Array | None]:
    """The kernel's output and that of exact arithmetic, in one shape; of operators without weights, what lies half-way."""
    real = computed[task.written.name]
    if task.node.op_type in LAYERS:
        return *_compute_layer(task, computed, real, budget), None
    if task.node.op_type in ROUNDING:
        return *_compute_rounding_layer(task, computed, real, budget), None
    operands = [
        QuantizedArray(each.integers(computed), np.float32(each.scale.reshape(())), int(each.zero_point.reshape(())))
        for each in task.inputs
    ]
    to = task.written
    assert to.scale is not None
    value = OPERATORS[task.node.op_type](task.node, operands, to.scale)
    clipped = np.clip(value, np.float32(to.low), np.float32(to.high))
    levels = clipped.astype(np.float64) / np.float64(to.scale)
    return real, round_to_integers(clipped, to.scale, to.zero_point, to.dtype).astype(to.dtype), is_half(levels)


def _compare(name: str, op: str, real: Array, expected: Array, *, of: int, floats: bool) -> LayerExactness:
    assert real.shape == expected.shape, f"{name}: {real.shape} and {expected.shape}"
    if not floats:
        apart = np.abs(real.astype(np.int64) - expected.astype(np.int64))
        levels = int(apart.max(initial=0))
        return LayerExactness(name, op, real.size, of, int(np.count_nonzero(apart)), levels, False)
    with np.errstate(invalid="ignore"):
        same = (real == expected) | (np.isnan(real) & np.isnan(expected))  # infinities may be equal, too
        away = np.where(same, 0.0, np.abs(real.astype(np.float64) - expected))
    finite = expected[np.isfinite(expected)]
    differ = int(np.count_nonzero(~(away <= CLOSE * np.abs(finite).max(initial=0.0))))
    step = float(np.ptp(finite)) / LEVELS if finite.size else 0.0
    return LayerExactness(name, op, real.size, of, differ, float(away.max()) / (step or 1.0) if differ else 0, True)


def _compute_layer(task: RecomputedNode, computed: Arrays, real: Array, budget: int) -> tuple[Array, Array]:
    """Outputs of a layer as (positions, channels), all of them or as many as the budget allows."""
    x, weight = task.inputs[:2]
    assert weight.held is not None
    conv = task.node.op_type == "Conv"
    transposed = conv or bool(attribute_of(task.node, "transB", 0))
    rows = to_rows(weight.held, 0 if transposed else 1)  # (out, K)
    table = (np.moveaxis(real, 1, -1) if conv else real).reshape(-1, len(rows))
    positions, channels = _choose_positions(len(table), len(rows), rows.shape[1], budget)
    integers, zero = x.integers(computed), int(x.zero_point.reshape(()))
    zeros = np.broadcast_to(weight.zero_point, len(rows)) if weight.zero_point.size > 1 else weight.zero_point
    if conv:
        channels = np.arange(len(rows))
        sums = _sum_convolution(task.node, integers, zero, weight.held, zeros, positions)
    else:
        own = zeros[channels] if zeros.size > 1 else zeros.reshape(())
        seen = integers.reshape(-1, integers.shape[-1])[positions]
        sums = avx2.dense_sums(seen, rows[channels], zero_point=zero, weight_zero_point=own, exact=True)
    scale = weight.scale.reshape(-1)
    scale = scale[channels] if scale.size > 1 else scale
    bias = _read_bias(task, x.scale.reshape(-1) * weight.scale.reshape(-1), len(rows))
    expected = _finish(task, sums, (float(x.scale.reshape(())), scale), None if bias is None else bias[channels])
    return table[np.ix_(positions, channels)], expected


def _compute_rounding_layer(task: RecomputedNode, computed: Arrays, real: Array, budget: int) -> tuple[Array, Array]:
    """As `_compute_layer`, of a dense layer that rounds its activations by itself."""
    node = task.node
    held = [array_of(value) for value in node.inputs]
    weight, scale = held[1], held[2]
    assert weight is not None and scale is not None
    x = task.inputs[0].integers(computed)
    seen = x.reshape(-1, x.shape[-1])
    table = real.reshape(len(seen), -1)
    positions, channels = _choose_positions(len(seen), table.shape[1], seen.shape[1], budget)
    if node.op_type == "MatMulNBits":
        block, bits = attribute_of(node, "block_size", 0), attribute_of(node, "bits", 4)
        scales = scale.reshape(table.shape[1], -1)[channels]
        packed = weight.reshape(table.shape[1], scales.shape[1], -1)[channels]
        bias = held[5] if len(held) > 5 else None
        sums = dynamic.blockwise_dense(seen[positions], unpack_blocks(packed, seen.shape[1], bits), scales, block)
    else:
        zero = np.zeros(1, np.int64) if len(held) < 4 or held[3] is None else held[3]
        bias = held[4] if len(held) > 4 else None
        scales, points = (one[channels] if one.size > 1 else one for one in (scale, zero))
        qparams = dynamic.choose_dynamic_qparams(seen)
        sums = dynamic.dynamic_dense(seen[positions], weight.T[channels], scales, points, qparams)
    return table[np.ix_(positions, channels)], sums if bias is None else sums + bias.astype(np.float64)[channels]


def _choose_positions(
    positions: int, outs: int, reduced: int, budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions, and of a very large dense layer channels, so that their product with K is within the budget."""
    random = np.random.default_rng(SEED)
    most = max(1, budget // max(1, outs * reduced))
    some = np.arange(positions) if most >= positions else np.sort(random.choice(positions, most, replace=False))
    wide = max(1, min(budget, WEIGHTS) // max(1, reduced))
    channels = np.arange(outs) if wide >= outs else np.sort(random.choice(outs, wide, replace=False))
    return some, channels


def _sum_convolution(
    node: ir.Node, x: Array, zero: int, weight: Array, zeros: Array, chosen: Array
) -> NDArray[np.int64]:
    """Sums at the chosen of all output positions, sample by sample: (B, C, *space) -> (chosen, out)."""
    kernel, groups = weight.shape[2:], attribute_of(node, "group", 1)
    rows, each, outs = to_rows(weight, 0), weight.shape[1], len(weight) // groups
    window = read_window(node, x.shape[2:], kernel)
    size = math.prod(window.outputs(x.shape[2:]))
    parts = []
    for sample in np.unique(chosen // size):
        image = x[sample : sample + 1]
        patches = avx2.gather_windows(image, kernel, zero, window.strides, window.pads, window.dilations)
        seen = patches.reshape(size, *patches.shape[-2:])[chosen[chosen // size == sample] % size]
        sums = []
        for group in range(groups):
            own = seen[..., group * each : (group + 1) * each].reshape(len(seen), -1)
            part = slice(group * outs, (group + 1) * outs)
            point = zeros[part] if zeros.size > 1 else zeros.reshape(())
            sums.append(avx2.dense_sums(own, rows[part], zero_point=zero, weight_zero_point=point, exact=True))
        parts.append(np.concatenate(sums, axis=1))
    return np.concatenate(parts)


def _read_bias(task: RecomputedNode, scale: Array, outs: int) -> Array | None:
    """The bias in units of input scale x weight scale, one integer per output; a float one as the runtime rounds it."""
    if task.float_bias is not None:
        return np.broadcast_to(np.rint(task.float_bias.reshape(-1) / scale).astype(np.int64), outs)
    held = task.inputs[2].held if len(task.inputs) > 2 else None
    return None if held is None else np.broadcast_to(held.reshape(-1), outs)


def _finish(task: RecomputedNode, sums: NDArray[np.int64], scales: tuple[float, Array], bias: Array | None) -> Array:
    to = task.written
    if to.scale is None:
        return avx2.dequantize_sums(sums, scales, bias=bias)
    integers = avx2.requantize_sums(sums, (*scales, float(to.scale)), to.zero_point, bias=bias, dtype=to.dtype)
    ends = np.array([to.low, to.high], np.float32)
    low, high = round_to_integers(ends, to.scale, to.zero_point, to.dtype).astype(to.dtype)
    return np.clip(integers, low, high)
