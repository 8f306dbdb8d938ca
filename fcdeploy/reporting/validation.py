"""What `validate` found, as tables, lines and warnings for readers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fcdeploy.arithmetic.significance import is_near_chance
from fcdeploy.errors import quote_names
from fcdeploy.evaluate.boxes.compare import say_compared
from fcdeploy.evaluate.compare import Answers
from fcdeploy.evaluate.compare_layers import LayerSums
from fcdeploy.evaluate.loss import NOTHING, Loss, digits_of, format_amount
from fcdeploy.evaluate.metric import SHARE, Metric
from fcdeploy.proof.exact import Exactness
from fcdeploy.records.report import Table
from fcdeploy.reporting.exactness import describe_exactness
from fcdeploy.reporting.units import format_decibels
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.wording import say_count

CLEAN_KERNELS_DB = 38.0  # rounding ties alone leave 40 to 49 dB on clean networks
SHOWN_CLASSES = 12
AGREEING = {
    "boxes": "{:.2f} % of the boxes of either model are found by both",
    "miou": "{:.2f} % of the area of either model's classes is both models', mean over classes",
    "text": "{:.2f} % of the letters are the float model's",
    "cosine": "cosine {:.6f} on average",
}
MORE = {
    "miou": "overlap of the areas of a class, mean over classes",
    "text": "letters that need no change: 1 less edit distance over letters",
    "nearest": "samples whose nearest other one is float's",
}
WIDE_POINTS = 2.0  # an interval wider than that does not tell one percentage point from none


def make_tables(answers: Answers, loss: Loss | None, values: dict[str, Any]) -> Iterator[Table]:
    """The metrics of both models, and the confusion matrix of a small classifier."""
    lines: list[tuple[str, ...]] = []
    metric = answers.metric
    if metric and loss:
        one, other = _format_value(loss.float_value, metric.unit), _format_value(loss.int8_value, metric.unit)
        name = "RMSE" if metric.name == "regression" else metric.name
        lines.append((name, one, other, _format_drop(loss, metric.unit)))
    for name in ("mae", "r2"):
        if name in values:
            lines.append((name.upper(), f"{values[name]['float']:.5g}", f"{values[name]['int8']:.5g}", ""))
    if values["agreement"] is not None and not (metric and metric.relative):
        lines.append(("agreement", "", f"{100 * values['agreement']:.2f} %", f"{answers.decision}"))
    for row in values["outputs"]:
        if row["sqnr_db"] is not None:
            text = f"cosine {row['cosine']:.6f}; {row['kind']}"
            lines.append((f"SQNR of {row['name']}", "", _format_decibels(row["sqnr_db"]), text))
        lines += _make_decision_rows(row, answers, metric)
    if values["kernel_sqnr_db"] is not None:
        text = f"integer kernels against exact arithmetic; {CLEAN_KERNELS_DB:.0f} dB or more is sound"
        if values["kernels_exact"]:
            text = "by themselves all kernels are exact but for ties: what follows them makes so much of these"
        lines.append(("kernel SQNR", "", _format_decibels(values["kernel_sqnr_db"]), text))
    yield Table(say_count(answers.samples, "sample"), ("", "float", "int8", ""), tuple(lines))
    matrix = values["confusion"]
    if matrix and len(matrix["int8"]) <= SHOWN_CLASSES:
        names = values["classes"]
        classes = tuple(names[at] if at < len(names) else str(at) for at in range(len(matrix["int8"])))
        body = ((label, *map(str, row)) for label, row in zip(classes, matrix["int8"], strict=True))
        yield Table("int8: label down, answer across", ("", *classes), tuple(body))


def _make_decision_rows(row: dict[str, Any], answers: Answers, metric: Metric | None) -> Iterator[tuple[str, ...]]:
    """What of an output's decisions stands, where it is not said already."""
    name = row["name"]
    said = name == answers.decisive or (metric is not None and metric.output == name)
    if row["agreement"] is not None and not said:
        found = answers.read.detections
        how = answers.read.decisions.get(name) or (found and say_compared(found))
        yield f"agreement of {name}", "", f"{100 * row['agreement']:.2f} %", f"{how}"
    for key, text in MORE.items():
        if row.get(key) is not None and not (metric and metric.name == key):
            yield f"{key} of {name}", "", f"{100 * row[key]:.2f} %", text
    if row.get("unequal_shapes"):
        count = answers.outputs[name].samples
        yield (
            f"shape of {name}",
            "",
            "differs",
            f"on {row['unequal_shapes']} of {say_count(count, 'sample')}, which are not compared",
        )


