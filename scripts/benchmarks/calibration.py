"""`scripts/bench calibration`: what observing a network costs beside running it, in CPU time and memory.

Everything is measured in processes of their own: plain float inference over the samples, fcdeploy's calibration of them
at the same batch and with the same threads, and onnxruntime's own calibrators.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import fcdeploy
from fcdeploy.arithmetic.ranges.methods import METHODS
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.int8.calibrating import observe as observing
from fcdeploy.int8.calibrating.schedule import plan_passes
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import read, to_bytes
from fcdeploy.runtime.footprint import MEBI, read_peak_resident_bytes
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import Source, make_batches
from fcdeploy.user_code import load_function
from scripts.benchmarks.page import made_by, table, write_section
from scripts.checkout import BENCH, ROOT

COMMAND = "fcdeploy calibrate less its start"
SHORT = ("float", "read", "fcdeploy", COMMAND, "onnxruntime MinMax")
WORK = {  # network -> samples, and what is measured; Entropy takes 8 GB for resnet50
    "resnet": (512, (*SHORT, "onnxruntime Entropy", "fcdeploy, 10 times the samples")),
    "resnet50": (64, SHORT),
}
COLUMNS = ("network", "work", "CPU s", "of float", "peak MB")
MEANING = """
One thread; the batch is what fcdeploy chooses for the network. *float* runs the model on batches that are in memory
already, after one run to warm up; *read* reads, checks and batches the samples, and is part of the rows below. *fcdeploy*
reads and observes them, loading of the sessions apart; the result holds exact ends, histograms and moments, from which
every range method follows. *fcdeploy calibrate less its start* is the whole command, with what it looks at and writes,
less the same command on one sample. onnxruntime's calibrators take one sample at a time, as its documentation shows, and
each gives one range method; their loading is apart, too. The peak is that of the process.
"""


@click.command()
@click.option("--output", type=Path, default=Path("docs/benchmarks.md"), show_default=True, help="The page to write.")
def calibration(output: Path) -> None:
    """CPU time and memory of calibrating beside plain inference and onnxruntime's calibrators."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (samples, all_work) in WORK.items():
            model, data = _network(name, samples, Path(folder))
            plain = 0.0
            for work in all_work:
                click.echo(f"{name}: {work}", err=True)
                seconds, peak = (_run_command if work == COMMAND else _in_child)(work, model, data, samples)
                plain = plain or seconds
                share = seconds / plain / (10 if "10 times" in work else 1)
                rows.append((name, work, f"{seconds:.2f}", f"{share:.2f}", f"{peak:.0f}"))
        report = fcdeploy.calibrate(model, data=data, samples=2, output=Path(folder) / "saved.calib", force=True)
        ranges = _ranges(Path(report.values["output"]))
    head = ["## Calibration", "", made_by("scripts/bench calibration"), MEANING]
    tail = f"\nAll four range methods for 100 tensors, from a saved file: {ranges:.2f} s."
    write_section(output, "calibration", "\n".join([*head, table(COLUMNS, rows, words=2), tail]))
    click.echo(output.read_text())


@click.command(hidden=True)
@click.argument("work")
@click.argument("model", type=Path)
@click.argument("data", type=Path)
@click.argument("samples", type=int)
def observed(work: str, model: Path, data: Path, samples: int) -> None:
    """One measurement: CPU seconds and peak megabytes, as JSON."""
    if work.startswith("onnxruntime"):
        seconds = _peer(work.removeprefix("onnxruntime "), model, data, samples)
    else:
        seconds = _ours(work, model, data, samples)
    click.echo(json.dumps([seconds, read_peak_resident_bytes() / MEBI]))


