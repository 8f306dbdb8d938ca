"""Which metric counts: the one asked for, what fits the labels, or without any what both models decide alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate import between_models as between
from fcdeploy.evaluate.between_models import BetweenModels
from fcdeploy.evaluate.boxes.compare import say_compared
from fcdeploy.evaluate.boxes.find_heads import find_boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.decision import Decision, decide
from fcdeploy.evaluate.labelled_metrics import LABELLED, decide_by_shape, make_labelled
from fcdeploy.evaluate.metric import SCORE, SHARE, Metric, find_summary, format_rows, take_mean
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import OutputsRead, read_outputs
from fcdeploy.records.box_layout import AnchorHead
from fcdeploy.user_code import load_function, user_code

BETWEEN = ("agreement", "boxes", "miou", "text", "cosine")  # of int8 answers with float ones, without labels
NAMES = tuple(dict.fromkeys((*LABELLED, *BETWEEN)))


def choose_metric(
    name: str | None,
    outputs: Arrays,
    labels: Arrays,
    ends: Mapping[str, OutputEnd],
    inputs: Arrays | None = None,
) -> tuple[Metric | None, OutputsRead]:
    """The metric of that name, or the one that fits the labels; and what the outputs are, by the float model's first answers.

    Without labels it is the share of boxes found by both, or that of equal decisions; None where no output decides.  What the
    outputs were answers to tells boxes of anchors, which `agreement` counts one by one.
    """
    found = find_boxes(outputs, ends, find_picture_size(inputs or {}))
    read = read_outputs(outputs, ends, None if name == "agreement" and isinstance(found, AnchorHead) else found)
    if name is not None and ".py:" in name:
        return _load_own(name, outputs, labels), read
    if name is not None and name not in NAMES:
        raise FcdeployError(
            f"metric {name!r} is unknown, expected one of {', '.join(NAMES)} or FILE.py:FUNCTION", "--metric top1"
        )
    if name in ("agreement", "boxes", "cosine") or not labels:
        if name not in (None, *BETWEEN):
            raise FcdeployError(
                f"metric {name!r} needs labels, and the data have none",
                "add an array 'label' to the data, or use --metric agreement",
            )
        metric = _make_relative(name, outputs, read, ends)
    else:
        metric = make_labelled(name, outputs, labels, ends)
    if metric is None or metric.name in ("boxes", "cosine"):
        return metric, read
    return metric, read.decide_as(metric.output, metric.decision)


def _make_relative(
    name: str | None, outputs: Arrays, read: OutputsRead, ends: Mapping[str, OutputEnd]
) -> Metric | None:
    """Of int8 answers with float ones: by default boxes found, else the first output that decides something, else None."""
    why = "as asked for" if name else "the data have no labels"
    found = read.detections
    if name == "boxes" or (name is None and found is not None):
        if found is None:
            raise FcdeployError(
                "metric 'boxes' compares boxes that a model found, and no outputs are boxes with scores or classes behind a "
                "NonMaxSuppression or TopK, or of every anchor",
                "--metric FILE.py:FUNCTION compares any outputs",
            )
        why = f"{why}, {say_compared(found)} of output {found.boxes!r}"
        return _relate("boxes", found.boxes, why, between.compare_boxes(found))
    first = next(iter(outputs))
    if name == "cosine":
        output = next((output for output, kind in read.kinds.items() if kind == "embedding"), first)
        if outputs[output].dtype.kind != "f":
            raise FcdeployError(
                f"metric 'cosine' compares directions, and output {output!r} holds integers", "--metric agreement"
            )
        why = f"{why}, cosine of each row of output {output!r}"
        return _relate("cosine", output, why, between.compare_directions(output))
    finding = (output for output, one in read.decisions.items() if _finds_something(one, outputs[output]))
    output = next(finding, next(iter(read.decisions), first))
    decision = read.decisions.get(output)
    if name is None and decision is None:
        return None
    decision = decision or decide_by_shape(outputs[output], output, ends.get(output, OutputEnd("other")))
    if (name == "miou" and decision.classes is None) or (name == "text" and decide(decision, outputs[output]).ndim < 2):
        raise FcdeployError(
            f"metric {name!r}: output {output!r} has shape {format_rows(outputs[output])}, expected scores of classes",
            "--metric agreement",
        )
    how = {"miou": between.compare_maps, "text": between.compare_texts}.get(name or "", between.compare_decisions)
    return _relate(
        name or "agreement", output, f"{why}, {decision} of output {output!r}", how(output, decision), decision
    )


def _finds_something(decision: Decision, output: Array) -> bool:
    """Whether a model finds anything in its answers; only where things are looked for it may not."""
    if decision.background is None and not decision.sparse:
        return True
    nothing = 0 if decision.background is None else decision.background
    return bool((decide(decision, output) != nothing).any())


def _relate(name: str, output: str, why: str, how: BetweenModels, decision: Decision | None = None) -> Metric:
    unit = SCORE if name == "cosine" else SHARE
    return Metric(name, output, why, unit, None, find_summary(name), decision, between=how, relative=True)


def _load_own(name: str, outputs: Arrays, labels: Arrays) -> Metric:
    """A function of the user's: shares of what it calls right where it returns booleans, else scores of its own unit."""
    function, _ = load_function(name)
    with user_code(f"metric {name} fails"):
        first = np.asarray(function(dict(outputs), dict(labels)))

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        with user_code(f"metric {name} fails"):
            scores = np.asarray(function(dict(outputs), dict(labels)), dtype=np.float64)
        if scores.shape != (len(names),):
            raise FcdeployError(
                f"metric {name} returned shape {scores.shape}, expected ({len(names)},): one score a sample",
                "return a NumPy array with one number a sample, higher is better",
            )
        if not np.isfinite(scores).all():
            bad = int(np.argmin(np.isfinite(scores)))
            text = f"metric {name} returned {scores[bad]} for {names[bad]}, expected finite numbers"
            raise FcdeployError(text, "score such a sample 0")
        return scores[:, None]

    unit = SHARE if first.dtype == np.bool_ else SCORE
    return Metric(name, next(iter(outputs)), "as asked for, higher is better", unit, figures, take_mean)
