"""`scripts/bench native`: native code beside onnxruntime and OpenVINO on edge-sized networks, in turn, in one process."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.native.build import build, compile_library
from fcdeploy.native.machines import find_machine, list_levels_here
from fcdeploy.native.peak import measure_peak
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import NativeModel
from scripts.benchmarks.native_peers import (
    HiddenRuntime,
    HidingError,
    Timer,
    open_openvino,
    open_runtime,
    openvino_version,
    time_runs,
)
from scripts.benchmarks.page import made_by, write_section
from scripts.benchmarks.page import table as make_table
from scripts.checkout import ROOT, load_model_file

NETWORKS = (
    "autoencoder", "lenet5", "dense", "ds_cnn", "mobilenet_v1_025", "resnet", "mobilenet_v2", "resnet50", "gru_classifier",
    "lstm_tagger",
)  # fmt: skip
ROUNDS, ROUND_MS, SAMPLES = 40, 15.0, 64
PEERS = ("onnxruntime float", "onnxruntime int8", "OpenVINO int8")
LIMITED = "avx2"  # the level that CPUs without VNNI run
MEANING = """
One thread, batch 1, warm, random inputs. Every round runs each of them for 15 ms, one after the other; a column is the least
time of a run in microseconds. The ratio is native / the fastest of the others: of the least times, and the median over
rounds. All of them are called from Python with arrays and give arrays; *in C* is the same library called with addresses. The
int8 model is fcdeploy's (`--engine native`: every layer in integers) for all of them. GRU and LSTM keep their states in float.
Networks are `models/*.py` with the weights that they come with, or others given by `--model`. *Peak* is the share of the
multiplications that the dot products (vpdpbusd) could do in the time in C on this CPU, measured by a loop of them.
*AVX2* is the same library told to use no more than that: beside the same others, its share of what vpmaddubsw, vpmaddwd and
vpaddd in such a loop could do, and beside onnxruntime's int8 in a process that sees no AVX-512 and no VNNI (its cpuid is
answered without them, `scripts/benchmarks/hide_avx512.c`). It is more than 100 % where the products of two steps fit in 16 bits,
and are widened once for both.
"""
COLUMNS = (
    "network", "MACs", *(f"{name}, us" for name in PEERS), "native, us", "ratio of least", "median ratio", "in C, us", "peak",
    "AVX2, us", "ratio", "peak", "onnxruntime with AVX2, us", "ratio",
)  # fmt: skip


@click.command()
@click.option(
    "--folder", type=Path, default=Path("build/native"), show_default=True, help="Where models are made, once."
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME=FLOAT,INT8", help="A network of your own, two ONNX files."
)
@click.option("--rounds", type=int, default=ROUNDS, show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="These networks alone.")
@click.option(
    "--output", type=Path, default=ROOT / "docs" / "benchmarks.md", show_default=True, help="The page to write."
)
def native(folder: Path, models: tuple[str, ...], rounds: int, only: tuple[str, ...], output: Path) -> None:
    """Native code, onnxruntime and OpenVINO on the same int8 models, one thread, batch 1."""
    folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    pairs = {name: make_models(name, folder) for name in NETWORKS if not only or name in only}
    for given in models:
        name, _, files = given.partition("=")
        pairs[name] = (Path(files.split(",")[0]), Path(files.split(",")[1]))
    best = list_levels_here()[0].name
    peaks = {name: measure_peak(name) for name in (best, LIMITED)}
    rows = []
    for name, (float_model, int8) in pairs.items():
        rows.append(measure(name, float_model, int8, folder, rounds, peaks))
        click.echo("  ".join(rows[-1]))
    own = "".join(f" --model {given.partition('=')[0]}=FLOAT,INT8" for given in models)
    command = f"scripts/bench native --rounds {rounds}{own}"
    most = ", ".join(f"{peak / 1e9:.0f} G ({name})" for name, peak in peaks.items())
    versions = f"OpenVINO {openvino_version()}; {most} multiply-accumulates a second at most. "
    versions += f"The machine's load was {load:.1f} before. OpenVINO does not compile the int8 GRU and LSTM."
    text = "\n\n".join(
        ["## Native code", made_by(command), textwrap.fill(versions, 120), MEANING.strip(), make_table(COLUMNS, rows)]
    )
    write_section(output, "native", text)


def make_models(name: str, folder: Path) -> tuple[Path, Path]:
    """The float model and its int8 one, every layer in integers; those of an earlier run where they are there."""
    float_model, int8 = folder / f"{name}.onnx", folder / f"{name}.all.onnx"
    if not float_model.exists():
        state = ROOT / "models" / f"{name}.safetensors"
        source = ROOT / "models" / f"{name}.py"
        fcdeploy.export(f"{source}:{name}", state=state if state.exists() else None, output=float_model)
    if not int8.exists():
        specs = fix_shapes(input_specs(read_model(float_model)), None)
        module = load_model_file(name)
        if hasattr(module, "samples"):
            arrays = {key: np.asarray(value) for key, value in module.samples(SAMPLES, 1000).items()}
        else:
            drawn = [draw_feeds(specs, seed=seed) for seed in range(SAMPLES)]
            arrays = {spec.name: np.concatenate([each[spec.name] for each in drawn]) for spec in specs}
        np.savez(folder / f"{name}.npz", **arrays)
        fcdeploy.quantize(float_model, data=folder / f"{name}.npz", output=int8, engine="native", floor="none")
    return float_model, int8


def measure(
    name: str, float_model: Path, int8: Path, folder: Path, rounds: int, peaks: Mapping[str, float]
) -> tuple[str, ...]:
    """The row of a network."""
    program = read_program(read_model(int8), name, {})
    library = folder / f"{name}.so"
    machine = find_machine("host")
    compile_library(build(program, paired=machine.paired), machine, find_compiler(), folder, library)
    model = NativeModel(library)
    feeds = draw_feeds(fix_shapes(input_specs(read_model(float_model)), None))
    model.run(feeds)

    timers: dict[str, Timer] = {
        PEERS[0]: time_runs(open_runtime(float_model, feeds)), PEERS[1]: time_runs(open_runtime(int8, feeds)),
    }  # fmt: skip
    try:
        timers[PEERS[2]] = time_runs(open_openvino(int8, feeds))
    except RuntimeError as error:
        click.echo(f"{name}: OpenVINO: {str(error).splitlines()[0][:200]}", err=True)
    hidden = open_hidden(int8, feeds, folder)
    if hidden is not None:
        timers["hidden"] = hidden
    limited = NativeModel(library, LIMITED)
    limited.run(feeds)
    timers |= {"native": time_runs(lambda: model.run(feeds)), LIMITED: time_runs(lambda: limited.run(feeds))}
    times = time_in_turn(timers, rounds)
    in_c = time_in_turn({each.level: time_runs(each._places.run) for each in (model, limited)}, max(3, rounds // 4))
    if hidden is not None:
        hidden.close()

    least = {key: float(each.min()) for key, each in times.items()}
    known = [key for key in PEERS if key in least]
    fastest = min(least[key] for key in known)
    middle = np.median(times["native"] / np.min([times[key] for key in known], axis=0))
    shares = [f"{100 * program.macs / (in_c[level].min() * 1e-6) / peak:.0f} %" for level, peak in peaks.items()]
    floats = "*" if list_float_steps(program) else ""
    beside = [f"{least['hidden']:.1f}", f"{least[LIMITED] / least['hidden']:.2f}"] if hidden is not None else ["", ""]
    return (
        f"{name}{floats}", f"{program.macs / 1e6:.2f} M", *(f"{least[key]:.1f}" if key in least else "" for key in PEERS),
        f"{least['native']:.1f}", f"{least['native'] / fastest:.2f}", f"{middle:.2f}", f"{in_c[model.level].min():.1f}",
        shares[0], f"{least[LIMITED]:.1f}", f"{least[LIMITED] / fastest:.2f}", shares[1], *beside,
    )  # fmt: skip


def open_hidden(int8: Path, feeds: Mapping[str, Any], folder: Path) -> HiddenRuntime | None:
    """onnxruntime without AVX-512 and VNNI; None, and a word, where they cannot be hidden."""
    try:
        return HiddenRuntime(int8, feeds, folder)
    except HidingError as error:
        click.echo(f"AVX-512 is not hidden: {error}", err=True)
        return None


def time_in_turn(timers: Mapping[str, Timer], rounds: int) -> dict[str, np.ndarray[Any, Any]]:
    """Least microseconds of a run in each round, for each of them."""
    counts = {}
    for name, time_least in timers.items():
        time_least(5)
        counts[name] = int(np.clip(1e3 * ROUND_MS / max(0.1, time_least(2)), 3, 2000))
    found: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, time_least in timers.items():
            found[name].append(time_least(counts[name]))
    return {name: np.array(each) for name, each in found.items()}
