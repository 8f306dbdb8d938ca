"""`scripts/bench recipes`: fcdeploy beside onnxruntime.quantization's own recipes, on the same data in one run.

Every recipe runs in a process of its own, which is what its CPU seconds and peak memory are those of.  What it wrote is
then measured by the same two commands, validate and bench, whoever wrote it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import fcdeploy
from scripts.benchmarks.page import decibels, made_by, write_section
from scripts.checkout import BENCH, FCDEPLOY

NETWORKS = (("lenet5", "digits"), ("dense", "digits64"), ("resnet", "digits"))
U8S8 = {"activation_type": "QUInt8", "per_channel": True}
PEER: dict[str, dict[str, Any]] = {
    "onnxruntime S8S8, its default": {},
    "onnxruntime U8S8 per-channel": U8S8,
    "onnxruntime U8S8 per-channel, reduce_range": {**U8S8, "reduce_range": True},
    "onnxruntime U8U8": {"activation_type": "QUInt8", "weight_type": "QUInt8"},
}
OURS = {"fcdeploy, effort fast": "fast", "fcdeploy, effort balanced": "balanced"}
STARTER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""
MEANING = """
Every recipe calibrates on the same 300 images and is measured on 800 others. CPU s and peak MB are those of one process
that starts, calibrates and quantizes; fcdeploy's also loads the result and reads back its kernels. SQNR is 10 log10 of
signal over error at the output. Kernel SQNR compares the int8 file with itself in exact arithmetic: below 38 dB, byte
products saturate, which happens on CPUs with AVX2 and no VNNI, and only those can show it. Time is int8 / float, one
thread, batch 1, the two models taken in turn, with its 95 % interval: below 1 is faster. Size is int8 / float.
"""
COLUMNS = ("recipe", "CPU s", "peak MB", "drop (95 %)", "agree", "SQNR", "kernel SQNR", "time", "size")


@click.command()
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Time for each ratio.")
@click.option("--output", type=Path, default=Path("docs/benchmarks.md"), show_default=True, help="The page to write.")
def recipes(seconds: float, output: Path) -> None:
    """Quantize the shipped networks with every recipe, and write a table of what came out."""
    with tempfile.TemporaryDirectory() as folder:
        sections = [_network(name, data, Path(folder), seconds) for name, data in NETWORKS]
    head = ["## Recipes", "", made_by(f"scripts/bench recipes --seconds {seconds:g}"), MEANING]
    write_section(output, "recipes", "\n".join([*head, *sections]))
    click.echo(output.read_text())


def _network(name: str, data: str, folder: Path, seconds: float) -> str:
    """One network's table."""
    model, int8 = folder / f"{name}.onnx", folder / f"{name}.int8.onnx"
    calib, held_out = f"calib_data/{data}.calib.npz", f"calib_data/{data}.eval.npz"
    fcdeploy.export(f"models/{name}.py:{name}", state=f"models/{name}.safetensors", output=model)
    rows = []
    for recipe, command in _commands(model, calib, int8):
        click.echo(f"{name}: {recipe}", err=True)
        int8.unlink(missing_ok=True)
        spent, peak = _in_child(command)
        proof = fcdeploy.validate(int8, against=model, data=held_out).values
        time = fcdeploy.bench(int8, against=model, seconds=seconds).values
        rows.append((
            recipe, f"{spent:.1f}", f"{peak:.0f}",
            f"{proof['drop']:.2f} ({proof['drop_low']:.2f} .. {proof['drop_high']:.2f})", f"{100 * proof['agreement']:.1f} %",
            decibels(proof["sqnr_db"]), decibels(proof["kernel_sqnr_db"]),
            f"{time['ratio']:.2f} ({time['ratio_low']:.2f} .. {time['ratio_high']:.2f})",
            f"{int8.stat().st_size / model.stat().st_size:.2f}",
        ))  # fmt: skip
    table = (COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *rows)
    return "\n".join([f"### {name}", "", *(f"| {' | '.join(row)} |" for row in table), ""])


def _commands(model: Path, calib: str, int8: Path) -> Iterator[tuple[str, list[str]]]:
    """Every recipe as the command that writes `int8`."""
    for name, settings in PEER.items():
        yield name, [*BENCH, "peer", json.dumps(settings), str(model), calib, str(int8)]
    for name, effort in OURS.items():
        quantize = f"quantize {model} --int8 --data {calib} --effort {effort} -o {int8}"
        yield name, [FCDEPLOY, *quantize.split()]


def _in_child(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak resident megabytes of a command, by way of a small process that starts it.

    A child's peak begins at its parent's size, and this process is larger than most of what it measures.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", STARTER, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, kilobytes = map(float, done.stdout.split())
    return seconds, kilobytes / 1024
