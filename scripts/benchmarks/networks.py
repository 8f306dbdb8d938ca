"""`scripts/bench networks`: every kind of network the whole way, by the command line, as a user would take it.

Export, calibrate, quantize, validate, bench, each a process of its own; and a table of what came out, with what is
asked of it: no trained network loses more than half a point, none is slower than float, and files are small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from fcdeploy.graph.light_reader import read_outline
from fcdeploy.runtime.session import Session
from scripts.benchmarks.kernels import BUSY
from scripts.benchmarks.page import decibels, interval, made_by, table, write_section
from scripts.checkout import FCDEPLOY, list_families, load_model_file

FOLDER = Path("out/networks")
PAGE = Path("docs/networks.md")
DIGITS = {"lenet5": "digits", "dense": "digits64", "resnet": "digits"}
CLASSICS = {"mobilenet_v2": 32, "resnet50": 16, "alexnet": 16, "vgg16": 16}  # samples to calibrate and to measure on
CALIBRATION_SEED, EVALUATION_SEED = 1000, 2000
POINTS, SHARE, CHANCE = 0.5, 0.01, 0.05  # points of accuracy, or a share of another metric, that may be lost by chance
SLOWER = 1.02
LARGE, SMALL_FILE, MANY_NODES, LESS_SMALL_FILE = 100_000, 0.30, 50, 0.32
DRAWS = 1000  # of the randomization test and the interval of an AUC
COLUMNS = (
    "network", "parameters", "metric", "float", "int8", "drop (95 %)", "agree", "SQNR", "time", "size", "in int8", "s",
)  # fmt: skip
MEANING = """
Time is int8 / float, one thread, batch 1, the two taken in turn, with its 95 % interval; size is the int8 file / the float
file. The drop is float minus int8 (for an RMSE int8 minus float) with its 95 % interval on paired samples: points, or the
metric's unit. Agree is the share of equal decisions, SQNR that of the worst output. In int8 says how many of the layers with
weights run in integer kernels; where that is faster than integers, the others compute in float with weights kept as bytes.
The last column is seconds for all five commands.
"""


@dataclass(frozen=True)
class Network:
    """One network on its way: what `export` is given, its data, the metric, and the shape to time it with."""

    name: str
    export: tuple[str, ...]
    calib: Path
    evaluation: Path
    metric: str = ""
    shape: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A metric of both models: the drop has an interval, and `lost` is its share of the bar (above 1: too much)."""

    name: str
    float_: float
    int8: float
    drop: float
    low: float
    high: float
    p_value: float
    lost: float


@dataclass(frozen=True)
class Result:
    """What one network came to."""

    network: str
    parameters: int
    nodes: int
    judged: tuple[Judged, ...]
    agreement: float | None
    sqnr_db: float
    ratio: tuple[float, float, float]
    size: float
    in_int8: str
    seconds: float

    def breaches(self) -> list[str]:
        """What it should be and is not."""
        found = [f"loses {one.drop:.4g} of {one.name}" for one in self.judged if one.lost > 1 and one.p_value < CHANCE]
        if self.ratio[0] > SLOWER:
            found.append(f"takes {self.ratio[0]:.3f} of the float time")
        limit = LESS_SMALL_FILE if self.nodes > MANY_NODES else SMALL_FILE
        if self.parameters > LARGE and self.size > limit:
            found.append(f"takes {self.size:.3f} of the float file")
        return [f"{self.network} {what}" for what in found]


@click.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Time for each ratio.")
@click.option("--classics", is_flag=True, help="The large networks with random weights instead.")
@click.option("--output", type=Path, help="The page to write; docs/networks.md unless networks are named.")
def networks(names: tuple[str, ...], seconds: float, classics: bool, output: Path | None) -> None:
    """Take the networks of models/ the whole way to int8, and write a table."""
    families = list_families()
    known = [*CLASSICS] if classics else [*DIGITS, *families]
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"unknown network {unknown[0]!r}, expected {', '.join(known)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    results = [whole_way(prepared(name, families), seconds) for name in names or known]
    command = " ".join(["scripts/bench networks", *names, *(["--classics"] if classics else [])])
    title = "## Classics, with random weights" if classics else "## Trained networks"
    broken = [breach for result in results for breach in result.breaches()]
    verdict = "\n".join(f"- {breach}" for breach in broken) or "Nothing is lost, slower or larger than it may be."
    made = made_by(f"{command} --seconds {seconds:g}")
    if load > BUSY:
        made += f"\nThe machine was busy: its load average was {load:.1f} at the start."
    text = "\n".join([title, "", made, MEANING, listed(results), "", verdict])
    click.echo(text)
    if page := output or (None if names else PAGE):
        write_section(page, "networks --classics" if classics else "networks", text)
    sys.exit(1 if broken else 0)


def prepared(name: str, families: Mapping[str, Any]) -> Network:
    """The network with its data on disk."""
    if name in DIGITS:
        calib, evaluation = (Path(f"calib_data/{DIGITS[name]}.{kind}.npz") for kind in ("calib", "eval"))
        export = (f"models/{name}.py:{name}", "--state", f"models/{name}.safetensors")
        return Network(name, export, calib, evaluation)
    FOLDER.mkdir(parents=True, exist_ok=True)
    calib, evaluation = (FOLDER / f"{name}.{kind}.npz" for kind in ("calib", "eval"))
    if name in CLASSICS:
        draw = load_model_file(name).samples
        for path, seed in ((calib, CALIBRATION_SEED), (evaluation, EVALUATION_SEED)):
            np.savez(path, **{key: value.numpy() for key, value in draw(CLASSICS[name], seed).items()})
        return Network(name, (f"models/{name}.py:{name}",), calib, evaluation)
    family = families[name]
    np.savez(calib, **inputs_and_labels(family.calibration()))
    np.savez(evaluation, **inputs_and_labels(family.evaluation()))
    export = (family.function, "--state", family.weights, *(["--input", family.input] if family.input else []))
    shape = ("--shape", family.shape) if family.input else ()
    return Network(name, export, calib, evaluation, family.metric, shape)


