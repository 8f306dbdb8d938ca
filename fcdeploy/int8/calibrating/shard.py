"""One worker's part of a calibration: everything it needs to begin, and what it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import files_of, hash_model, input_specs, read_model
from fcdeploy.int8.calibrating.observe import CalibrationPart, observe_pass
from fcdeploy.int8.calibrating.schedule import Passes
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records import sample_layout
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.source import Source


@dataclass(frozen=True)
class CalibrationJob:
    """A calibration of `samples` by `model`, both named by their files; with `everything`, of hidden tensors too.

    `layout` is where samples lie, as a model's metadata say it (`records/sample_layout.py`).
    Shard `part` (index, of how many) of the data, in pass `index`; its first `passed` samples are done already.
    """

    model: str
    model_hash: str
    samples: Samples
    everything: bool = False
    keep_samples: bool = True
    skip_bad: bool = False
    passes: Passes = field(default_factory=lambda: Passes(1, (), {}))
    index: int = 0
    part: tuple[int, int] = (0, 1)
    passed: int = 0
    threads: int | None = None
    layout: str = ""


def observe_shard(job: CalibrationJob) -> Iterator[int | CalibrationPart]:
    """What `observe_pass` yields, from a model and data opened here: a job goes to any process that sees their files."""
    model = read_model(job.model)
    if hash_model(files_of(model, Path(job.model))) != job.model_hash:
        raise FcdeployError(
            f"model {job.model!r} is not the same file for a worker as for the command that started it",
            "let all machines see the same files",
        )
    prepare(model)
    if job.layout:
        model.metadata_props[sample_layout.KEY] = job.layout
    source = job.samples.open(input_specs(model))
    yield from observe_pass(
        model, select_samples(source, job), job.passes, job.index,
        model_hash=job.model_hash, keep_samples=job.keep_samples, threads=job.threads,
    )  # fmt: skip


def select_samples(source: Source, job: CalibrationJob) -> Source:
    """The samples of the data that are this job's and not done."""
    part = source.shard(*job.part).after(job.passed)
    return part.without_bad() if job.skip_bad else part
