"""The int8 model's accuracy loss, with its statistical significance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic import metrics, significance
from fcdeploy.arithmetic.set_metrics import find_nearest
from fcdeploy.arrays import Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.between_models import measure_more
from fcdeploy.evaluate.compare import Answers
from fcdeploy.evaluate.metric import ERROR, IGNORED, SHARE, Metric, find_summary, take_mean

LISTED_CLASSES = 100  # a larger confusion matrix is for nobody to read
NOTHING = (
    "nothing of output {metric.output!r} is decided: on all samples the metric {metric.name!r} has nothing to count"
)


@dataclass(frozen=True)
class Loss:
    """The metric of both models; `drop` is positive where int8 is worse, `low` to `high` its 95 % interval."""

    float_value: float
    int8_value: float
    drop: float
    low: float | None
    high: float | None
    p_value: float | None


def digits_of(unit: str) -> str:
    """How many digits of an amount in this unit are shown, for `format`."""
    return ".2f" if unit == SHARE else ".4g"


def format_amount(drop: float, unit: str) -> str:
    """Format a drop with its unit: '1.20 points', '0.0031 (unit of the labels)'."""
    return f"{drop:{digits_of(unit)}} {'points' if unit == SHARE else f'({unit})'}"


def check_max_drop(max_drop: float | None) -> None:
    """Raise FcdeployError unless it is a drop that can be kept to, or None."""
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise FcdeployError(f"--max-drop {max_drop} is no finite number of 0 or more", "--max-drop 1")


def is_gain(loss: Loss | None, max_drop: float | None) -> bool:
    """Whether int8 is better by more than `max_drop`, beyond chance: rounding does not do that, another float model does."""
    return loss is not None and max_drop is not None and loss.high is not None and loss.high < -max_drop


def require_metric(metric: Metric | None) -> Metric:
    """The metric that a drop is measured by. Raises FcdeployError where there is none."""
    if metric is None:
        raise FcdeployError(
            "a largest drop needs a metric, and without labels no output decides anything",
            "add an array 'label' to the data, or use --metric FILE.py:FUNCTION",
        )
    return metric


def require_decisions(metric: Metric | None, *, found: bool) -> None:
    """Raise FcdeployError where a drop is to be measured on samples of which nothing counts."""
    if metric is not None and not found:
        raise FcdeployError(
            f"a largest drop needs decisions, and {NOTHING.format(metric=metric)}",
            "give --data in which the float model finds something, or --metric FILE.py:FUNCTION",
        )


def compute_loss(answers: Answers) -> Loss | None:
    """Sum up the metric of both models; None without a metric, and where neither model's answers have anything that counts.

    Raises FcdeployError where no label counts.
    """
    metric = answers.metric
    if metric is None:
        return None
    one, other = np.concatenate(answers.float_figures), np.concatenate(answers.int8_figures)
    if not metric.count(one) and not metric.count(other):
        if metric.relative:
            return None
        raise FcdeployError(
            f"metric {metric.name!r}: no position counts, all labels are {IGNORED}", "give labels from 0"
        )
    if is_yes_or_no(metric, one, other):
        return _compute_share_loss(one[:, 0] == 1, other[:, 0] == 1)
    if metric.name == "agreement" and (one == 1).all():
        changed, n = int((other[:, 0] == 0).sum()), len(one)
        low, high = (100 * end for end in significance.estimate_share_interval(changed, n))
        return Loss(1.0, 1 - changed / n, 100 * changed / n, low, high, None)
    return _compute_figures_loss(metric, one, other)


def is_yes_or_no(metric: Metric, one: Float64, other: Float64) -> bool:
    """Whether both models' samples are right or wrong, each as a whole."""
    return metric.unit == SHARE and metric.summary is take_mean and bool(np.isin([one, other], (0.0, 1.0)).all())


