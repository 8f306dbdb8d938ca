"""`scripts/bench real FOLDER`: real models beside onnxruntime's recipes and NNCF, on samples that none of them has seen.

The project ships none of these models.  FOLDER holds, for each of them,

    NAME.onnx                        the float model
    NAME.calib.npz or NAME.calib/    samples to calibrate on: any DATA of `fcdeploy calibrate`
    NAME.eval.npz  or NAME.eval/     other samples, to measure on
    NAME.py                          if it is there, score(float, int8) -> {figure: number}: both models' answers, a list of
                                     samples, each a list of outputs

Without NAME.py the figures are those of the default floor: equal decisions, or nothing.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.output_ends import find_ends
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.int8.judging.judge import Judge
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.layout import arrange_samples
from fcdeploy.user_code import load_file
from scripts.benchmarks.page import made_by, table, write_section
from scripts.checkout import BENCH, FCDEPLOY

Answers = list[list[np.ndarray[Any, Any]]]
Feeds = list[dict[str, np.ndarray[Any, Any]]]
U8S8 = {"activation_type": "QUInt8", "per_channel": True, "reduce_range": True}
PEERS: dict[str, dict[str, Any]] = {
    "onnxruntime S8S8, its default": {},
    "onnxruntime U8S8 per-channel, reduce_range": U8S8,
    "NNCF": {"nncf": True},
}
TURNS = 30  # runs of every file, one sample each, the files in turn
COLUMNS = ("recipe", "answers", "SQNR", "time", "size", "s", "exit")
MEANING = """
Every recipe gets the same calibration samples and its default settings, in a process of its own. Answers are compared with the
float model's on samples that no recipe has seen. Time is CPU time int8 / float, one thread, one sample, all files in turn,
the median of paired runs; s is what making the file took. The figures of files that could not be made, or that
onnxruntime does not run, are missing.
"""


@dataclass(frozen=True)
class Case:
    """One model of the folder; `score` is its own, or None."""

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    score: Callable[[Answers, Answers], dict[str, float]] | None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--output", type=Path, help="Also write the tables to this page, as a section of it.")
def real(folder: Path, names: tuple[str, ...], output: Path | None) -> None:
    """Quantize models of a folder with every recipe, and print what came out on held-out samples."""
    cases = [case for case in find_cases(folder) if not names or case.name in names]
    if not cases:
        raise click.UsageError(f"{folder} holds no NAME.onnx with NAME.calib and NAME.eval, .npz or folders")
    head = ["## Real models", "", made_by("scripts/bench real FOLDER"), MEANING]
    if find_spec("nncf") is None:
        head.append("NNCF is not installed here: pip install nncf.\n")
    text = "\n".join([*head, *map(compare, cases)])
    click.echo(text)
    if output is not None:
        write_section(output, "real", text)


@click.command(hidden=True)
@click.argument("settings")
@click.argument("model", type=Path)
@click.argument("calibration", type=Path)
@click.argument("output", type=Path)
def peer(settings: str, model: Path, calibration: Path, output: Path) -> None:
    """One recipe of another tool, sample by sample, as its documentation shows."""
    chosen = json.loads(settings)
    feeds = arrange(model, read_samples(model, calibration))
    (_with_nncf if chosen.pop("nncf", False) else _with_onnxruntime)(model, feeds, output, **chosen)


def find_cases(folder: Path) -> Iterator[Case]:
    """The models of a folder that have samples of both kinds."""
    for model in sorted(folder.glob("*.onnx")):
        parts = [_find_data(folder, model.stem, part) for part in ("calib", "eval")]
        if None in parts:
            continue
        own = folder / f"{model.stem}.py"
        yield Case(model.stem, model, parts[0], parts[1], load_file(own).score if own.exists() else None)  # type: ignore[arg-type]


def read_samples(model: Path, data: Path) -> Feeds:
    """Samples of their own, each with an axis of samples in front."""
    samples = Samples(data).open(input_specs(read_model(model)))
    return [{name: array[None] for name, array in sample.inputs.items()} for sample in samples]


def arrange(model: Path, samples: Feeds) -> Feeds:
    """The samples as one run each takes them."""
    inputs = input_specs(read_model(model))
    return [arrange_samples(sample, inputs) for sample in samples]


def compare(case: Case) -> str:
    """The table of one model."""
    samples, rows, made = read_samples(case.model, case.evaluation), [], list[tuple[str, Path, float, int]]()
    feeds = arrange(case.model, samples)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for recipe, command in _commands(case, folder):
            click.echo(f"{case.name}: {recipe}", err=True)
            begin = time.perf_counter()
            code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
            made.append((recipe, Path(command[-1]), time.perf_counter() - begin, code))
        files = [file for _, file, _, _ in made if file.exists() and _runs(file, feeds[0])]
        ratios = dict(zip(files, measure_ratios(case.model, files, feeds), strict=True))
        answers = _run(case.model, feeds)
        for recipe, file, seconds, code in made:
            rest = ("-",) * 4
            if file in ratios:
                size = file.stat().st_size / case.model.stat().st_size
                rest = (*_describe(case, file, answers, samples), f"{ratios[file]:.2f}", f"{size:.2f}")
            rows.append((recipe, *rest, f"{seconds:.0f}", str(code)))
    return "\n".join([f"### {case.name}", "", table(COLUMNS, rows, 2), ""])


def measure_ratios(model: Path, files: list[Path], feeds: Feeds) -> list[float]:
    """CPU time of each file over the float model's, all in turn on one thread."""
    sessions = [Session(file, threads=1) for file in (model, *files)]
    spent = np.zeros((TURNS, len(sessions)))
    for turn in range(-2, TURNS):  # two to warm up
        for at, session in enumerate(sessions):
            begin = time.process_time()
            session.run(feeds[turn % len(feeds)])
            spent[turn, at] = time.process_time() - begin
    return [float(ratio) for ratio in np.median(spent[:, 1:] / spent[:, :1], axis=0)]


