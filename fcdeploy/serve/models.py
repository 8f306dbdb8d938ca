"""One loaded model: its session, what it reads and writes, and how many samples may share a run.

Requests share a run only where the graph proves that samples do not touch each other (`fcdeploy.proof.batch_independence`) and
where the kernels showed it: every batch size that will be used is run once when the model is loaded, and each sample's
answer must be that of a run of its own, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.bundles.golden import DIFFERENT
from fcdeploy.bundles.load import load_bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.light_reader import Outline, read_outline
from fcdeploy.preprocessing.apply import import_pillow
from fcdeploy.proof.batch_independence import explain_dependence
from fcdeploy.records.data_format import UNSAID, DataFormat, from_metadata
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.feeds import draw_feeds
from fcdeploy.runtime.options import read_metadata
from fcdeploy.serve.meaning import Probabilities, fills_missing, find_probabilities
from fcdeploy.serve.repository import ModelFile
from fcdeploy.wording import quote_path

DIRECT_SECONDS = 0.0005  # a run up to here holds nobody up who came in the same turn of the loop
INLINE_SECONDS = 0.002  # a run up to here costs less on the loop than handing it to a thread and back
LARGEST = 16  # samples in one run: a sample hardly gets cheaper beyond it, and answers leave while others are computed
MOST_TEXTS = 1 << 16  # of a request: two microseconds each, there and back
PATIENCE = 1.0  # seconds that trying batch sizes may take
PIECE = (
    1 << 20
)  # bytes of inputs beyond which samples of one request run piece by piece: what is between takes many times them
FREE_LENGTHS = (16, 64, 1)  # of free axes behind the first, for made-up inputs


@dataclass(frozen=True, eq=False)
class Model:
    """A version of a model that is ready.

    `largest` is how many samples may share a run, or with an engine that computes one after the other, a turn in which several
    requests are answered; `alone` is why requests may not; samples of one request need not where they
    are `independent`.  `sample_seconds` is what one sample takes, 0 where no inputs could be made up to try it.  `format`
    is how raw data become inputs; `unranked` are inputs and outputs whose file says no shape.  `probabilities` says of each
    output which numbers are probabilities of classes.  `layouts` is what `fcdeploy.serve.tensors` has read of requests' JSON.
    """

    name: str
    version: str
    session: Engine
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    largest: int
    alone: str
    independent: bool
    sample_seconds: float
    load_seconds: float
    format: DataFormat = UNSAID
    probabilities: Mapping[str, Probabilities] = field(default_factory=dict)
    layouts: dict[Any, Any] = field(default_factory=dict)
    unranked: frozenset[str] = frozenset()

    @cached_property
    def key(self) -> tuple[str, str]:
        return self.name, self.version

    @property
    def company(self) -> str:
        """How many samples are computed together, and why not more, in words."""
        if not self.session.batches_pay:
            return "each sample by itself"
        return f"up to {self.largest} samples a run" if self.largest > 1 else f"one request a run: {self.alone}"

    @cached_property
    def direct_rows(self) -> int:
        """Samples of a request that is run as it comes in, 0 where it is better to wait for others, or for a thread."""
        if self.session.batches_pay or not self.sample_seconds:
            return 0
        return int(DIRECT_SECONDS / self.sample_seconds)

    @cached_property
    def sample_bytes(self) -> int:
        """Of all outputs for a sample; 0 where their shapes do not say it, such as those of texts."""
        total = 0
        for spec in self.outputs.values():
            axes = spec.shape[1:]
            if spec.dtype.kind == "O" or not spec.shape or None in axes:
                return 0
            total += spec.dtype.itemsize * prod(n or 1 for n in axes)
        return total

    @cached_property
    def has_texts(self) -> bool:
        """Whether an output is text, whose bytes say nothing of its length."""
        return any(spec.dtype.kind == "O" for spec in self.outputs.values())

    @cached_property
    def most_texts(self) -> int:
        """In an input of a request: they are read one by one, on the loop."""
        return MOST_TEXTS // max(1, sum(spec.dtype.kind == "O" for spec in self.inputs.values()))

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """All outputs, in the order of `outputs`."""
        return self.session.run(feeds)

    def run_in_pieces(self, feeds: Mapping[str, Array], rows: int, size: int) -> list[Array]:
        """The same of `rows` samples of `size` bytes together: what lies between does not grow with their number."""
        step = max(self.largest, PIECE * rows // size) if self.independent else rows
        whole: list[Array] = []
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            pieces = _slice_samples(feeds, start, stop)
            parts = self.run({name: np.require(array, requirements="A") for name, array in pieces.items()})
            if stop - start == rows:
                return parts
            if not start:  # each piece goes to its place: joined in the end all would be there twice
                whole = [np.empty((rows, *part.shape[1:]), part.dtype) for part in parts]
            for output, part in zip(whole, parts, strict=True):
                output[start:stop] = part
        return whole


def load_model(
    place: ModelFile, *, threads: int = 1, engine: str = "onnxruntime", max_batch: int | None = None
) -> Model:
    """Load, warm up, and find out how many samples may share a run: at most `max_batch`, else what runs in 2 ms.

    With `engine` "native" the library of a bundle runs.
    A bundle's golden samples must come out as they did where it was made, but for rounding ties.  Raises FcdeployError
    when the file is no model, or one whose answers are others here, or whose inputs and outputs cannot be served.
    """
    begun = time.perf_counter()
    name = place.name
    session, outline, how = (_open_bundle if place.bundle else _open_file)(place, threads, engine)
    inputs, outputs = session.input_specs, session.output_specs
    if how.preprocessing is not None:
        with suppress(FcdeployError):  # a request says that it is not installed
            import_pillow()  # takes a fifth of a second, which no request should wait for
    # an engine for which batches do not pay computes each sample by itself, whatever the graph says of a batch
    dependence = explain_dependence(
        outline if session.batches_pay else replace(outline, nodes=()), leading=session.batches_pay
    )
    alone = "--max-batch 1" if max_batch == 1 else dependence or _find_free_axis(inputs)
    samples = _make_inputs(session, inputs, 1 if alone else max_batch or LARGEST)
    largest, seconds, answers = 1, 0.0, list[Array]()
    if samples is None:
        alone = alone or "no inputs could be made up to try it"
    else:
        rows = max((array.shape[0] for array in samples.values() if array.ndim), default=1) if alone else 1
        seconds = _time_run(session, samples, rows) / rows
        answers = session.run(_slice_samples(samples, 0, rows))
        if not alone:
            largest, alone = _try_batches(session, samples, seconds, max_batch)
    said = zip_longest((spec.name for spec in outputs), answers)
    missing = fills_missing(outline)
    return Model(
        name, place.version, session,
        {spec.name: replace(spec, missing=missing and spec.dtype.kind == "f") for spec in inputs},
        {spec.name: spec for spec in outputs}, largest, alone, not dependence, seconds, time.perf_counter() - begun, how,
        {output: find_probabilities(outline, output, answer) for output, answer in said}, unranked=outline.unranked,
    )  # fmt: skip


def _open_file(place: ModelFile, threads: int, engine: str) -> tuple[Engine, Outline, DataFormat]:
    """A file; weights outside it must lie in its folder."""
    path = place.path
    if engine != "onnxruntime":
        raise FcdeployError(
            f"model {str(path)!r} is an ONNX file, which onnxruntime runs, expected a bundle with a library",
            f"fcdeploy bundle {quote_path(path)} --library MODEL.so -o model.fcd",
        )
    outline = read_outline(path)
    folder = path.parent.resolve()
    for constant in outline.constants.values():
        if constant.location and not (folder / constant.location).resolve().is_relative_to(folder):
            raise FcdeployError(
                f"model {str(path)!r}: weights lie in {constant.location!r}, outside the model's folder",
                "keep them beside the model",
            )
    from fcdeploy.runtime.session import Session  # here: a bundle's own library runs without onnxruntime

    session = Session(path, threads=threads)
    how = from_metadata(read_metadata(path), f"model {str(path)!r}", session.output_specs)
    return session, outline, replace(how, boxes=None) if how.boxes and how.boxes.why_not_served else how


def _open_bundle(place: ModelFile, threads: int, engine: str) -> tuple[Engine, Outline, DataFormat]:
    """A bundle whose hashes and golden samples hold."""
    bundle = load_bundle(place.path, threads=threads, engine=engine)
    for difference in bundle.compare():
        if difference.kind == DIFFERENT:
            raise FcdeployError(
                f"bundle {str(place.path)!r}: output {difference.output!r} is not the golden one on this CPU",
                f"fcdeploy verify {quote_path(place.path)}",
            )
    manifest = bundle.manifest
    return bundle.session, read_outline(bundle.stored.read(manifest.model)), manifest.format


def _find_free_axis(inputs: Sequence[TensorSpec]) -> str:
    """Batches are tried at one shape, so there must be only one."""
    free = [spec.name for spec in inputs if None in spec.shape[1:]]
    return f"input {free[0]!r} has free axes behind the first" if free else ""


def _make_inputs(session: Engine, inputs: Sequence[TensorSpec], count: int) -> Arrays | None:
    """Inputs of `count` samples, one of which the model runs on; None where none are found."""
    for length in FREE_LENGTHS:
        one = [
            replace(spec, shape=tuple(n or (length if i else 1) for i, n in enumerate(spec.shape))) for spec in inputs
        ]
        try:
            session.run(draw_feeds(one))
        except FcdeployError:
            continue
        return draw_feeds([replace(spec, shape=(count, *spec.shape[1:])) for spec in one] if count > 1 else one)
    return None


def _slice_samples(samples: Mapping[str, Array], start: int, stop: int) -> Arrays:
    return {name: array[start:stop] if array.ndim else array for name, array in samples.items()}


def _time_run(session: Engine, samples: Mapping[str, Array], size: int) -> float:
    """Of a warm run of the first `size` samples: the shortest of three."""
    feeds = _slice_samples(samples, 0, size)
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        session.run(feeds)
        taken.append(time.perf_counter() - begun)
        if taken[-1] > 0.1:
            break
    return min(taken)


def _try_batches(
    session: Engine, samples: Mapping[str, Array], single: float, max_batch: int | None
) -> tuple[int, str]:
    """The largest batch such that it and all smaller ones answer as single runs do, and why not more than one."""
    begun = time.perf_counter()
    alone: list[list[Array]] = []
    for size in range(1, (max_batch or LARGEST) + 1):
        if max_batch is None and size > 1 and single * size > 2 * INLINE_SECONDS:
            return size - 1, f"a single run takes {1000 * single:.1f} ms" if size == 2 else ""
        alone.append(session.run(_slice_samples(samples, size - 1, size)))
        started = time.perf_counter()
        together = session.run(_slice_samples(samples, 0, size))
        now = time.perf_counter()
        if any(not output.ndim or len(output) != size for output in together):
            return 1, "an output has another leading axis than the inputs"
        if not _are_equal(together, alone):
            return size - 1, f"samples in a batch of {size} are answered otherwise than alone" if size == 2 else ""
        if max_batch is None and now - started > INLINE_SECONDS and _time_run(session, samples, size) > INLINE_SECONDS:
            return size, "" if size > 1 else f"a single run takes {1000 * single:.1f} ms"
        if now - begun > PATIENCE:
            return size, "" if size > 1 else "a single run takes too long to try more"
    return size, ""


def _are_equal(together: Sequence[Array], alone: Sequence[Sequence[Array]]) -> bool:
    """Bit for bit, also where a result is NaN."""
    return all(
        np.array_equal(part, whole[i : i + 1])
        if part.dtype.kind == "O"
        else part.tobytes() == whole[i : i + 1].tobytes()
        for i, single in enumerate(alone)
        for whole, part in zip(together, single, strict=True)
    )