def make_lines(metric: Metric | None, loss: Loss | None, values: dict[str, Any]) -> Iterator[str]:
    """What was measured, and the verdict."""
    yield f"metric: {values['metric'] or 'none'}, {values['why']}"
    if metric is not None and loss is None:
        yield NOTHING.format(metric=metric)
    if metric is None or loss is None:
        yield f"SQNR {_format_decibels(values['sqnr_db'])} on the worst output{_format_cosine(values['outputs'])}"
        return
    drop = format_amount(loss.drop, metric.unit)
    if values["max_drop"] is not None:
        limit = format_amount(values["max_drop"], metric.unit)
        verdict = "passed" if values["passed"] else "failed"
        other = ", beside a float model that it was not made from" if not values["passed"] and loss.drop < 0 else ""
        yield f"{verdict}: drop {drop}, allowed {limit}{other}"
    elif loss.p_value is None:
        value = loss.int8_value if metric.name == "cosine" else 100 * loss.int8_value
        yield AGREEING.get(metric.name, "{:.2f} % of decisions are the float model's").format(value)
    elif loss.p_value >= 0.05:
        yield f"drop {drop}: no more than chance explains (p = {loss.p_value:.2g})"
    else:
        yield f"drop {drop}: {'a real loss' if loss.drop > 0 else 'int8 is better'} (p = {loss.p_value:.2g})"


def may_compute_wrongly(values: dict[str, Any]) -> bool:
    """Whether kernels are far from exact arithmetic, and more than ties may be the cause."""
    kernel_db = values["kernel_sqnr_db"]
    return kernel_db is not None and kernel_db < CLEAN_KERNELS_DB and not values["kernels_exact"]


def make_warnings(
    answers: Answers,
    loss: Loss | None,
    values: dict[str, Any],
    layers: LayerSums | None,
    exactness: Exactness | None = None,
) -> Iterator[str]:
    """What puts the figures in doubt."""
    metric, max_drop = answers.metric, values["max_drop"]
    if may_compute_wrongly(values):
        saturates = detect_target().pair_limit is not None
        cause = "byte products saturate on this CPU, or operators were" if saturates else "operators were"
        why = f"{cause} fused wrongly" if exactness is None else describe_exactness(exactness)
        yield (
            f"integer kernels change the outputs: {values['kernel_sqnr_db']:.1f} dB against exact arithmetic, sound is "
            f"{CLEAN_KERNELS_DB:.0f} or more: {why}"
        )
    if metric and loss:
        yield from _warn_of_few_samples(answers.samples, metric, loss, max_drop)
    classes = answers.decision.classes if answers.decision else None
    right = round(loss.float_value * answers.samples) if metric and loss else 0
    if metric and loss and metric.name == "top1" and is_near_chance(right, answers.samples, classes):
        yield (
            f"the float model is right on {100 * loss.float_value:.1f} % of the samples, little more than chance: "
            "do labels and preprocessing fit it?"
        )
    if values["source"] is False:
        yield "the int8 model was made from another float file than --against: the figures tell more than what rounding did"
    if answers.other_labels:
        yield f"labels not read: {', '.join(answers.other_labels)}; --metric FILE.py:FUNCTION sees all"
    if layers and layers.unmatched:
        yield f"the float model has no tensor named {quote_names(layers.unmatched)}: not compared by layer"
    if layers and not layers.undisturbed:
        yield "looking at the integer tensors changed the int8 outputs on this runtime: by layer is approximate"


def _warn_of_few_samples(samples: int, metric: Metric, loss: Loss, max_drop: float | None) -> Iterator[str]:
    if loss.low is None or loss.high is None:
        return
    if max_drop is not None and loss.drop <= max_drop < loss.high:
        most = format_amount(loss.high, metric.unit)
        are = f"{say_count(samples, 'sample')} {'is' if samples == 1 else 'are'}"
        yield f"{are} too few to be sure: the drop may be as large as {most}, allowed {max_drop:g}"
    elif metric.unit == SHARE and loss.high - loss.low > WIDE_POINTS:
        half = (loss.high - loss.low) / 2
        tell = f"{say_count(samples, 'sample')} {'tells' if samples == 1 else 'tell'}"
        yield f"{tell} the drop only to within {half:.1f} points either way"


def _format_value(value: float, unit: str) -> str:
    return f"{100 * value:.2f} %" if unit == SHARE else f"{value:.5g}"


def _format_drop(loss: Loss, unit: str) -> str:
    parts = [f"drop {format_amount(loss.drop, unit)}"]
    if loss.low is not None and loss.high is not None:
        digits = digits_of(unit)
        parts.append(f"95 % interval {loss.low:{digits}} to {loss.high:{digits}}")
    if loss.p_value is not None:
        parts.append(f"p = {loss.p_value:.2g}")
    return ", ".join(parts)


def _format_cosine(outputs: list[dict[str, Any]]) -> str:
    least = min((row["cosine"] for row in outputs if row["cosine"] is not None), default=None)
    return "" if least is None else f", cosine {least:.6f} at least"


def _format_decibels(value: float | None) -> str:
    if value is None:
        return "not measured: no output is floating point"
    return format_decibels(value)
