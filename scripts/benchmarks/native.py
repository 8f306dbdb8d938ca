"""`scripts/bench native`: native code beside onnxruntime and OpenVINO on edge-sized networks, in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime

import fcdeploy
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.native.build import build, compile_library, find_machine
from fcdeploy.native.peak import measure_peak
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import find_compiler
from fcdeploy.runtime.feeds import draw_feeds, fix_shapes
from fcdeploy.runtime.native_library import NativeModel
from scripts.benchmarks.page import made_by, write_section
from scripts.benchmarks.page import table as make_table
from scripts.checkout import ROOT, load_model_file

NETWORKS = (
    "autoencoder", "lenet5", "dense", "ds_cnn", "mobilenet_v1_025", "resnet", "mobilenet_v2", "gru_classifier",
    "lstm_tagger",
)  # fmt: skip
ROUNDS, ROUND_MS, SAMPLES = 40, 15.0, 64
PEERS = ("onnxruntime float", "onnxruntime int8", "OpenVINO int8")
LIMITED = "avx2"  # the level that CPUs without VNNI run
MEANING = """
One thread, batch 1, warm, random inputs. Every round runs each of them for 15 ms, one after the other; a column is the least
time of a run in microseconds. The ratio is native / the fastest of the others: of the least times, and the median over
rounds; *AVX2* is the same library told to use no more than that, beside the same others. All of them are called from Python
with arrays and give arrays; *in C* is the same library called with addresses. The int8 model is fcdeploy's (`--engine
native`: every layer in integers) for all of them. GRU and LSTM keep their states in float. Networks are
`models/*.py` with the weights that they come with, or others given by `--model`. *Peak* is the share of the multiplications
that the dot products of the best level (vpdpbusd; without VNNI vpmaddubsw, vpmaddwd and vpaddd) could do in the time in C on
this CPU, measured by a loop of them.
"""
COLUMNS = (
    "network", "MACs", *(f"{name}, us" for name in PEERS), "native, us", "ratio of least", "median ratio", "AVX2, us", "ratio",
    "in C, us", "peak",
)  # fmt: skip
Runs = Mapping[str, Callable[[], Any]]


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
    pairs = {name: make_models(name, folder) for name in NETWORKS if not only or name in only}
    for given in models:
        name, _, files = given.partition("=")
        pairs[name] = (Path(files.split(",")[0]), Path(files.split(",")[1]))
    peak = measure_peak()
    rows = []
    for name, (float_model, int8) in pairs.items():
        rows.append(measure(name, float_model, int8, folder, rounds, peak))
        click.echo("  ".join(rows[-1]))
    command = f"scripts/bench native --rounds {rounds}"
    versions = f"OpenVINO {openvino_version()}; {peak / 1e9:.0f} G multiply-accumulates a second at most."
    text = "\n\n".join(["## Native code", made_by(command), versions, MEANING.strip(), make_table(COLUMNS, rows)])
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


def measure(name: str, float_model: Path, int8: Path, folder: Path, rounds: int, peak: float) -> tuple[str, ...]:
    """The row of a network."""
    program = read_program(read_model(int8), name, {})
    library = folder / f"{name}.so"
    compile_library(build(program), find_machine("host"), find_compiler(), folder, library)
    model = NativeModel(library)
    feeds = draw_feeds(fix_shapes(input_specs(read_model(float_model)), None))
    places = model._places

    runs: dict[str, Callable[[], Any]] = {
        PEERS[0]: open_runtime(float_model, feeds), PEERS[1]: open_runtime(int8, feeds),
    }  # fmt: skip
    try:
        runs[PEERS[2]] = open_openvino(int8, feeds)
    except RuntimeError as error:
        click.echo(f"{name}: OpenVINO: {str(error).splitlines()[0][:200]}", err=True)
    limited = NativeModel(library, LIMITED)
    runs["native"] = lambda: model.run(feeds)
    runs["limited"] = lambda: limited.run(feeds)
    times = time_in_turn(runs, rounds)
    runs_c = {"c": places.run}
    in_c = time_in_turn(runs_c, max(3, rounds // 4))["c"].min()

    least = {key: float(each.min()) for key, each in times.items()}
    peers = [key for key in PEERS if key in least]
    fastest = min(least[key] for key in peers)
    middle = np.median(times["native"] / np.min([times[key] for key in peers], axis=0))
    floats = "*" if list_float_steps(program) else ""
    cells = [f"{least[key]:.1f}" if key in least else "" for key in PEERS]
    share = program.macs / (in_c * 1e-6) / peak
    return (
        f"{name}{floats}", f"{program.macs / 1e6:.2f} M", *cells, f"{least['native']:.1f}",
        f"{least['native'] / fastest:.2f}", f"{middle:.2f}", f"{least['limited']:.1f}", f"{least['limited'] / fastest:.2f}",
        f"{in_c:.1f}", f"{100 * share:.0f} %",
    )  # fmt: skip


def time_in_turn(runs: Runs, rounds: int) -> dict[str, np.ndarray[Any, Any]]:
    """Least microseconds of a run in each round, for each of them."""
    counts = {}
    for name, run in runs.items():
        for _ in range(5):
            run()
        begin = time.perf_counter()
        run()
        counts[name] = int(np.clip(ROUND_MS / 1e3 / max(1e-7, time.perf_counter() - begin), 3, 2000))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            least = float("inf")
            for _ in range(counts[name]):
                begin = time.perf_counter_ns()
                run()
                least = min(least, time.perf_counter_ns() - begin)
            found[name].append(least / 1e3)
    return {name: np.array(each) for name, each in found.items()}


def open_runtime(model: Path, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = dict(feeds)
    return lambda: session.run(None, given)


def open_openvino(model: Path, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({name: list(array.shape) for name, array in feeds.items()})
    compiled = core.compile_model(
        network, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    )
    request, given = compiled.create_infer_request(), dict(feeds)
    return lambda: request.infer(given, share_inputs=True, share_outputs=True)


def openvino_version() -> str:
    try:
        import openvino
    except ImportError:
        return "is not here"
    return str(openvino.__version__).split("-")[0]
