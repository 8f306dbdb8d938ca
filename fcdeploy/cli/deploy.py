"""`fcdeploy deploy`: every command of the pipeline in turn, each printed as what it stands for."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fcdeploy import console
from fcdeploy.atomic_files import replace_file
from fcdeploy.cli import options
from fcdeploy.errors import FcdeployError
from fcdeploy.files import check_output
from fcdeploy.records.report import Report, Table, format_next

IMPORTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
PHOTO = "1,3,224,224"
SECONDS = 2.0  # for the times: a look, not a proof


@dataclass(frozen=True)
class Files:
    """What lies beside the bundle when it is done."""

    model: Path
    calibration: Path
    int8: Path
    plan: Path
    validation: Path
    bench: Path
    bundle: Path


@dataclass(frozen=True)
class CommandCall:
    """One command of the pipeline: its function, what it is called with, and the file that its JSON is written to."""

    name: str
    function: Callable[..., Report]
    arguments: tuple[Any, ...]
    words: dict[str, Any]
    report: Path | None = None


@click.command("deploy")
@click.argument("model", metavar="MODEL")
@click.option("--data", metavar="TRAIN", required=True, help="Samples to calibrate on.")
@click.option("--eval", "held_out", metavar="VAL", required=True, help="Other samples, to validate on.")
@options.output_option("The bundle; model, calibration and reports lie beside it.", required=True)
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="FILE[:KEY]|OUT=IN",
    help="Weights of a PyTorch module; of a streaming ONNX model a state, as in calibrate. Repeatable.",
)
@options.batch_axis_option
@click.option("--input", "inputs", multiple=True, metavar="SHAPE", help="Inputs of a PyTorch module, as in export.")
@options.samples_option
@options.seed_option
@options.format_options
@click.option(
    "--max-drop", type=float, metavar="PP", default=1.0, show_default=True, help="Stop where int8 is worse by more."
)
@click.option("--max-ratio", type=float, metavar="R", help="Stop where int8 takes more than R times the float time.")
@options.force_option
@options.json_option
def command(model: str, data: str, held_out: str, output: Path, as_json: bool, **given: Any) -> None:
    """Take MODEL to a bundle that can be served: export, calibrate, quantize, validate, bench, bundle, verify.

    MODEL is a float .onnx, FILE.py:FUNCTION, or PACKAGE.MODULE:FUNCTION such as torchvision.models:resnet18, with --state.
    Each command is printed as it can be repeated. Where a limit is missed, it stops with that command's advice and exit code 1.

    \b
    fcdeploy deploy model.onnx --data photos/train --eval photos/val --preprocess torchvision-imagenet -o fruit.fcd
    """
    files = _name_files(model, output)
    for written in (files.calibration, files.int8, files.plan, files.validation, files.bench):
        check_output(written, force=given["force"])
    how = {key: given[key] for key in ("preprocess", "classes", "label") if given[key] is not None}
    if not files.model.is_file() or ":" in model:
        _export(model, files.model, data, given)
        given["states"] = ()
    elif given["inputs"]:
        raise FcdeployError(
            f"--input {given['inputs'][0]!r} is for a PyTorch module, and {model!r} is a file", "leave --input out"
        )
    reports = _run_line(files, data, held_out, how, given)
    console.show(_summarize(files, reports), as_json=as_json)


def _name_files(model: str, output: Path) -> Files:
    stem = output.with_suffix("") if output.suffix else output
    if ":" not in model and not Path(model).is_file():
        raise FcdeployError(
            f"model {model!r} does not exist", "deploy model.onnx, FILE.py:FUNCTION or torchvision.models:resnet18"
        )
    float_model = Path(f"{stem}.onnx") if ":" in model else Path(model)
    named = {end: Path(f"{stem}.{end}") for end in ("calib", "int8.onnx", "plan.json", "validation.json", "bench.json")}
    return Files(
        float_model, named["calib"], named["int8.onnx"], named["plan.json"], named["validation.json"],
        named["bench.json"], output if output.suffix else Path(f"{output}.fcd"),
    )  # fmt: skip


def _export(reference: str, target: Path, data: str, given: Mapping[str, Any]) -> None:
    from fcdeploy.commands.export import export

    inputs, states = given["inputs"], given["states"]
    if len(states) > 1:
        raise FcdeployError(f"--state {states[1]!r} is a second file of weights, expected one", f"--state {states[0]}")
    state = states[0] if states else None
    if ".py:" not in reference:
        reference, inputs = _write_module(reference, target, data, state, given["force"]), inputs or (PHOTO,)
    words = {"output": target, "state": state, "inputs": tuple(inputs), "force": given["force"]}
    _run(CommandCall("export", export, (reference,), words))


def _write_module(reference: str, target: Path, data: str, state: str | None, force: bool) -> str:
    """A file with the function, as `export` takes it; as many classes as there are class folders."""
    if not IMPORTED.fullmatch(reference):
        raise FcdeployError(
            f"{reference!r} is neither FILE.py:FUNCTION nor PACKAGE.MODULE:FUNCTION", "torchvision.models:resnet18"
        )
    if state is None:
        raise FcdeployError(
            f"{reference!r} has random weights, and fcdeploy downloads none", "--state WEIGHTS.pth, or .safetensors"
        )
    module, _, function = reference.partition(":")
    folder = Path(data)
    classes = sum(child.is_dir() and child.name[0] != "." for child in folder.iterdir()) if folder.is_dir() else 0
    count = f"num_classes={classes}" if classes else ""
    file = target.with_suffix(".model.py")
    for written in (file, target):  # before one of them stands there
        check_output(written, force=force)
    if not Path(state).is_file():
        raise FcdeployError(f"--state {state!r} is no file", "--state WEIGHTS.pth, or .safetensors")
    with replace_file(file, force=force) as aside:
        aside.write_text(f"from {module} import {function}\n\n\ndef network():\n    return {function}({count})\n")
    console.say(f"wrote {file}: {function}({count})")
    return f"{file}:network"


def _run_line(
    files: Files, data: str, held_out: str, how: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Report]:
    """The reports of all commands. Ends with exit code 1 where one of them says no."""
    from fcdeploy.commands.bench import bench
    from fcdeploy.commands.bundle import bundle
    from fcdeploy.commands.calibrate import calibrate
    from fcdeploy.commands.quantize import quantize
    from fcdeploy.commands.validate import validate
    from fcdeploy.commands.verify import verify

    force = {"force": given["force"]}
    few = {key: given[key] for key in ("samples", "seed", "states", "batch_axes") if given[key] not in (None, ())}
    made = {"calibration": files.calibration, "plan": files.plan, "validation": files.validation, "bench": files.bench}
    calls = (
        CommandCall("calibrate", calibrate, (files.model,), {"data": data, "output": files.calibration, **few, **how, **force}),
        CommandCall("quantize", quantize, (files.model,),
             {"calibration": files.calibration, "output": files.int8, "save_plan": files.plan, **force}),
        CommandCall("validate", validate, (files.int8,),
             {"against": files.model, "data": held_out, "max_drop": given["max_drop"]}, files.validation),
        CommandCall("bench", bench, (files.int8,),
             {"against": files.model, "seconds": SECONDS, "max_ratio": given["max_ratio"]}, files.bench),
        CommandCall("bundle", bundle, (files.int8,), {"output": files.bundle, **made, **force}),
        CommandCall("verify", verify, (files.bundle,), {}),
    )  # fmt: skip
    return {call.name: _run(call) for call in calls}


def _run(call: CommandCall) -> Report:
    """Run a command, print it first, and its warnings after. Shows its report, and ends, where the answer is no."""
    console.say(f"$ fcdeploy {_format_call(call)}")
    try:
        with console.progress() as on_step:
            report = call.function(*call.arguments, on_step=on_step, **call.words)
    except FcdeployError as error:
        error.hint = _explain_options(error.hint, call.name)
        raise
    if call.report is not None:
        with replace_file(call.report, force=True) as aside:
            aside.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    if not report.passed:
        console.say(f"stopped at {call.name}: nothing is bundled")
        console.show(report, as_json=False)
    for warning in report.warnings:
        console.say(f"warning: {warning}")
    return report


def _explain_options(hint: str, name: str) -> str:
    """The hint of a command, which may name an option that it has and this one has not."""
    ours = {option for parameter in command.params for option in parameter.opts}
    missing = [option for option in OPTION.findall(hint) if option not in ours]
    if not missing or "fcdeploy " in hint:
        return hint
    return f"{hint} ({missing[0]} is an option of the {name} command above, which can be run by itself)"


def _format_call(call: CommandCall) -> str:
    """The command as a shell has it."""
    parts = [call.name, *(shlex.quote(str(argument)) for argument in call.arguments)]
    parts += ["--int8"] if call.name == "quantize" else []
    for key, value in call.words.items():
        if value in (None, False, ()):
            continue
        option = {"output": "-o", "inputs": "--input", "states": "--state", "batch_axes": "--batch-axis"}.get(
            key, f"--{key.replace('_', '-')}"
        )
        values = value if isinstance(value, tuple) else (value,)
        parts += [option if one is True else f"{option} {shlex.quote(str(one))}" for one in values]
    return " ".join(parts) + (f" --json > {shlex.quote(str(call.report))}" if call.report else "")


def _summarize(files: Files, reports: Mapping[str, Report]) -> Report:
    """Float beside int8 in a table, differences with their 95 % intervals, and where the machine was too noisy for a time."""
    from fcdeploy.reporting.bench import explain_noise

    proof, time, made = (reports[name].values for name in ("validate", "bench", "quantize"))
    rows = [
        (
            "size",
            f"{made['bytes_float']:,}",
            f"{made['bytes_int8']:,}",
            f"{made['bytes_int8'] / made['bytes_float']:.2f}",
        ),
        (
            "time",
            f"{time['float_ms']:.3g} ms",
            f"{time['int8_ms']:.3g} ms",
            f"{time['ratio']:.2f} ({time['ratio_low']:.2f} .. {time['ratio_high']:.2f})",
        ),
    ]
    if proof["float"] is not None and proof["metric"] != "regression":
        drop = f"drop {proof['drop']:.2f}"
        if proof["drop_low"] is not None:
            drop += f" ({proof['drop_low']:.2f} .. {proof['drop_high']:.2f})"
        rows.insert(0, (proof["metric"], f"{100 * proof['float']:.2f} %", f"{100 * proof['int8']:.2f} %", drop))
    noise = explain_noise(time, time["max_ratio"], time["interval"])
    lines = (*([noise] if noise else []), *reports["verify"].lines[-1:], format_next("serve", files.bundle))
    values = {"output": str(files.bundle), **{name: report.values for name, report in reports.items()}}
    columns = ("", "float", "int8", "difference (95 %)")
    return Report("deploy", values, (Table(files.bundle.name, columns, tuple(rows)),), lines)
