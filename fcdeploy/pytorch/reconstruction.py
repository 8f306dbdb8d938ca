"""Block-wise reconstruction: integers, scales and biases of a network's layers learnt together, by what comes out behind them.

Rounding layer by layer makes each layer right by itself.  Here a stretch of the network (Yuhang Li et al., "BRECQ",
arXiv:2102.05426) is run with its rounded weights on what the rounded stretches before it write, and Adam moves

    w = s (1 + t) round(u),   b + r e        u within half a step of the integers at the start, t = e = 0 there

for the least squared error of what the stretch writes, r being the size of the layer's results.  Gradients pass `round`
unchanged.  Samples are few and weights many, so most are mixtures x = a x1 + (1 - a) x2 of two samples
(Hongyi Zhang et al., "mixup", arXiv:1710.09412), of which the float network says what it makes; and what does not come
nearer to it on samples apart is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcdeploy.arrays import Arrays, Float32
from fcdeploy.graph.nodes import is_constant, name_of
from fcdeploy.pytorch.graph_run import read_inputs, run_node

APART = 5  # of the samples one in so many says whether what was learnt holds
RATES = {"integers": 2e-4, "scales": 2e-3, "biases": 5e-4}  # of Adam, falling to 0 along half a cosine
LAYERS = 12  # in a stretch at least: nine at once come .6 dB nearer than two by two
Values = Mapping[str, Tensor]
Weight = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class RoundedWeight:
    """A layer's weight as rows, one an output: `exact` and `integers` (out, K), `scales` (out, blocks), `bias` (out,).

    Rows are laid out as arithmetic/weights/layout.py does it: `shape` is that of the weight as the node reads it, and `axis` the
    one of it that counts outputs.  `block` neighbours of a row share a scale, which is learnt, too, where `free_scales`.  `allow`
    makes of integers the nearest ones that the target takes.
    """

    exact: Float32
    integers: NDArray[np.int8]
    scales: Float32
    bias: Float32 | None
    block: int
    limits: tuple[int, int]
    shape: tuple[int, ...]
    axis: int
    free_scales: bool
    allow: Callable[[NDArray[np.int8]], NDArray[np.int8]]


@dataclass(frozen=True)
class Rounding:
    """Scale and zero point of a tensor of bytes."""

    scale: float
    zero_point: int

    def apply(self, x: Tensor) -> Tensor:
        """The nearest of its 256 values; gradients pass where none is clipped."""
        steps = torch.clamp(x / self.scale, -self.zero_point, 255 - self.zero_point)
        return (steps + (torch.round(steps) - steps).detach()) * self.scale


@dataclass(frozen=True)
class Network:
    """A float graph, the tensors of it that are bytes, and the layers whose weights are rounded, by name of node."""

    graph: ir.Graph
    roundings: Mapping[str, Rounding]
    weights: Mapping[str, RoundedWeight]


class _Layer:
    """What is learnt of a layer."""

    def __init__(self, start: RoundedWeight) -> None:
        self.start = start
        self.integers = torch.from_numpy(start.integers.astype(np.float32))
        self.scales = torch.from_numpy(start.scales.astype(np.float32))
        self.bias = None if start.bias is None else torch.from_numpy(start.bias.astype(np.float32))

    def begin(self, size: float) -> dict[str, Tensor]:
        """Its parameters, by what they move; `size` is that of its results."""
        self.size = size
        exact = torch.from_numpy(self.start.exact.astype(np.float32)) / self._spread(self.scales)
        self.place = torch.clamp(exact, self.integers - 0.49, self.integers + 0.49).requires_grad_()
        self.growth = torch.zeros_like(self.scales, requires_grad=self.start.free_scales)
        self.shift = torch.zeros(len(self.integers), dtype=torch.float32, requires_grad=self.bias is not None)
        moved = {"integers": self.place, "scales": self.growth, "biases": self.shift}
        return {kind: parameter for kind, parameter in moved.items() if parameter.requires_grad}

    def learn(self) -> Weight:
        """Weight as the node reads it, and bias, through which gradients go."""
        limited = torch.clamp(self.place, *self.start.limits)
        integers = limited + (torch.round(limited) - limited).detach()
        bias = None if self.bias is None else self.bias + self.size * self.shift
        return self._turn(integers * self._spread(self.scales * (1 + self.growth))), bias

    def read(self) -> Weight:
        """Weight as the node reads it, and bias, as they stand."""
        return self._turn(self.integers * self._spread(self.scales)), self.bias

    def settle(self) -> _Layer:
        """The layer with what was learnt, in integers that the target takes."""
        with torch.no_grad():
            rounded = torch.clamp(torch.round(self.place), *self.start.limits).numpy().astype(np.int8)
            scales = self.scales * (1 + self.growth)
            bias = None if self.bias is None else (self.bias + self.size * self.shift).numpy()
        integers = self.start.allow(rounded)
        return _Layer(replace(self.start, integers=integers, scales=scales.numpy(), bias=bias))

    def _spread(self, scales: Tensor) -> Tensor:
        """Scales of blocks for each weight of them."""
        return scales.repeat_interleave(self.start.block, dim=1)[:, : self.start.exact.shape[1]]

    def _turn(self, rows: Tensor) -> Tensor:
        """Rows as the node reads them, as `from_rows` does it."""
        shape = self.start.shape
        if len(shape) == 2:
            return rows if self.start.axis == 0 else rows.T
        return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


def find_stretches(graph: ir.Graph, layers: Mapping[str, object], least: int = LAYERS) -> list[list[ir.Node]]:
    """The nodes in the graph's order, cut where one tensor alone goes on, each part with at least so many of `layers`."""
    nodes = list(graph)
    at = {node: index for index, node in enumerate(nodes)}
    last = {v: at[node] for node in nodes for v in node.inputs if v is not None and not is_constant(v)}
    last |= dict.fromkeys(graph.outputs, len(nodes))
    live, stretches, now = set(graph.inputs), list[list[ir.Node]](), list[ir.Node]()
    for index, node in enumerate(nodes):
        now.append(node)
        live = {v for v in (*live, *node.outputs) if last.get(v, -1) > index}
        if len(live) == 1 and sum(name_of(each) in layers for each in now) >= least:
            stretches.append(now)
            now = []
    if now and stretches and not any(name_of(node) in layers for node in now):
        stretches[-1] += now
    elif now:
        stretches.append(now)
    return stretches


