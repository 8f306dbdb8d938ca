"""What an output means: classes, a text, a map, an embedding, or numbers of no decision; read from the graph, then from data.

| the graph ends in | output | it is | equal decisions are |
|---|---|---|---|
| Softmax, LogSoftmax | any | scores of classes along the axis of the Softmax | equal arg max |
| the same, or a dense layer | (n, steps, classes), one class at most steps, and no class a token | a text by CTC | equal texts |
| the same, beside boxes (n, steps, 4) | as a text | scores of anchors | F1 of anchors that are not background |
| Sigmoid, HardSigmoid | one number a sample | a probability | the same side of one half |
| Sigmoid, HardSigmoid | many | a map of probabilities | overlap of what is above one half |
| the same beside other numbers, by Concat | (n, anchors, channels) | boxes and scores of anchors | overlap of anchors by score |
| such, or other outputs of anchors | whose boxes can be read | boxes of anchors | F1 of boxes after suppression |
| a dense layer | (n, classes) | logits of classes, unless they lie far above zero | equal arg max |
| a convolution | (n, classes, ...) | logits of classes at every position | equal arg max |
| any of these | one class at 98 % and more of many positions | things here and there | F1 of the other positions |
| integers, texts | any | decisions as they are | equal ones |
| the same, fewer than 16 numbers beside an output of shares | any | a box, points: numbers | none |
| a norm that each row is divided by | (n, k) | an embedding | none |
| anything else | rows of shares that add up to 1 | scores of classes | equal arg max |
| anything else | any | numbers | none |

What may be moved about behind these (Reshape, Transpose, ...) is looked through.  Logits are told from other numbers by what
the float model answers: a class stands out (`stands_out`), and it is not always the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.boxes.find_detections import find_detections
from fcdeploy.evaluate.boxes.find_tables import find_scores
from fcdeploy.evaluate.decision import Decision, squeeze
from fcdeploy.evaluate.output_ends import ALL_COUNT, OutputEnd
from fcdeploy.evaluate.standing_out import stands_out
from fcdeploy.records.box_layout import BoxLayout

MANY_CLASSES = 64  # fewer numbers a sample, straight from a dense layer, show little of what they are
SHARES = ("softmax", "sigmoid")
FEW_CLASSES = 16  # fewer bare numbers beside shares are a box or points
FEW_ROWS = 16  # of fewer the level of logits may be chance
ABOVE_ZERO = 1.2  # deviations to the mean of quantities: 1.3 and more of points, 1.8 of shares; of logits 0.8 at most
BLANK = 0.4  # of the steps of a text by CTC: its most frequent class is the blank between letters
WHOLE = 1e-3  # by which shares of a whole may miss 1
BACKGROUND = 0.98  # of the positions of a map or sequence: a class of so many is that of nothing there
STEPS = 8  # a text by CTC has more steps than letters


@dataclass(frozen=True)
class OutputsRead:
    """What the outputs of a model are, in words; how they decide, by those that do; which of them are boxes found."""

    kinds: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    detections: BoxLayout | None = None

    def decide_as(self, output: str, decision: Decision | None) -> OutputsRead:
        """The same with an output that decides as its labels say."""
        others = {name: each for name, each in self.decisions.items() if name != output}
        return replace(self, decisions=others if decision is None else {output: decision, **others})


def read_outputs(
    outputs: Arrays, ends: Mapping[str, OutputEnd], boxes: BoxLayout | None = None, every: Sequence[Arrays] = ()
) -> OutputsRead:
    """What outputs are, from the graph and the float model's first answers (n, ...); `boxes` are among them.

    `every` are all its answers, of whatever shapes, where more than the first are known.
    """
    found = boxes or find_detections(outputs, [name for name in outputs if name in ends and ends[name].selected])
    kinds, decisions = dict[str, str](), dict[str, Decision]()
    for name, output in outputs.items():
        if found is not None and name in found.names:
            kinds[name] = found.kind if name == found.boxes else f"of {found.kind}"
            continue
        end = ends.get(name, OutputEnd("other"))
        beside_shares = any(each.kind in SHARES for other, each in ends.items() if other != name)
        decision = decide_by(output, end, beside_shares)
        if decision is not None and decision.blank is not None and _has_boxes(outputs, output):
            decision = Decision(decision.axis, decision.classes, sparse=True, background=decision.blank)
        if decision is not None:
            answers = [squeeze(answer[name]) for answer in every] or [squeeze(output)]
            decision = _leave_out_background(answers, decision, end.background)
        kinds[name] = describe_output(output, end, decision)
        if decision is not None:
            decisions[name] = decision
    return OutputsRead(kinds, decisions, found)


def decide_by(output: Array, end: OutputEnd, beside_shares: bool = False) -> Decision | None:
    """How an output (n, ...) of the float model decides; None where it does not.

    A network that makes shares of its classes does so for all of them: `beside_shares` few bare numbers are something else.
    """
    if output.dtype.kind in "biuOSU":
        return Decision(None, None, rows=end.selected and output.ndim > 1)
    if output.dtype.kind != "f" or output.ndim == 0 or output.size == 0 or end.decides is False:
        return None
    if end.kind == "sigmoid":
        return Decision(None, 2, 0.5, sparse=output.size > len(output))
    if end.kind == "parts":
        return _decide_by_scores(output, end)
    squeezed = squeeze(output)
    if end.kind == "other" and _adds_up_to_one(squeezed):
        return _as_text(squeezed, Decision(squeezed.ndim - 1, squeezed.shape[-1]), end)
    axis = _find_classes(squeezed, end)
    if axis is None or squeezed.shape[axis] < 2:
        return None
    decision = Decision(axis, squeezed.shape[axis])
    if end.kind == "softmax" or end.decides:
        return _as_text(squeezed, decision, end)
    if beside_shares and squeezed.shape[axis] < FEW_CLASSES and end.kind != "other":
        return None
    if end.kind == "dense" and squeezed.ndim == 2 and squeezed.shape[1] < MANY_CLASSES:
        return decision if _may_be_logits(squeezed) else None
    if end.kind in ("dense", "convolution") and stands_out(squeezed, axis):
        return _as_text(squeezed, decision, end)
    return None


def _find_classes(output: Array, end: OutputEnd) -> int | None:
    """The axis of classes in an output (n, ...), behind the samples: where the graph has it, else the only one as long."""
    axes = range(1, output.ndim)
    if end.axis is not None and end.axis in axes and end.classes in (None, output.shape[end.axis]):
        return end.axis
    alike = [axis for axis in axes if output.shape[axis] == end.classes]
    return alike[0] if len(alike) == 1 else None


def describe_output(output: Array, end: OutputEnd, decision: Decision | None) -> str:
    """What an output (n, ...) is, in a few words."""
    if decision is None:
        return "embedding" if end.kind == "embedding" else "numbers that decide nothing"
    if decision.blank is not None:
        return f"text by CTC of {(decision.classes or 1) - 1} letters"
    if decision.background is not None:
        what = (
            f"map of {decision.classes} classes"
            if output.ndim > 3
            else f"scores of {decision.classes} classes at every position"
        )
        return f"{what}, class {decision.background} where nothing is"
    if decision.anchors is not None:
        scores = decision.read_scores(output)
        return f"boxes and scores at every anchor, of {scores.shape[-1]} class{'es' * (scores.shape[-1] > 1)}"
    if decision.axis is None:
        if decision.threshold is None:
            return "texts" if output.dtype.kind in "USO" else "integers"
        return "map of probabilities" if decision.sparse else "probability"
    if squeeze(output).ndim == 2:
        return f"scores of {decision.classes} classes"
    return f"{'map' if output.ndim > 3 else 'sequence'} of {decision.classes} classes"


def _leave_out_background(outputs: Sequence[Array], decision: Decision, known: int | None) -> Decision:
    """Of a map or sequence that has one class nearly everywhere the other positions count: events in a recording, a small defect.

    Of equal decisions everywhere nearly all would be of nothing.  What is `known` by other samples stands.
    """
    first = outputs[0]
    if decision.axis is None or decision.sparse or decision.blank is not None or first.ndim < 3:
        return decision
    if known is not None:
        return decision if known == ALL_COUNT else replace(decision, sparse=True, background=known)
    counts = np.sum([_count_classes(each, decision) for each in outputs if each.ndim == first.ndim], axis=0)
    most = int(counts.argmax())
    if not BACKGROUND * counts.sum() <= counts[most] < counts.sum():
        return decision
    return replace(decision, sparse=True, background=most)


def _count_classes(output: Array, decision: Decision) -> NDArray[np.int64]:
    """How many positions have each class."""
    return np.bincount(decision(output).reshape(-1), minlength=decision.classes or 0)


def _has_boxes(outputs: Arrays, scores: Array) -> bool:
    """Whether another output has four numbers for each position of scores (n, positions, classes): a detector's boxes."""
    wanted = (*scores.shape[:2], 4)
    return any(other is not scores and other.dtype.kind == "f" and other.shape == wanted for other in outputs.values())


