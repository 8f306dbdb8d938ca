"""`scripts/bench kernels`: where int8 is faster than float, by how much, and whose choice of kernels is best.

Every network is quantized by every recipe in a process of its own; then the float model and all that was written from
it run in turn in one process, so that each ratio is between models that the same noise hit, and all are loaded again
several times.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from fcdeploy.records.costs import Choice, TimeTrial, from_text, to_text
from fcdeploy.runtime.paired_timing import Load, Ratio, Run, Timing, compute_ratio, time_reloaded
from fcdeploy.runtime.session import Session
from fcdeploy.user_code import load_function
from scripts.benchmarks.page import decibels, interval, made_by, table, write_section
from scripts.checkout import BENCH, FCDEPLOY

FOLDER = Path("out/bench")
CALIBRATION_SEED, EVALUATION_SEED = 1000, 2000
FLOAT = "float"
OURS, EVERY, STORED = "fcdeploy", "fcdeploy, every integer kernel", "fcdeploy, float stored in bytes"
PEERS: dict[str, dict[str, Any]] = {  # recipe -> arguments of onnxruntime's quantize_static
    "onnxruntime U8S8 per-channel, reduce_range": {
        "activation_type": "QUInt8", "per_channel": True, "reduce_range": True,
    },
    "onnxruntime S8S8, its default": {},
}  # fmt: skip
SLOWER = 1.02  # of another model's time: up to here they are equally fast
BUSY = 0.7  # load average of a machine that does something else
COLUMNS = ("network", "recipe", "time", "integer MACs", "size", "SQNR")
VERDICTS = ("network", "verdict", "float, ms", "of float", "of float stored in bytes", "of the fastest onnxruntime")
MEANING = """
Time is that of one thread at batch 1 relative to the float model, with warm caches. All models of a network run in turn
and are loaded nine times, or once where loading takes long; the figure is the median of the loads' ratios, or of the
rounds', with an interval of at least 95 % for it.
Integer MACs is the share of multiply-accumulates that integer kernels do. Size is that of the file relative to float,
SQNR is 10 log10 of signal over error at the output. The rows of fcdeploy are its default, which measures and leaves in
float what is slower as integers; every integer kernel there is (`--costs none`); and every layer in float with weights
kept as bytes in the file, which is what the others must beat. lenet5, dense and resnet are trained; the other networks
have random weights (models/random_weights.py) and calibrate and are measured on smooth random inputs.
"""


@dataclass(frozen=True)
class Network:
    """A network of models/, and how many samples to calibrate and to measure on; `data` are trained ones' sets."""

    name: str
    file: str = ""
    count: int = 64
    samples: str = "samples"
    inputs: tuple[str, ...] = ()
    data: str = ""


NETWORKS = {
    network.name: network
    for network in (
        Network("lenet5", data="digits"),
        Network("dense", data="digits64"),
        Network("resnet", data="digits"),
        Network("autoencoder"),
        Network("ds_cnn"),
        Network("mobilenet_v1_025"),
        Network("dense4096", file="mlp", samples="dense4096_samples", inputs=("--input", "1,4096")),
        Network("mlp"),
        Network("mobilenet_v2", count=32),
        Network("resnet50", count=16),
        Network("vgg16", count=16),
    )
}


@dataclass(frozen=True)
class Result:
    """What one recipe made of a network; `failure` when it made nothing."""

    recipe: str
    integer_macs: float = 0.0
    size: float = 0.0
    sqnr_db: float = 0.0
    ratio: Ratio | None = None
    failure: str = ""


@dataclass(frozen=True)
class Measured:
    """A network's results, and the paired times of fcdeploy's default with the other models."""

    network: str
    float_ms: float
    results: list[Result]
    against: dict[str, Ratio]


