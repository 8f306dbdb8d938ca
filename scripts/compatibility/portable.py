"""`scripts/compat --portable`: whether files of `--target portable` give the same bytes here, in WebAssembly and on other CPUs.

The files of all trained networks, or each MODEL=DATA.npz, run sample by sample on this CPU, in onnxruntime-web, and by every
--on NAME=COMMAND: a Python with onnxruntime and NumPy of another CPU, such as an emulator's.  Outputs are compared bit by bit.
What was answered is kept, so that a run that was stopped goes on; of all networks it becomes a table in docs/runtimes.md.
With --target the files are those for other CPUs; `arm64` needs VNNI here, as this CPU's own sums would saturate without it.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np

from fcdeploy.graph.light_reader import read_outline
from fcdeploy.runtime.cpu import detect_target, read_cpu_name
from scripts.benchmarks.networks import DIGITS
from scripts.checkout import ROOT, list_families
from scripts.compatibility.answers import Answer, Runtime, ask_jobs, describe_job
from scripts.compatibility.compat import LIST, OUT, find_runtime, installed, write_part
from scripts.compatibility.files import FOLDER, export_networks, make_form

PARTS = {  # of the page, by target, CPU and whether WebAssembly is asked
    ("portable", "x86-avx2", True): "portable", ("portable", "x86-vnni", True): "portable with VNNI",
    ("portable", "x86-vnni", False): "portable on ARM", ("arm64", "x86-vnni", False): "arm64",
}  # fmt: skip
CHUNK = 100  # samples that a process is given of a file at a time
EMULATED = 50  # the same under emulation
PATIENCE = 1800.0  # seconds for them
HEAD = """{made}, onnxruntime {version} on {cpu} against the others: outputs that differ in any bit, of how many
samples.

| network | samples | {others} |
|---|---|{columns}
"""
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass
class Tally:
    """Of a file in a runtime: samples that were compared, outputs, those that differ, and by how much of the largest."""

    samples: int = 0
    outputs: int = 0
    differ: int = 0
    most: float = field(default=0.0)

    def add(self, here: Answer, there: Answer) -> None:
        if there.refused:
            raise RuntimeError(there.refused)
        self.samples += len(here.outputs[0])
        for a, b in zip(here.outputs, there.outputs, strict=True):
            other = a.reshape(-1).view(np.uint32) != b.reshape(-1).view(np.uint32)
            self.outputs, self.differ = self.outputs + a.size, self.differ + int(other.sum())
            if other.any():
                x, y = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
                self.most = max(self.most, float(np.abs(x - y).max() / (np.abs(x).max() or 1)))

    def describe(self) -> str:
        """A cell of the table."""
        words = f"{self.differ:,}"
        if self.differ:
            words += f" of {self.outputs:,} by {self.most:.0e} of the largest"
        return words


@click.command()
@click.argument("pairs", nargs=-1, metavar="[MODEL=DATA.npz]...")
@click.option("--samples", default=1000, help="of each model; 1,000 unless given.")
@click.option("--on", multiple=True, metavar="NAME=COMMAND", help="a Python on another CPU, as often as wanted.")
@click.option("--target", default="portable", help="what the networks are quantized for; portable unless given.")
@click.option("--web/--no-web", default=True, help="in onnxruntime-web too, unless told not to.")
@click.option("--minutes", default=0.0, help="for each of those, samples of all models in turn; no limit unless given.")
def compat_portable(
    pairs: tuple[str, ...], samples: int, on: tuple[str, ...], target: str, web: bool, minutes: float
) -> None:
    """Exit with 1 where an output differs in a bit."""
    part = PARTS.get((target, detect_target().name, web))
    if part is None and not pairs:
        known = "; ".join(f"--target {row[0]} {'--web' if row[2] else '--no-web'} on {row[1]}" for row in PARTS)
        raise click.UsageError(
            f"the page has no table of target {target!r} on this CPU, {detect_target().name}, only of {known}"
        )
    files = dict(take_pair(each, samples) for each in pairs) if pairs else dict(find_files(target, samples))
    here = Runtime([sys.executable, "run.py", "onnxruntime"], OUT / f"{target}-here", LIST[-1], _newest())
    found = {"WebAssembly": compare(files, here, find_runtime("web"), CHUNK)} if web else {}
    for name, command in (each.split("=", 1) for each in on):
        run = [*shlex.split(command), "run.py", "onnxruntime"]
        there = Runtime(run, OUT / f"{target}-{name}", command, patience=PATIENCE)
        found[name] = compare(files, here, there, EMULATED, minutes * 60)
    rows = [describe(file, {name: each[file] for name, each in found.items()}) for file in files]
    named = f" --target {target}" * (target != "portable") + " --no-web" * (not web)
    head = HEAD.format(
        made=f"scripts/compat --portable{named}, {date.today()}",
        version=LIST[-1], cpu=read_cpu_name(), others=" | ".join(found), columns="---|" * len(found),
    )  # fmt: skip
    click.echo("".join([head, *rows]), nl=False)
    if part is not None and not pairs:
        write_part(part, "".join([head, *rows]))
    sys.exit(1 if any(tally.differ for each in found.values() for tally in each.values()) else 0)


def _newest() -> dict[str, str]:
    return {"PYTHONPATH": str(installed(LIST[-1]))}


def find_files(target: str, count: int) -> Iterator[tuple[Path, Arrays]]:
    """A target's file of every trained network, and its evaluation samples, followed by those of the calibration."""
    families = list_families()
    for name in export_networks():
        file = make_form(name, target, target=target, costs="none")
        family = families.get(name)
        parts = [family.evaluation(), family.calibration()] if family else []
        parts = parts or [np.load(ROOT / "calib_data" / f"{DIGITS[name]}.{part}.npz") for part in ("eval", "calib")]
        yield file, {key: np.concatenate([part[key] for part in parts])[:count] for key in read_outline(file).inputs}


