"""A module and the file it was exported to, run on the same inputs.

The difference of an output is the largest |torch - onnx| of its elements; relative is that over the largest |torch|.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.pytorch.module import FinalError, Input, call_module, flatten_outputs
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import choose_batch_size, make_batches

SAMPLES = 256


@dataclass(frozen=True)
class TorchDifference:
    """How far an output of the file is from torch's."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class ExportTrial:
    """Inputs to compare on, and what to call them in an error; `as_exported` when they have the sizes torch traced."""

    name: str
    tensors: list[torch.Tensor]
    as_exported: bool = False


class TorchComparison:
    """The largest difference of every output over all that was run; `path` is the file, `inputs` are what it takes."""

    def __init__(self, module: nn.Module, inputs: tuple[Input, ...], path: Path, tolerance: float) -> None:
        self.differences: dict[str, TorchDifference] = {}
        self._module, self._inputs, self._tolerance = module, inputs, tolerance
        self._session = Session(path)

    def run(self, trials: Iterable[ExportTrial]) -> None:
        """Raises FcdeployError where an output differs by more than the tolerance, FinalError on the sizes torch traced."""
        for trial in trials:
            expected = self._run_torch(trial.tensors)
            feeds = {item.name: tensor.numpy() for item, tensor in zip(self._inputs, trial.tensors, strict=True)}
            for name, a, b in zip(self._session.outputs, expected, self._session.run(feeds), strict=True):
                now = _measure_difference(a, b, name, trial.name)
                if not now.relative <= self._tolerance:
                    raise self._make_error(name, now, trial, expected)
                before = self.differences.get(name, now)
                self.differences[name] = TorchDifference(
                    max(before.absolute, now.absolute), max(before.relative, now.relative)
                )

    def try_lengths(self, cases: Iterable[Mapping[str, int]], batch: str) -> tuple[str, ...]:
        """Run the free axes at these lengths; lines that say which were taken, and which the module itself refuses.

        `batch` names the axis that is not worth a word. Raises FcdeployError where torch takes what the file does not.
        """
        generator = torch.Generator().manual_seed(2)
        taken, refused = [], []
        for lengths in cases:
            tensors = [_draw_like(item.resize(dict(lengths)), generator) for item in self._inputs]
            said = ", ".join(f"{name} {length}" for name, length in lengths.items() if name != batch)
            try:
                self._run_torch(tensors)
            except FcdeployError:
                refused.append(said)
                continue
            self.run([ExportTrial(f"random inputs of {said}", tensors)])
            taken.append(said)
        lines = [f"also tried, and the same as torch: {'; '.join(taken)}"] if taken else []
        return (*lines, *([f"the module itself does not take {'; '.join(refused)}"] if refused else []))

    def _run_torch(self, tensors: list[torch.Tensor]) -> list[Array]:
        outputs = flatten_outputs(call_module(self._module, self._inputs, tensors))
        return [tensor.numpy(force=True) for _, tensor in outputs]

    def _make_error(self, name: str, now: TorchDifference, trial: ExportTrial, expected: list[Array]) -> FcdeployError:
        again = self._run_torch(trial.tensors)
        repeatable = all(np.array_equal(x, y, equal_nan=True) for x, y in zip(expected, again, strict=True))
        kind = FinalError if trial.as_exported else FcdeployError
        return kind(
            f"output {name!r} differs from torch's by {now.absolute:.2g}, {now.relative:.2g} of its largest value, "
            f"on {trial.name}; expected at most {self._tolerance:g}",
            "the module behaves otherwise when traced: look for branches on values, shapes or the exporter"
            if repeatable
            else "the module answers the same input differently each time: take random numbers out of forward",
        )


def draw_trials(inputs: tuple[Input, ...], sizes: Sequence[dict[str, int]]) -> Iterator[ExportTrial]:
    """Random inputs of every size, the exported one first, and the example."""
    generator = torch.Generator().manual_seed(1)
    for index, size in enumerate(sizes):
        where = ", ".join(f"{name} {length}" for name, length in size.items())
        tensors = [_draw_like(item.resize(size), generator) for item in inputs]
        yield ExportTrial(f"random inputs{where and ' of ' + where}", tensors, as_exported=index == 0)
    yield ExportTrial("the example inputs", [item.example for item in inputs])


def read_trials(inputs: tuple[Input, ...], path: Path, data: str | Path) -> Iterator[ExportTrial]:
    """Samples of the user's, up to SAMPLES, as the model at `path` takes them."""
    specs = input_specs(read_model(path))
    for batch in make_batches(open_source(data, specs, limit=SAMPLES), choose_batch_size(specs, 32)):
        yield ExportTrial(batch.names[0], [torch.from_numpy(batch.inputs[item.name]) for item in inputs])


def _draw_like(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers with the example's mean and deviation; integers and booleans are drawn from the example's."""
    if example.is_floating_point():
        centre, spread = example.double().mean(), example.double().std(correction=0)
        normal = torch.randn(example.shape, generator=generator, dtype=torch.float64)
        return (normal * spread + centre).to(example.dtype)
    values = example.flatten()
    return values[torch.randint(len(values), example.shape, generator=generator)]


def _measure_difference(expected: Array, actual: Array, name: str, what: str) -> TorchDifference:
    """Largest |expected - actual|, and that over the largest finite |expected|. NaN and infinity equal themselves."""
    if expected.shape != actual.shape:
        raise FcdeployError(
            f"output {name!r} has shape {list(actual.shape)} where torch's has {list(expected.shape)}, on {what}",
            "the module fixes a shape when traced: compute sizes from x.shape",
        )
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    absolute = float(np.nan_to_num(gap, nan=np.inf, posinf=np.inf).max(initial=0.0))
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return TorchDifference(absolute, absolute / scale if scale else absolute)
