"""What a runtime answers to the files of scripts/compat_files.py, each runtime in a process of its own, and how it compares."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from compat_files import FOLDER, inputs_of

from fcdeploy.graph.light_reader import read_outline

HERE = Path(__file__).parent
CRASHED = "it ends its process"


def is_probe(file: Path) -> bool:
    """Whether it is a tiny model, fed once."""
    return file.name.startswith("probe-")


@dataclass(frozen=True)
class Answer:
    """Of one file: what was said where it was refused, else its outputs and the time of a run."""

    refused: str
    outputs: tuple[np.ndarray[Any, Any], ...] = ()
    milliseconds: float = 0.0


def make_job(file: Path) -> dict[str, Any]:
    """What the processes are told of a file; its inputs as raw numbers lie beside it."""
    network = file.name.split(".")[0]
    arrays = inputs_of(file)
    runs = 1 if is_probe(file) else len(next(iter(arrays.values())))
    inputs = []
    for index, (name, array) in enumerate(arrays.items()):
        data = FOLDER / f"{network}.{index}.bin"
        array.tofile(data)
        shape = array.shape if runs == 1 else (1, *array.shape[1:])
        inputs.append({"name": name, "dtype": str(array.dtype), "shape": shape, "data": str(data)})
    return {"file": str(file), "runs": runs, "inputs": inputs, "outputs": [*read_outline(file).outputs]}


def ask(
    command: Sequence[str],
    folder: Path,
    files: Iterable[Path],
    *,
    environment: Mapping[str, str],
    cwd: Path = HERE,
    written: bool = False,
) -> dict[str, Answer]:
    """Answers by name of file. A file that ends the process is refused, and the others go to another.

    `written`: probes are run as they are written, not optimized.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = {file.name: make_job(file) | {"optimize": not (written and is_probe(file))} for file in files}
    found: dict[str, Answer] = {}
    while left:
        text = "".join(json.dumps(job) + "\n" for job in left.values())
        log = folder / "log"
        with log.open("w") as errors:
            done = subprocess.run(
                [*command, str(folder)], input=text, text=True, stdout=subprocess.PIPE, stderr=errors, check=False,
                env={**os.environ, **environment}, cwd=cwd,
            )  # fmt: skip
        for line in done.stdout.splitlines():
            if line.startswith('{"file"'):
                said = json.loads(line)
                name = Path(said["file"]).name
                found[name] = read_answer(said, folder)
                left.pop(name, None)
        if left:
            if not done.stdout and not found and done.returncode:
                raise RuntimeError(f"{' '.join(command)}: {log.read_text()[-500:]}")
            found[next(iter(left))] = Answer(CRASHED)
            left.pop(next(iter(left)))
    return found


def read_answer(said: Mapping[str, Any], folder: Path) -> Answer:
    """A line of a process, with the numbers that it left in files."""
    if "refused" in said:
        return Answer(said["refused"])
    name = Path(said["file"]).name
    arrays = []
    for index, output in enumerate(said["outputs"]):
        flat = np.fromfile(folder / f"{name}.{index}.bin", output["dtype"])
        arrays.append(flat.reshape(-1, *output["shape"]))
    return Answer("", tuple(arrays), said["milliseconds"])


@dataclass(frozen=True)
class Comparison:
    """Of two answers: the share of equal samples, decibels of the worst output, and the share of elements that differ."""

    equal: float
    decibels: float
    differing: float


def compare(answer: Answer, reference: Answer) -> Comparison | str:
    """Or why they cannot be."""
    if answer.refused:
        return answer.refused
    if len(answer.outputs) != len(reference.outputs):
        return f"{len(answer.outputs)} outputs, expected {len(reference.outputs)}"
    equal, decibels, differing = [], np.inf, [0, 0]
    for got, wanted in zip(answer.outputs, reference.outputs, strict=True):
        if got.size != wanted.size:
            return f"its output has shape {got.shape[1:]}, expected {wanted.shape[1:]}"
        flat, right = (each.reshape(len(wanted), -1).astype(np.float64) for each in (got, wanted))
        equal.append(np.all(flat == right, axis=1))
        differing = [differing[0] + int(np.sum(flat != right)), differing[1] + right.size]
        noise = float(np.sum((flat - right) ** 2))
        if not np.isfinite(noise):
            decibels = -np.inf
        elif noise:
            decibels = min(decibels, 10 * np.log10(max(float(np.sum(right**2)), 1e-300) / noise))
    return Comparison(float(np.mean(np.all(equal, axis=0))), float(decibels), differing[0] / max(differing[1], 1))