def _may_be_logits(output: Array) -> bool:
    """Whether a dense layer's rows of few numbers (n, k) may be scores of classes, and not quantities.

    Nothing moves the mean of logits while they are learnt (a softmax does not see it), while points, prices and shares lie
    above zero.  An embedding of so few numbers looks like the logits of a network that is often wrong, and is taken for them.
    """
    rows = np.asarray(output, np.float64)
    return len(rows) < FEW_ROWS or bool(rows.mean() <= ABOVE_ZERO * rows.std())


def _decide_by_scores(output: Array, end: OutputEnd) -> Decision | None:
    """Shares beside other numbers."""
    anchors = find_scores(output, end)
    return None if anchors is None else Decision(None, 2, 0.5, sparse=True, anchors=anchors)


def _adds_up_to_one(output: Array) -> bool:
    """Whether each row of the last axis is shares of a whole: a Softmax written in pieces, or scores made in another way."""
    if output.ndim not in (2, 3) or output.shape[-1] < 2:
        return False
    return bool(output.min() >= 0 and np.abs(output.sum(axis=-1, dtype=np.float64) - 1).max() < WHOLE)


def _as_text(output: Array, decision: Decision, end: OutputEnd) -> Decision:
    """A decision a step, of more steps than one could read without a class for the pauses, is a text by CTC.

    Of a tagger, which has a class for each token, most tokens may have one class as well: each step counts.
    """
    if output.ndim != 3 or decision.axis != 2 or output.shape[1] < STEPS or decision.classes is None or end.by_token:
        return decision
    counts = _count_classes(output, decision)
    blank = int(counts.argmax())
    if counts[blank] < BLANK * counts.sum() or blank not in (0, decision.classes - 1):
        return decision
    return Decision(decision.axis, decision.classes, blank=blank)
