"""Float against int8 on the same samples, in onnxruntime: how much is lost, and is the loss more than chance?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import files_of, input_specs, is_quantized, model_hash, output_specs, read_model
from fcdeploy.prepare import prepare
from fcdeploy.proof import layers as tensors
from fcdeploy.proof import scores
from fcdeploy.proof.compare import Answers, LayerSums, by_layer, kernels
from fcdeploy.proof.data import Data, open_data
from fcdeploy.proof.layers import Layer
from fcdeploy.proof.loss import Loss, agreement, confusion, loss_of, regression
from fcdeploy.proof.pair import check_same_ends, is_probability
from fcdeploy.proof.same_data import same_data as watched
from fcdeploy.proof.scores import Metric
from fcdeploy.proof.sharded import Job, answer_all
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.runtime.cluster import crew
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.checks import listed

FEW = 192  # samples for the looks at kernels and layers, which are sums over many values
LAYER_BATCH, LAYER_BYTES = 8, 1 << 20  # every activation of a batch is in memory at once there
CLEAN_KERNELS_DB = 38.0  # rounding ties alone leave 40 to 49 dB on clean networks
SHOWN_CLASSES, SHOWN_LAYERS = 12, 20
NO_METRIC = "the data have no labels, and no output makes decisions"
WIDE_POINTS = 2.0  # an interval wider than that does not tell one percentage point from none


def validate(
    int8: Path | str,
    *,
    against: Path | str,
    data: Path | str,
    metric: str | None = None,
    max_drop: float | None = None,
    layers: bool = False,
    same_data: bool = False,
    limit: int | None = None,
    seed: int | None = None,
    preprocess: Path | str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    on_step: OnStep | None = None,
) -> Report:
    """Compare an int8 model with the float model it was made from, sample by sample.

    `metric` is one of `top1`, `top5`, `regression`, `iou`, `tokens`, `agreement` or FILE.py:FUNCTION (a function of
    outputs and labels, both dicts of arrays, to one score a sample, higher is better); by default what fits the labels.
    `max_drop` is the largest drop that passes, in percentage points; for `regression` the rise of the RMSE, in the
    labels' unit; for a function that scores other than 0 and 1, in its unit.  `layers` adds the SQNR of every integer
    tensor, on the first 192 samples.  Samples that the int8 model was calibrated on are refused, but for `same_data`.
    `workers` (processes) and `cluster` ("ray" or "ray:ADDRESS") share the samples out, and change no figure.
    Raises FcdeployError where models, data or labels do not fit each other.
    """
    if max_drop is not None and not max_drop >= 0:
        raise FcdeployError(f"largest drop {max_drop} is not 0 or more", "--max-drop 1")
    step: OnStep = on_step or (lambda *_: None)
    int8, against = Path(int8), Path(against)
    float_model, int8_model = read_model(against), read_model(int8)
    untrusted = refuse_untrusted(int8_model, str(int8)) + refuse_untrusted(float_model, str(against))
    check_same_ends(int8_model, float_model, int8.name, against.name)
    if is_quantized(float_model) and not is_quantized(int8_model):
        raise FcdeployError(
            f"{against.name!r} is quantized and {int8.name!r} is not, expected it the other way round",
            f"fcdeploy validate {against} --against {int8} --data DATA",
        )
    samples = open_data(data, input_specs(float_model), limit, seed, Path(preprocess) if preprocess else None)
    hashes = {
        "int8": model_hash(files_of(int8_model, int8)), "float": model_hash(files_of(float_model, against)),
    }  # fmt: skip
    job = Job(
        ((str(against), hashes["float"]), (str(int8), hashes["int8"])), samples, metric,
        {spec.name: is_probability(float_model, spec.name) for spec in output_specs(float_model)},
        watched(int8_model, int8.name, allowed=same_data),
    )  # fmt: skip
    with crew(workers, cluster) as team:
        answers, seen = answer_all(team, job, step)
    if max_drop is not None and answers.metric is None:
        raise FcdeployError(
            "a largest drop needs a metric, and without labels one number a sample has none",
            "add an array 'label' to the data, or use --metric FILE.py:FUNCTION",
        )
    loss = loss_of(answers)
    kernel = kernels(int8, samples.read(FEW), step, samples.total(FEW))
    kernel_db = min((one.sqnr_db for one in kernel.values()), default=None)
    found = _layers(int8, against, samples, step) if layers else None
    report = _report(answers, loss, kernel_db, found, max_drop)
    seen_before = None if seen.known is None else seen.shared
    values = {**report.values, "calibration_samples": seen_before, "hashes": hashes}
    notes = [] if is_quantized(int8_model) else [f"{int8.name!r} is not quantized: float is compared with float"]
    notes += [seen.warning] if seen.warning else []
    return replace(report, values=values, warnings=(*untrusted, *notes, *report.warnings))


def _layers(int8: Path, against: Path, samples: Data, step: OnStep) -> LayerSums:
    """Float tensors have the names of the prepared model, which is what is quantized; else those of the file itself."""
    prepared, original = read_model(against), read_model(against)
    prepare(prepared)
    floats: list[ir.Model] = [prepared, original]
    return by_layer(int8, floats, samples.read(FEW, LAYER_BATCH, LAYER_BYTES), step, samples.total(FEW))


def _report(
    answers: Answers, loss: Loss | None, kernel_db: float | None, found: LayerSums | None, max_drop: float | None
) -> Report:
    metric = answers.metric
    rows = tensors.layers(found.taps, found.tensors, found.sums) if found else []
    worst = tensors.culprit(rows)
    passed = loss is None or max_drop is None or loss.drop <= max_drop + 1e-9  # 100 * 3 / 300 may come out above 1
    values: dict[str, Any] = {
        "metric": metric.name if metric else None,
        "why": metric.why if metric else NO_METRIC,
        "samples": answers.samples,
        "float": loss.float_value if loss else None,
        "int8": loss.int8_value if loss else None,
        "drop": loss.drop if loss else None,
        "drop_low": loss.low if loss else None,
        "drop_high": loss.high if loss else None,
        "drop_unit": metric.unit if metric else None,
        "p_value": loss.p_value if loss else None,
        "max_drop": max_drop,
        **regression(answers),
        "agreement": agreement(answers),
        "sqnr_db": min((one.sqnr_db for one in answers.fidelity.values()), default=None),
        "outputs": [
            {"name": name, "sqnr_db": one.sqnr_db, "cosine": one.cosine, "largest_error": one.largest}
            for name, one in answers.fidelity.items()
        ],
        "kernel_sqnr_db": kernel_db,
        "confusion": confusion(answers),
    }
    if found:
        values |= {"layers": [asdict(row) for row in rows], "culprit": asdict(worst) if worst else None}
    values["passed"] = passed
    return Report(
        command="validate",
        values=values,
        tables=tuple(_tables(answers, loss, values, rows)),
        lines=tuple(_lines(metric, loss, values, worst if found else None)),
        passed=passed,
        warnings=tuple(_warnings(answers, loss, values, found)),
    )


def _tables(answers: Answers, loss: Loss | None, values: dict[str, Any], rows: list[Layer]) -> Iterator[Table]:
    lines: list[tuple[str, ...]] = []
    metric = answers.metric
    if metric and loss:
        one, other = _value(loss.float_value, metric.unit), _value(loss.int8_value, metric.unit)
        name = "RMSE" if metric.name == "regression" else metric.name
        lines.append((name, one, other, _drop(loss, metric.unit)))
    for name in ("mae", "r2"):
        if name in values:
            lines.append((name.upper(), f"{values[name]['float']:.5g}", f"{values[name]['int8']:.5g}", ""))
    if values["agreement"] is not None and not (metric and metric.name == "agreement"):
        lines.append(("agreement", "", f"{100 * values['agreement']:.2f} %", f"{answers.decision}"))
    for row in values["outputs"]:
        lines.append((f"SQNR of {row['name']}", "", _decibels(row["sqnr_db"]), f"cosine {row['cosine']:.6f}"))
    if values["kernel_sqnr_db"] is not None:
        text = "integer kernels against exact ones; clean is above 38 dB"
        lines.append(("kernel SQNR", "", _decibels(values["kernel_sqnr_db"]), text))
    yield Table(f"{answers.samples} samples", ("", "float", "int8", ""), tuple(lines))
    matrix = values["confusion"]
    if matrix and len(matrix["int8"]) <= SHOWN_CLASSES:
        classes = tuple(str(index) for index in range(len(matrix["int8"])))
        body = ((label, *map(str, row)) for label, row in zip(classes, matrix["int8"], strict=True))
        yield Table("int8: label down, answer across", ("", *classes), tuple(body))
    if rows:
        more = f", the worst {SHOWN_LAYERS} of {len(rows)}" if len(rows) > SHOWN_LAYERS else ""
        body = (
            (row.tensor, row.node, row.op, _decibels(row.sqnr_db), "" if row.fall_db is None else f"{row.fall_db:.1f}")
            for row in rows[:SHOWN_LAYERS]
        )
        yield Table(f"SQNR of each integer tensor{more}", ("tensor", "node", "op", "SQNR", "fall, dB"), tuple(body))


def _lines(metric: Metric | None, loss: Loss | None, values: dict[str, Any], worst: Layer | None) -> Iterator[str]:
    yield f"metric: {values['metric'] or 'none'}, {values['why']}"
    if worst:
        yield (
            f"culprit: {worst.op} {worst.node!r} loses most, {worst.source_db:.1f} dB in, {worst.sqnr_db:.1f} dB out; "
            f"fcdeploy quantize ... --keep-float {shlex.quote(worst.node)} tries it in float"
        )
    if metric is None or loss is None:
        yield f"SQNR {_decibels(values['sqnr_db'])} on the worst output"
        return
    drop = _amount(loss.drop, metric.unit)
    if values["max_drop"] is not None:
        limit = _amount(values["max_drop"], metric.unit)
        yield f"passed: drop {drop}, allowed {limit}" if values["passed"] else f"failed: drop {drop}, allowed {limit}"
    elif loss.p_value is None:
        yield f"{100 * loss.int8_value:.2f} % of decisions are the float model's"
    elif loss.p_value >= 0.05:
        yield f"drop {drop}: no more than chance explains (p {loss.p_value:.2g})"
    else:
        yield f"drop {drop}: {'a real loss' if loss.drop > 0 else 'int8 is better'} (p {loss.p_value:.2g})"


def _warnings(answers: Answers, loss: Loss | None, values: dict[str, Any], found: LayerSums | None) -> Iterator[str]:
    metric, kernel_db, max_drop = answers.metric, values["kernel_sqnr_db"], values["max_drop"]
    if kernel_db is not None and kernel_db < CLEAN_KERNELS_DB:
        yield (
            f"integer kernels change the outputs: {kernel_db:.1f} dB against exact arithmetic, clean is above "
            f"{CLEAN_KERNELS_DB:.0f}: byte products saturate on this CPU, or operators were fused wrongly"
        )
    if metric and loss and loss.low is not None and loss.high is not None:
        if max_drop is not None and loss.drop <= max_drop < loss.high:
            yield (
                f"{answers.samples} samples are too few to be sure: "
                f"the drop may be as large as {_amount(loss.high, metric.unit)}, allowed {max_drop:g}"
            )
        elif metric.unit == scores.SHARE and loss.high - loss.low > WIDE_POINTS:
            half = (loss.high - loss.low) / 2
            yield f"{answers.samples} samples tell the drop only to within {half:.1f} points either way"
    classes = answers.decision.classes if answers.decision else None
    if metric and loss and metric.name == "top1" and classes and loss.float_value <= 1 / classes:
        yield (
            f"the float model is right on {100 * loss.float_value:.1f} % of the samples, no more than chance: "
            "do labels and preprocessing fit it?"
        )
    if answers.other_labels:
        yield f"labels not read: {', '.join(answers.other_labels)}; --metric FILE.py:FUNCTION sees all"
    if found and found.unmatched:
        yield f"the float model has no tensor named {listed(found.unmatched)}: not compared by layer"
    if found and not found.undisturbed:
        yield "looking at the integer tensors changed the int8 outputs on this runtime: by layer is approximate"


def _value(value: float, unit: str) -> str:
    return f"{100 * value:.2f} %" if unit == scores.SHARE else f"{value:.5g}"


def _amount(drop: float, unit: str) -> str:
    return f"{drop:.2f} points" if unit == scores.SHARE else f"{drop:.4g} ({unit})"


def _drop(loss: Loss, unit: str) -> str:
    parts = [f"drop {_amount(loss.drop, unit)}"]
    if loss.low is not None and loss.high is not None:
        digits = ".2f" if unit == scores.SHARE else ".4g"
        parts.append(f"95 % interval {loss.low:{digits}} to {loss.high:{digits}}")
    if loss.p_value is not None:
        parts.append(f"p {loss.p_value:.2g}")
    return ", ".join(parts)


def _decibels(value: float | None) -> str:
    if value is None:
        return "not measured: no output is floating point"
    return "identical" if value == math.inf else f"{value:.1f} dB"
