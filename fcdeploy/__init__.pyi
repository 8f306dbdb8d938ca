"""Trained dense and convolutional networks to small, fast, proven int8 ONNX models for CPUs.

The functions have the names of the commands: `fcdeploy.quantize(...)` is `fcdeploy quantize`.  They take models as files,
bytes, `onnx.ModelProto`, `onnx_ir.Model` or `torch.nn.Module`, samples as arrays, tables, loaders, generators or files,
and return values whose fields are the keys of `--json`:

    import fcdeploy

    made = fcdeploy.quantize(module, data=images, output="model.int8.onnx")
    found = fcdeploy.validate("model.int8.onnx", against=module, data={"image": held_out, "label": labels})
    print(found.drop, found)

A mistake raises `fcdeploy.FcdeployError`, with a message and a hint.
"""

# Written by scripts/release/stub.py from the commands' signatures.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

from fcdeploy.api.inputs import Data, Model, TorchModule, TorchTensor
from fcdeploy.api.results import (
    BenchResult as BenchResult,
    BundleResult as BundleResult,
    CalibrationResult as CalibrationResult,
    CompileResult as CompileResult,
    DoctorResult as DoctorResult,
    ExportResult as ExportResult,
    InspectResult as InspectResult,
    PlanResult as PlanResult,
    QuantizeResult as QuantizeResult,
    RepairResult as RepairResult,
    ReportResult as ReportResult,
    SplitResult as SplitResult,
    TransformResult as TransformResult,
    ValidateResult as ValidateResult,
    VerifyResult as VerifyResult,
)
from fcdeploy.api.server import Server
from fcdeploy.arrays import Array
from fcdeploy.bundles.load import Bundle
from fcdeploy.errors import FcdeployError as FcdeployError
from fcdeploy.runtime.native_library import NativeModel
from fcdeploy.preprocessing.read import Given
from fcdeploy.records.plan import Effort
from fcdeploy.records.progress import OnStep

__version__: str
__all__: list[str]

def bench(
    model: Model,
    *,
    against: Model | None = None,
    threads: int = 1,
    batch: int | Sequence[int] | None = None,
    seconds: float = 5.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    max_ratio: float | None = None,
    interval: float = 10.0,
    per_node: bool = False,
    engine: str = "onnxruntime",
    on_step: OnStep | None = None,
) -> BenchResult:
    """Time a model in onnxruntime, or in code compiled from it (`engine` "native"), and with `against` both in turn.

    `against` is its float original, in onnxruntime.  `batch` is the length of free leading axes, 1 by default, or several;
    `shapes` gives whole shapes by input name; without it free lengths are those of the commonest samples that an int8 model was
    made with.
    `seconds` is for timing alone, at each batch size; it is exceeded where the fewest rounds take longer, and up to
    four times where the 95 % interval of the ratio is wider than `interval` percent of it.  Where it stays wider the
    report does not conclude.  `max_ratio` is the largest time relative to `against` that passes, at every batch size;
    an interval that lies on one side of it decides, however wide.
    `per_node` adds the time of each node at the first batch size, of native code that of each step and its share of
    this CPU's peak.  Inputs are random, since time hardly depends on
    values.  Raises FcdeployError."""