def take_pair(text: str, count: int) -> tuple[Path, Arrays]:
    """A file of the caller's own."""
    file, data = text.rsplit("=", 1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    stored = np.load(data)
    return Path(file).absolute(), {key: stored[key][:count] for key in read_outline(Path(file)).inputs}


def compare(
    files: Mapping[Path, Arrays], here: Runtime, there: Runtime, chunk: int, seconds: float = 0
) -> dict[Path, Tally]:
    """How two answer to all files, a few samples of each in turn until the time is up."""
    found = {file: Tally() for file in files}
    longest = max(len(next(iter(arrays.values()))) for arrays in files.values())
    begin = time.monotonic()
    for first in range(0, longest, chunk):
        if seconds and time.monotonic() - begin > seconds:
            break
        jobs = {}
        for file, arrays in files.items():
            part = {key: np.ascontiguousarray(array[first : first + chunk]) for key, array in arrays.items()}
            if len(next(iter(part.values()))):
                jobs[file] = describe_job(file, f"{file.stem}-{first}-{chunk}", part)
        mine, theirs = (ask_jobs(runtime, [*jobs.values()]) for runtime in (here, there))
        for file, job in jobs.items():
            found[file].add(mine[job["name"]], theirs[job["name"]])
        click.echo(f"{there.folder.name}: {first + chunk} samples", err=True)
    return found


def describe(file: Path, tallies: Mapping[str, Tally]) -> str:
    """A row of the table."""
    samples = {tally.samples for tally in tallies.values()}
    each = len(samples) > 1
    cells = [tally.describe() + (f" ({tally.samples:,})" if each else "") for tally in tallies.values()]
    return f"| {file.name.split('.')[0]} | {'-' if each else f'{samples.pop():,}'} | {' | '.join(cells)} |\n"


if __name__ == "__main__":
    compat_portable(prog_name="scripts/compat --portable")