@dataclass(frozen=True)
class Schedule:
    """Steps for each stretch, samples of a step, and how many samples and mixtures of them are held at most."""

    steps: int
    batch: int
    pool: int


@contextmanager
def own_state() -> Iterator[None]:
    """torch as this module needs it, whatever the program around it has asked of it."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)  # sums of two threads are added in another order
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def reconstruct(
    network: Network, samples: Arrays, schedule: Schedule, on_step: Callable[[int, int], None]
) -> dict[str, RoundedWeight]:
    """The weights of the layers, by name of node, as learnt; the same samples give the same bits.

    `samples` are input name -> (samples, ...).  Stretches that come no nearer to float on the samples apart are as they were;
    empty where the network as a whole does not.
    """
    with own_state():
        return _Reconstruction(network, schedule, on_step).run(samples)


class _Reconstruction:
    """One run: the layers as they are being learnt, and the tensors at the cuts between stretches."""

    def __init__(self, network: Network, schedule: Schedule, on_step: Callable[[int, int], None]) -> None:
        self.network, self.batch, self.on_step = network, schedule.batch, on_step
        self.steps, self.pool = schedule.steps, schedule.pool
        self.layers = {name: _Layer(weight) for name, weight in network.weights.items()}
        self.done, self.total = 0, 0  # steps
        self.generator = torch.Generator().manual_seed(0)

    def run(self, samples: Arrays) -> dict[str, RoundedWeight]:
        graph = self.network.graph
        whole = {name: torch.from_numpy(array) for name, array in samples.items()}
        apart = max(len(next(iter(whole.values()))) // APART, 1)
        seen = mix({name: x[apart:] for name, x in whole.items()}, self.pool, self.generator)
        tests = {name: x[:apart] for name, x in whole.items()}
        start = {name: layer.read() for name, layer in self.layers.items()}
        seen_now, tests_now, tests_before = (self._round_inputs(x) for x in (seen, tests, tests))

        stretches = find_stretches(graph, self.layers)
        self.total = len(stretches) * self.steps
        for stretch in stretches:
            ends = _list_ends(stretch, graph)
            truth, test_truth = self._run_all(stretch, seen, None, ends), self._run_all(stretch, tests, None, ends)
            names = [name_of(node) for node in stretch if name_of(node) in self.layers]
            if names:
                self._learn(stretch, names, seen_now, truth)
                self._keep_if_nearer(stretch, names, tests_now, test_truth)
            now = {name: self.layers[name].read() for name in names}
            tests_before = self._run_all(stretch, tests_before, start, ends)
            seen_now, tests_now = (self._run_all(stretch, x, now, ends) for x in (seen_now, tests_now))
            seen, tests = truth, test_truth
        if not _measure(tests_now, tests) < _measure(tests_before, tests):
            return {}
        return {name: layer.start for name, layer in self.layers.items()}

    def _learn(self, stretch: Sequence[ir.Node], names: Sequence[str], reads: Values, truth: Values) -> None:
        """Learn the layers of these names from what their stretch reads and what it should write."""
        layers = {name: self.layers[name] for name in names}
        power = {name: float((y.double() ** 2).mean()) or 1.0 for name, y in truth.items()}
        sizes = self._measure_results(stretch, names, reads)
        parameters = [(kind, p) for name, layer in layers.items() for kind, p in layer.begin(sizes[name]).items()]
        optimizer = torch.optim.Adam([{"params": [p], "lr": RATES[kind]} for kind, p in parameters])
        count = len(next(iter(reads.values())))

        for step in range(self.steps):
            for group, (kind, _) in zip(optimizer.param_groups, parameters, strict=True):
                group["lr"] = RATES[kind] * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))
            rows = torch.randint(count, (min(self.batch, count),), generator=self.generator)
            weights = {name: layer.learn() for name, layer in layers.items()}
            y = self._run({name: x[rows] for name, x in reads.items()}, stretch, weights, list(truth))
            loss = torch.stack([((y[name] - truth[name][rows]) ** 2).mean() / power[name] for name in truth]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.done += 1
            self.on_step(self.done, self.total)

    def _keep_if_nearer(self, stretch: Sequence[ir.Node], names: Sequence[str], reads: Values, truth: Values) -> None:
        """Take what was learnt where the stretch, with the integers that will be written, comes nearer to float."""
        before = {name: self.layers[name] for name in names}
        after = {name: layer.settle() for name, layer in before.items()}

        def measure(layers: Mapping[str, _Layer]) -> float:
            weights = {name: layer.read() for name, layer in layers.items()}
            return _measure(self._run_all(stretch, reads, weights, list(truth)), truth)

        if measure(after) < measure(before):
            self.layers |= after

    def _measure_results(self, stretch: Sequence[ir.Node], names: Sequence[str], reads: Values) -> dict[str, float]:
        """The root mean square of what each layer writes, on the first samples."""
        written = {name_of(node): name_of(node.outputs[0]) for node in stretch if name_of(node) in names}
        first = {name: x[: self.batch] for name, x in reads.items()}
        with torch.no_grad():
            values = self._run(first, stretch, None, list(written.values()))
        return {name: float((values[output].double() ** 2).mean().sqrt()) for name, output in written.items()}

    def _round_inputs(self, inputs: Values) -> Values:
        rounded = self.network.roundings
        return {name: rounded[name].apply(x) if name in rounded else x for name, x in inputs.items()}

    def _run_all(
        self, stretch: Sequence[ir.Node], inputs: Values, weights: Mapping[str, Weight] | None, ends: Sequence[str]
    ) -> dict[str, Tensor]:
        """As `_run` without gradients, some samples at a time."""
        count, at_once = len(next(iter(inputs.values()))), 2 * self.batch
        with torch.no_grad():
            parts = [
                self._run({name: x[at : at + at_once] for name, x in inputs.items()}, stretch, weights, ends)
                for at in range(0, count, at_once)
            ]
        return {name: torch.cat([part[name] for part in parts]) for name in ends}

    def _run(
        self, inputs: Values, stretch: Sequence[ir.Node], weights: Mapping[str, Weight] | None, ends: Sequence[str]
    ) -> dict[str, Tensor]:
        """What a stretch writes with these weights, tensors rounded; without any, what the float network writes."""
        roundings = {} if weights is None else self.network.roundings
        known = dict(inputs)
        for node in stretch:
            values = read_inputs(node, known)
            if weights is not None and name_of(node) in weights:
                weight, bias = weights[name_of(node)]
                values = [values[0], weight, *([] if bias is None else [bias])]
            for name, y in run_node(node, values).items():
                known[name] = roundings[name].apply(y) if name in roundings else y
        return {name: known[name] for name in ends}


def run_float(graph: ir.Graph, samples: Arrays) -> tuple[Arrays, int]:
    """What the graph answers, by torch, and the bytes of all tensors on the way."""
    with own_state(), torch.no_grad():
        known = {name: torch.from_numpy(array) for name, array in samples.items()}
        for node in graph:
            known |= run_node(node, read_inputs(node, known))
    answers = {name_of(value): known[name_of(value)].numpy() for value in graph.outputs}
    return answers, sum(x.numel() * x.element_size() for x in known.values())


def mix(samples: Values, most: int, generator: torch.Generator) -> Values:
    """The samples, and mixtures of two of them, `most` in all; numbers that are not floats are those of the first."""
    count = len(next(iter(samples.values())))
    more = max(most - count, 0)
    one, other = (torch.randint(count, (more,), generator=generator) for _ in range(2))
    share = torch.rand(more, generator=generator, dtype=torch.float32)

    def mix_one(x: Tensor) -> Tensor:
        along = share.reshape(-1, *[1] * (x.dim() - 1))
        return along * x[one] + (1 - along) * x[other] if x.is_floating_point() else x[one]

    return {name: torch.cat([x, mix_one(x)]) for name, x in samples.items()}


def _list_ends(stretch: Sequence[ir.Node], graph: ir.Graph) -> list[str]:
    """What a stretch writes that is read behind it, or answered."""
    inside, answers = set(stretch), set(graph.outputs)
    written = [value for node in stretch for value in node.outputs]
    read_behind = (value in answers or any(user not in inside for user in value.consumers()) for value in written)
    return [name_of(value) for value, wanted in zip(written, read_behind, strict=True) if wanted]


def _measure(values: Values, truth: Values) -> float:
    """Squared error over the power of the truth, added over tensors."""
    return sum(
        float(((values[name].double() - y.double()) ** 2).sum() / ((y.double() ** 2).sum() + 1e-30))
        for name, y in truth.items()
    )
