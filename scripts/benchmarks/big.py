"""`scripts/bench big`: the memory it takes to calibrate and quantize a model that is larger than memory may be.

The model is made on the spot: dense layers with a Relu between them, weights drawn from a seed and written block by
block into a file beside it.  Memory is the peak of the sum over a process and all its children, sampled every 10 ms, of
the proportional set size: touched pages of mapped files count, pages that several share count once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.quantization import choose_activation_qparams, dequantize, quantize
from fcdeploy.graph.model import files_of, measure_size, read_model
from fcdeploy.records.plan import QParams, Range
from fcdeploy.runtime.session import LoadOptions, Session
from scripts.benchmarks.kernels import BUSY
from scripts.benchmarks.page import decibels, made_by, table, write_section
from scripts.checkout import FCDEPLOY

Array = NDArray[np.float32]
SAMPLES = 32
ROWS = 256  # of a weight drawn, written or multiplied at once
FLOAT_RUN = """
import sys
import numpy as np
from fcdeploy.runtime.session import Session
Session(sys.argv[1], threads=1).run(dict(np.load(sys.argv[2])))
"""
MEANING = """
{layers} dense layers of {width} x {width}, {size:.1f} GB of weights in a file beside the model, {samples} samples to
calibrate on and {samples} others to compare on. Memory is the peak over the whole process tree, touched pages of mapped
files included.
`quantize` reads its result back in onnxruntime before it puts it in place. The float session is one process that loads
the model and runs the samples.
"""
BY_THE_BOOK = """
The reference is NumPy, layer after layer, with nothing of fcdeploy's search: weights rounded to the nearest of 255 steps
of max |w| / 127 per output channel, activations to the nearest of 256 between their exact ends in the calibration
samples, sums exact, and no bound on pairs. fcdeploy's file keeps the pair bound, so that it is right on every CPU, and
its biases are corrected, layer after layer. Both are compared with the float model on the other samples.
"""


@dataclass(frozen=True)
class Spent:
    """Peak megabytes (2^20 bytes) of a process tree, and its seconds."""

    peak_mb: float
    seconds: float


@click.command()
@click.option("--width", default=8192, show_default=True, help="Inputs and outputs of each layer.")
@click.option("--layers", default=10, show_default=True, help="Layers.")
@click.option("--output", type=Path, default=Path("docs/benchmarks.md"), show_default=True, help="The page to write.")
def big(width: int, layers: int, output: Path) -> None:
    """Calibrate and quantize a model of 2.7 GB, and write what memory that takes and what comes out."""
    load = os.getloadavg()[0]
    busy = [f"The machine was busy: its load average was {load:.1f} at the start."] if load > BUSY else []
    with tempfile.TemporaryDirectory() as folder:
        model, int8, calibration = (Path(folder) / name for name in ("big.onnx", "big.int8.onnx", "big.calib"))
        click.echo(f"{layers} layers of {width} x {width} in {folder}", err=True)
        make(model, width, layers)
        data = draw(Path(folder), width)
        commands = {
            "float session": [sys.executable, "-c", FLOAT_RUN, str(model), str(data)],
            "`calibrate`": [FCDEPLOY, "calibrate", str(model), "--data", str(data), "-o", str(calibration)],
            "`quantize`": [
                FCDEPLOY, "quantize", str(model), "--int8", "--calibration", str(calibration), "-o", str(int8),
            ],
        }  # fmt: skip
        spent = {name: watch(command) for name, command in commands.items()}
        found = compare(model, int8, width, layers)
        sizes = [measure_size(files_of(read_model(each), each)) for each in (model, int8)]
    rows = [(name, f"{one.peak_mb:.0f}", f"{one.seconds:.0f}") for name, one in spent.items()]
    text = MEANING.format(layers=layers, width=width, size=sizes[0] / 1e9, samples=SAMPLES)
    command = "scripts/bench big" + (f" --width {width} --layers {layers}" if (width, layers) != (8192, 10) else "")
    above = spent["`calibrate`"].peak_mb - spent["float session"].peak_mb
    lines = [
        "## A large model", "", made_by(command), *busy, text, table(("work", "peak MB", "seconds"), rows), "",
        f"Calibrating takes {abs(above):.0f} MB {'more' if above > 0 else 'less'} than the float session. "
        f"The int8 model has {sizes[1] / sizes[0]:.2f} of the bytes.", BY_THE_BOOK,
        table(("int8 against float", "SQNR"), [(name, decibels(value)) for name, value in found.items()]),
    ]  # fmt: skip
    write_section(output, "big", "\n".join(lines))
    click.echo("\n".join(lines))


def make(path: Path, width: int, layers: int) -> None:
    """Write the model: x (batch, width) to y, its weights (out, in) in PATH.data as an exporter would put them."""
    nodes, weights, x = [], [], "x"
    with Path(f"{path}.data").open("wb") as file:
        for i in range(layers):
            random = np.random.default_rng(i)
            weight = TensorProto(
                name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width], data_location=TensorProto.EXTERNAL
            )
            place = {"location": f"{path.name}.data", "offset": str(file.tell()), "length": str(4 * width * width)}
            for key, value in place.items():
                weight.external_data.add(key=key, value=value)
            for at in range(0, width, ROWS):
                rows = random.standard_normal((min(ROWS, width - at), width), dtype=np.float32)
                file.write((rows * np.float32(np.sqrt(2 / width))).tobytes())
            bias = (0.1 * random.standard_normal(width)).astype(np.float32)
            weights += [weight, onnx.numpy_helper.from_array(bias, f"b{i}")]
            y = "y" if i == layers - 1 else f"h{i}"
            nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [y], f"dense{i}", transB=1))
            if i < layers - 1:
                x = f"r{i}"
                nodes.append(helper.make_node("Relu", [y], [x], f"relu{i}"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "big", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)


def draw(folder: Path, width: int) -> Path:
    """The calibration samples in a file."""
    np.savez(folder / "samples.npz", x=samples(width, 0))
    return folder / "samples.npz"


def samples(width: int, which: int) -> Array:
    return np.random.default_rng(1000 + which).standard_normal((SAMPLES, width), dtype=np.float32)


def watch(command: list[str]) -> Spent:
    """Run a command and follow the memory of its process tree."""
    begin, peak = time.perf_counter(), 0
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while running.poll() is None:
        peak = max(peak, sum(proportional(process) for process in tree(running.pid)))
        time.sleep(0.01)
    if running.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {running.returncode}")
    return Spent(peak / 1024, time.perf_counter() - begin)


def tree(root: int) -> Iterator[int]:
    """A process and all it started."""
    yield root
    try:
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    except OSError:  # it has just ended
        return
    for child in children:
        yield from tree(int(child))


def proportional(process: int) -> int:
    """Kilobytes of a process's proportional set size; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def compare(model: Path, int8: Path, width: int, layers: int) -> dict[str, float]:
    """SQNR of the int8 model and of the reference on samples that were not calibrated on."""
    x = samples(width, 1)
    (expected,) = Session(model, load=LoadOptions(prepack=False)).run({"x": x})
    (found,) = Session(int8, load=LoadOptions(prepack=False)).run({"x": x})
    reference = by_the_book(model, samples(width, 0), x, layers)
    return {
        "fcdeploy": measure_fidelity(expected, found).sqnr_db,
        "NumPy, layer by layer": measure_fidelity(expected, reference).sqnr_db,
    }


