"""`fcdeploy demo`: the whole pipeline on the project's own networks and data."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import click

from fcdeploy import console
from fcdeploy.atomic_files import temporary_folder
from fcdeploy.cli import options
from fcdeploy.errors import FcdeployError
from fcdeploy.records.report import Report, Table

NETWORKS = (("lenet5", "digits"), ("dense", "digits64"), ("resnet", "digits"))
FIRST = "models/lenet5.py"
MARGIN = 1.02
COLUMNS = ("network", "float", "int8", "drop (95 %)", "agree", "SQNR", "file", "time", "verdict")


@click.command("demo")
@click.option(
    "-o", "--output", type=options.FILE, metavar="FOLDER", help="Keep the models here; forgotten unless given."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    default=3.0,
    show_default=True,
    help="Seconds for each benchmark.",
)
@options.json_option
def command(output: Path | None, seconds: float, as_json: bool) -> None:
    """Export three networks trained on handwritten digits, quantize, prove and time them.

    The networks and their data are those of the folder it is run in, where it is a checkout of the project, else those
    that were installed.
    """
    root = _find_networks()
    with temporary_folder() as temporary:
        folder = output or temporary
        folder.mkdir(parents=True, exist_ok=True)
        results = {name: _run_all_commands(root, name, data, folder, seconds) for name, data in NETWORKS}

    rows = tuple(_make_row(name, values) for name, values in results.items())
    lines: tuple[str, ...] = (
        "time is int8 / float on this CPU, one thread, batch 1, the two taken in turn, with its 95 % interval",
    )
    if output:
        resnet = f"{output}/resnet"
        lines += (
            f"next: fcdeploy inspect {resnet}.int8.onnx --kernels",
            f"      fcdeploy inspect {resnet}.int8.onnx --saturation",
            f"      fcdeploy validate {resnet}.int8.onnx --against {resnet}.onnx --data calib_data/digits.eval.npz --layers",
        )
    else:
        lines += ("next: fcdeploy demo -o out keeps the models, to look into with inspect and validate",)
    console.show(
        Report("demo", {"networks": results}, (Table("handwritten digits", COLUMNS, rows),), lines), as_json=as_json
    )


def _find_networks() -> Path:
    """The folder with models/ and calib_data/: this one, or where the wheel put them."""
    if Path(FIRST).is_file() and Path("calib_data").is_dir():
        return Path()
    try:
        installed = importlib.metadata.files("fcdeploy") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.as_posix().endswith(f"share/fcdeploy/{FIRST}") and (path := Path(str(file.locate()))).is_file():
            return path.resolve().parent.parent
    raise FcdeployError(
        f"folder {str(Path.cwd())!r} has no {FIRST} and calib_data/, and none are installed",
        "run it in a checkout of the project: scripts/demo",
    )


def _run_all_commands(root: Path, name: str, data: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Export, calibrate, quantize, validate and bench one network; the numbers of the last three."""
    from fcdeploy.commands.bench import bench
    from fcdeploy.commands.calibrate import calibrate
    from fcdeploy.commands.export import export
    from fcdeploy.commands.quantize import quantize
    from fcdeploy.commands.validate import validate

    model, calib, int8 = folder / f"{name}.onnx", folder / f"{name}.calib", folder / f"{name}.int8.onnx"
    state, source = str(root / f"models/{name}.safetensors"), f"{root / 'models' / name}.py:{name}"
    train, held_out = (str(root / f"calib_data/{data}.{part}.npz") for part in ("calib", "eval"))
    with console.progress() as on_step:
        _announce(f"export {source} --state {state} -o {model}")
        export(source, state=state, output=model, force=True, on_step=on_step)
        _announce(f"calibrate {model} --data {train} -o {calib}")
        calibrate(model, data=train, output=calib, force=True, on_step=on_step)
        _announce(f"quantize {model} --int8 --calibration {calib} -o {int8}")
        quantized = quantize(model, calibration=calib, output=int8, force=True, on_step=on_step).values
        _announce(f"validate {int8} --against {model} --data {held_out}")
        proof = validate(int8, against=model, data=held_out, on_step=on_step).values
        _announce(f"bench {int8} --against {model}")
        time = bench(int8, against=model, seconds=seconds, on_step=on_step).values
    return {"quantize": quantized, "validate": proof, "bench": time}


def _make_row(name: str, values: dict[str, Any]) -> tuple[str, ...]:
    quantized, proof, time = values["quantize"], values["validate"], values["bench"]
    ratio = time["ratio"]
    return (
        name,
        f"{100 * proof['float']:.2f} %",
        f"{100 * proof['int8']:.2f} %",
        f"{proof['drop']:.2f} ({proof['drop_low']:.2f} .. {proof['drop_high']:.2f})",
        f"{100 * proof['agreement']:.1f} %",
        f"{proof['sqnr_db']:.1f} dB" if proof["sqnr_db"] is not None else "exact",
        f"{quantized['bytes_int8'] / quantized['bytes_float']:.2f}",
        f"{ratio:.2f} ({time['ratio_low']:.2f} .. {time['ratio_high']:.2f})",
        _judge_speed(ratio, time["ratio_low"], time["ratio_high"]),
    )


def _judge_speed(ratio: float, low: float, high: float) -> str:
    """Only what the interval allows to say; within MARGIN of each other two models are equally fast."""
    if high < 1 / MARGIN:
        return f"{1 / ratio:.{1 if ratio < 0.9 else 2}f} times faster"
    return "slower: keep it float for speed" if low > MARGIN else "as fast"


def _announce(command: str) -> None:
    click.echo(f"$ fcdeploy {command}", err=True)
