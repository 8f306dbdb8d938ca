"""`scripts/bench efforts`: what each --effort of `quantize` does, costs and buys, on networks of models/ or on one's own.

All in one process, so that seconds are those of the work and not of starting Python; the first network is quantized once
before, unmeasured, for what is imported or compiled at first.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import fcdeploy
from fcdeploy.int8.timing import cost_cache
from scripts.benchmarks.kernels import BUSY
from scripts.benchmarks.networks import FOLDER, Judged, Network, judge, judge_auc, prepared, run
from scripts.benchmarks.page import decibels, interval, made_by, table, write_section
from scripts.checkout import list_families

EFFORTS = ("fast", "balanced", "best")
NETWORKS = ("dense", "anomalies", "keywords", "cnn", "resnet", "mobilenet_v2_small", "detector")
COLUMNS = ("network", "effort", "CPU s", "with calibration", "SQNR", "agree", "metric", "drop (95 %)", "time")
MEANING = """
*fast* rounds every weight to the nearest at scales searched by output error, within the bound on pairs, and takes costs from
the table of rates. *balanced*, the default, corrects biases layer after layer on samples, and measures costs. *best* rounds
the weights of every layer so that their errors make up for each other on samples, and starts from the network and the
ranges that come out nearest to float. All quantize from one calibration and are measured on other samples. CPU s are seconds of
quantizing, with costs that are known; *with calibration* adds observing the samples. Measuring costs, once for a model, takes
what is said behind the table. SQNR is that of the worst output, the drop is float minus int8 (for an RMSE int8 minus
float) with its 95 % interval, in points or in the metric's unit; time is int8 / float, one thread, batch 1.
"""


@dataclass(frozen=True)
class Row:
    """What one effort came to on one network; times in seconds."""

    network: str
    effort: str
    seconds: float
    calibrating: float
    sqnr_db: float
    agreement: float | None
    judged: Judged | None
    ratio: tuple[float, float, float]


@click.command()
@click.argument("names", nargs=-1, metavar="[NETWORK]...")
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="A float model of your own, instead.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="With --model: DATA to calibrate on.")
@click.option("--eval", "evaluation", type=click.Path(path_type=Path, exists=True), help="With --model: held-out DATA.")
@click.option("--metric", default="", help="With --model: as in fcdeploy validate.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Time for each ratio.")
@click.option("--output", type=Path, help="The page to write; docs/benchmarks.md unless networks are named.")
def efforts(
    names: tuple[str, ...],
    model: Path | None,
    data: Path | None,
    evaluation: Path | None,
    metric: str,
    seconds: float,
    output: Path | None,
) -> None:
    """Quantize networks of models/ with every effort, and write a table of what that takes and what comes out."""
    if (model is None) != (data is None) or (model is None) != (evaluation is None) or (model and names):
        raise click.UsageError("--model, --data and --eval come together, and without names of networks")
    load, begun = os.getloadavg()[0], time.perf_counter()
    rows: list[Row] = []
    timing: dict[str, float] = {}
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[cost_cache.VARIABLE] = folder  # nothing was measured before
        if model and data and evaluation:
            found: list[tuple[Path, Network]] = [(model, Network(model.stem, (), data, evaluation, metric))]
        else:
            families = list_families()
            found = [exported(prepared(name, families)) for name in names or NETWORKS]
        _quantized(*found[0], Path(folder), "balanced", costs="none")
        for file, network in found:
            more, timing[network.name] = _rows(file, network, Path(folder), seconds)
            rows += more
    broken = _breaches(rows)
    command = " ".join(["scripts/bench efforts", *names, *([f"--model {model}"] if model else [])])
    made = made_by(command)
    if load > BUSY:
        made += f"\nThe machine was busy: its load average was {load:.1f} at the start."
    took = f"All of it took {time.perf_counter() - begun:.0f} s."
    once = "Measuring costs, in seconds: " + ", ".join(f"{name} {s:.0f}" for name, s in timing.items()) + "."
    verdict = "\n".join(broken) or "Everywhere *balanced* takes at most twice what *fast* takes, plus calibration."
    text = "\n".join(["## Efforts", "", made, MEANING, _listed(rows), "", f"{once} {took}", "", verdict])
    click.echo(text)
    if page := output or (None if names or model else Path("docs/benchmarks.md")):
        write_section(page, "efforts", text)
    sys.exit(1 if broken else 0)


def exported(network: Network) -> tuple[Path, Network]:
    """The network as a float ONNX model."""
    click.echo(f"{network.name}: export", err=True)
    file = FOLDER / f"{network.name}.onnx"
    run("export", *network.export, "-o", file, "--force")
    return file, network


def _rows(model: Path, network: Network, folder: Path, seconds: float) -> tuple[list[Row], float]:
    """Three rows, and the seconds that measuring costs took."""
    calib = folder / f"{network.name}.calib"
    calibrating = _seconds(fcdeploy.calibrate, model, data=network.calib, output=calib, force=True)
    costs, begun = folder / f"{network.name}.costs.json", time.perf_counter()
    _quantized(model, network, folder, "balanced", costs=costs)
    timing = time.perf_counter() - begun
    rows = []
    for effort in EFFORTS:
        click.echo(f"{network.name}: {effort}", err=True)
        taken = [
            _seconds(_quantized, model, network, folder, effort, costs=None if effort == "fast" else costs)
            for _ in range(1 if effort == "best" else 3)  # short ones are noisy: the least counts
        ]
        rows.append(_row(model, network, folder, effort, min(taken), calibrating, seconds))
    return rows, max(timing - rows[1].seconds, 0.0)


def _quantized(model: Path, network: Network, folder: Path, effort: str, costs: Path | str | None) -> None:
    calib = folder / f"{network.name}.calib"
    if not calib.exists():
        fcdeploy.calibrate(model, data=network.calib, output=calib)
    out = folder / f"{network.name}.{effort}.onnx"
    fcdeploy.quantize(model, calibration=calib, output=out, effort=effort, costs=costs, force=True)


def _seconds(work: Any, *arguments: Any, **options: Any) -> float:
    """Seconds of CPU time, which hardly depend on what else the machine does."""
    begun = time.process_time()
    work(*arguments, **options)
    return time.process_time() - begun


def _row(
    model: Path, network: Network, folder: Path, effort: str, taken: float, calibrating: float, seconds: float
) -> Row:
    int8 = folder / f"{network.name}.{effort}.onnx"
    metric = network.metric if network.metric not in ("auc", "detection") else ""
    proof = fcdeploy.validate(int8, against=model, data=network.evaluation, metric=metric or None).values
    judged = judge(proof) if proof["float"] is not None and proof["metric"] != "agreement" else None
    if network.metric == "auc":
        judged = judge_auc(network, model, int8)
    timed = fcdeploy.bench(int8, against=model, seconds=seconds).values
    ratio = (timed["ratio"], timed["ratio_low"], timed["ratio_high"])
    return Row(network.name, effort, taken, calibrating, proof["sqnr_db"], proof["agreement"], judged, ratio)


def _breaches(rows: Sequence[Row]) -> list[str]:
    """Networks on which balanced takes more than twice what fast takes, plus calibration."""
    found = []
    for fast, balanced in zip(rows[::3], rows[1::3], strict=True):
        most = 2 * fast.seconds + fast.calibrating
        if balanced.seconds > most:
            found.append(
                f"- {balanced.network}: balanced takes {balanced.seconds:.2f} s, expected at most {most:.2f} s"
            )
    return found


def _listed(rows: Sequence[Row]) -> str:
    return table(COLUMNS, [_cells(row) for row in rows], words=2)


def _cells(row: Row) -> tuple[str, ...]:
    name, drop = "-", "-"
    if row.judged is not None:
        unit = "{:.2f}" if row.judged.name in ("top-1", "per token") else "{:.4f}"
        name = row.judged.name
        drop = f"{unit} ({unit} .. {unit})".format(row.judged.drop, row.judged.low, row.judged.high)
    agreement = "-" if row.agreement is None else f"{100 * row.agreement:.1f} %"
    return (
        row.network, row.effort, f"{row.seconds:.2f}", f"{row.calibrating + row.seconds:.2f}", decibels(row.sqnr_db),
        agreement, name, drop, interval(*row.ratio),
    )  # fmt: skip