def _network(name: str, samples: int, folder: Path) -> tuple[Path, Path]:
    """The float model and an .npz of samples for it, random but for their size and smoothness."""
    state = ROOT / "models" / f"{name}.safetensors"
    model = folder / f"{name}.onnx"
    fcdeploy.export(f"{ROOT}/models/{name}.py:{name}", state=state if state.exists() else None, output=model)
    (spec,) = input_specs(read_model(model))
    if state.exists():
        found = np.resize(np.load(ROOT / "calib_data" / "digits.calib.npz")[spec.name], (samples, *spec.shape[1:]))
        arrays = {spec.name: found + np.random.default_rng(0).normal(size=found.shape).astype(np.float32) / 100}
    else:
        drawn, _ = load_function(f"{ROOT}/models/{name}.py:samples")
        arrays = {spec.name: drawn(samples, 1)[spec.name].numpy()}
    np.savez(folder / f"{name}.npz", **arrays)
    return model, folder / f"{name}.npz"


def _in_child(work: str, model: Path, data: Path, samples: int) -> tuple[float, float]:
    command = [*BENCH, "observed", work, model, data, str(samples)]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def _run_command(_: str, model: Path, data: Path, samples: int) -> tuple[float, float]:
    """CPU seconds of `fcdeploy calibrate` less those on one sample, and the peak of the former in megabytes."""
    spent = []
    for count in (samples, 1):
        command = [
            Path(sys.executable).with_name("fcdeploy"),
            "calibrate",
            model,
            "--data",
            data,
            "--samples",
            str(count),
        ]
        child = subprocess.Popen([*command, "-o", model.with_suffix(".calib"), "--force"], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise click.ClickException(f"{' '.join(map(str, command))} failed")
        spent.append((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
    return spent[0][0] - spent[1][0], spent[0][1]


def _ours(work: str, model: Path, data: Path, samples: int) -> float:
    graph = read_model(model)
    prepare(graph)
    source = _again(open_source(data, input_specs(graph), limit=samples), 10 if "10 times" in work else 1)
    passes = plan_passes(graph, observing.observable_tensors(graph.graph), source)
    if work in ("float", "read"):
        session = Session(model, threads=1)
        begin = time.process_time()
        groups = (
            list(make_batches(source, passes.batch))
            if work == "float"
            else sum(1 for _ in make_batches(source, passes.batch))
        )
        if work == "read":
            return time.process_time() - begin
        session.run(groups[0].inputs)
        begin = time.process_time()
        for group in groups:
            session.run(group.inputs)
        return time.process_time() - begin
    loads: list[float] = []

    def timed(*given: Any, **options: Any) -> Session:
        begin = time.process_time()
        made = Session(*given, **options | {"threads": 1})
        loads.append(time.process_time() - begin)
        return made

    observing.Session = timed  # type: ignore[assignment,misc]  # to take loading out of the time
    begin = time.process_time()
    to_bytes(observing.observe(graph, source, model_hash=""))
    return time.process_time() - begin - sum(loads)


def _again(source: Source, times: int) -> Source:
    """The same samples so many times over."""
    count = None if source.count is None else times * source.count
    limit = None if source.limit is None else times * source.limit

    def read() -> Any:
        for _ in range(times):
            yield from source.read()

    return Source(source.name, source.inputs, read, count, source.labelled, limit)


def _peer(method: str, model: Path, data: Path, samples: int) -> float:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    arrays = {name: array[:samples] for name, array in np.load(data).items()}

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = ({name: array[i : i + 1] for name, array in arrays.items()} for i in range(samples))

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        augmented = f"{folder}/augmented.onnx"
        calibrator = create_calibrator(str(model), None, augmented, getattr(CalibrationMethod, method))
        calibrator.set_execution_providers(["CPUExecutionProvider"])
        calibrator.infer_session.set_providers(["CPUExecutionProvider"])
        begin = time.process_time()
        calibrator.collect_data(Reader())
        calibrator.compute_data()
        return time.process_time() - begin


def _ranges(file: Path) -> float:
    """Seconds for all range methods of 100 tensors, the file's own taken again as often as it needs."""
    begin = time.perf_counter()
    histograms = [record.histogram for record in read(file).tensors.values() if record.kind == "activation"]
    for i in range(100):
        for method in METHODS.values():
            method(histograms[i % len(histograms)])
    return time.perf_counter() - begin
