"""Shipped networks and drawn kernels on emulated ARM CPUs: native code at every level, and the commands themselves."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from drawn_programs import drawn
from native_arm import CPUS, find_qemu, run_here, unequal

import fcdeploy
from fcdeploy.graph.model import read_model
from fcdeploy.native.build import build
from fcdeploy.native.reading.operators import read_program
from fcdeploy.runtime.cpu import this_machine
from fcdeploy.tables.native import MACHINES
from scripts.checkout import ROOT, list_families
from scripts.devices.cortex_m import NETWORKS
from scripts.shipped import make_model

SEEDS = 3
SAMPLES = 200
LAYERS = 40
SECONDS = 3600


def main(names: list[str]) -> int:
    """Print a row a check; 1 where one fails, 2 where qemu is not here."""
    if find_qemu() is None:
        click.echo("error: qemu-aarch64 is not installed", err=True)
        click.echo("hint: apt-get install qemu-user, or QEMU_AARCH64=/path/to/it", err=True)
        return 2
    failed = 0
    for seed in range(SEEDS):
        program, feeds = drawn(seed + 1, LAYERS)
        built = build(program)
        failed += show(
            f"{len(program.steps)} drawn kernels, seed {seed + 1}",
            unequal(built, feeds, run_here(built, feeds), CPUS),
        )
    for name in names or NETWORKS:
        with tempfile.TemporaryDirectory() as temporary:
            failed += show(f"{name}: every level", try_native(name, Path(temporary)))
    if os.environ.get("ARM_PYTHON"):
        with tempfile.TemporaryDirectory() as temporary:
            failed += try_product(Path(temporary), shlex.split(os.environ["ARM_PYTHON"]))
    return 1 if failed else 0


def show(what: str, wrong: list[str]) -> int:
    click.echo(f"{what:<40} {'; '.join(wrong[:3]) if wrong else 'equal on ' + ', '.join(CPUS)}")
    return int(bool(wrong))


def try_native(name: str, folder: Path) -> list[str]:
    """The best level of this machine against every level of ARM on one sample, and the best of each CPU on SAMPLES."""
    model, first = make_model(name, list_families(), folder)
    with np.load(folder / "data.npz") as stored:
        feeds = {key: stored[key][:SAMPLES].astype(value.dtype) for key, value in first.items()}
    built = build(read_program(read_model(model), "net", {key: value.shape for key, value in first.items()}))
    expected = run_here(built, feeds, MACHINES[this_machine()].levels)
    one = {t.name: expected[t.name][: t.shape[0]] for t in built.program.outputs}
    return unequal(built, first, one, CPUS) + unequal(built, feeds, expected, CPUS, best=True)


FCDEPLOY = ("-c", "import sys; from fcdeploy.cli import main; sys.exit(main(sys.argv[1:]))")
PREDICT = """
import sys, numpy as np
from fcdeploy.bundles.load import load_bundle
data = np.load("eval.npz")
samples = {key: data[key][:20] for key in data.files if key != "label"}
answers = [load_bundle("dense.fcd", engine=engine).predict(**samples) for engine in ("native", "onnxruntime")]
np.savez(sys.argv[1], *[next(iter(each.values())) for each in answers])
"""
COMMANDS = (
    ("doctor",),
    (
        "quantize",
        "float.onnx",
        "--int8",
        "--data",
        "data.npz",
        "--costs",
        "none",
        "--target",
        "portable",
        "-o",
        "arm.int8.onnx",
        "--force",
    ),
    ("validate", "arm.int8.onnx", "--against", "float.onnx", "--data", "eval.npz", "--max-drop", "1"),
    ("inspect", "arm.int8.onnx", "--exact", "--data", "eval.npz", "--samples", "20"),
    ("verify", "dense.fcd"),
    ("verify", "dense.fcd", "--engine", "native"),
    ("bundle", "arm.int8.onnx", "-o", "arm.fcd", "--force"),
)


def try_product(folder: Path, python: list[str]) -> int:
    """Every command on every CPU, and a bundle from each side verified on the other."""
    int8, _ = make_model("dense", list_families(), folder)
    with np.load(ROOT / "calib_data" / "digits64.eval.npz") as stored:
        np.savez(folder / "eval.npz", **{key: stored[key][:100] for key in stored.files})
    for machine in ("x86_64", "aarch64"):
        fcdeploy.compile(int8, output=folder / f"{machine}.so", target=machine)
    libraries = [folder / "x86_64.so", folder / "aarch64.so"]
    fcdeploy.bundle(int8, output=folder / "dense.fcd", libraries=libraries)
    (folder / "predict.py").write_text(PREDICT)
    answers(folder, [sys.executable], "here.npz")

    failed = 0
    for cpu in CPUS:
        launcher = [*python, "-cpu", cpu]
        for command in COMMANDS:
            done = call(folder, [*launcher, *FCDEPLOY, *command])
            failed += report(f"{cpu}: {command[0]} {command[1] if len(command) > 1 else ''}", done)
        failed += report(
            f"{cpu}: the bundle made there, here",
            call(folder, [sys.executable, *FCDEPLOY, "verify", "arm.fcd"]),
        )
        answers(folder, launcher, "there.npz")
        with np.load(folder / "here.npz") as here, np.load(folder / "there.npz") as there:
            same = all(here[key].tobytes() == there[key].tobytes() for key in here.files)
        click.echo(f"{cpu + ': load_bundle, both engines':<60} {'equal' if same else 'DIFFERENT'}")
        failed += not same
    return failed


def answers(folder: Path, python: list[str], output: str) -> None:
    done = call(folder, [*python, "predict.py", output])
    assert done.returncode == 0, done.stderr


def call(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )


def report(what: str, done: subprocess.CompletedProcess[str]) -> int:
    click.echo(
        f"{what:<60} {'passed' if done.returncode == 0 else 'FAILED: ' + (done.stderr + done.stdout).strip()[-300:]}"
    )
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