def _compute_share_loss(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Loss:
    """The loss in right answers, by McNemar's test and an interval for paired proportions."""
    n, lost, won = len(one), int((one & ~other).sum()), int((~one & other).sum())
    low, high = (100 * end for end in significance.estimate_paired_interval(lost, won, n))
    drop = 100 * (lost - won) / n
    return Loss(float(one.mean()), float(other.mean()), drop, low, high, significance.compute_mcnemar_p(lost, won))


def _compute_figures_loss(metric: Metric, one: Float64, other: Float64) -> Loss:
    """The loss in any other figures, by bootstrap and randomization test over whole samples."""
    summary, k = metric.summary, one.shape[1]
    sign = (-1 if metric.unit == ERROR else 1) * (100 if metric.unit == SHARE else 1)
    values = [float(summary(figures.mean(axis=0))) for figures in (one, other)]
    both = np.concatenate([one, other], axis=1)
    low = high = None
    if len(one) > 1:
        low, high = significance.bootstrap_interval(
            both, lambda means: sign * (summary(means[..., :k]) - summary(means[..., k:]))
        )
    p_value = None if metric.relative else significance.randomization_test(one, other, summary)
    return Loss(values[0], values[1], sign * (values[0] - values[1]), low, high, p_value)


def compute_agreement(answers: Answers) -> float | None:
    """The share of equal decisions of the output that the metric reads, or the first that decides; None where none does."""
    return None if answers.decisive is None else _share(answers.outputs[answers.decisive].equal)


def make_output_values(answers: Answers) -> list[dict[str, Any]]:
    """What is known of each output, as JSON has it: what it is, how near it is, and what of its decisions stands."""
    values = []
    for name, one in answers.outputs.items():
        near = one.fidelity
        row: dict[str, Any] = {
            "name": name,
            "kind": answers.read.kinds.get(name, ""),
            "sqnr_db": near and near.sqnr_db,
            "cosine": near and near.cosine,
            "largest_error": near and near.largest,
            "agreement": _share(one.equal),
        }
        more = measure_more(name, answers.read)
        if more is not None and one.measured:
            sums = np.concatenate(one.measured).sum(axis=0)
            row[more[0]] = (
                float(find_summary(more[0])(sums)) if sums[len(sums) // 2 :].any() else None
            )  # nothing counts
        if one.rows and sum(len(f) for f, _ in one.rows) > 2:
            f, q = (np.concatenate(rows).astype(np.float64) for rows in zip(*one.rows, strict=True))
            row["nearest"] = float((find_nearest(f) == find_nearest(q)).mean())
        if one.unequal:
            row["unequal_shapes"] = one.unequal
        values.append(row)
    return values


def _share(rows: Sequence[Float64]) -> float | None:
    """Of equal decisions; None without any."""
    if not rows:
        return None
    equal, count = np.concatenate(rows).sum(axis=0)
    return float(equal / count) if count else None


def compute_regression(answers: Answers) -> dict[str, dict[str, float]]:
    """RMSE, MAE and R2 of both models; empty for other metrics."""
    if answers.metric is None or answers.metric.name != "regression":
        return {}
    result: dict[str, dict[str, float]] = {"rmse": {}, "mae": {}, "r2": {}}
    for which, figures in (("float", answers.float_figures), ("int8", answers.int8_figures)):
        sums = np.concatenate(figures).sum(axis=0)
        result["rmse"][which] = float(metrics.rmse(sums))
        result["mae"][which] = float(metrics.mae(sums))
        result["r2"][which] = metrics.r2(float(sums[0]), answers.spread) if answers.spread else math.nan
    return result


def compute_confusion(answers: Answers) -> dict[str, list[list[int]]] | None:
    """Confusion matrices of both models, row = label, column = answer; None where nothing is classified."""
    if not answers.classes or answers.decision is None:
        return None
    labels, one, other = np.concatenate(answers.classes).T
    if min(labels.min(), one.min(), other.min()) < 0:
        return None
    classes = answers.decision.classes or int(max(labels.max(), one.max(), other.max())) + 1
    if classes > LISTED_CLASSES:
        return None
    pairs = {"float": one, "int8": other}
    return {which: metrics.count_confusion(labels, answer, classes).tolist() for which, answer in pairs.items()}
