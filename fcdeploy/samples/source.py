"""Samples, sources and batches: what every command that runs a model on data reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as counting
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import UNSAID, DataFormat
from fcdeploy.samples import checks, layout

Load = Callable[[], Arrays]
Reader = Callable[[], Iterator[tuple[str, Load]]]
"""Starts reading from the beginning: yields what to call a sample ("sample 3") and a function that loads its arrays,
unchecked, to be called before the next one is asked for, or never.

What `Load` raises is the fault of that one sample, and the next can still be had; what the iterator itself raises is
the end of the source.
"""


@dataclass(frozen=True)
class FromFile:
    """Loads a sample that has a file of its own."""

    file: Path
    load: Load

    def __call__(self) -> Arrays:
        """The sample's arrays."""
        return self.load()

    @property
    def stamp(self) -> int:
        """64 bits of the file's name, size and time of change; 0 where it is gone."""
        try:
            status = self.file.stat()
        except OSError:
            return 0
        text = f"{self.file.name} {status.st_size} {status.st_mtime_ns}"
        return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Sample:
    """One sample: arrays without a sample axis, in the model's dtypes. Samples are counted from 0."""

    name: str
    inputs: Arrays
    labels: Arrays

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of all arrays: samples of equal ones can be stacked."""
        return [value.shape for value in (*self.inputs.values(), *self.labels.values())]


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used: its position in the whole source, counted from 0, what it is called, and why."""

    position: int
    name: str
    why: str


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of equal shapes: the inputs of one run as the model takes them, labels (samples, ...)."""

    names: tuple[str, ...]
    inputs: Arrays
    labels: Arrays
    specs: tuple[TensorSpec, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def alone(self) -> bool:
        """Whether the model takes no second sample in a run."""
        return layout.runs_alone(self.specs)

    def sample(self, index: int) -> Arrays:
        """The inputs of one sample, without an axis of samples."""
        return layout.unstack_sample(self.inputs, self.specs, index)

    def pick(self, indices: Sequence[int]) -> Batch:
        """The batch of these samples."""
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            inputs=layout.stack_samples([self.sample(i) for i in indices], self.specs),
            labels={name: values[list(indices)] for name, values in self.labels.items()},
        )

    def first(self, count: int) -> Arrays:
        """The inputs of a run of the first `count` samples; those without an axis of samples as they are."""
        return layout.take_first(self.inputs, self.specs, count)


@dataclass(frozen=True)
class Source:
    """Samples that can be read again and again, one at a time, each checked against the model's inputs.

    `count` is None where only reading to the end would tell.  Iterating raises FcdeployError at the first sample that
    does not fit, and when there is none at all; with `on_bad` it tells that of the sample and goes on.

    Which samples: of the whole source the first `limit`, or those at the positions `chosen` (ascending); of these the
    shard `part` = (index, of how many), dealt out `block` at a time; of these not the first `passed`.
    All carry the same labels: those named `labels`, or what the first one has.  `files` are what it reads beside a file
    for each sample; `format` is how it reads, all of it said; `on_stamp` is told the stamp of such a file before it is read.
    `check` raises FcdeployError for a sample that fits and cannot be used all the same.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    read: Reader
    count: int | None
    labelled: bool
    limit: int | None = None
    chosen: NDArray[np.int64] | None = None
    part: tuple[int, int] = (0, 1)
    block: int | None = None
    on_bad: Callable[[BadSample], None] | None = None
    passed: int = 0
    labels: frozenset[str] | None = None
    files: tuple[Path, ...] = ()
    format: DataFormat = UNSAID
    on_stamp: Callable[[int], None] | None = None
    check: Callable[[Arrays, str, str], None] | None = None

    def __iter__(self) -> Iterator[Sample]:
        label_names = self.labels
        taken = False
        first_bad: FcdeployError | None = None
        for position, place, load in self._iterate():
            if self.on_stamp is not None and isinstance(load, FromFile):
                self.on_stamp(load.stamp)
            try:
                inputs, labels = checks.fit_sample(load(), self.inputs, place, self.name)
                checks.check_same_labels(
                    frozenset(labels) if label_names is None else label_names, labels, place, self.name
                )
                if self.check is not None:
                    self.check(inputs, place, self.name)
            except FcdeployError as error:
                if self.on_bad is None:
                    raise
                self.on_bad(BadSample(position, f"{self.name}, {place}", error.message))
                first_bad = first_bad or error
                continue
            label_names, taken = frozenset(labels), True
            yield Sample(f"{self.name}, {place}", inputs, labels)
        if first_bad and not taken and self.part == (0, 1) and not self.passed:
            raise FcdeployError(f"no sample of {self.name} can be used, the first: {first_bad.message}", first_bad.hint)

    def shard(self, index: int, of: int, block: int | None = None) -> Source:
        """The `index`-th of `of` parts, which together hold every sample once: samples index, index + of, ...

        With `block` every `of`-th block of so many samples, and no batch spans two of them; a model that insists on its
        batch gets whole batches.  What other shards take is not decoded here.  A shard may be empty, and can be cut
        again.
        """
        assert 0 <= index < of
        assert block is None or self.part == (0, 1)
        first, step = self.part
        part = replace(self, part=(first + step * index, step * of), block=block or self.block)
        if self.count is None:
            return part
        size = part.shard_unit
        whole, rest = divmod(self.count, size)
        mine = len(range(index, whole, of))
        return replace(part, count=mine * size + (rest if whole % of == index else 0))

    @property
    def shard_unit(self) -> int:
        """How many consecutive samples are dealt to a shard together."""
        return self.block or get_fixed_batch(self.inputs) or 1

    def rank(self, own: int) -> int:
        """How many samples the whole holds up to the `own`-th of this shard."""
        index, of = self.part
        blocks, rest = divmod(self.passed + own - 1, self.shard_unit)
        return (blocks * of + index) * self.shard_unit + rest + 1

    def after(self, passed: int) -> Source:
        """The source without its first `passed` samples, which are not loaded; `count` stays that of all."""
        return replace(self, passed=self.passed + passed)

    def stamps(self) -> Iterator[int]:
        """The stamp of each sample's file, without reading it; 0 where samples have no file of their own."""
        return (load.stamp if isinstance(load, FromFile) else 0 for _, _, load in self._iterate())

    def list_files(self) -> Iterator[Path]:
        """The file of each sample that has one of its own, without reading it."""
        return (load.file for _, _, load in self._iterate() if isinstance(load, FromFile))

    def draw_few(self, few: int) -> Source:
        """So many samples out of all, whole batches of them, and of a source that does not know its number the first ones."""
        fixed = get_fixed_batch(self.inputs) or 1
        wanted = max(fixed, few - few % fixed)
        if self.limit is not None or self.chosen is not None or self.count is None or self.count <= wanted:
            return self
        return self.draw(wanted, 0)

    def without_bad(self) -> Source:
        """The same samples but for those that cannot be used, of which nothing is said."""
        return replace(self, on_bad=lambda _: None)

    def require_labels(self, labels: frozenset[str] | None) -> Source:
        """The same samples, required to have these labels; None requires those of the first one."""
        return replace(self, labels=labels)

    def first(self, limit: int) -> Source:
        """The first so many samples of those that it has."""
        assert self.part == (0, 1)
        limit = limit if self.limit is None else min(self.limit, limit)
        return replace(self, limit=limit, count=None if self.count is None else min(self.count, limit))

    def draw(self, limit: int, seed: int) -> Source:
        """So many samples, drawn from the whole by `seed`, in their order: the same ones on every machine.

        A source that does not know its number of samples is run through once to count them.
        """
        assert self.part == (0, 1)
        assert self.limit is None
        assert self.chosen is None
        total = sum(1 for _ in self.read()) if self.count is None else self.count
        chosen = draw_positions(total, limit, seed)
        return replace(self, chosen=chosen, count=len(chosen))

    def _iterate(self) -> Iterator[tuple[int, str, Load]]:
        """Position in the whole, name and load of every sample that is this source's to give."""
        size = self.shard_unit
        index, of = self.part
        wanted = iter(counting() if self.chosen is None else self.chosen.tolist())
        at, rank = next(wanted, -1), 0
        position, left = -1, self.passed
        for position, (place, load) in enumerate(self.read()):
            if position != at:
                continue
            if rank // size % of == index:
                if not left:
                    yield position, place, load
                left = max(left - 1, 0)
            at, rank = next(wanted, -1), rank + 1
            if at < 0 or rank == self.limit:
                break
        if position < 0:
            raise checks.make_no_samples_error(self.name)


