"""Calibrating by one or many: shares the samples out, adds up what comes in, and saves how far it got."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy import __version__
from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.int8.calibrating.merge import merge
from fcdeploy.int8.calibrating.observe import CalibrationPart, assemble, observable_tensors, observe_pass, pass_label
from fcdeploy.int8.calibrating.schedule import Passes, plan_passes
from fcdeploy.int8.calibrating.shard import CalibrationJob, observe_shard, select_samples
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.checkpoint import STAMP, Checkpoint, checkpoint_bytes, read_checkpoint
from fcdeploy.records.data_format import to_metadata
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.runtime.session import read_versions
from fcdeploy.runtime.workers import WorkerPool
from fcdeploy.samples.layout import list_axes
from fcdeploy.samples.source import BadSample, Source

SAVE_SECONDS = 3.0  # between saves at least
SAVE_SHARE = 0.02  # of the time may go into saving
BOUND_OTHERWISE = {  # fields of a job that progress is not compared by as they are
    "model", "model_hash", "samples",  # compared by what is in the files
    "skip_bad",  # before the first bad sample it makes no difference
    "passes", "index", "part", "passed", "threads",  # how far it got, and who works on it
}  # fmt: skip


@dataclass(frozen=True)
class CollectedCalibration:
    """The calibration, the samples that could not be used, and how many were done by a run before this one."""

    calibration: Calibration
    bad: tuple[BadSample, ...]
    resumed_at: int
    warnings: tuple[str, ...]
    progress: Path


def collect(
    team: WorkerPool,
    job: CalibrationJob,
    model: ir.Model,
    source: Source,
    progress: Path,
    *,
    batch: int | None = None,
    max_memory: int | None = None,
    on_step: OnStep | None = None,
) -> CollectedCalibration:
    """Record a prepared model over all of `source`; `job` says how a worker opens both for itself.

    `progress` is the file that a run before may have left, and that this one leaves when it is stopped; the caller
    removes it when the result is safe.  A file of another run is not used, with a warning.
    """
    options = {"batch": batch, "max_memory": max_memory, "shards": team.size}
    bound = _identify_run(job, source, options)
    state, warnings = _load_progress(progress, bound, source)

    if state is None:
        values = observable_tensors(model.graph, everything=job.everything)
        quiet = source.without_bad() if job.skip_bad else source
        passes = plan_passes(model, values, quiet, batch=batch, max_memory=max_memory)
        state = Checkpoint(bound, asdict(passes), (0,) * team.size, (), (), ())
    passes = Passes(int(state.passes["batch"]), tuple(map(tuple, state.passes["groups"])), state.passes["axes"])
    if batch is not None and passes.batch < batch:
        warnings = (*warnings, _explain_smaller_batch(batch, passes))

    resumed_at = sum(state.shards)
    saved = _ProgressFile(progress)
    for index in range(max(len(state.calibrations) - 1, 0), len(passes.groups)):
        jobs = [
            replace(job, passes=passes, index=index, part=(k, team.size), passed=passed, threads=team.threads)
            for k, passed in enumerate(state.shards)
        ]
        done = sum(state.shards)
        for shard, step in team.run(observe_shard if team.threads else _work_in_process(model, source), jobs):
            if isinstance(step, CalibrationPart):
                state = _add_part(state, index, shard, step)
                saved.save_if_due(state)
                continue
            done += step
            if on_step:
                on_step(pass_label(index, passes), done, source.count)
        if not state.calibrations[index].samples:
            raise _no_usable_sample(source, state)
        if index + 1 < len(passes.groups):
            state = replace(state, shards=(0,) * team.size)

    bad = tuple(BadSample(*one) for one in sorted(state.bad))
    states = {spec.name: spec.state for spec in source.inputs if spec.state}
    whole = assemble(model, state.calibrations)
    whole = replace(whole, format=source.format, states=states, axes=list_axes(source.inputs))
    return CollectedCalibration(whole, bad, resumed_at, warnings, progress)


def _work_in_process(model: ir.Model, source: Source) -> Any:
    """The work of a job in this process, on what is open already."""

    def work(job: CalibrationJob) -> Iterator[int | CalibrationPart]:
        yield from observe_pass(
            model, select_samples(source, job), job.passes, job.index,
            model_hash=job.model_hash, keep_samples=job.keep_samples,
        )  # fmt: skip

    return work


def _add_part(state: Checkpoint, index: int, shard: int, part: CalibrationPart) -> Checkpoint:
    """The state with what a shard saw since it spoke last."""
    before = state.calibrations[index:]
    total = merge(before[0], part.calibration) if before else part.calibration
    shards = (*state.shards[:shard], state.shards[shard] + part.taken, *state.shards[shard + 1 :])
    bad = () if index else tuple((one.position, one.name, one.why) for one in part.bad)
    stamp = (sum(state.stamps[index:]) + part.stamp) % STAMP
    return replace(
        state, shards=shards, bad=(*state.bad, *bad), stamps=(*state.stamps[:index], stamp),
        calibrations=(*state.calibrations[:index], total),
    )  # fmt: skip


@dataclass
class _ProgressFile:
    """When the state was saved last, and what it took."""

    file: Path
    last: float = field(default_factory=time.monotonic)
    took: float = 0.0

    def save_if_due(self, state: Checkpoint) -> None:
        """Save, unless it was done a moment ago. The file is replaced whole: a crash leaves the one before."""
        begun = time.monotonic()
        if begun - self.last < max(SAVE_SECONDS, self.took / SAVE_SHARE):
            return
        with replace_file(self.file, force=True) as aside:
            aside.write_bytes(checkpoint_bytes(state))
        self.last = time.monotonic()
        self.took = self.last - begun


def _load_progress(progress: Path, bound: dict[str, Any], source: Source) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """What a run before has saved; None, and why it is of no use."""
    if not progress.is_file():
        return None, ()
    try:
        state = read_checkpoint(progress, bound)
    except FcdeployError as error:
        return None, (f"{error.message}: began anew",)
    if state.stamps != compute_stamps(state, source):
        return None, (f"progress {str(progress)!r} is of files of {source.name} that have changed since: began anew",)
    return state, ()


def compute_stamps(state: Checkpoint, source: Source) -> tuple[int, ...]:
    """The stamps that `state` would have, were its samples taken now: names are listed, nothing is read."""
    if not any(state.stamps):
        return state.stamps
    left, earlier = list(state.shards), len(state.calibrations) - 1
    whole = begun = 0
    for rank, stamp in enumerate(source.stamps()):
        shard = rank // source.shard_unit % len(left)
        if left[shard]:
            left[shard] -= 1
            begun += stamp
        whole += stamp
        if not earlier and not any(left):
            break
    return (*[whole % STAMP] * earlier, begun % STAMP)


def _identify_run(job: CalibrationJob, source: Source, options: dict[str, Any]) -> dict[str, Any]:
    """What progress is of: every field of the job that a calibration depends on."""
    data = str(job.samples.data)
    files = [
        Path(data.rpartition(":")[0] or data),
        Path(data),
        *source.files,
    ]
    return {
        "model": job.model_hash,
        "data": [
            [str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.exists()
        ],
        "set of options": {
            **options,
            **{each.name: getattr(job, each.name) for each in fields(job) if each.name not in BOUND_OTHERWISE},
            "samples": job.samples.limit,
            "seed": job.samples.seed,
            "format": to_metadata(source.format),
        },
        "version of fcdeploy": __version__,
        "CPU or version of onnxruntime": [detect_target().name, read_versions()["onnxruntime"]],
    }


def _explain_smaller_batch(batch: int, passes: Passes) -> str:
    odd = next((name for name, axis in passes.axes.items() if axis is None), None)
    why = f"tensor {odd!r} has no axis of samples" if odd else "the model insists on it"
    return f"samples were run {passes.batch} at a time instead of {batch}: {why}"


def _no_usable_sample(source: Source, state: Checkpoint) -> FcdeployError:
    first: Sequence[Any] = min(state.bad, default=(0, "", "there are none"))
    return FcdeployError(
        f"no sample of {source.name} can be used, the first: {first[2]}", "give other data with --data"
    )
