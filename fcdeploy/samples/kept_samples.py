"""The few samples a calibration carries for tools that run the model: a choice that no order, batch or split changes.

They are held as arrays, input name -> (samples, ...), and run in `split_into_chunks`.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Arrays
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import tensors_of
from fcdeploy.samples.layout import arrange_samples
from fcdeploy.samples.source import Load, Source, get_fixed_batch
from fcdeploy.samples.stretches import StretchCollector

KEPT_BYTES, KEPT_LEAST, KEPT_MOST = 8 << 20, 16, 256
CHUNK = 32  # samples in one run
FLOAT_BYTES = 4
CHUNK_BYTES = 1 << 30  # of its largest tensor, by the shapes that the model knows


def hash_sample(inputs: Mapping[str, Array]) -> int:
    """64 bits of a sample's content: names, dtypes, shapes and bytes of its inputs."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(inputs):
        digest.update(f"{name} {inputs[name].dtype} {inputs[name].shape}".encode())
        digest.update(_view_bytes(inputs[name]))
    return int.from_bytes(digest.digest(), "big")


def _view_bytes(array: Array) -> memoryview | bytes:
    if array.dtype.kind == "O":  # of text, each behind its length
        coded = [text.encode("utf-8", "surrogatepass") for text in array.reshape(-1)]
        return b"".join(len(text).to_bytes(8, "little") + text for text in coded)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@dataclass
class SmallestSamples:
    """The samples with the smallest hashes, in ascending order until they fill `room` bytes, at most `most` of them.

    The sample that reaches the limit is the last one.  So a row that is full says by itself that nothing above its
    last hash can belong to it, and the row of two data sets follows from their rows alone.
    """

    heap: list[tuple[int, Arrays]] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    size: int = 0
    limit: int = 1 << 64  # no number from here on can be among the smallest any more
    most: int = field(default_factory=lambda: KEPT_MOST)
    room: int = field(default_factory=lambda: KEPT_BYTES)

    def offer(self, number: int, inputs: Arrays) -> None:
        """Keep the sample if its hash is among the smallest so far. One that is there already is not kept twice."""
        if number in self.numbers or number >= self.limit:
            return
        # heapq keeps its smallest first, so numbers are negated
        heapq.heappush(self.heap, (-number, {name: value.copy() for name, value in inputs.items()}))
        self.numbers.add(number)
        self.size += _count_bytes(inputs)
        while len(self.heap) > self.most or (
            len(self.heap) > KEPT_LEAST and self.size - _count_bytes(self.heap[0][1]) >= self.room
        ):
            largest, dropped = heapq.heappop(self.heap)
            self.limit = -largest
            self.numbers.discard(-largest)
            self.size -= _count_bytes(dropped)

    def offer_all(self, samples: Iterable[Arrays]) -> None:
        """Offer samples that are not hashed yet."""
        for inputs in samples:
            self.offer(hash_sample(inputs), inputs)

    def groups(self) -> tuple[Arrays, ...]:
        """Samples of equal shapes stacked, input name -> (samples, ...): by ascending hash, groups by their first."""
        groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Arrays]] = {}
        for _, inputs in sorted(self.heap, key=lambda entry: -entry[0]):
            groups.setdefault(tuple((name, value.shape) for name, value in sorted(inputs.items())), []).append(inputs)
        return tuple({name: np.stack([s[name] for s in alike]) for name in alike[0]} for alike in groups.values())

    def arrays(self) -> Arrays:
        """The first group: the sample with the smallest hash, and those of its shapes. {} where nothing was offered."""
        return next(iter(self.groups()), {})


def merge_kept(*parts: tuple[Sequence[Arrays], NDArray[np.uint64]]) -> tuple[Arrays, ...]:
    """The groups of all samples of these parts: the groups that each has, and the hashes of all samples it saw."""
    smallest = SmallestSamples()
    for groups, seen in parts:
        for number, sample in zip(_get_hashes(groups, seen), iterate_samples(groups), strict=True):
            smallest.offer(number, sample)
    return smallest.groups()


