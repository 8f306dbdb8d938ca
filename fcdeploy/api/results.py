"""What the public functions return: a frozen value a command, whose fields are the keys of its `--json`.

Fields without a default are always there.  `values` holds every key, also those that have no field; `show()` and
`_repr_html_` are the tables and lines of the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fcdeploy.api.html import to_html
from fcdeploy.api.result_rows import (
    Culprit,
    CutPoint,
    DeviceEstimate,
    ExportedTensor,
    FloatNode,
    LayerError,
    LayerInfo,
    NodeKernel,
    OutputError,
    PlannedNode,
    ReportedModel,
    SkippedSample,
    TensorInfo,
    TensorRange,
)
from fcdeploy.console import format_report
from fcdeploy.records.report import Report

Number = float  # under a name that a field of a class may hide


@dataclass(frozen=True)
class Result:
    """What every result has. `report` is what the terminal shows."""

    report: Report

    @property
    def passed(self) -> bool:
        """False where the command would exit with 1: it ran, and the answer is no."""
        return self.report.passed

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the terminal would say on stderr."""
        return self.report.warnings

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for a reader; the last one is the one that matters."""
        return self.report.lines

    @property
    def values(self) -> Mapping[str, object]:
        """All that `--json` prints, but for its schema."""
        return self.report.values

    def to_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return self.report.to_json()

    def __str__(self) -> str:
        return format_report(self.report)

    def _repr_html_(self) -> str:
        return to_html(self.report)


@dataclass(frozen=True)
class ExportResult(Result):
    """A float ONNX model that computes what the module does."""

    output: Path
    bytes: int
    parameters: int
    opset: int
    ir_version: int
    free_batch: bool
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[ExportedTensor, ...]
    tolerance: float
    seconds: float


@dataclass(frozen=True)
class CalibrationResult(Result):
    """The calibration at `output`; `model` and `data` are hashes of what it was made from."""

    output: Path
    samples: int
    tensors: tuple[TensorRange, ...]
    seconds: float
    model: str
    data: str
    skipped: tuple[SkippedSample, ...]
    resumed_at: int


@dataclass(frozen=True)
class QuantizeResult(Result):
    """The int8 model at `output`; None, and so all that would be read from it, where it was not good enough to write.

    `ratio` is its time over the float model's, as measured, `ratio_at_largest` that of the largest samples; `sqnr_db` is that of
    its worst output.  Of the file's `bytes_int8`, `weight_bytes` are constants; `weights` and
    `activations` are the widths that were asked for.
    """

    output: Path | None
    seconds: float
    nodes_int8: tuple[NodeKernel, ...] = ()
    nodes_float: tuple[FloatNode, ...] = ()
    bytes_float: int | None = None
    bytes_int8: int | None = None
    weight_bytes: int | None = None
    weights: str | None = None
    activations: str | None = None
    target: str | None = None
    integer_share: float | None = None
    opset: int | None = None
    ir_version: int | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_at_largest: float | None = None
    sqnr_db: float | None = None
    advice: str | None = None


@dataclass(frozen=True)
class PlanResult(Result):
    """A plan that was not carried out; `values["plan"]` is what `plan` of `quantize` takes as a file."""

    nodes: tuple[PlannedNode, ...]
    seconds: float


@dataclass(frozen=True)
class ValidateResult(Result):
    """Float against int8 on the same samples: `float` and `int8` are the metric's values, None without a metric.

    `drop` is in `drop_unit`, with its 95 % interval.  `agreement` is the share of equal decisions.
    With `layers`: `culprit` is the rounding that `advice` names, None where it names none.
    """

    samples: int
    metric: str | None
    float: Number | None
    int8: Number | None
    drop: Number | None
    drop_low: Number | None
    drop_high: Number | None
    drop_unit: str | None
    p_value: Number | None
    agreement: Number | None
    sqnr_db: Number | None
    kernel_sqnr_db: Number | None
    kernels_exact: bool | None
    outputs: tuple[OutputError, ...]
    layers: tuple[LayerError, ...] = ()
    culprit: Culprit | None = None
    advice: str | None = None


@dataclass(frozen=True)
class BenchResult(Result):
    """Times of a run in milliseconds; those of float, and the ratio int8 / float, with a model to compare with."""

    int8_ms: float
    int8_p99_ms: float
    bytes_int8: int
    runs: int
    rounds: int
    threads: int
    batch: int | None
    float_ms: float | None
    float_p99_ms: float | None
    bytes_float: int | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    conclusive: bool | None
    rss_mb: float | None
    model_mb: float | None


@dataclass(frozen=True)
class InspectResult(Result):
    """What a model file holds. `safe`, `exact_passed` and `device` are the answers of options of these names, where asked."""

    opset: int
    ir_version: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    bytes: int
    parameters: int
    macs: int | None
    peak_activation_bytes: int | None
    layers: tuple[LayerInfo, ...]
    kernels: tuple[NodeKernel, ...] = ()
    safe: bool | None = None
    exact_passed: bool | None = None
    device: DeviceEstimate | None = None


@dataclass(frozen=True)
class BundleResult(Result):
    """What was written. `golden` samples stand in the bundle with their answers, from `golden_from`."""

    output: Path | None
    triton: Path | None
    name: str
    version: str
    bytes: int
    files: tuple[str, ...]
    golden: int
    golden_from: str | None


@dataclass(frozen=True)
class VerifyResult(Result):
    """Whether a bundle is as it was made. `golden` is the worst of its outputs: equal, ties or different."""

    bundle: str
    name: str
    version: str
    golden: str | None
    cpu: str
    family: str


@dataclass(frozen=True)
class CompileResult(Result):
    """Native code at `output`, None where only looked at or not proven; sizes are bytes."""

    output: Path | None
    macs: int
    flash_weight_bytes: int
    arena_bytes: int
    float_steps: tuple[str, ...]


@dataclass(frozen=True)
class TransformResult(Result):
    """A model of another shape that answers the same: layers that were turned, and the largest relative difference."""

    output: Path
    turned: int
    declined: tuple[str, ...]
    samples: int
    max_rel: float
    equal: bool
    slides: bool


@dataclass(frozen=True)
class RepairResult(Result):
    """A quantized model that onnxruntime runs: names of nodes by what was wrong with them, and the largest difference."""

    output: Path
    repaired: dict[str, list[str]]
    samples: int
    max_rel: float
    equal: float


@dataclass(frozen=True)
class SplitResult(Result):
    """The places to cut, and the two files where one was cut."""

    cuts: tuple[CutPoint, ...]
    cut: CutPoint | None = None
    first: Path | None = None
    second: Path | None = None
    max_rel: float | None = None


@dataclass(frozen=True)
class ReportResult(Result):
    """The page at `output`, of so many bytes."""

    output: Path
    bytes: int
    seconds: float
    models: tuple[ReportedModel, ...]


@dataclass(frozen=True)
class DoctorResult(Result):
    """This machine. `host` is the target that files are made for unless another is asked for."""

    cpu: str
    machine: str
    host: str
    cores: int
    memory_bytes: int | None
    runtime: str
