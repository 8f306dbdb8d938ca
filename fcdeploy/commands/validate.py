"""Float against int8 on the same samples, in onnxruntime: how much is lost, and is the loss more than chance?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.compare import Answers
from fcdeploy.evaluate.compare_kernels import compare_kernels
from fcdeploy.evaluate.compare_layers import LayerSums, compare_layers
from fcdeploy.evaluate.data import EvaluationData, open_data
from fcdeploy.evaluate.input_checks import take_few, warn_of_inputs
from fcdeploy.evaluate.leakage import make_leakage_check
from fcdeploy.evaluate.loss import (
    Loss,
    check_max_drop,
    compute_agreement,
    compute_confusion,
    compute_loss,
    compute_regression,
    is_gain,
    make_output_values,
    require_decisions,
    require_metric,
)
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.output_ends import OutputEnd, find_ends, mark_boxes
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.evaluate.quantized_tensors import compute_layer_errors
from fcdeploy.evaluate.sharded import EvaluationJob, answer_all, survey_all
from fcdeploy.evaluate.signatures import check_same_signature
from fcdeploy.graph.model import files_of, hash_model, input_specs, is_quantized, output_specs, read_model
from fcdeploy.native.engine_file import open_engine_file
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.exact import Exactness, check_exactness
from fcdeploy.proof.sample_axes import declare_samples, parse_axes, share_layout
from fcdeploy.records import origin
from fcdeploy.records.data_format import choose_format, from_metadata
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.reporting.sensitivity import (
    make_culprit,
    make_group_values,
    make_sensitivity_lines,
    make_sensitivity_tables,
)
from fcdeploy.reporting.validation import (
    CLEAN_KERNELS_DB,
    make_lines,
    make_tables,
    make_warnings,
    may_compute_wrongly,
)
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.runtime.workers import open_pool
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.samples.states import parse_states
from fcdeploy.sensitivity.advice import advise
from fcdeploy.sensitivity.analysis import Sensitivity, analyze_sensitivity, read_effort
from fcdeploy.sensitivity.error_sources import find_sources
from fcdeploy.wording import quote_path

EXACT = 2  # samples on which kernels are held against exact arithmetic
FEW = 192  # samples for the looks at kernels and layers, which are sums over many values
LAYER_BATCH, LAYER_BYTES = 8, 1 << 20  # every activation of a batch is in memory at once there
NOT_KNOWN = "the model does not say which samples it was calibrated on: whether these are among them is not known"
NO_METRIC = "the data have no labels, and no output makes decisions"


def validate(
    int8: Path | str,
    *,
    against: Path | str,
    data: Path | str,
    metric: str | None = None,
    max_drop: float | None = None,
    layers: bool = False,
    same_data: bool = False,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    limit: int | None = None,
    seed: int | None = None,
    preprocess: Given = None,
    classes: Path | str | None = None,
    label: str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    engine: str = "onnxruntime",
    on_step: OnStep | None = None,
) -> Report:
    """Compare an int8 model with the float model it was made from, sample by sample.

    `metric` is one of `evaluate.choose_metric.NAMES` or FILE.py:FUNCTION (a function of
    outputs and labels, both dicts of arrays, to one score a sample, higher is better); by default what fits the labels.
    `max_drop` is the largest drop that passes, in percentage points; for `regression` the rise of the RMSE, in the
    labels' unit; for a function that scores other than 0 and 1, in its unit.  `layers` looks for the cause of a loss: the SQNR
    of every integer tensor on the first 192 samples, what each rounding costs, what leaving it out brings back, and what to do.
    Samples that the int8 model was calibrated on are refused, but for `same_data`.  `batch_axes` ("NAME=1", "NAME=none") say
    where samples lie in an input.
    `states` ("OUT=IN") are carried from one sample to the next, by each model its own.
    `engine` is what runs the int8 model; of "native", code that is compiled for it, the kernel SQNR is against onnxruntime.
    `workers` (processes) and `cluster` ("ray" or "ray:ADDRESS") share the samples out, and change no figure.
    Raises FcdeployError where models, data or labels do not fit each other.
    """
    check_max_drop(max_drop)
    step: OnStep = on_step or (lambda *_: None)
    pair = _read_models(Path(int8), Path(against))
    recorded = from_metadata(pair.int8.metadata_props, str(int8))
    wanted = choose_format(recorded, preprocess=preprocess, classes=classes, label=label)
    chosen = Samples(data, limit, seed, wanted, pair.float_path)
    alone = declare_samples(pair.float_path, pair.float, chosen, parse_axes(batch_axes), parse_states(states))
    samples = open_data(chosen, input_specs(pair.float))
    source = samples.open()
    odd = alone + warn_of_inputs(source, take_few(source), recorded.statistics)
    leakage = make_leakage_check(pair.int8, pair.int8_path.name, allowed=same_data)
    job = EvaluationJob(pair.name_files(), samples, metric, _find_ends(pair), leakage)

    with open_engine_file(engine, pair.int8_path, pair.int8, _read_shapes(samples)) as file:
        with open_pool(*((None, None) if samples.streams else (workers, cluster))) as team:
            job = survey_all(team, replace(job, runs=str(file.path)), step)
            answers, seen = answer_all(team, job, step)
        if max_drop is not None:
            require_metric(answers.metric)
        kernel, unseen = compare_kernels(pair.int8_path, samples.read(FEW), step, samples.total(FEW), file.path)

    loss = compute_loss(answers)
    if max_drop is not None:
        require_decisions(answers.metric, found=loss is not None)
    kernel_db = min((one.sqnr_db for one in kernel.values()), default=None)
    doubtful = kernel_db is not None and kernel_db < CLEAN_KERNELS_DB and engine == "onnxruntime"
    exactness = _check_kernels(pair, samples, step) if doubtful else None
    sums = _compare_layers(pair, samples, step) if layers else None
    report = _make_report(
        answers, loss, (kernel_db, exactness), sums, max_drop, samples.format.classes, pair.is_source()
    )
    if sums and pair.rounds:
        causes = _find_causes(pair, job, answers, sums, step)
        report = _add_explanation(report, answers, loss, causes, read_effort(pair.int8))
    notes = [*odd, *pair.untrusted, *file.notes]
    notes += [] if pair.rounds else [f"{pair.int8_path.name!r} is not quantized: float is compared with float"]
    notes += [f"kernel SQNR does not show overflow: with 32-bit sums, {unseen}"] if unseen else []
    return _add_leakage(report, seen, pair, notes)


@dataclass(frozen=True)
class ModelPair:
    """The two models, their files, hashes, and whether the first one rounds anything."""

    int8_path: Path
    float_path: Path
    int8: ir.Model
    float: ir.Model
    hashes: dict[str, str]
    untrusted: tuple[str, ...]
    rounds: bool

    def name_files(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Path and hash of the float file, then of the int8 one."""
        return (str(self.float_path), self.hashes["float"]), (str(self.int8_path), self.hashes["int8"])

    def is_source(self) -> bool | None:
        """Whether the float file is the one that the int8 model was made from; None where it does not say."""
        source = origin.read(self.int8.metadata_props, self.int8_path.name).get("float")
        return None if source is None else source == self.hashes["float"]


