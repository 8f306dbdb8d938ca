"""Evaluation by several workers: samples are dealt out in blocks, and results put back in order.

Samples are dealt out in blocks, and a block's batches and sums are the same whoever works on it.  So are all figures,
which are added up block after block, and the first error, whichever worker meets one first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.compare import Answers, add_batch, start_answers
from fcdeploy.evaluate.data import EvaluationData
from fcdeploy.evaluate.leakage import LeakageCheck
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.run_models import run_both, run_model
from fcdeploy.graph.model import files_of, hash_model, read_model
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.open_engine import open_engine
from fcdeploy.runtime.session import Session
from fcdeploy.runtime.workers import WorkerPool, describe_failure
from fcdeploy.samples.source import Batch
from fcdeploy.samples.states import carry_states


@dataclass(frozen=True)
class EvaluationJob:
    """Shard `part` (index, of how many) of the data, for a worker that opens models and data itself.

    `models` are path and hash of the float and the int8 model; `metric` is a name, None for what fits the labels;
    `ends` says of each output what makes it; `runs` is what runs in the int8 model's place, made from it.
    """

    models: tuple[tuple[str, str], tuple[str, str]]
    data: EvaluationData
    metric: str | None
    ends: Mapping[str, OutputEnd]
    seen: LeakageCheck
    part: tuple[int, int] = (0, 1)
    threads: int | None = None
    runs: str | None = None


@dataclass(frozen=True)
class AnsweredBlock:
    """The answers on the block of that number, counted from 0 over the whole data, None where no sample of it is left.

    `seen` counts samples of the block that were calibrated on.
    """

    number: int
    answers: Answers | None
    seen: LeakageCheck


@dataclass(frozen=True)
class FailedBlock:
    """The error that ended a worker, and the number of the block it happened in."""

    number: int
    message: str
    hint: str


def answer_shard(job: EvaluationJob) -> Iterator[int | AnsweredBlock | FailedBlock]:
    """Evaluate one shard: yields the number of samples of each batch, and block after block of answers.

    An error is the last thing it yields, so that one in an earlier block can go first.
    """
    at = [job.part[0]]
    try:
        yield from _answer(job, at)
    except FcdeployError as error:
        if job.threads is None:  # all in this process, so in order
            raise
        yield FailedBlock(at[0], *describe_failure(error))


def answer_all(team: WorkerPool, job: EvaluationJob, on_step: OnStep) -> tuple[Answers, LeakageCheck]:
    """Evaluate both models on all samples, by all workers of the pool."""
    data = job.data
    total: Answers | None = None
    seen = job.seen.begin()
    waiting = _BlockQueue()
    done = 0
    for _, message in team.run(answer_shard, _deal(job, team)):
        if isinstance(message, int):
            done += message
            on_step("comparing", done, data.count)
            continue
        waiting.blocks[message.number] = message
        for block in waiting.take_in_order():
            if total is None:
                total = block.answers
            elif block.answers is not None:
                total.extend(block.answers)
            seen.add(block.seen)
    waiting.check_empty()
    if total is None:  # a source without samples is an error of its own
        raise seen.make_error()
    return total, seen


def survey_shard(job: EvaluationJob) -> Iterator[tuple[int, int, int]]:
    """Of each batch of a shard how many samples it has, of how many the record decides, and how many it holds.

    An error ends it without a word: whoever answers meets the same, in its turn.
    """
    with suppress(FcdeployError):
        for part in job.data.shard(*job.part, None):
            yield len(part), *job.seen.count(part)


def survey_all(team: WorkerPool, job: EvaluationJob, on_step: OnStep) -> EvaluationJob:
    """The job with a check that knows whether too many of all samples were calibrated on, read once more where that is asked."""
    if not job.seen.asks:
        return job
    done = decided = found = 0
    for _, (count, some, shared) in team.run(survey_shard, _deal(job, team)):
        done, decided, found = done + count, decided + some, found + shared
        on_step("looking for calibrated samples", done, job.data.count)
    return replace(job, seen=job.seen.settle(decided, found))


def _deal(job: EvaluationJob, team: WorkerPool) -> list[EvaluationJob]:
    """A shard for each worker that finds a block to work on."""
    data = job.data
    of = team.size if data.count is None else min(team.size, -(-data.count // data.block))
    return [replace(job, part=(index, of), threads=team.threads) for index in range(of)]


@dataclass
class _BlockQueue:
    """Blocks that arrived before their turn."""

    blocks: dict[int, AnsweredBlock | FailedBlock] = field(default_factory=dict)
    turn: int = 0

    def take_in_order(self) -> Iterator[AnsweredBlock]:
        while (block := self.blocks.pop(self.turn, None)) is not None:
            if isinstance(block, FailedBlock):
                raise FcdeployError(block.message, block.hint)
            self.turn += 1
            yield block

    def check_empty(self) -> None:
        """Raise where a block is missing: of one that failed, or of data that are others every time."""
        failed = [block for _, block in sorted(self.blocks.items()) if isinstance(block, FailedBlock)]
        if failed:
            raise FcdeployError(failed[0].message, failed[0].hint)
        if self.blocks:
            raise FcdeployError(
                "the data gave other samples to each worker, expected the same from everyone who reads them",
                "run without --workers and --cluster, or let the data be the same each time",
            )


def _answer(job: EvaluationJob, at: list[int]) -> Iterator[int | AnsweredBlock]:
    """As `answer_shard`; `at` holds the number of the block that is worked on."""
    index, of = job.part
    at[0] = 0  # what goes wrong before the first sample is the same for everyone
    if job.threads is not None:
        _check_files(job)
    reference = Session(job.models[0][0], threads=job.threads)
    other = open_engine(job.runs or job.models[1][0], threads=job.threads)
    start: Answers | None = None
    labels: frozenset[str] | None = None
    first = _find_first(job) if index else None
    if first is not None:
        start = _start_answers(job, run_model(reference, first, "float"), first)
        labels = frozenset(first.labels)
    at[0] = index
    seen = job.seen.begin()
    answers: Answers | None = None
    carrying = carry_states(other, job.data.inputs)
    for part in job.data.shard(index, of, labels):
        batch = seen.take(part)
        if batch is not None:
            f, q = run_both(reference, carrying, batch)
            start = start or _start_answers(job, f, batch)
            answers = answers or Answers(start.metric, start.read, start.other_labels)
            add_batch(answers, f, q, batch)
        yield len(part)
        if seen.samples == job.data.block:
            yield AnsweredBlock(at[0], _strip_function(answers), seen)
            answers, seen = None, job.seen.begin()
            at[0] += of
    if seen.samples:
        yield AnsweredBlock(at[0], _strip_function(answers), seen)


def _find_first(job: EvaluationJob) -> Batch | None:
    """The first batch that is evaluated on, which the first shard chooses the metric by; None where nothing is left."""
    parts = job.data.shard(0, 1, None)
    return next((batch for part in parts if (batch := job.seen.keep(part)) is not None), None)


def _start_answers(job: EvaluationJob, outputs: Arrays, batch: Batch) -> Answers:
    return start_answers(
        lambda f, names: choose_metric(job.metric, f, names, job.ends, batch.inputs), outputs, batch.labels
    )


def _strip_function(answers: Answers | None) -> Answers | None:
    """The answers without the metric's function, which cannot be pickled."""
    return answers and replace(answers, metric=answers.metric and replace(answers.metric, figures=None, between=None))


def _check_files(job: EvaluationJob) -> None:
    for path, known in job.models:
        if hash_model(files_of(read_model(path), Path(path))) != known:
            raise FcdeployError(
                f"model {path!r} is not the same file for a worker as for the command that started it",
                "let all machines see the same files",
            )