def _get_hashes(groups: Sequence[Arrays], seen: NDArray[np.uint64]) -> list[int]:
    """Of each kept sample, in order: a single group holds the smallest that were seen, which need not be computed."""
    number = sum(map(count_samples, groups))
    smallest: list[int] = np.unique(seen)[:number].tolist()
    if len(groups) == 1 and len(smallest) == number and smallest[0] == hash_sample(next(iterate_samples(groups))):
        return smallest
    return [hash_sample(sample) for sample in iterate_samples(groups)]  # stretches of steps, or several shapes


def keep_smallest(source: Source, *, most: int | None = None, room: int | None = None) -> SmallestSamples:
    """The samples, or stretches of steps, of a source that a calibration would have kept, or more of them."""
    smallest = SmallestSamples(most=most or KEPT_MOST, room=room or KEPT_BYTES)
    stretch = StretchCollector() if any(spec.state for spec in source.inputs) else None
    for sample in source:
        ended = [sample.inputs] if stretch is None else stretch.add(sample.name, sample.inputs)
        smallest.offer_all(ended)
    smallest.offer_all([] if stretch is None else stretch.finish())
    return smallest


def open_kept(model: ir.Model, groups: Sequence[Arrays], without: Set[int] = frozenset()) -> Source:
    """The samples of some groups as a source, but those with these hashes."""
    few = [sample for sample in iterate_samples(groups) if not without or hash_sample(sample) not in without]

    def read() -> Iterator[tuple[str, Load]]:
        return ((f"sample {index}", partial(dict, sample)) for index, sample in enumerate(few))

    return Source("the samples kept", tuple(input_specs(model)), read, len(few), labelled=False)


def hash_samples(groups: Sequence[Arrays]) -> set[int]:
    """The content hashes of all samples of some groups."""
    return set(map(hash_sample, iterate_samples(groups)))


def count_samples(group: Arrays) -> int:
    """How many samples there are in arrays (samples, ...)."""
    return len(next(iter(group.values())))


def split_into_chunks(model: ir.Model, samples: Arrays) -> Iterator[tuple[int, Arrays]]:
    """How many samples, and a run's inputs as the model takes them; a remainder that a fixed batch cannot take is left out."""
    inputs = input_specs(model)
    fixed = get_fixed_batch(inputs)
    size, count = fixed or _choose_size(model), count_samples(samples)
    for at in range(0, count - (count % fixed if fixed else 0), size):
        part = {name: array[at : at + size] for name, array in samples.items()}
        yield count_samples(part), arrange_samples(part, inputs)


def _choose_size(model: ir.Model) -> int:
    """As many samples as keep the largest tensor within `CHUNK_BYTES`, CHUNK at most; of free axes one step is counted."""
    shapes = (value.shape for value in tensors_of(model.graph) if value.shape is not None)
    largest = max((math.prod(n for n in shape if isinstance(n, int)) for shape in shapes), default=1)
    return min(CHUNK, max(1, CHUNK_BYTES // max(1, FLOAT_BYTES * largest)))


def take_run(model: ir.Model, samples: Arrays) -> Arrays:
    """A run's inputs as the model takes them, of as few samples as it takes."""
    inputs = input_specs(model)
    few = get_fixed_batch(inputs) or 1
    return arrange_samples({name: array[:few] for name, array in samples.items()}, inputs)


def iterate_samples(groups: Iterable[Arrays]) -> Iterator[Arrays]:
    """Each sample of some groups by itself, in their order."""
    for group in groups:
        for i in range(len(next(iter(group.values())))):
            yield {name: stacked[i, ...] for name, stacked in group.items()}  # an array, where it is one text too


def _count_bytes(inputs: Mapping[str, Array]) -> int:
    return sum(sum(map(len, a.reshape(-1))) if a.dtype.kind == "O" else a.nbytes for a in inputs.values())