def _read_models(int8: Path, against: Path) -> ModelPair:
    """Raises FcdeployError where the two do not fit, or are in the wrong order."""
    float_model, int8_model = read_model(against), read_model(int8)
    untrusted = (*refuse_untrusted(int8_model, str(int8)), *refuse_untrusted(float_model, str(against)))
    check_same_signature(int8_model, float_model, int8.name, against.name)
    # bytes may be stored, and computed with as floats
    rounds = is_quantized(int8_model) or bool(find_sources(int8_model))
    if is_quantized(float_model) and not rounds:
        raise FcdeployError(
            f"{against.name!r} is quantized and {int8.name!r} is not, expected it the other way round",
            f"fcdeploy validate {quote_path(against)} --against {quote_path(int8)} --data DATA",
        )
    share_layout([int8_model, float_model])
    pairs = {"int8": (int8_model, int8), "float": (float_model, against)}
    hashes = {name: hash_model(files_of(*pair)) for name, pair in pairs.items()}
    return ModelPair(int8, against, int8_model, float_model, hashes, untrusted, rounds)


def _read_shapes(samples: EvaluationData) -> dict[str, tuple[int, ...]]:
    """Those of the first sample's inputs."""
    return {name: array.shape for batch in samples.read(1) for name, array in batch.inputs.items()}


def _add_leakage(report: Report, seen: Any, pair: ModelPair, notes: list[str]) -> Report:
    """The report with which models it is about, and how many samples the int8 one was calibrated on."""
    values = {
        "calibration_samples": None if seen.known is None else seen.shared,
        "hashes": pair.hashes,
    }
    notes += [seen.warning] if seen.warning else []
    unknown = [NOT_KNOWN] if is_quantized(pair.int8) and seen.known is None else []
    return replace(report.extend(values=values, lines=unknown), warnings=(*notes, *report.warnings))


def _find_ends(pair: ModelPair) -> dict[str, OutputEnd]:
    """What makes each output, in the graph that is quantized; and whether it decides, or holds boxes, by which it was judged."""
    prepared, _ = _read_float_models(pair.float_path)
    infer_shapes(prepared)
    ends = find_ends(prepared)
    decides = origin.read_decides(pair.int8.metadata_props, pair.int8_path.name)
    if decides is not None:
        nothing = origin.read_backgrounds(pair.int8.metadata_props, pair.int8_path.name)
        ends = {name: replace(end, decides=name in decides, background=nothing.get(name)) for name, end in ends.items()}
    boxes = from_metadata(pair.int8.metadata_props, str(pair.int8_path), output_specs(pair.int8)).boxes
    return ends if boxes is None else mark_boxes(ends, boxes)


