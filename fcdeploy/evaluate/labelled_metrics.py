"""Metrics of answers against labels: one row of figures per sample, as the table in `metric.py` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fcdeploy.arithmetic import metrics
from fcdeploy.arithmetic.set_metrics import count_class_overlap, edit_distance
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.evaluate.decision import Decision, decide, infer_decision, squeeze
from fcdeploy.evaluate.metric import ERROR, IGNORED, SHARE, Metric, find_summary, format_rows, take_mean, take_ratio
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import decide_by


@dataclass(frozen=True)
class Labelled:
    """What a metric is made of: the array `label`, the `output` that it belongs to, and of both the first samples.

    `end` is what the graph says of the output; `why` begins the sentence that says what is counted.
    """

    name: str
    why: str
    label: str
    labels: Array
    output: str
    answers: Array
    end: OutputEnd


def make_labelled(name: str | None, outputs: Arrays, labels: Arrays, ends: Mapping[str, OutputEnd]) -> Metric:
    """The metric of that name, or the one that fits the labels. Raises FcdeployError where it fits no output."""
    label, output = find_labelled_output(labels, outputs)
    values = np.asarray(labels[label])
    if name is None and _is_one_hot(values):
        raise FcdeployError(
            f"{label!r} is one-hot, {format_rows(values)}: classes, or numbers to be predicted",
            "labels.argmax(axis=1) are class indices; --metric regression takes them as numbers",
        )
    chosen, why = (name, "as asked for") if name else _choose_default(values)
    end = ends.get(output, OutputEnd("other"))
    return LABELLED[chosen](
        Labelled(chosen, f"{why}, on output {output!r}", label, values, output, outputs[output], end)
    )


def find_labelled_output(labels: Arrays, outputs: Arrays) -> tuple[str, str]:
    """The label array that is read, and the output it belongs to: the first that has one, or else the first of numbers."""
    for name in labels:
        if name != "label" and name.removeprefix("label.") not in outputs:
            raise FcdeployError(
                f"label {name!r} belongs to no output of the model, which has {quote_names(outputs)}",
                f"rename it to 'label.{next(iter(outputs))}'",
            )
    if "label" in labels:  # of a classifier that says its class as text, the scores beside it
        numbers = (name for name, array in outputs.items() if array.dtype.kind not in "OSU")
        return "label", next(numbers, next(iter(outputs)))
    return next((f"label.{output}", output) for output in outputs if f"label.{output}" in labels)


def _is_one_hot(labels: Array) -> bool:
    """Rows of a single 1 among zeros, for several classes."""
    y = squeeze(labels)
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf":
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all() and len(y) > 1)


def _choose_default(labels: Array) -> tuple[str, str]:
    if labels.dtype.kind not in "biu":
        return "regression", f"labels are {labels.dtype}"
    if squeeze(labels).ndim == 1:
        return "top1", f"labels are {labels.dtype}, one a sample"
    return "tokens", f"labels are {labels.dtype}, several a sample"


def decide_by_shape(output: Array, name: str, end: OutputEnd) -> Decision:
    decision = infer_decision(output, end.kind == "sigmoid", labelled=False)
    if decision is None:
        raise FcdeployError(
            f"metric 'agreement' compares decisions, and output {name!r} has shape "
            f"{format_rows(output)}: one number a sample",
            "give labels for --metric regression, or --metric FILE.py:FUNCTION",
        )
    return decision


def _make_top_k(given: Labelled) -> Metric:
    name, output, label, first = given.name, given.output, given.label, squeeze(given.answers)
    decision = infer_decision(first, given.end.kind == "sigmoid", labelled=True) if first.ndim <= 2 else None
    if decision is None:
        raise FcdeployError(
            f"metric {name!r}: output {output!r} has shape {format_rows(first)}, expected (n, classes)",
            "--metric tokens takes labels with several positions a sample, --metric FILE.py:FUNCTION any",
        )
    k = int(name[3:])
    if k > 1 and (decision.axis is None or first.shape[1] <= k):
        raise FcdeployError(
            f"metric {name!r}: output {output!r} has shape {format_rows(first)}, expected more than {k} classes",
            "--metric top1",
        )

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y, scores = _check_class_labels(labels[label], label, output, decision, names), squeeze(outputs[output])
        if y.ndim != 1:
            raise _make_misfit_error(label, labels[label], output, first, "one class index a sample, shape (n,)")
        hits = metrics.is_in_top_k(scores, y, k) if decision.axis is not None else decision(scores) == y
        return hits[:, None].astype(np.float64)

    return Metric(name, output, f"{given.why}, {decision}", SHARE, figures, take_mean, decision, label)


def _make_tokens(given: Labelled) -> Metric:
    """`tokens` and `miou`."""
    name, output, label, first = given.name, given.output, given.label, given.answers
    shape = given.labels.shape
    axes = [
        i for i in range(first.ndim - 1, 0, -1)
        if first.shape[i] > 1 and first.shape[:i] + first.shape[i + 1 :] == shape
    ]  # fmt: skip
    if first.dtype.kind in "biu" and first.shape == shape and name == "tokens":
        decision = Decision(None, None)
    elif axes:
        # images are (n, classes, height, width), sequences (n, length, classes)
        axis = given.end.axis if given.end.axis in axes else 1 if first.ndim > 3 and 1 in axes else axes[0]
        assert axis is not None
        decision = Decision(axis, first.shape[axis])
    else:
        raise _make_misfit_error(label, given.labels, output, first, "the output's shape without its class axis")

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y = _check_class_labels(labels[label], label, output, decision, names, ignore=IGNORED, several=True)
        predicted = decision(outputs[output])
        if predicted.shape != y.shape:
            raise _make_misfit_error(label, y, output, outputs[output], "the output's shape without its class axis")
        if name == "miou":
            return count_class_overlap(predicted, y, decision.classes or 0, counted=y != IGNORED)
        return metrics.count_token_hits(predicted, y, IGNORED)

    return Metric(name, output, f"{given.why}, {decision}", SHARE, figures, find_summary(name), decision, label)


def _make_text(given: Labelled) -> Metric:
    """Letters less edit distance over letters: 1 less the character error rate. A text by CTC has its blank first."""
    output, label = given.output, given.label
    by_shape = decide_by(given.answers, given.end) or decide_by_shape(given.answers, output, given.end)
    decision = by_shape
    if decision.axis is not None and decision.blank is None:
        decision = replace(decision, blank=0)

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y = _check_class_labels(labels[label], label, output, by_shape, names, ignore=IGNORED, several=True)
        said = decision.texts(decide(decision, outputs[output]))
        wanted = [row[row != IGNORED].tolist() for row in y]
        kept = [len(right) - edit_distance(text, right) for text, right in zip(said, wanted, strict=True)]
        return np.array([kept, [len(right) for right in wanted]], np.float64).T

    return Metric("text", output, f"{given.why}, {decision}", SHARE, figures, take_ratio, decision, label)


def _check_class_labels(
    labels: Array, label: str, output: str, decision: Decision, names: tuple[str, ...],
    *, ignore: int | None = None, several: bool = False,
) -> Array:  # fmt: skip
    """Integers from 0 to classes - 1, one a sample or `several`, or an error that names the sample."""
    if labels.dtype.kind not in "biu":
        raise FcdeployError(
            f"{label!r} is {labels.dtype}, expected class indices: integers from 0",
            "convert it: labels.astype('int64'); numbers to be predicted go with --metric regression",
        )
    y = (labels if several else squeeze(labels)).astype(np.int64)
    wrong = y < 0 if decision.classes is None else (y < 0) | (y >= decision.classes)
    if ignore is not None:
        wrong &= y != ignore
    if wrong.any():
        at = np.argwhere(wrong)[0]
        expected = "0 or more" if decision.classes is None else f"0 to {decision.classes - 1}"
        raise FcdeployError(
            f"{names[int(at[0])]}: {label!r} is {int(y[tuple(at)])}, expected {expected} for output {output!r}",
            "class indices count from 0, in the order of the model's outputs",
        )
    return y


def _make_regression(given: Labelled) -> Metric:
    output, label = given.output, given.label

    def figures(outputs: Arrays, labels: Arrays, _: tuple[str, ...]) -> Float64:
        if squeeze(outputs[output]).shape != squeeze(labels[label]).shape:
            raise _make_misfit_error(label, labels[label], output, outputs[output], "numbers of the output's shape")
        return metrics.sum_errors(outputs[output], labels[label])

    return Metric("regression", output, given.why, ERROR, figures, metrics.rmse, label=label)


def _make_iou(given: Labelled) -> Metric:
    output, label = given.output, given.label

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y, boxes = labels[label], outputs[output]
        if boxes.shape != y.shape or boxes.ndim < 2 or boxes.shape[-1] != 4:
            raise _make_misfit_error(label, y, output, boxes, "boxes (x1, y1, x2, y2) in both, shape (n, ..., 4)")
        swapped = (y[..., :2] > y[..., 2:]).reshape(len(y), -1).any(axis=1)
        if swapped.any():
            raise FcdeployError(
                f"{names[int(swapped.argmax())]}: {label!r} has a box that ends before it begins, "
                "expected (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2",
                "convert (x, y, width, height) to corners",
            )
        overlap = metrics.compute_box_iou(boxes, y).reshape(len(y), -1)
        return np.stack([overlap.sum(axis=1), np.full(len(y), float(overlap.shape[1]))], axis=1)

    return Metric("iou", output, given.why, SHARE, figures, take_ratio, label=label)


LABELLED: dict[str, Callable[[Labelled], Metric]] = {
    "top1": _make_top_k,
    "top5": _make_top_k,
    "regression": _make_regression,
    "iou": _make_iou,
    "tokens": _make_tokens,
    "miou": _make_tokens,
    "text": _make_text,
}
"""Metric -> what makes it of labels and the output that they belong to."""


def _make_misfit_error(label: str, labels: Array, output: str, values: Array, expected: str) -> FcdeployError:
    return FcdeployError(
        f"{label!r} is {labels.dtype} of shape {format_rows(labels)}, which does not fit output {output!r} of shape "
        f"{format_rows(values)}: expected {expected}",
        f"correct the labels, name the output they belong to: 'label.{output}', or choose another --metric",
    )
