"""The evaluation samples, as a value that any process can open them from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.source import Batch, Source, choose_batch_size, make_batches

MOST_BATCH = 32
BATCH_BYTES = 8 << 20  # of inputs in one batch; activations are a multiple of it
BLOCK = 32  # samples whose figures are summed up together, and that one worker takes: never less than a batch


@dataclass(frozen=True)
class EvaluationData:
    """Where the evaluation samples come from; `sample_bytes` is the size of the first one."""

    samples: Samples
    inputs: Sequence[TensorSpec]
    sample_bytes: int
    count: int | None

    def read(self, most: int | None = None, size: int | None = None, budget: int | None = None) -> Iterator[Batch]:
        """Batches of at most `size` samples and `budget` bytes; of the first `most` samples, but at least one batch."""
        fixed = choose_batch_size(self.inputs, 1)
        wanted = [n for n in (most and max(fixed, most - most % fixed), self.samples.limit) if n is not None]
        return make_batches(
            self._open(min(wanted, default=None)), self._size(size or MOST_BATCH, budget or BATCH_BYTES)
        )

    def shard(self, index: int, of: int, labels: frozenset[str] | None) -> Iterator[Batch]:
        """Batches of every `of`-th block; none is made up otherwise than it would be in a single shard."""
        source = self._open(self.samples.limit).shard(index, of, self.block)
        return make_batches(source.require_labels(labels), self._size(MOST_BATCH, BATCH_BYTES))

    @property
    def streams(self) -> bool:
        """Whether states are carried from one sample to the next, so that one worker takes all in order."""
        return any(spec.state for spec in self.inputs)

    @property
    def format(self) -> DataFormat:
        """How the samples are read."""
        return self.samples.format

    @property
    def block(self) -> int:
        """Samples in a block: whole batches of a model that insists on them."""
        fixed = choose_batch_size(self.inputs, 1)
        return fixed * max(1, BLOCK // fixed)

    def total(self, most: int) -> int | None:
        """How many the first `most` samples are, where that is known."""
        return None if self.count is None else min(self.count, most)

    def open(self) -> Source:
        """All of the samples."""
        return self._open(self.samples.limit)

    def _open(self, limit: int | None) -> Source:
        return replace(self.samples, limit=limit).open(self.inputs)

    def _size(self, size: int, budget: int) -> int:
        return choose_batch_size(self.inputs, max(1, min(size, budget // max(1, self.sample_bytes))))


def open_data(chosen: Samples, inputs: Sequence[TensorSpec]) -> EvaluationData:
    """Look at the first sample. Raises FcdeployError where the data cannot be read or it does not fit."""
    source = chosen.open(inputs)
    first = next(iter(source))
    size = sum(value.nbytes for value in first.inputs.values())
    return EvaluationData(replace(chosen, format=source.format), inputs, size, source.count)