def _read_float_models(against: Path) -> list[ir.Model]:
    """Float tensors have the names of the prepared model, which is what is quantized; else those of the file itself."""
    prepared, original = read_model(against), read_model(against)
    prepare(prepared)
    return [prepared, original]


def _compare_layers(pair: ModelPair, samples: EvaluationData, step: OnStep) -> LayerSums:
    return compare_layers(
        pair.int8_path,
        _read_float_models(pair.float_path),
        samples.read(FEW, LAYER_BATCH, LAYER_BYTES),
        step,
        samples.total(FEW),
    )


def _check_kernels(pair: ModelPair, samples: EvaluationData, step: OnStep) -> Exactness | None:
    """Whether each kernel by itself is exact: layers behind one another may make much of ties. None where nothing tells."""
    if not is_quantized(pair.int8):
        return None
    count = get_fixed_batch(input_specs(pair.int8)) or EXACT
    batches = (batch.inputs for batch in samples.read(count, count, LAYER_BYTES))
    exactness = check_exactness(pair.int8, batches, on_step=step)
    return exactness if exactness.rows and exactness.undisturbed else None


def _find_causes(pair: ModelPair, job: EvaluationJob, answers: Answers, sums: LayerSums, step: OnStep) -> Sensitivity:
    """Without labels the error of the outputs ranks, not the decisions: those that change are too few to tell from."""

    first = next((batch.inputs for batch in job.data.read(1)), {})

    def choose(outputs: Arrays, labels: Arrays) -> tuple[Metric | None, OutputsRead]:
        return choose_metric(job.metric, outputs, labels, job.ends, first)

    def read(most: int | None) -> Iterable[Batch]:
        return job.data.read(most)

    labelled = answers.metric is not None and not answers.metric.relative
    by = choose if labelled else None
    floats = _read_float_models(pair.float_path)
    return analyze_sensitivity(pair.int8, floats, read, by, sums, on_step=step, total=job.data.count)


def _make_report(
    answers: Answers,
    loss: Loss | None,
    kernels: tuple[float | None, Exactness | None],
    sums: LayerSums | None,
    max_drop: float | None,
    classes: tuple[str, ...],
    source: bool | None,
) -> Report:
    metric = answers.metric
    kernel_db, exactness = kernels
    rows = compute_layer_errors(sums.quantized, sums.tensors, sums.sums) if sums else []
    passed = loss is None or max_drop is None or loss.drop <= max_drop + 1e-9  # 100 * 3 / 300 may come out above 1
    passed &= source is not False or not is_gain(loss, max_drop)
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
        "source": source,
        **compute_regression(answers),
        "agreement": compute_agreement(answers),
        "sqnr_db": min((one.sqnr_db for one in answers.fidelity.values()), default=None),
        "outputs": make_output_values(answers),
        "kernel_sqnr_db": kernel_db,
        "kernels_exact": None if exactness is None else exactness.passed,
        "confusion": compute_confusion(answers),
        "classes": list(classes),
    }
    if sums:
        values |= {"layers": [asdict(row) for row in rows], "culprit": None}
    values["passed"] = passed
    return Report(
        command="validate",
        values=values,
        tables=tuple(make_tables(answers, loss, values)),
        lines=tuple(make_lines(metric, loss, values)),
        passed=passed,
        warnings=tuple(make_warnings(answers, loss, values, sums, exactness)),
    )


def _may_saturate(causes: Sensitivity) -> bool:
    """Whether this CPU adds products of bytes in 16 bits, and the weights do not keep them from saturating."""
    return detect_target().pair_limit is not None and not causes.safe


def _add_explanation(
    made: Report, answers: Answers, loss: Loss | None, causes: Sensitivity, effort: str | None
) -> Report:
    """The report with the causes of the loss, and the advice that follows on top."""
    advice = advise(
        answers=answers,
        loss=loss,
        sqnr_db=made.values["sqnr_db"],
        ranking=causes.ranking,
        rows=causes.rows,
        ranges=causes.ranges,
        saturates=_may_saturate(causes) and may_compute_wrongly(made.values),
        effort=effort,
    )
    rows = make_group_values(causes.ranking, causes.rows, causes.ranges, causes.proofs)
    more = make_sensitivity_tables(causes.ranking, causes.rows, answers.metric, causes.ranges, causes.proofs)
    return replace(
        made,
        values={**made.values, "advice": advice.text, "culprit": make_culprit(advice.culprit), "groups": rows},
        tables=(*made.tables, *more),
        lines=(*make_sensitivity_lines(causes.ranking), *made.lines),
        advice=advice.text,
    )