def inputs_and_labels(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name != "unusual"}


def whole_way(network: Network, seconds: float) -> Result:
    """Five commands."""
    click.echo(network.name, err=True)
    start = time.perf_counter()
    model, calib, int8 = (FOLDER / f"{network.name}{suffix}" for suffix in (".onnx", ".calib", ".int8.onnx"))
    run("export", *network.export, "-o", model, "--force")
    run("calibrate", model, "--data", network.calib, "-o", calib, "--force")
    made = run("quantize", model, "--int8", "--calibration", calib, "-o", int8, "--force")
    against = (int8, "--against", model)
    metric = ("--metric", network.metric) if ".py:" in network.metric else ()
    proof = run("validate", *against, "--data", network.evaluation, *metric)
    judged = [judge(proof)] if proof["float"] is not None and proof["metric"] != "agreement" else []
    if network.metric == "auc":
        judged = [judge_auc(network, model, int8)]
    if network.metric == "detection":
        boxes = run("validate", *against, "--data", network.evaluation, "--metric", "models/scores.py:box_iou")
        judged.append(judge(boxes))
    timed = run("bench", *against, "--seconds", f"{seconds:g}", *network.shape)
    seen = run("inspect", model)
    return Result(
        network.name,
        seen["parameters"],
        len(read_outline(int8).nodes),
        tuple(judged),
        proof["agreement"],
        float("inf") if proof["sqnr_db"] is None else proof["sqnr_db"],
        (timed["ratio"], timed["ratio_low"], timed["ratio_high"]),
        int8.stat().st_size / model.stat().st_size,
        layers_in_int8(made, seen),
        time.perf_counter() - start,
    )


def judge(proof: Mapping[str, Any]) -> Judged:
    """What `validate` found."""
    name = str(proof["metric"])
    accuracy = name in ("top1", "tokens")
    rises = name == "regression"
    bar = POINTS if accuracy else SHARE * abs(proof["float"])
    shown = {"top1": "top-1", "tokens": "per token", "regression": "RMSE"}.get(name, "IoU")
    figures = (proof[key] for key in ("float", "int8", "drop", "drop_low", "drop_high"))
    float_, int8, drop, low, high = figures
    lost = (int8 - float_ if rises else drop) / bar
    return Judged(shown, float_, int8, drop, low, high, proof["p_value"], lost)


def judge_auc(network: Network, model: Path, int8: Path) -> Judged:
    """The AUC of the reconstruction error, with a randomization test and a bootstrap interval over samples."""
    auc = load_model_file("scores").auc
    family = list_families()[network.name]
    with np.load(network.evaluation) as arrays:
        frames = arrays["frames"]
    unusual = family.evaluation()["unusual"]
    errors = [np.square(Session(file).run({"frames": frames})[0] - frames).mean(axis=1) for file in (model, int8)]
    first, second = (auc(error, unusual) for error in errors)
    draw, pair = np.random.default_rng(0), np.stack(errors)
    spread, chance = [], []
    for _ in range(DRAWS):
        at = draw.integers(0, len(unusual), len(unusual))
        spread.append(auc(pair[0, at], unusual[at]) - auc(pair[1, at], unusual[at]))
        swap = draw.integers(0, 2, len(unusual))
        other = np.take_along_axis(pair, np.stack([swap, 1 - swap]), axis=0)
        chance.append(auc(other[0], unusual) - auc(other[1], unusual))
    low, high = np.quantile(spread, (0.025, 0.975))
    p_value = (1 + sum(abs(one) >= abs(first - second) for one in chance)) / (DRAWS + 1)
    drop = first - second
    return Judged("AUC", first, second, drop, float(low), float(high), p_value, drop / (SHARE * first))


def layers_in_int8(made: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """Layers with weights in integer kernels, of all."""
    weighted = {row["node"] for row in seen["layers"] if row["parameters"]}
    return f"{len(weighted & {row['node'] for row in made['nodes_int8']})} of {len(weighted)}"


def listed(results: Sequence[Result]) -> str:
    return table(COLUMNS, [row(result) for result in results])


def row(result: Result) -> tuple[str, ...]:
    cells = [[], [], [], []]  # type: list[list[str]]
    for one in result.judged:
        shares = one.name in ("top-1", "per token")
        figure = (lambda value: f"{100 * value:.2f} %") if shares else (lambda value: f"{value:.4f}")
        unit = "{:.2f}" if shares else "{:.4f}"
        cells[0].append(one.name)
        cells[1].append(figure(one.float_))
        cells[2].append(figure(one.int8))
        cells[3].append(f"{unit} ({unit} .. {unit})".format(one.drop, one.low, one.high))
    agreement = "-" if result.agreement is None else f"{100 * result.agreement:.1f} %"
    return (
        result.network, f"{result.parameters:,}", *("<br>".join(cell) or "-" for cell in cells), agreement,
        decibels(result.sqnr_db), interval(*result.ratio), f"{result.size:.3f}", result.in_int8, f"{result.seconds:.0f}",
    )  # fmt: skip


def run(*words: str | Path) -> dict[str, Any]:
    """A command of fcdeploy, its JSON. Raises ClickException with its last words when it cannot run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([FCDEPLOY, *map(str, words), "--json"], capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 1) or not done.stdout:
        raise click.ClickException(f"fcdeploy {' '.join(map(str, words))}: {done.stderr.strip()}")
    return json.loads(done.stdout)