@click.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option("--seconds", type=float, default=12.0, show_default=True, help="Time to measure each network for.")
@click.option("--again", is_flag=True, help="Measure what the last run wrote, and quantize only what is missing.")
@click.option("--output", type=Path, help="The page to write; docs/benchmarks.md unless networks are named.")
def kernels(names: tuple[str, ...], seconds: float, again: bool, output: Path | None) -> None:
    """Time the networks of models/ in every form against float, and write a table."""
    if unknown := [name for name in names if name not in NETWORKS]:
        raise click.UsageError(f"unknown network {unknown[0]!r}, expected {', '.join(NETWORKS)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.environ["FCDEPLOY_CACHE"] = str(FOLDER / "cache")  # costs are measured for this page
    if not again:
        shutil.rmtree(FOLDER / "cache", ignore_errors=True)
    load = os.getloadavg()[0]
    measured = [_network(NETWORKS[name], seconds, again) for name in names or NETWORKS]
    text = _section(
        measured,
        " ".join(["scripts/bench kernels", *names, f"--seconds {seconds:g}", *(["--again"] if again else [])]),
        load,
    )
    click.echo(text)
    page = output or (None if names else Path("docs/benchmarks.md"))
    if page:
        write_section(page, "kernels", text)


def _network(network: Network, seconds: float, again: bool) -> Measured:
    """Build, quantize in every way, measure."""
    model, calib, held_out = _float_model(network, again)
    files, results = {FLOAT: model}, []
    for number, (recipe, make) in enumerate(_recipes(network, model, calib), start=1):
        click.echo(f"{network.name}: {recipe}", err=True)
        out = FOLDER / f"{network.name}.{number}.int8.onnx"
        kept = again and out.exists()
        if not kept:
            out.unlink(missing_ok=True)
        if failure := "" if kept else make(out):
            results.append(Result(recipe, failure=failure))
            continue
        files[recipe] = out
        results.append(_proved(recipe, out, model, held_out))
    click.echo(f"{network.name}: timing", err=True)
    timed = _timed(files, held_out, seconds)
    against = {name: compute_ratio(timed[OURS], timed[name]) for name in files} if OURS in files else {}
    rows = [r if r.failure else replace(r, ratio=compute_ratio(timed[r.recipe], timed[FLOAT])) for r in results]
    return Measured(network.name, float(np.median(timed[FLOAT].turns)), rows, against)


def _float_model(network: Network, again: bool) -> tuple[Path, Path, Path]:
    """The float model, calibration data and evaluation data, made where they are not shipped."""
    file = f"models/{network.file or network.name}.py"
    model = FOLDER / f"{network.name}.onnx"
    weights = ["--state", f"models/{network.name}.safetensors"] if network.data else []
    export = [FCDEPLOY, "export", f"{file}:{network.name}", *network.inputs, *weights, "-o", str(model), "--force"]
    if failure := "" if again and model.exists() else _run(export):
        raise click.ClickException(f"{network.name} does not export: {failure}")
    if network.data:
        return model, *(Path(f"calib_data/{network.data}.{kind}.npz") for kind in ("calib", "eval"))
    draw, _ = load_function(f"{file}:{network.samples}")
    paths = []
    for kind, seed in (("calib", CALIBRATION_SEED), ("eval", EVALUATION_SEED)):
        paths.append(FOLDER / f"{network.name}.{kind}.npz")
        np.savez(paths[-1], **{name: tensor.numpy() for name, tensor in draw(network.count, seed).items()})
    return model, paths[0], paths[1]


def _recipes(network: Network, model: Path, calib: Path) -> Iterator[tuple[str, Callable[[Path], str]]]:
    """Every recipe as a function that writes a file and answers with what went wrong."""
    costs, stored = (FOLDER / f"{network.name}.{kind}.json" for kind in ("costs", "stored"))

    def measured(out: Path) -> str:
        costs.unlink(missing_ok=True)
        return quantize(out, costs)

    def quantize(out: Path, taken: Path | str) -> str:
        start = [FCDEPLOY, "quantize", str(model), "--int8", "--data", str(calib)]
        return _run([*start, "--costs", str(taken), "-o", str(out)])

    def store(out: Path) -> str:
        if not costs.exists():
            return "no costs were measured"
        found = from_text(costs.read_text(), str(costs))
        nowhere = TimeTrial(Choice(found.layers), 1.0, 1.0, 1.0)
        stored.write_text(to_text(replace(found, trials=(nowhere,), confirmed=())))
        return quantize(out, stored)

    yield OURS, measured
    yield EVERY, lambda out: quantize(out, "none")
    yield STORED, store
    for name, settings in PEERS.items():
        start = [*BENCH, "peer", json.dumps(settings), str(model), str(calib)]
        yield name, lambda out, start=start: _run([*start, str(out)])


def _proved(recipe: str, int8: Path, model: Path, held_out: Path) -> Result:
    """What the file is, but for its time."""
    sqnr = fcdeploy.validate(int8, against=model, data=held_out).values["sqnr_db"]
    size = int8.stat().st_size / model.stat().st_size
    return Result(recipe, _integer_macs(int8), size, float(sqnr))


def _integer_macs(int8: Path) -> float:
    """The share of multiply-accumulates that integer kernels do."""
    found: dict[str, Any] = fcdeploy.inspect(int8, kernels=True).values
    integer = {row["node"] for row in found["kernels"] if row["integer"]}
    macs = {row["node"]: row["macs"] or 0 for row in found["layers"]}
    return sum(count for node, count in macs.items() if node in integer) / (sum(macs.values()) or 1)


def _timed(files: dict[str, Path], held_out: Path, seconds: float) -> dict[str, Timing]:
    """Every model on one sample, one thread."""
    with np.load(held_out) as arrays:
        feeds = {name: arrays[name][:1] for name in arrays.files if name != "label"}

    def loader(file: Path) -> Load:
        def load() -> Run:
            session = Session(file, threads=1)
            return lambda: session.run(feeds)

        return load

    return dict(zip(files, time_reloaded([loader(file) for file in files.values()], seconds), strict=True))


def _section(measured: list[Measured], command: str, load: float) -> str:
    """The section of the page."""
    made = made_by(command)
    if load > BUSY:
        made += f"\nThe machine was busy: its load average was {load:.1f} at the start."
    summary = table(VERDICTS, [_verdict(one) for one in measured], words=2)
    rows = [_row(one.network, result) for one in measured for result in one.results]
    return "\n".join(["## Kernels", "", made, MEANING, summary, "", table(COLUMNS, rows, words=2)])


def _row(network: str, result: Result) -> tuple[str, ...]:
    if result.ratio is None:
        return network, result.recipe, f"failed: {result.failure}", "", "", ""
    shown = f"{100 * result.integer_macs:.0f} %", f"{result.size:.2f}", decibels(result.sqnr_db)
    return network, result.recipe, _interval(result.ratio), *shown


def _verdict(one: Measured) -> tuple[str, ...]:
    """What fcdeploy's default is worth beside float, the same stored in bytes, and the fastest peer."""
    peers = [name for name in PEERS if name in one.against]
    fastest = max(peers, key=lambda name: one.against[name].median, default="")
    found = [one.against.get(name) for name in (FLOAT, STORED, fastest)]
    words = [f"{_compare(r)} {name}" for r, name in zip(found, (FLOAT, "stored", "onnxruntime"), strict=True) if r]
    shown = [_interval(ratio) if ratio else "-" for ratio in found]
    return one.network, ", ".join(words) or "failed", f"{one.float_ms:.3g}", *shown


def _compare(ratio: Ratio) -> str:
    """Only what the interval allows to say."""
    if ratio.low > SLOWER:
        return "slower than"
    if ratio.high < 1 / SLOWER:
        return "faster than"
    return "as fast as"


def _interval(ratio: Ratio) -> str:
    return interval(ratio.median, ratio.low, ratio.high)


def _run(command: list[str]) -> str:
    """Run a command in a process of its own; the last line it complains with when it fails, else nothing."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error:")] or lines
    return (errors[-1] if errors else f"exit code {done.returncode}") if done.returncode else ""
