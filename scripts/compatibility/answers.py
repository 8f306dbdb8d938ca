"""What a runtime answers to the files of files.py, each runtime in a process of its own, and how it compares.

Answers are kept beside the outputs, by what was asked: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from fcdeploy.graph.light_reader import read_outline
from scripts.compatibility.files import FOLDER, inputs_of

HERE = Path(__file__).parent
SCRIPTS = (HERE / "run.py", HERE / "run.mjs")
CRASHED = "it ends its process"
SILENT = "it gives no answer"
OTHER_SHAPE = "its output has shape"


@dataclass(frozen=True)
class Runtime:
    """One that is asked: its process, where it keeps what comes out, and a word for its version.

    `written`: probes are run as they are written, not optimized.
    """

    command: Sequence[str]
    folder: Path
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = HERE
    written: bool = False
    patience: float = 300  # seconds without a word, then it is stopped


@dataclass(frozen=True)
class Answer:
    """Of one file: what was said where it was refused, else its outputs."""

    refused: str
    outputs: tuple[np.ndarray[Any, Any], ...] = ()


def is_probe(file: Path) -> bool:
    """Whether it is a tiny model, fed once."""
    return file.name.startswith("probe-")


def ask(runtime: Runtime, files: Iterable[Path]) -> dict[str, Answer]:
    """Answers by name of file."""
    jobs = [make_job(file) | {"optimize": not (runtime.written and is_probe(file))} for file in files]
    return ask_jobs(runtime, jobs)


def ask_jobs(runtime: Runtime, jobs: Sequence[dict[str, Any]]) -> dict[str, Answer]:
    """Answers by name of job."""
    said = zip(jobs, _answer(runtime, jobs), strict=True)
    return {job["name"]: read_answer(job["name"], each, runtime.folder) for job, each in said}


def time_pairs(runtime: Runtime, pairs: Iterable[tuple[Path, Path]]) -> dict[str, float]:
    """Name of the first file -> its time over that of the second, the median of runs in turn; without what is refused."""
    jobs = [make_job(file) | {"name": f"time of {file.name}", "beside": str(other)} for file, other in pairs]
    said = zip(jobs, _answer(runtime, jobs), strict=True)
    return {Path(job["file"]).name: each["ratio"] for job, each in said if "ratio" in each}


def make_job(file: Path) -> dict[str, Any]:
    """What the processes are told of a file: a probe runs once, a network sample by sample."""
    return describe_job(file, file.name, inputs_of(file), whole=is_probe(file)) | {"graph": True}


def describe_job(
    file: Path, name: str, arrays: Mapping[str, np.ndarray[Any, Any]], *, whole: bool = False
) -> dict[str, Any]:
    """A run of a file on all samples, one at a time or together; the inputs as raw numbers lie beside the files."""
    runs = 1 if whole else len(next(iter(arrays.values())))
    inputs = []
    for key, array in arrays.items():
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        data = FOLDER / f"input-{digest}.bin"
        if not data.exists():
            array.tofile(data)
        shape = array.shape if whole else (1, *array.shape[1:])
        inputs.append({"name": key, "dtype": str(array.dtype), "shape": shape, "data": str(data)})
    outputs = [*read_outline(file).outputs]
    return {"file": str(file), "name": name, "runs": runs, "inputs": inputs, "outputs": outputs, "optimize": True}


def _answer(runtime: Runtime, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was said of each. A file that ends the process, or never its run, is refused, and the others go to another."""
    runtime.folder.mkdir(parents=True, exist_ok=True)
    kept = runtime.folder / "answers.jsonl"
    lines = map(json.loads, kept.read_text().splitlines()) if kept.exists() else ()
    known = {line["said"]["name"]: line for line in lines}  # the last of a name: its outputs are those that lie there
    keys = {job["name"]: _find_key(runtime, job) for job in jobs}
    left = {job["name"]: job for job in jobs if known.get(job["name"], {}).get("key") != keys[job["name"]]}
    with kept.open("a") as file:
        while left:
            for said in _run(runtime, [*left.values()]):
                name = said["name"]
                known[name] = {"key": keys[name], "said": said}
                left.pop(name)
                file.write(json.dumps(known[name]) + "\n")
                file.flush()
    return [known[job["name"]]["said"] for job in jobs]