def by_the_book(model: Path, seen: Array, x: Array, layers: int) -> Array:
    """What 8 bits come to without any search; `seen` are float activations of the calibration samples."""
    for i in range(layers):
        ends = choose_activation_qparams(Range(float(seen.min()), float(seen.max())), "uint8")
        x = dequantize(quantize(x, ends), ends)
        seen, x = layer(model, i, seen, rounded=False), layer(model, i, x, rounded=True)
        if i < layers - 1:
            seen, x = np.maximum(seen, 0), np.maximum(x, 0)
    return x


def layer(model: Path, index: int, x: Array, *, rounded: bool) -> Array:
    """x W^T + b, some rows of W at a time, W rounded or as it is; products of rounded numbers are summed in float64."""
    width = x.shape[1]
    bias = next(w for w in onnx.load(model, load_external_data=False).graph.initializer if w.name == f"b{index}")
    parts: list[NDArray[Any]] = []
    with Path(f"{model}.data").open("rb") as file:
        file.seek(index * 4 * width * width)
        while len(parts) * ROWS < width:
            rows = np.fromfile(file, np.float32, min(ROWS, width - len(parts) * ROWS) * width).reshape(-1, width)
            if rounded:
                scale = np.abs(rows).max(axis=1) / np.float32(127)
                q = QParams("int8", tuple(map(float, scale)), 0, 0)
                rows = dequantize(quantize(rows, q), q)
            parts.append(x.astype(np.float64) @ rows.T.astype(np.float64) if rounded else x @ rows.T)
    y: Array = (np.concatenate(parts, axis=1) + onnx.numpy_helper.to_array(bias)).astype(np.float32)
    return y
