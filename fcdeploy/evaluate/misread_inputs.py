"""Would the float model be right more often if its inputs were read otherwise?  The usual mistakes, tried on a few samples.

A network that was trained on other numbers than it is given is not wrong, it is fed wrongly.  So where labels are there, the
first samples are also run scaled, normalized, with their channels reversed and with labels one off, and a reading that
is right significantly more often is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.significance import compute_mcnemar_p, is_near_chance
from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.output_ends import OutputEnd, find_ends
from fcdeploy.evaluate.run_models import run_model
from fcdeploy.graph.weights import is_large
from fcdeploy.preprocessing.settings import IMAGENET_MEAN, IMAGENET_STD
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.session import Session
from fcdeploy.samples.checks import is_label
from fcdeploy.samples.source import (
    Batch,
    Sample,
    Source,
    choose_batch_size,
    draw_positions,
    get_fixed_batch,
    stack,
)

FEW = 48  # samples, of all classes alike where they lie sorted
RIGHT = 0.95  # a model that is right so often is fed rightly
CONVINCING = (
    0.5  # share right below which a reading explains nothing: classes in another order are right by accident too
)
SURE = 0.01
MEAN, STD = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)

Reading = Callable[[Array, int], Array]
"""From inputs (samples first) and the axis of channels to other inputs."""


def _along(values: Array, ndim: int, axis: int) -> Array:
    return values.reshape([-1 if at == axis else 1 for at in range(ndim)])


READINGS: Mapping[str, tuple[Reading, str]] = {
    "divided by 255": (lambda x, _: x / np.float32(255), "pixels were not divided by 255"),
    "times 255": (lambda x, _: x * np.float32(255), "pixels were divided by 255, and the model wants them as stored"),
    "less ImageNet's mean, over its standard deviation": (
        lambda x, axis: (x - _along(MEAN, x.ndim, axis)) / _along(STD, x.ndim, axis),
        "--preprocess torchvision-imagenet",
    ),
    "divided by 255, less ImageNet's mean, over its standard deviation": (
        lambda x, axis: (x / np.float32(255) - _along(MEAN, x.ndim, axis)) / _along(STD, x.ndim, axis),
        "--preprocess torchvision-imagenet",
    ),
    "from -1 to 1": (
        lambda x, _: x * np.float32(2) - np.float32(1),
        "mean = 0.5 and std = 0.5 in a --preprocess FILE.toml",
    ),
    "from 0 to 1": (
        lambda x, _: (x + np.float32(1)) / np.float32(2),
        "0.5 was taken off and divided by, and the model wants pixel / 255: --preprocess scale-0-1",
    ),
    "without the mean and the standard deviation of ImageNet": (
        lambda x, axis: x * _along(STD, x.ndim, axis) + _along(MEAN, x.ndim, axis),
        "they were taken off, and the model wants pixel / 255: --preprocess scale-0-1",
    ),
    "with channels reversed": (lambda x, axis: np.flip(x, axis), "the pictures are BGR, or the model wants BGR"),
}
"""What is tried, and what it would mean."""

LABELS = {
    "one lower": (-1, "labels count from 1, and the model's classes from 0"),
    "one higher": (1, "the model has a class before the first, such as background"),
}


@dataclass(frozen=True)
class Tried:
    """How many of how many samples the model is right on as they are read, of which classes; and the best other reading."""

    samples: int
    right: int
    classes: int | None
    best: str | None
    best_right: int

    def describe(self) -> str:
        """A warning, empty where nothing is odd."""
        share = 100 * self.right / self.samples
        if self.best is not None:
            what, (_, cause) = ("labels", LABELS[self.best]) if self.best in LABELS else ("input", READINGS[self.best])
            better = f"{100 * self.best_right / self.samples:.0f} % with its {what} {self.best}"
            return f"on {self.samples} samples the float model is right in {share:.0f} %, and in {better}: {cause}"
        if is_near_chance(self.right, self.samples, self.classes):
            return (
                f"on {self.samples} samples the float model is right in {share:.0f} %, little more than the "
                f"{100 / (self.classes or 1):.3g} % of chance: do labels and preprocessing fit it?"
            )
        return ""


def warn_of_readings(path: Path, model: ir.Model, source: Source, samples: Sequence[Sample]) -> list[str]:
    """What a few labelled samples of a source say of how a classifier's inputs are read.

    `model` is that at `path`, prepared or not.  Nothing is said of a model too large to run, or without labels.
    """
    if is_large(model) or not source.labelled:
        return []
    tried = _try_readings(Session(path), source.inputs, _batch_few(samples, source.inputs), find_ends(model))
    return [tried.describe()] if tried and tried.describe() else []


def _try_readings(
    session: Session, inputs: Sequence[TensorSpec], batches: Sequence[Batch], ends: Mapping[str, OutputEnd]
) -> Tried | None:
    """Run a float model on a few labelled samples of a classifier's, and on other readings of them; None for others."""
    if not batches or not any(map(is_label, batches[0].labels)):
        return None
    try:
        outputs = run_model(session, batches[0], "float")
        metric, _ = choose_metric(None, outputs, batches[0].labels, ends)
        if metric is None or metric.name != "top1" or metric.figures is None:
            return None
        right = _score(session, batches, metric)
    except FcdeployError:
        return None  # said where all samples are read
    classes = metric.decision.classes if metric.decision else None
    best, best_right = None, int(right.sum())
    for name in _find_candidates(inputs, batches) if right.mean() < RIGHT else ():
        changed = [_read_otherwise(batch, name, classes) for batch in batches]
        try:
            other = _score(session, changed, metric)
        except FcdeployError:
            continue
        won, lost = int((other & ~right).sum()), int((right & ~other).sum())
        better = int(other.sum()) > max(best_right, CONVINCING * len(right))
        if better and not is_near_chance(int(other.sum()), len(right), classes) and compute_mcnemar_p(lost, won) < SURE:
            best, best_right = name, int(other.sum())
    return Tried(len(right), int(right.sum()), classes, best, best_right)


