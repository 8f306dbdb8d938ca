"""Figures of one model's answers against another's, without labels: a part of each answer is kept, and two are compared.

| metric | what is kept | figures of a sample | summary |
|---|---|---|---|
| `agreement` | decisions | equal ones, all | share |
| `boxes` | boxes found | those of either that the other has too, those of either | F1 |
| `miou` | a map of classes | positions of a class in both, in either, by class | mean over classes |
| `text` | letters | letters less edit distance, letters of the longer one | share |
| `cosine` | a row | its cosine with the other model's | mean |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcdeploy.arithmetic.metrics import compute_fidelity_rows
from fcdeploy.arithmetic.set_metrics import count_class_overlap, edit_distance
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.boxes import compare as boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.decision import Decision, decide
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.samples.source import Batch


@dataclass(frozen=True)
class BetweenModels:
    """`keep(outputs, batch)` takes from one model's answers what `compare(one, other)` makes figures (n, k) of."""

    keep: Callable[[Arrays, Batch], Any]
    compare: Callable[[Any, Any], Float64]


def compare_decisions(output: str, decision: Decision) -> BetweenModels:
    """Equal decisions, and all."""

    def compare(one: Array, other: Array) -> Float64:
        equal, count = decision.count_equal(np.atleast_1d(one), np.atleast_1d(other))
        return np.stack([equal, count], axis=1)

    return BetweenModels(lambda outputs, _: _narrow(decide(decision, outputs[output])), compare)


def compare_boxes(layout: BoxLayout) -> BetweenModels:
    """Boxes that both have, and all."""
    return BetweenModels(
        lambda outputs, batch: read_boxes(layout, outputs, len(batch), find_picture_size(batch.inputs)),
        lambda one, other: boxes.compare_boxes(layout, one, other),
    )


def compare_maps(output: str, decision: Decision) -> BetweenModels:
    """Overlap of the areas of each class."""
    classes = decision.classes
    assert classes is not None
    return BetweenModels(
        lambda outputs, _: _narrow(decide(decision, outputs[output])),
        lambda one, other: count_class_overlap(one, other, classes),
    )


def compare_texts(output: str, decision: Decision) -> BetweenModels:
    """Letters that need no change, and all."""

    def compare(one: list[list[int]], other: list[list[int]]) -> Float64:
        lengths = [max(len(a), len(b)) for a, b in zip(one, other, strict=True)]
        kept = [n - edit_distance(a, b) for n, a, b in zip(lengths, one, other, strict=True)]
        return np.array([kept, lengths], np.float64).T

    return BetweenModels(lambda outputs, _: decision.texts(decide(decision, outputs[output])), compare)


def compare_directions(output: str) -> BetweenModels:
    """The cosine of each row, all axes of a sample taken together; 0 where only one is all zero."""

    def compare(one: Array, other: Array) -> Float64:
        f, q, product, noise = compute_fidelity_rows(one, other)[:, :4].T
        norm = np.sqrt(f) * np.sqrt(q)
        cosine = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)
        return np.where(noise == 0, 1.0, np.clip(cosine, -1, 1))[:, None]

    return BetweenModels(lambda outputs, _: outputs[output], compare)


def measure_more(output: str, read: OutputsRead) -> tuple[str, BetweenModels] | None:
    """What readers ask of maps and texts beside equal decisions: the name of a metric, and its figures."""
    decision, kind = read.decisions.get(output), read.kinds.get(output, "")
    if decision is None:
        return None
    if decision.blank is not None:
        return "text", compare_texts(output, decision)
    if kind.startswith("map of") and decision.classes is not None and decision.axis is not None:
        return "miou", compare_maps(output, decision)
    return None


def _narrow(decisions: Array) -> Array:
    """Integers in the smallest type that holds them: those of all samples may be kept."""
    if decisions.dtype.kind not in "iu" or not decisions.size:
        return decisions
    return decisions.astype(np.promote_types(*(np.min_scalar_type(end) for end in (decisions.min(), decisions.max()))))
