"""How many boxes two models' answers have in common, and how near these are.

Who reads boxes of anchors has a threshold of his own: they are counted at several, a mean over which tells more than any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.set_metrics import MATCH_IOU, match_boxes
from fcdeploy.arrays import Array, Float64
from fcdeploy.evaluate.boxes.decode import read_columns
from fcdeploy.evaluate.boxes.grids import Size
from fcdeploy.evaluate.boxes.read import FoundBoxes, read_anchors, read_boxes
from fcdeploy.records.box_layout import AnchorHead, BoxLayout, Detections

FEW = 8  # samples: fewer may have no box by chance
MOST_HALVED = 3  # times: below 0.03 there is background
CANDIDATE = 0.1  # of the score: anchors that may become boxes
ALWAYS = 20  # anchors of a sample with the highest scores are compared, whatever they score
BESIDE = ": behind the scores"  # behind the name of an output whose anchors have other numbers as well


def say_compared(layout: BoxLayout) -> str:
    """Which boxes are compared, in words."""
    alike = f"of the same class that overlap by {MATCH_IOU:g} or more"
    if isinstance(layout, Detections):
        counted = "" if layout.least is None else f" of a score of {layout.least:g} or more"
        return f"boxes{counted} {alike}"
    shown = f"{layout.shown_from[0]:g} to {layout.shown_from[-1]:g}"
    return f"boxes of scores from {shown} after suppression, {alike.replace(' that', ', that')}"


def show_more(head: AnchorHead, outputs: Mapping[str, Array], count: int, size: Size) -> AnchorHead:
    """The same head, with boxes shown from lower scores where some answers have less than a box a sample.

    By those few an error would not be seen, and it moves high and low scores by alike shares.
    """
    for _ in range(MOST_HALVED if count >= FEW else 0):
        if sum(len(each.boxes) for each in read_boxes(head, outputs, count, size)) >= count:
            break
        head = replace(head, shown_from=tuple(score / 2 for score in head.shown_from))
    return head


def compare_boxes(layout: BoxLayout, one: Iterable[FoundBoxes], other: Iterable[FoundBoxes]) -> Float64:
    """Per sample (n, 2): boxes of either that the other has too, and boxes of either; means over scores to be shown from."""
    shown = (-np.inf,) if isinstance(layout, Detections) else layout.shown_from
    rows = [np.mean([_compare_from(least, f, q) for least in shown], axis=0) for f, q in zip(one, other, strict=True)]
    return np.array(rows).reshape(-1, 2)


def measure_boxes(
    layout: BoxLayout, f: Mapping[str, Array], q: Mapping[str, Array], count: int, size: Size
) -> dict[str, Fidelity]:
    """How near boxes and their scores are, by output: those that match, or of anchors those that may become boxes.

    Anchors' boxes are compared in shares of their sides.  What stands behind their scores decides nothing, and is compared apart,
    where the float model shows a box.
    """
    if isinstance(layout, Detections):
        return _measure_matched(layout, f, q, count, size)
    one, other = read_anchors(layout, f, size), read_anchors(layout, q, size)
    total = Fidelity()
    for at in range(count):
        total += _measure_candidates(*(each[at] for each in one), *(each[at] for each in other))
    shown = one[1][:count].max(axis=2) >= layout.shown_from[0]
    return {layout.boxes: total, **_measure_rest(layout, f, q, shown)}


def _measure_matched(
    layout: Detections, f: Mapping[str, Array], q: Mapping[str, Array], count: int, size: Size
) -> dict[str, Fidelity]:
    sums = {name: Fidelity() for name in (layout.boxes, layout.scores) if isinstance(name, str)}
    pairs = zip(read_boxes(layout, f, count, size), read_boxes(layout, q, count, size), strict=True)
    for one, other in pairs:
        left, right = match_boxes(one.boxes, other.boxes, one.classes, other.classes)
        sums[layout.boxes] += measure_fidelity(one.boxes[left], other.boxes[right])
        if isinstance(layout.scores, str):
            sums[layout.scores] += measure_fidelity(one.scores[left], other.scores[right])
    return sums


def _measure_rest(
    head: AnchorHead, f: Mapping[str, Array], q: Mapping[str, Array], shown: Array
) -> dict[str, Fidelity]:
    """Of numbers behind the scores, at the anchors (n, anchors) that are shown."""
    rests = [level.rest for level in head.levels if level.rest is not None]
    if len(rests) < len(head.levels):
        return {}
    one, other = (
        np.concatenate([read_columns(rest, each) for rest in rests], axis=1)[: len(shown)][shown] for each in (f, q)
    )
    return {head.boxes + BESIDE: measure_fidelity(one, other)}


def _measure_candidates(boxes: Float64, scores: Array, others: Float64, other_scores: Array) -> Fidelity:
    """Of the anchors of a sample (anchors, ...), those that may become boxes in either model."""
    best = scores.max(axis=1)
    at = (best >= CANDIDATE) | (other_scores.max(axis=1) >= CANDIDATE)
    at[np.argsort(-best, kind="stable")[:ALWAYS]] = True
    sides = np.maximum(boxes[at, 2:] - boxes[at, :2], 1e-6)
    centres = (boxes[at, 2:] + boxes[at, :2]) / 2
    one, other = ((each[at] - np.tile(centres, 2)) / np.tile(sides, 2) for each in (boxes, others))
    return measure_fidelity(
        np.concatenate([scores[at], one], axis=1), np.concatenate([other_scores[at], other], axis=1)
    )


def _compare_from(least: float, f: FoundBoxes, q: FoundBoxes) -> tuple[float, float]:
    """What is matched, and all, of the boxes that score so much: those of a lower score had no part in their choice."""
    (boxes, classes), (others, other_classes) = (
        (each.boxes[each.scores >= least], each.classes[each.scores >= least]) for each in (f, q)
    )
    matched, _ = match_boxes(boxes, others, classes, other_classes)
    return 2.0 * len(matched), float(len(boxes) + len(others))