def _batch_few(samples: Sequence[Sample], inputs: Sequence[TensorSpec]) -> list[Batch]:
    """So many of the samples, of equal shapes where several are run at once; only whole batches where the model insists."""
    size, fixed = choose_batch_size(inputs, 8), get_fixed_batch(inputs) or 1
    few = [samples[at] for at in draw_positions(len(samples), max(size, FEW - FEW % size), 0)]
    alike = [sample for sample in few if sample.shapes == few[0].shapes]
    groups = (alike[at : at + size] for at in range(0, len(alike), size))
    return [stack(group, tuple(inputs)) for group in groups if len(group) % fixed == 0]


def _score(session: Session, batches: Sequence[Batch], metric: Metric) -> Array:
    """Right or wrong, sample by sample."""
    assert metric.figures is not None
    rows = [metric.figures(run_model(session, batch, "float"), batch.labels, batch.names)[:, 0] for batch in batches]
    return np.concatenate(rows) > 0.5


def _find_candidates(inputs: Sequence[TensorSpec], batches: Sequence[Batch]) -> list[str]:
    """The readings that make sense for what the samples are."""
    (array,) = [*batches[0].inputs.values()][:1]
    if len(inputs) != 1 or array.dtype.kind != "f":
        return [*LABELS]
    name = inputs[0].name
    low = min(float(batch.inputs[name].min()) for batch in batches)
    high = max(float(batch.inputs[name].max()) for batch in batches)
    colour = array.ndim == 4 and 3 in (array.shape[1], array.shape[3])
    large, unit = high > 16, low >= 0 and high <= 1.01
    names = ["divided by 255"] if large else []
    names += ["times 255", "from -1 to 1"] if unit else []
    names += ["from 0 to 1"] if -1.01 <= low < -0.5 and high <= 1.01 else []
    if colour:
        names += ["less ImageNet's mean, over its standard deviation"] if unit else []
        names += (
            ["without the mean and the standard deviation of ImageNet"] if -2.2 <= low < -1.1 and high < 2.7 else []
        )
        names += ["divided by 255, less ImageNet's mean, over its standard deviation"] if large else []
        names += ["with channels reversed"]
    return [*names, *LABELS]


def _read_otherwise(batch: Batch, name: str, classes: int | None) -> Batch:
    if name in LABELS:
        shift, _ = LABELS[name]
        labels = {key: (labels + shift) % (classes or 1) for key, labels in batch.labels.items()}
        return replace(batch, labels=labels)
    ((key, array),) = batch.inputs.items()
    axis = 1 if array.ndim != 4 or array.shape[1] == 3 else 3
    changed = np.ascontiguousarray(READINGS[name][0](array, axis), array.dtype)
    return Batch(batch.names, {key: changed}, batch.labels)