def draw_positions(total: int, limit: int, seed: int) -> NDArray[np.int64]:
    """`limit` of the positions 0 to `total` - 1, ascending: those whose hash with the seed is smallest.

    The hash is splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure
    17): a bijection of 64 bits, so no two positions tie, and no library's generator decides.
    """
    if limit >= total:
        return np.arange(total)
    state = np.arange(1, total + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashes = _mix(state + _mix(np.array([seed % 2**64], np.uint64)))
    return np.sort(np.argpartition(hashes, limit)[:limit])


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def get_fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The model's fixed batch size, 1 where samples run alone, None when its sample axes are free.

    Raises FcdeployError where inputs disagree.
    """
    if layout.runs_alone(inputs):
        return 1
    ends = [(spec.shape[spec.sample_axis], spec.name) for spec in inputs if spec.sample_axis is not None and spec.shape]
    fixed = {length: name for length, name in ends if length is not None}
    if len(fixed) > 1:
        sizes = " and ".join(f"{name!r} has {n}" for n, name in fixed.items())
        raise FcdeployError(
            f"the model's inputs disagree about the batch: along the leading axis {sizes}",
            "export the model with the same leading sample axis on every input",
        )
    return next(iter(fixed), None)


def choose_batch_size(inputs: Sequence[TensorSpec], wanted: int) -> int:
    """Choose how many samples to run at once: `wanted`, unless the model's leading axis is fixed."""
    if wanted < 1:
        raise FcdeployError(f"batch size {wanted} is not positive, expected 1 or more", "--batch 1")
    return get_fixed_batch(inputs) or wanted


def make_batches(source: Source, size: int) -> Iterator[Batch]:
    """Group consecutive samples of equal shapes and of one block, at most `size` at a time.

    The last group, and one before a change of shape or block, may be smaller; for a model that insists on its batch that is
    an error, since such a batch could not run.
    """
    fixed = get_fixed_batch(source.inputs)
    group: list[Sample] = []
    seen = 0
    for sample in source:
        whole = len(group) == size or (source.block and seen % source.block == 0)
        if group and (whole or sample.shapes != group[0].shapes):
            _check_full(group, fixed, seen, source)
            yield stack(group, source.inputs)
            group = []
        group.append(sample)
        seen += 1
    _check_full(group, fixed, seen, source)
    if group:
        yield stack(group, source.inputs)


def _check_full(group: list[Sample], fixed: int | None, seen: int, source: Source) -> None:
    if fixed and len(group) % fixed:
        error = checks.make_ragged_error(fixed, source.rank(seen), len(group), source.name)
        if source.on_bad is not None:  # the first so many may hold bad ones again
            error.hint = f"repair or remove the bad samples of {source.name}: this model takes whole batches only"
        raise error


def stack(group: Sequence[Sample], specs: tuple[TensorSpec, ...]) -> Batch:
    """The batch of samples of equal shapes."""
    first = group[0]
    return Batch(
        names=tuple(sample.name for sample in group),
        inputs=layout.stack_samples([sample.inputs for sample in group], specs),
        labels={name: np.stack([sample.labels[name] for sample in group]) for name in first.labels},
        specs=specs,
    )
