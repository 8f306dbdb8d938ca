"""What counts as a right answer: from a model's outputs and the labels to one row of figures per sample.

| metric | labels | output | figures of a sample | summary |
|---|---|---|---|---|
| `top1`, `top5` | class index (n,) | scores (n, classes), one score, or the class | right or wrong | share |
| `tokens` | class indices (n, ...), -100 not counted | an axis of scores more, or classes | right, counted | share |
| `regression` | numbers | numbers of the same shape | squared and absolute errors | RMSE |
| `iou` | boxes (n, ..., 4) | boxes x1, y1, x2, y2 | summed overlap, boxes | mean |
| `miou` | class indices (n, ...), -100 not counted | an axis of scores more | overlap and area, by class | mean |
| `text` | letters (n, length), -100 at the end | steps of scores, or letters | letters less edit distance, letters | share |
| `agreement`, `boxes`, `cosine`; `miou` and `text` too | none | | those of the float model's answers: `between_models.py` | |
| `FILE.py:FUNCTION` | whatever it reads | all of them | its score | mean |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fcdeploy.arithmetic import metrics
from fcdeploy.arithmetic.set_metrics import count_class_overlap, edit_distance, mean_class_iou
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.evaluate import between_models as between
from fcdeploy.evaluate.between_models import BetweenModels
from fcdeploy.evaluate.boxes.compare import say_compared
from fcdeploy.evaluate.boxes.find_heads import find_boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.decision import Decision, decide, infer_decision, squeeze
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import OutputsRead, decide_by, read_outputs
from fcdeploy.records.box_layout import AnchorHead
from fcdeploy.records.signature import format_shape
from fcdeploy.user_code import load_function, user_code

BETWEEN = ("agreement", "boxes", "miou", "text", "cosine")  # of int8 answers with float ones, without labels
NAMES = ("top1", "top5", "regression", "iou", "tokens", *BETWEEN)
IGNORED = -100  # PyTorch's ignore_index: a padded position
SHARE, ERROR, SCORE = "points", "unit of the labels", "unit of the score"


@dataclass(frozen=True)
class Metric:
    """One way to score: `figures(outputs, labels, names)` gives (n, k) per sample, `summary` takes means (..., k).

    Without labels there are no figures of one model, but some `between` two; then it is `relative`.
    """

    name: str
    output: str
    why: str
    unit: str
    figures: Callable[[Arrays, Arrays, tuple[str, ...]], Float64] | None
    summary: Callable[[Float64], Float64]
    decision: Decision | None = None
    label: str | None = None
    between: BetweenModels | None = None
    relative: bool = False

    def count(self, figures: Float64) -> float:
        """How many positions, boxes or letters the figures (n, k) are of; of metrics that score whole samples, the samples."""
        if self.summary is mean_class_iou:
            return float(np.split(figures, 2, axis=-1)[1].sum())
        return float(figures[:, 1].sum()) if self.summary is take_ratio else float(len(figures))

    @property
    def takes_any_shape(self) -> bool:
        """Whether both models' answers may have different shapes: boxes, rows and texts are as many as were found."""
        free = self.decision is not None and (self.decision.rows or self.decision.blank is not None)
        return free or self.name == "boxes" or (self.unit == SCORE and not self.relative)


def take_mean(figures: Float64) -> Float64:
    return figures[..., 0]


def take_ratio(figures: Float64) -> Float64:
    equal, count = figures[..., 0], figures[..., 1]
    return np.divide(equal, count, out=np.ones_like(equal), where=count > 0)  # a resample may have none that count


def find_summary(name: str) -> Callable[[Float64], Float64]:
    """How means of figures by position, box, letter or class become one number; of `cosine`, which scores samples, their mean."""
    return {"miou": mean_class_iou, "cosine": take_mean}.get(name, take_ratio)


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
        metric = _make_labelled(name, outputs, labels, ends)
    if metric is None or metric.name in ("boxes", "cosine"):
        return metric, read
    return metric, read.decide_as(metric.output, metric.decision)