def _find_key(runtime: Runtime, job: Mapping[str, Any]) -> str:
    """A hash of all that an answer depends on."""
    script = next(path for path in SCRIPTS if any(path.name in part for part in runtime.command))
    digest = hashlib.sha256(json.dumps([runtime.version, job]).encode())
    for path in (script, job["file"], job.get("beside"), *(each["data"] for each in job["inputs"])):
        digest.update(Path(path).read_bytes() if path else b"")
    return digest.hexdigest()


def _run(runtime: Runtime, jobs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines of a process, as they come; the last is of the file that ended it, where one did."""
    log, silent, ready, count = runtime.folder / "log", threading.Event(), False, 0
    with log.open("w") as errors, subprocess.Popen(
        [*runtime.command, str(runtime.folder)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        env={**os.environ, **runtime.environment}, cwd=runtime.cwd,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def stop() -> None:
            silent.set()
            process.kill()

        threading.Thread(target=_feed, args=(process.stdin, jobs), daemon=True).start()
        timer = threading.Timer(runtime.patience, stop)
        timer.start()
        for line in process.stdout:
            timer.cancel()
            ready = ready or line.startswith('{"ready"')
            if line.startswith('{"name"'):
                count += 1
                yield json.loads(line)
            timer = threading.Timer(runtime.patience, stop)
            timer.start()
        timer.cancel()
    if not ready:
        raise RuntimeError(f"{' '.join(runtime.command)}: {log.read_text()[-500:]}")
    if count < len(jobs):
        yield {"name": jobs[count]["name"], "refused": SILENT if silent.is_set() else CRASHED}


def _feed(stdin: IO[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Beside the reading: more than a pipe holds."""
    with contextlib.suppress(BrokenPipeError), stdin:
        for job in jobs:
            stdin.write(json.dumps(job) + "\n")


def read_answer(name: str, said: Mapping[str, Any], folder: Path) -> Answer:
    """A line of a process, with the numbers that it left in files."""
    if "refused" in said:
        return Answer(said["refused"])
    arrays = []
    for index, output in enumerate(said["outputs"]):
        flat = np.fromfile(folder / f"{name}.{index}.bin", output["dtype"])
        arrays.append(flat.reshape(-1, *output["shape"]))
    return Answer("", tuple(arrays))


@dataclass(frozen=True)
class Comparison:
    """Of two answers: the share of equal samples, decibels of the worst output, and the share of elements that differ.

    `gain`: how many decibels nearer to the answers of the float model the first is.
    """

    equal: float
    decibels: float
    differing: float
    gain: float


def compare(answer: Answer, reference: Answer, plain: Answer | None = None) -> Comparison | str:
    """Or why they cannot be. `plain` has the answers of the float model."""
    if answer.refused:
        return answer.refused
    if len(answer.outputs) != len(reference.outputs):
        return f"{len(answer.outputs)} outputs, expected {len(reference.outputs)}"
    pairs = [*zip(answer.outputs, reference.outputs, strict=True)]
    for got, wanted in pairs:
        if got.size != wanted.size:
            return f"{OTHER_SHAPE} {got.shape[1:]}, expected {wanted.shape[1:]}"
    same = [got.reshape(len(wanted), -1) == wanted.reshape(len(wanted), -1) for got, wanted in pairs]
    differing = sum(int(np.sum(~each)) for each in same) / max(sum(each.size for each in same), 1)
    equal = float(np.mean(np.all([each.all(axis=1) for each in same], axis=0)))
    gain = measure(answer, plain) - measure(reference, plain) if plain and differing and not plain.refused else 0.0
    return Comparison(equal, measure(answer, reference), differing, gain)


def measure(answer: Answer, reference: Answer) -> float:
    """SQNR in decibels, of the worst output; infinite where all are equal."""
    decibels = np.inf
    for got, wanted in zip(answer.outputs, reference.outputs, strict=True):
        flat, right = (each.reshape(-1).astype(np.float64) for each in (got, wanted))
        noise = float(np.sum((flat - right) ** 2))
        if not np.isfinite(noise):
            return -np.inf
        if noise:
            decibels = min(decibels, 10 * np.log10(max(float(np.sum(right**2)), 1e-300) / noise))
    return float(decibels)
