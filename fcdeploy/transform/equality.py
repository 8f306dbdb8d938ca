"""Whether two ways to compute the same answers do: both are run, and the largest difference counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_output
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.preprocessing.read import Given
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.progress import OnStep
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.session import LoadOptions, Session
from fcdeploy.samples.kinds import Samples, open_source
from fcdeploy.samples.layout import runs_alone
from fcdeploy.samples.source import choose_batch_size, make_batches
from fcdeploy.wording import say_count

TOLERANCE = 1e-5  # of the largest value of an output
RUNS, BATCH = 3, 3  # of drawn samples: one, and a batch where the leading axis is free
ENOUGH = 1 + (RUNS - 1) * BATCH  # samples, after which a file that fixes its batch is not run again
MOST_BATCH = 8

Feeds = Arrays
Run = Callable[[Feeds], Sequence[Array]]


@dataclass(frozen=True)
class Comparison:
    """What the answers before and after are compared on: samples of `data`, else numbers drawn with a seed.

    `shapes` by input name gives free axes a length; `batch_axes` and `states` say where samples lie, as `calibrate` takes them.
    """

    shapes: Mapping[str, Sequence[int]] | None = None
    data: Path | str | None = None
    samples: int | None = None
    preprocess: Given = None
    batch_axes: Sequence[str] = ()
    states: Sequence[str] = ()

    def choose_samples(self) -> Samples | None:
        """Those of `data`, if there are any."""
        return None if self.data is None else Samples(self.data, self.samples, format=DataFormat(self.preprocess))


@dataclass(frozen=True)
class ComparedSamples:
    """Where samples come from, in words; the inputs with every axis given a length; and batches to run."""

    source: str
    sizes: list[TensorSpec]
    feeds: Iterator[Feeds]

    @property
    def axes(self) -> dict[str, int | None]:
        """Input -> the axis along which its samples lie."""
        return {spec.name: spec.sample_axis for spec in self.sizes}


@dataclass(frozen=True)
class Equality:
    """How far the answers are apart: `relative` is max |a - b| / max |a| of the worst output, `equal` the share of
    elements that are equal bit for bit.
    """

    samples: int
    relative: float
    equal: float


def read_to_transform(path: Path, targets: Sequence[Path], on: Comparison, *, force: bool) -> ir.Model:
    """The model in a file, once it is clear that the results may be written at `targets`."""
    inputs = tuple(Path(item) for item in (path, on.data) if item)
    for target in targets:
        check_output(target, force=force, inputs=inputs)
    return read_model(path)


def open_samples(path: Path, model: ir.Model, on: Comparison) -> ComparedSamples:
    """Samples for the inputs of `model`, as it is now; its file gives the states of a stream.

    Raises FcdeployError where they do not fit.
    """
    specs = input_specs(model)
    sizes = fix_shapes(specs, None, on.shapes)
    if on.data is None:
        if on.samples is not None or on.preprocess is not None:
            raise FcdeployError("--samples and --preprocess are for --data", "--data DATA")
        several = all(spec.shape and spec.shape[0] is None for spec in specs) and not runs_alone(specs)
        return ComparedSamples("drawn with a seed", sizes, _draw_batches(sizes, BATCH if several else None))
    wanted = [_free_samples(spec, size) for spec, size in zip(specs, sizes, strict=True)]
    source = open_source(on.data, wanted, limit=on.samples, format=DataFormat(on.preprocess), model=path)
    batches = make_batches(source, choose_batch_size(wanted, MOST_BATCH))
    return ComparedSamples(f"of {Path(on.data).name}", sizes, (batch.inputs for batch in batches))


def _free_samples(spec: TensorSpec, size: TensorSpec) -> TensorSpec:
    """An input whose axes have lengths, but for that of samples where the model leaves it open."""
    axis = spec.sample_axis
    if axis is None or not spec.shape or spec.shape[axis] is not None:
        return size
    return replace(size, shape=tuple(None if at == axis else length for at, length in enumerate(size.shape)))


def _draw_batches(sizes: Sequence[TensorSpec], batch: int | None) -> Iterator[Feeds]:
    axes = {spec.name: spec.sample_axis for spec in sizes}
    drawn = 0
    for seed in range(RUNS):
        length = batch if seed and batch else None
        feeds = draw_feeds(
            [replace(one, shape=(length, *one.shape[1:])) if length else one for one in sizes], seed=seed
        )
        drawn += _count_samples(feeds, axes)
        yield feeds
        if drawn >= ENOUGH:
            return


def load_once(model: ir.Model | Path, *, optimize: bool = True, precise: bool = False) -> Run:
    """A model that is run a few times, beside another, and gives back what a run took."""
    return Session(model, optimize=optimize, precise=precise, load=LoadOptions(arena=False)).run


def compare(
    before: Run,
    after: Run,
    feeds: Iterable[Feeds],
    *,
    axes: Mapping[str, int | None] | None = None,
    on_step: OnStep | None = None,
) -> Equality:
    """Run both on every batch; outputs are compared as rows, whatever their shape.

    `axes` says along which axis of an input samples lie, the first unless it says so.  Raises FcdeployError for results that
    are not finite, or not as many.
    """
    samples, elements, equal = 0, 0, 0
    largest: dict[int, float] = {}
    apart: dict[int, float] = {}
    for fed in feeds:
        for index, (f, q) in enumerate(zip(before(fed), after(fed), strict=True)):
            a, b = np.asarray(f).reshape(-1), np.asarray(q).reshape(-1)
            if a.shape != b.shape:
                raise FcdeployError(
                    f"output {index} has shape {f.shape} before and {q.shape} after", "fcdeploy inspect MODEL shows it"
                )

            # bits first, then distances in float64; texts have none, and are equal or not
            elements, equal = elements + a.size, equal + int((a == b).sum())
            if a.dtype.kind in "OSU":
                a, b = np.ones(len(a)), (a == b).astype(np.float64)
            a, b = a.astype(np.float64), b.astype(np.float64)
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise FcdeployError(f"output {index} is not finite on these samples", "--data DATA gives others")
            largest[index] = max(largest.get(index, 0.0), float(np.abs(a).max(initial=0.0)))
            apart[index] = max(apart.get(index, 0.0), float(np.abs(a - b).max(initial=0.0)))
        samples += _count_samples(fed, axes)
        if on_step:
            on_step("comparing", samples, None)
    relative = max((_relative_difference(apart[index], largest[index]) for index in apart), default=0.0)
    return Equality(samples, relative, equal / elements if elements else 1.0)


def refuse_different(equality: Equality, what: str) -> None:
    """Raise FcdeployError unless the answers are the same within the tolerance."""
    if not equality.relative <= TOLERANCE:
        raise FcdeployError(
            f"{what} differs by {equality.relative:.2g} of its largest value, expected {TOLERANCE:g}: nothing is written",
            "--data DATA compares on real samples; please report it with the model",
        )


def describe_equality(equality: Equality, source: str) -> str:
    """'the same within 3.1e-07 on 7 samples drawn with a seed'."""
    what = "equal bit for bit" if equality.equal == 1 else f"the same within {equality.relative:.1e}"
    return f"{what} on {say_count(equality.samples, 'sample')} {source}"


def _relative_difference(apart: float, largest: float) -> float:
    return apart / largest if largest > 0 else math.inf if apart else 0.0


def _count_samples(fed: Mapping[str, Array], axes: Mapping[str, int | None] | None) -> int:
    along = ((array, (axes or {}).get(name, 0)) for name, array in fed.items())
    return next((array.shape[axis] for array, axis in along if axis is not None and array.ndim > axis), 1)