def _commands(case: Case, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every recipe as the command that writes the file it ends with."""
    for number, (recipe, settings) in enumerate(PEERS.items()):
        if recipe != "NNCF" or find_spec("nncf"):
            output = folder / f"{number}.onnx"
            yield recipe, [*BENCH, "peer", json.dumps(settings), str(case.model), str(case.calibration), str(output)]
    ours = [FCDEPLOY, "quantize", str(case.model), "--int8"]
    for effort in ("fast", "balanced"):
        options = ["--data", str(case.calibration), "--effort", effort, "--accept", "-o"]
        yield f"fcdeploy, effort {effort}", [*ours, *options, str(folder / f"{effort}.onnx")]


def _describe(case: Case, file: Path, answers: Answers, samples: Feeds) -> tuple[str, str]:
    """The answers' figures, and the worst output's SQNR."""
    others = _run(file, arrange(case.model, samples))
    by_output = zip(*(map(measure_fidelity, one, two) for one, two in zip(answers, others, strict=True)), strict=True)
    db = min(sum(rest, first).sqnr_db for first, *rest in by_output)
    if case.score is not None:
        figures = case.score(answers, others)
        return ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), f"{db:.1f} dB"
    prepared = read_model(case.model)
    infer_shapes(prepared)
    judgement = Judge(case.model, prepared, samples, find_ends(prepared)).measure(read_model(file))
    return judgement.summary().rpartition(", ")[0] or "-", f"{db:.1f} dB"


def _run(file: Path, feeds: Feeds) -> Answers:
    session = Session(file, threads=1)
    return [[np.asarray(output) for output in session.run(each)] for each in feeds]


def _runs(file: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> bool:
    """Whether onnxruntime loads a file and runs it: some recipes write what it does not."""
    try:
        Session(file, threads=1).run(feeds)
    except FcdeployError:
        return False
    return True


def _find_data(folder: Path, name: str, part: str) -> Path | None:
    return next((path for path in (folder / f"{name}.{part}.npz", folder / f"{name}.{part}") if path.exists()), None)


def _with_onnxruntime(model: Path, feeds: Feeds, output: Path, **settings: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    prepared = f"{output}.prepared"
    quant_pre_process(str(model), prepared, skip_symbolic_shape=True)
    typed = {k: getattr(QuantType, v) if k.endswith("_type") else v for k, v in settings.items()}
    quantize_static(prepared, str(output), Reader(), **typed)


def _with_nncf(model: Path, feeds: Feeds, output: Path) -> None:
    import nncf
    import onnx

    onnx.save(nncf.quantize(onnx.load(model), nncf.Dataset(feeds), subset_size=len(feeds)), output)