def bundle(
    int8: Model,
    *,
    output: str | Path | None = None,
    triton: str | Path | None = None,
    name: str | None = None,
    version: str = "1",
    calibration: str | Path | None = None,
    plan: str | Path | None = None,
    validation: str | Path | None = None,
    bench: str | Path | None = None,
    libraries: Sequence[str | Path] = (),
    data: Data | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    classes: str | Path | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> BundleResult:
    """Write the model, what it was made from and how it answers as a bundle, `docs/bundle.md`, at `output`.

    `triton` is the folder of a Triton model repository that gets the model as NAME/VERSION, with its configuration.
    Golden samples are the first `samples` (4, or as many as take no more bytes than the model) of `data`, else some that the
    calibration carries, else drawn with a seed; their outputs are those of this CPU.  `calibration`, `plan`, `validation`
    and `bench` are the files of `fcdeploy calibrate`, `quantize --save-plan`, `validate --json` and `bench --json`;
    `libraries` those of `fcdeploy compile`, one for each machine, of which that for this one must answer the golden
    samples as the model does.
    Raises FcdeployError when they are not this model's."""

def calibrate(
    model: Model,
    *,
    data: Data,
    output: str | Path | None = None,
    csv_file: str | Path | None = None,
    samples: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    max_memory: int | None = None,
    preprocess: Given = None,
    classes: Path | str | None = None,
    label: str | None = None,
    everything: bool = False,
    keep_samples: bool = True,
    skip_bad: bool = False,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    force: bool = False,
    on_step: OnStep | None = None,
) -> CalibrationResult:
    """Record minimum, maximum and histogram of every weight, bias and activation, and moments of what layers read.

    `output` is MODEL.calib beside the model unless given.  `batch`, `max_memory` (bytes of each process), `workers`
    (processes) and `cluster` ("ray" or "ray:ADDRESS") change speed and memory, never the result.  Progress is saved in
    OUTPUT.progress, from which the same call goes on after a crash.  `skip_bad` leaves out samples that cannot be used instead
    of stopping at the first.  `batch_axes` ("NAME=1", "NAME=none") say where samples lie in an input, `states` ("OUT=IN") which
    inputs take what an output gave on the sample before.  `preprocess` (a preset, FILE.toml, FILE.py:NAME), the file of
    `classes` and the column of `label` say how data are read; that is recorded, and later commands read theirs so."""

def compile(
    model: Model,
    *,
    output: str | Path | None = None,
    target: str = "host",
    emit: str = "library",
    kernels: str = "own",
    name: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Data | None = None,
    calibration: str | Path | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    allow_float: bool = False,
    allow_ties: bool = False,
    dry_run: bool = False,
    force: bool = False,
    on_step: OnStep | None = None,
) -> CompileResult:
    """Compile a quantized model: `emit` "library" makes a shared library for `fcdeploy.load_native`, "c" a folder of C, "object"
    an object file for a microcontroller (`target` "cortex-m4"), with its header beside it.

    `kernels` "cmsis-nn=FOLDER" makes a folder of C that calls the CMSIS-NN in that folder where it gives the same bytes for every
    sum, and with `allow_ties` also where some are one level off.

    One sample is compiled; `shapes` gives the lengths of other free axes.  The proof takes samples of `data`, else those
    that `calibration` carries, else drawn ones; for another machine than this it is about the same program compiled for
    this one.  `dry_run` shows the program and writes nothing.  Raises FcdeployError at
    an operator without a kernel, and, without `allow_float`, where steps compute in float."""

def conv_to_dense(
    model: Model,
    *,
    output: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Data | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> TransformResult:
    """Write the model with convolutions that cover their whole input as dense layers; outputs of 1x1 become (N, K).

    The sizes of the inputs are fixed, but for the batch.  All else is as for `dense_to_conv`."""

def dense_to_conv(
    model: Model,
    *,
    output: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Data | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> TransformResult:
    """Write the model with its dense head as convolutions, so that it answers for every window of a larger image.

    Outputs (N, K) become maps (N, K, h, w), 1x1 at the original size; the spatial axes of inputs and outputs are free,
    which is all that becomes of a network without dense layers.
    Where a layer behind the head cannot be turned, the sizes stay as they were.  `shapes` gives inputs whose axes are
    free a size, by name; answers are compared on `samples` of `data`, with `preprocess`, else on numbers drawn with a seed.
    Raises FcdeployError where no layer can be turned, or answers differ."""

def doctor() -> DoctorResult:
    """The CPU and the target row that follows from it, cores and memory, versions and extras.

    The report's answer is no when onnxruntime cannot be loaded: then no command that runs a model works.  The runtime is asked
    by models that onnx writes; without it, as in fcdeploy-runtime, it is not."""

def export(
    module: str | TorchModule,
    *,
    output: str | Path,
    state: str | Path | None = None,
    inputs: Sequence[str | Sequence[int] | TorchTensor | Array] = (),
    data: Data | None = None,
    opset: int | None = None,
    force: bool = False,
    tolerance: float = 0.0001,
    on_step: OnStep | None = None,
) -> ExportResult:
    """Write a PyTorch module as a float ONNX model and prove that both compute the same.

    `module` is "FILE.py:FUNCTION", a function without arguments that returns an nn.Module, or the module itself (whose
    weights `state` replaces).  `inputs` are shapes ("1,3,32,32", "tokens:1,16:int64", (1, 3, 32, 32)), tensors or arrays, one
    for each input; without them FILE.py's `example_inputs()` is called.  The first axis of every input is the batch,
    and of any length.  `state` is a .safetensors or torch.save file of weights, FILE or FILE:KEY; `data` is samples to
    compare on besides random inputs; `opset` None writes the lowest that can say the network, 13 or above.

    Raises FcdeployError for a mistake in any of these, and when an output differs from torch's by more than
    `tolerance`, relative to its largest element; nothing is written then."""

def inspect(
    model: Model,
    *,
    kernels: bool = False,
    saturation: bool = False,
    exact: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
    runtimes: bool = False,
    data: Data | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
    on_step: OnStep | None = None,
) -> InspectResult:
    """Parameters, multiply-accumulates and memory of every layer at batch 1; with `kernels`, the kernel of every node.

    `shapes` by name are those of inputs with free axes to count at; without, what depends on them stays unknown.
    With `saturation`, which layers of a quantized model can overflow on CPUs that add pairs of products in 16 bits.
    With `exact`, whether its kernels compute on this CPU what exact arithmetic does, on the first `samples` (4 unless
    given, or the model's batch) of `data`; the report passes when they do.
    With `runtimes`, which other runtimes than onnxruntime would refuse the model, or compute it otherwise, and why.
    With `device`, a name such as "stm32f4", what native code of a quantized model takes there: flash and memory in bytes, and
    about how many milliseconds.  The report passes when the device's own memory and flash, or `max_ram` and `max_flash`,
    suffice, and the time is at most `max_ms` at the slow end of its range.

    Works on float and on int8 models; the model runs only where the shape of a tensor cannot be inferred otherwise.
    Raises FcdeployError when the file is not a model, with `kernels` when onnxruntime cannot load it, with
    `saturation`, `exact` and `device` when it is not quantized, and with `device` where an operator has no native kernel."""

def load_bundle(path: str | Path, *, threads: int | None = None, engine: str = "onnxruntime") -> Bundle:
    """Load a bundle, a folder or a zip, with the session options of its manifest.

    `engine` "native" runs the library that the bundle carries for this machine, in one thread, without onnxruntime; that
    runs code in it: load only what you would run.  `threads` defaults to the CPUs of this process.  Every hash is
    checked first.  Raises FcdeployError when the bundle is damaged, when its model does not load, or when the model is
    not what the manifest says."""

def load_native(path: str | Path, *, level: str | None = None) -> NativeModel:
    """Load a library that `fcdeploy compile` wrote; it needs neither onnx nor onnxruntime.

    The best level of instructions that this CPU has is taken, or `level`.  Loading a library runs code in it: load only
    what you would run.  Raises FcdeployError for any other file."""

@overload
def quantize(
    model: Model,
    *,
    output: str | Path | None = None,
    data: Data | None = None,
    calibration: str | Path | None = None,
    weights: str = "int8",
    activations: str = "int8",
    target: str = "host",
    ranges: str | None = None,
    effort: Effort | None = None,
    keep_float: Sequence[str] = (),
    runtimes: str | None = None,
    engine: str = "onnxruntime",
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
    plan: str | Path | None = None,
    save_plan: str | Path | None = None,
    costs: str | Path | None = None,
    dry_run: Literal[True],
    max_drop: float | None = None,
    eval: Data | None = None,
    metric: str | None = None,
    minutes: float | None = None,
    same_data: bool = False,
    samples: int | None = None,
    seed: int | None = None,
    preprocess: Given = None,
    classes: Path | str | None = None,
    label: str | None = None,
    floor: str | float | None = None,
    accept: bool = False,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> PlanResult:
    """Write the quantized form of a float ONNX model and read back which kernels run it.

    `weights` and `activations` are a row of tables/types.py.  Statistics come from `calibration`, or, with `data` alone,
    from calibrating first; types that scale no activations beforehand can do without.  Bias correction (effort `balanced`)
    and compensating rounding (`best`) run on samples of `data`, else on those the calibration carries.  Nodes that would
    be slower as integers stay float: by `costs`, a file of them (measured and written when it does not exist), "table",
    "measure", or "none" to take every integer kernel there is; unless given they are measured once and kept in the cache
    folder, but for effort `fast` and targets that are not this CPU.
    `runtimes` names others than onnxruntime ("openvino,web"): what one of them refuses as integers stays float.
    `engine` "native" takes every integer kernel, as `costs` "none" does, unless `costs` are "measure" or a file: then steps of
    native code are timed. What native code has no kernel for is refused.
    `device` (as `inspect` has it) means native code on that device: the report passes where it fits into the device's memory
    and flash, or `max_ram` and `max_flash` bytes, and runs in at most `max_ms`; the file is written either way. There `costs`
    "table" counts instructions.
    `batch_axes` ("NAME=1", "NAME=none") say where samples lie in an input.
    `states` ("OUT=IN") name inputs that take what an output gave on the sample before.
    `dry_run` only plans; `save_plan` is a file for the plan that was carried out.

    With `max_drop` layers leave int8 until the drop on the samples of `eval` is no larger, in the unit of `metric` (as
    `validate` has them), for at most `minutes` (10 unless given); samples that were calibrated on are refused, but for
    `same_data`.

    Without it the result is judged on samples that no tool has seen: `floor` is "PERCENT" of equal decisions, or
    "PERCENT,DECIBELS" with those of outputs that decide nothing ("99,20"), or "none".  Tools that harm are left out, and
    layers leave int8 until the floor is held; what cannot hold it is not written, but for `accept`.  Raises FcdeployError."""

@overload
def quantize(
    model: Model,
    *,
    output: str | Path | None = None,
    data: Data | None = None,
    calibration: str | Path | None = None,
    weights: str = "int8",
    activations: str = "int8",
    target: str = "host",
    ranges: str | None = None,
    effort: Effort | None = None,
    keep_float: Sequence[str] = (),
    runtimes: str | None = None,
    engine: str = "onnxruntime",
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
    plan: str | Path | None = None,
    save_plan: str | Path | None = None,
    costs: str | Path | None = None,
    dry_run: Literal[False] = False,
    max_drop: float | None = None,
    eval: Data | None = None,
    metric: str | None = None,
    minutes: float | None = None,
    same_data: bool = False,
    samples: int | None = None,
    seed: int | None = None,
    preprocess: Given = None,
    classes: Path | str | None = None,
    label: str | None = None,
    floor: str | float | None = None,
    accept: bool = False,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> QuantizeResult:
    """Write the quantized form of a float ONNX model and read back which kernels run it.

    `weights` and `activations` are a row of tables/types.py.  Statistics come from `calibration`, or, with `data` alone,
    from calibrating first; types that scale no activations beforehand can do without.  Bias correction (effort `balanced`)
    and compensating rounding (`best`) run on samples of `data`, else on those the calibration carries.  Nodes that would
    be slower as integers stay float: by `costs`, a file of them (measured and written when it does not exist), "table",
    "measure", or "none" to take every integer kernel there is; unless given they are measured once and kept in the cache
    folder, but for effort `fast` and targets that are not this CPU.
    `runtimes` names others than onnxruntime ("openvino,web"): what one of them refuses as integers stays float.
    `engine` "native" takes every integer kernel, as `costs` "none" does, unless `costs` are "measure" or a file: then steps of
    native code are timed. What native code has no kernel for is refused.
    `device` (as `inspect` has it) means native code on that device: the report passes where it fits into the device's memory
    and flash, or `max_ram` and `max_flash` bytes, and runs in at most `max_ms`; the file is written either way. There `costs`
    "table" counts instructions.
    `batch_axes` ("NAME=1", "NAME=none") say where samples lie in an input.
    `states` ("OUT=IN") name inputs that take what an output gave on the sample before.
    `dry_run` only plans; `save_plan` is a file for the plan that was carried out.

    With `max_drop` layers leave int8 until the drop on the samples of `eval` is no larger, in the unit of `metric` (as
    `validate` has them), for at most `minutes` (10 unless given); samples that were calibrated on are refused, but for
    `same_data`.

    Without it the result is judged on samples that no tool has seen: `floor` is "PERCENT" of equal decisions, or
    "PERCENT,DECIBELS" with those of outputs that decide nothing ("99,20"), or "none".  Tools that harm are left out, and
    layers leave int8 until the floor is held; what cannot hold it is not written, but for `accept`.  Raises FcdeployError."""

def repair(
    model: Model,
    *,
    output: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Data | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> RepairResult:
    """Write a quantized model without what onnxruntime does not run; taken literally it computes the same.

    `shapes` gives inputs whose axes are free a size, by name; answers are compared on `samples` of `data`, with
    `preprocess`, else on numbers drawn with a seed.  Raises FcdeployError where there is nothing to repair, or what was
    written fails."""

def report(
    models: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    add: Sequence[str | Path] = (),
    format: str = "html",
    title: str | None = None,
    pictures: int = 0,
    force: bool = False,
    on_step: OnStep | None = None,
) -> ReportResult:
    """Write what is known of int8 models, side by side, as one HTML file that loads nothing, or as a markdown model card.

    With `format` "model-explorer", of one model, a folder of node data for Model Explorer: kernels, errors, times, sizes.

    `models` are files or bundles, whose reports and plans are taken from them.  `add` are more: what `validate`, `bench` and
    `quantize` print with `--json`, calibrations, and plans; each goes to the model that it is of.  `output` is MODEL.html
    (MODEL.md) unless given; `title` is the page's.  So many `pictures`, samples that a calibration among `add` kept, are shown
    as the model sees them, and are in the page then, which is HTML.  Nothing is measured: what no file says is said to be
    missing.  Raises FcdeployError where a file is of none of the models."""

def split(
    model: Model,
    *,
    output: Path | str | None = None,
    at: str | None = None,
    memory: int | None = None,
    macs: int | None = None,
    device: str | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
    max_ms: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Data | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> SplitResult:
    """Cut a model, float or int8, behind the node `at`, or as late as `memory` bytes of weights and activations or
    `macs` multiply-accumulates allow for the first half; without any of them only list the cuts there are.
    With `device`, a name such as "stm32f4", as late as native code of the first half of an int8 model fits there: its memory
    and flash, or `max_ram` and `max_flash` bytes, and `max_ms` at the slow end of what is estimated.

    NAME.onnx as `output` writes NAME.first.onnx and NAME.second.onnx.  Before that the pair is run as one against the
    whole, on `samples` of `data`, else on numbers drawn with a seed.  Raises FcdeployError where there is no such cut,
    or the pair answers differently."""

def start_server(
    source: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grpc_port: int | None = None,
    workers: int = 1,
    threads: int = 1,
    token_file: str | Path | None = None,
) -> Server:
    """Serve a model, a bundle or a folder of them in a process of its own, as `fcdeploy serve` does; return when it answers.

    `port` 0 takes a free one; parameters are the options of the command, which has more.  Raises FcdeployError where it
    does not start."""

def validate(
    int8: Model,
    *,
    against: Model,
    data: Data,
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
) -> ValidateResult:
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
    Raises FcdeployError where models, data or labels do not fit each other."""

def verify(bundle: str | Path, *, engine: str = "onnxruntime", on_step: OnStep | None = None) -> VerifyResult:
    """Check every hash and run the golden samples on this CPU.

    The answer is no when a file is not the one that was bundled, or when an output differs by more than rounding ties.
    `engine` "native" asks the library that the bundle carries for this machine.  Raises FcdeployError when the bundle
    cannot be read, or its model does not load."""