def _make_labelled(name: str | None, outputs: Arrays, labels: Arrays, ends: Mapping[str, OutputEnd]) -> Metric:
    label, output = find_labelled_output(labels, outputs)
    first, values = squeeze(outputs[output]), np.asarray(labels[label])
    if name is None and _is_one_hot(values):
        raise FcdeployError(
            f"{label!r} is one-hot, {_format_rows(values)}: classes, or numbers to be predicted",
            "labels.argmax(axis=1) are class indices; --metric regression takes them as numbers",
        )
    chosen, why = (name, "as asked for") if name else _choose_default(values)
    why = f"{why}, on output {output!r}"
    end = ends.get(output, OutputEnd("other"))
    if chosen in ("top1", "top5"):
        return _make_top_k(chosen, why, output, label, first, end.kind == "sigmoid")
    if chosen in ("tokens", "miou"):
        return _make_tokens(chosen, why, output, label, outputs[output], values, end.axis)
    if chosen == "text":
        return _make_text(
            why, output, label, decide_by(outputs[output], end) or _decide_by_shape(outputs[output], output, end)
        )
    if chosen == "iou":
        return Metric("iou", output, why, SHARE, _make_iou(output, label), take_ratio, label=label)
    return Metric("regression", output, why, ERROR, _make_regression(output, label), metrics.rmse, label=label)


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
    decision = decision or _decide_by_shape(outputs[output], output, ends.get(output, OutputEnd("other")))
    if (name == "miou" and decision.classes is None) or (name == "text" and decide(decision, outputs[output]).ndim < 2):
        raise FcdeployError(
            f"metric {name!r}: output {output!r} has shape {_format_rows(outputs[output])}, expected scores of classes",
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


def _decide_by_shape(output: Array, name: str, end: OutputEnd) -> Decision:
    decision = infer_decision(output, end.kind == "sigmoid", labelled=False)
    if decision is None:
        raise FcdeployError(
            f"metric 'agreement' compares decisions, and output {name!r} has shape "
            f"{_format_rows(output)}: one number a sample",
            "give labels for --metric regression, or --metric FILE.py:FUNCTION",
        )
    return decision


def _make_top_k(name: str, why: str, output: str, label: str, first: Array, probability: bool) -> Metric:
    decision = infer_decision(first, probability, labelled=True) if first.ndim <= 2 else None
    if decision is None:
        raise FcdeployError(
            f"metric {name!r}: output {output!r} has shape {_format_rows(first)}, expected (n, classes)",
            "--metric tokens takes labels with several positions a sample, --metric FILE.py:FUNCTION any",
        )
    k = int(name[3:])
    if k > 1 and (decision.axis is None or first.shape[1] <= k):
        raise FcdeployError(
            f"metric {name!r}: output {output!r} has shape {_format_rows(first)}, expected more than {k} classes",
            "--metric top1",
        )

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y, scores = _check_class_labels(labels[label], label, output, decision, names), squeeze(outputs[output])
        if y.ndim != 1:
            raise _make_misfit_error(label, labels[label], output, first, "one class index a sample, shape (n,)")
        hits = metrics.is_in_top_k(scores, y, k) if decision.axis is not None else decision(scores) == y
        return hits[:, None].astype(np.float64)

    return Metric(name, output, f"{why}, {decision}", SHARE, figures, take_mean, decision, label)


def _make_tokens(
    name: str, why: str, output: str, label: str, first: Array, values: Array, known: int | None
) -> Metric:
    """`tokens` and `miou`; `known` is the axis of classes that the graph tells."""
    shape = values.shape
    axes = [
        i for i in range(first.ndim - 1, 0, -1)
        if first.shape[i] > 1 and first.shape[:i] + first.shape[i + 1 :] == shape
    ]  # fmt: skip
    if first.dtype.kind in "biu" and first.shape == shape and name == "tokens":
        decision = Decision(None, None)
    elif axes:
        # images are (n, classes, height, width), sequences (n, length, classes)
        axis = known if known in axes else 1 if first.ndim > 3 and 1 in axes else axes[0]
        assert axis is not None
        decision = Decision(axis, first.shape[axis])
    else:
        raise _make_misfit_error(label, values, output, first, "the output's shape without its class axis")

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y = _check_class_labels(labels[label], label, output, decision, names, ignore=IGNORED, several=True)
        predicted = decision(outputs[output])
        if predicted.shape != y.shape:
            raise _make_misfit_error(label, y, output, outputs[output], "the output's shape without its class axis")
        if name == "miou":
            return count_class_overlap(predicted, y, decision.classes or 0, counted=y != IGNORED)
        return metrics.count_token_hits(predicted, y, IGNORED)

    return Metric(name, output, f"{why}, {decision}", SHARE, figures, find_summary(name), decision, label)


def _make_text(why: str, output: str, label: str, by_shape: Decision) -> Metric:
    """Letters less edit distance over letters: 1 less the character error rate. A text by CTC has its blank first."""
    decision = by_shape
    if decision.axis is not None and decision.blank is None:
        decision = replace(decision, blank=0)

    def figures(outputs: Arrays, labels: Arrays, names: tuple[str, ...]) -> Float64:
        y = _check_class_labels(labels[label], label, output, by_shape, names, ignore=IGNORED, several=True)
        said = decision.texts(decide(decision, outputs[output]))
        wanted = [row[row != IGNORED].tolist() for row in y]
        kept = [len(right) - edit_distance(text, right) for text, right in zip(said, wanted, strict=True)]
        return np.array([kept, [len(right) for right in wanted]], np.float64).T

    return Metric("text", output, f"{why}, {decision}", SHARE, figures, take_ratio, decision, label)


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


def _make_regression(output: str, label: str) -> Callable[[Arrays, Arrays, tuple[str, ...]], Float64]:
    def figures(outputs: Arrays, labels: Arrays, _: tuple[str, ...]) -> Float64:
        if squeeze(outputs[output]).shape != squeeze(labels[label]).shape:
            raise _make_misfit_error(label, labels[label], output, outputs[output], "numbers of the output's shape")
        return metrics.sum_errors(outputs[output], labels[label])

    return figures


def _make_iou(output: str, label: str) -> Callable[[Arrays, Arrays, tuple[str, ...]], Float64]:
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

    return figures


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


def _make_misfit_error(label: str, labels: Array, output: str, values: Array, expected: str) -> FcdeployError:
    return FcdeployError(
        f"{label!r} is {labels.dtype} of shape {_format_rows(labels)}, which does not fit output {output!r} of shape "
        f"{_format_rows(values)}: expected {expected}",
        f"correct the labels, name the output they belong to: 'label.{output}', or choose another --metric",
    )


def _format_rows(array: Array) -> str:
    return format_shape(("n", *array.shape[1:]))
