"""Samples, sources and batches: what every command that runs a model on data reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import checks

Arrays = dict[str, np.ndarray[Any, Any]]
Reader = Callable[[], Iterator[tuple[str, Arrays]]]
"""Starts reading from the beginning: yields what to call a sample ("sample 3") and its arrays, unchecked."""


@dataclass(frozen=True)
class Sample:
    """One sample: arrays without a sample axis, in the model's dtypes. Samples are counted from 0."""

    name: str
    inputs: Arrays
    labels: Arrays


@dataclass(frozen=True)
class Batch:
    """Consecutive samples of equal shapes, stacked along a leading axis."""

    names: tuple[str, ...]
    inputs: Arrays
    labels: Arrays

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Source:
    """Samples that can be read again and again, one at a time, each checked against the model's inputs.

    `count` is None where only reading to the end would tell.  Iterating raises FcdeployError at the first sample that
    does not fit, and when there is none at all.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    read: Reader
    count: int | None
    labelled: bool
    limit: int | None = None

    def __iter__(self) -> Iterator[Sample]:
        label_names: set[str] | None = None
        index = -1
        for index, (place, arrays) in enumerate(self.read()):
            inputs, labels = checks.fit(arrays, self.inputs, place, self.name)
            if label_names is None:
                label_names = set(labels)
            checks.same_labels(label_names, labels, place, self.name)
            yield Sample(f"{self.name}, {place}", inputs, labels)
            if index + 1 == self.limit:
                return
        if index < 0:
            raise checks.no_samples(self.name)


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """The batch a model insists on, None when its leading axes are free; inputs that disagree are an error."""
    fixed = {spec.shape[0]: spec.name for spec in inputs if spec.shape and spec.shape[0] is not None}
    if len(fixed) > 1:
        sizes = " and ".join(f"{name!r} has {n}" for n, name in fixed.items())
        raise FcdeployError(
            f"the model's inputs disagree about the batch: along the leading axis {sizes}",
            "export the model with the same leading sample axis on every input",
        )
    return next(iter(fixed), None)


def batch_size(inputs: Sequence[TensorSpec], wanted: int) -> int:
    """How many samples to run at once: `wanted`, unless the model's leading axis is fixed and dictates it."""
    if wanted < 1:
        raise FcdeployError(f"batch size {wanted} is not positive, expected 1 or more", "--batch 1")
    return fixed_batch(inputs) or wanted


def batches(source: Source, size: int) -> Iterator[Batch]:
    """Group consecutive samples of equal shapes, at most `size` at a time.

    The last group, and one before a change of shape, may be smaller; for a model that insists on its batch that is
    an error, since such a batch could not run.
    """
    fixed = fixed_batch(source.inputs)
    group: list[Sample] = []
    seen = 0
    for sample in source:
        if group and (len(group) == size or _shapes(sample) != _shapes(group[0])):
            _check_full(group, fixed, seen, source.name)
            yield _stack(group)
            group = []
        group.append(sample)
        seen += 1
    _check_full(group, fixed, seen, source.name)
    yield _stack(group)


def _check_full(group: list[Sample], fixed: int | None, seen: int, name: str) -> None:
    if fixed and len(group) != fixed:
        raise checks.ragged(fixed, seen, len(group), name)


def _shapes(sample: Sample) -> list[tuple[int, ...]]:
    return [value.shape for value in (*sample.inputs.values(), *sample.labels.values())]


def _stack(group: list[Sample]) -> Batch:
    first = group[0]
    return Batch(
        names=tuple(sample.name for sample in group),
        inputs={name: np.stack([sample.inputs[name] for sample in group]) for name in first.inputs},
        labels={name: np.stack([sample.labels[name] for sample in group]) for name in first.labels},
    )
