"""Is an int8 model good enough?  By what its outputs mean, on samples that were kept apart, against the float model.

Where an output decides something (evaluate/outputs.py), equal decisions count; where nothing is decided, the outputs' SQNR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.significance import tail_of_binomial
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.decision import Decision, decide
from fcdeploy.evaluate.outputs import OutputEnd, read_outputs
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.fidelity import EXACT_DB
from fcdeploy.int8.floor import Floor
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import split_into_chunks
from fcdeploy.samples.layout import lead_with_samples, runs_alone

APART = 3  # of the samples that tools may run the model on, one in so many is kept apart
MOST_APART = 64
LEAST_APART = 4  # fewer tell nothing: then all samples serve for both, which is said
SURE = 0.05  # a model is below the floor where chance gives so many changed decisions with this probability at most
POSITIONS = 3.0  # positions of a map lie near the threshold more often than classes near each other: so much slack


@dataclass(frozen=True)
class Judgement:
    """How a model did on `samples`: SQNR by floating-point output, and by deciding output equal decisions and all, (n, 2)."""

    samples: int
    sqnr_db: Mapping[str, float]
    equal: Mapping[str, Float64]
    decisions: Mapping[str, Decision]

    @property
    def worst_db(self) -> float:
        """Of the worst output."""
        return min(self.sqnr_db.values(), default=EXACT_DB)

    @property
    def noise(self) -> float:
        """Noise over signal, summed over the outputs."""
        return sum(10 ** (-db / 10) for db in self.sqnr_db.values())

    @property
    def changed(self) -> float:
        """How many samples' worth of decisions differ, of the output with most of them."""
        return max((self.samples * (1 - self.share(name)) for name in self.equal), default=0.0)

    def share(self, output: str) -> float:
        """Of equal decisions; an output on which no position counted has none that differ."""
        equal, count = self.equal[output].sum(axis=0)
        return float(equal / count) if count else 1.0

    def shortfall(self, floor: Floor) -> float:
        """How far below the floor it is: 0 where it holds, else in points of decisions, or decibels."""
        return max((miss for _, miss in self.misses(floor)), default=0.0)

    def misses(self, floor: Floor) -> list[tuple[str, float]]:
        """What is below the floor, in words, and by how much.

        Of fewer samples than one changed decision in which would be below the floor, decibels count for classes too.
        """
        few = self.samples * (1 - floor.decisions) < 1
        misses = []
        for name, rows in self.equal.items():
            share = self.share(name)
            least = 1 - POSITIONS * (1 - floor.decisions) if self.decisions[name].sparse else floor.decisions
            if share < least and not _is_chance(rows, least):
                text = f"{100 * share:.1f} % {self.decisions[name].counted} of output {name!r}, the floor is {100 * least:g} %"
                misses.append((text, 100 * (least - share)))
        for name, db in self.sqnr_db.items():
            decided = name in self.equal and (self.decisions[name].sparse or not few)
            if not decided and db < floor.sqnr_db:
                text = f"output {name!r} is float's to {db:.1f} dB, the floor is {floor.sqnr_db:g} dB"
                misses.append((text, floor.sqnr_db - db))
        return misses

    def summary(self) -> str:
        """'100 % equal decisions, 41.2 dB on 64 samples'."""
        decided = [f"{100 * self.share(name):.4g} % {self.decisions[name].counted}" for name in self.equal]
        return f"{', '.join([*decided, f'{self.worst_db:.1f} dB'])} on {self.samples} samples"


def split_samples(groups: Sequence[Arrays]) -> tuple[Arrays, tuple[Arrays, ...], bool]:
    """Samples for the tools that run the model, samples for its judge, and whether no sample is both.

    `groups` are samples of one shape each.  Tools get most of the largest group, in its order, which is that of hashes: any
    part of it is a random one.  The judge gets the rest.  Where that is too little to tell anything, it gets all.
    """
    if not groups:
        return {}, (), False
    largest = max(range(len(groups)), key=lambda at: _count(groups[at]))
    apart = min(_count(groups[largest]) // APART, MOST_APART)
    cut = _count(groups[largest]) - apart
    tools = {name: array[:cut] for name, array in groups[largest].items()}
    rest = {name: array[cut:] for name, array in groups[largest].items()}
    others = [group for at, group in enumerate(groups) if at != largest]
    judged = tuple(group for group in (rest, *others) if _count(group))
    if sum(map(_count, judged)) < LEAST_APART:
        return groups[largest], tuple(groups), False
    return tools, judged, True


class Judge:
    """The float model's answers to the samples kept apart, given once; `measure` holds an int8 model against them."""

    def __init__(
        self, file: Path | ir.Model, model: ir.Model, groups: Sequence[Arrays], ends: Mapping[str, OutputEnd]
    ) -> None:
        """`file` answers; `model` is its prepared form, which says how many samples a run takes. Groups are of one shape each."""
        self.chunks = [chunk for group in groups for chunk in split_into_chunks(model, group)]
        session = Session(file)
        self._alone = runs_alone(input_specs(model))
        self.answers = [self._run(session, feeds) for _, feeds in self.chunks]
        self.samples = sum(count for count, _ in self.chunks)
        first = (
            {name: _joined([answer[name] for answer in self.answers]) for name in session.outputs}
            if self.chunks
            else {}
        )
        read = read_outputs(first, ends)
        self.decisions, self.found = dict(read.decisions), read.detections
        if self.found is not None:
            self.decisions[self.found.boxes] = Decision(None, None, sparse=True, rows=True)

    def measure(self, int8: ir.Model, most: int | None = None) -> Judgement:
        """A model's answers to all samples, or the first chunks of at least `most`."""
        session, sums, equal, done = Session(int8), dict[str, Fidelity](), dict[str, list[Float64]](), 0
        for (count, feeds), answer in zip(self.chunks, self.answers, strict=True):
            other = self._run(session, feeds)
            if self.found is not None:
                boxes, others = self.found.read(answer, count), self.found.read(other, count)
                equal.setdefault(self.found.boxes, []).append(self.found.compare(boxes, others))
                for name, new in self.found.measure(boxes, others).items():
                    sums[name] = sums.get(name, Fidelity()) + new
            for name, f in answer.items():
                if self.found is not None and name in self.found.names:
                    continue
                if f.dtype.kind == "f" and f.shape == other[name].shape:
                    sums[name] = sums.get(name, Fidelity()) + measure_fidelity(f, other[name])
                if name in self.decisions and f.shape == other[name].shape:
                    rows = _compare(self.decisions[name], f, other[name])
                    equal.setdefault(name, []).append(rows)
            done += count
            if most is not None and done >= most:
                break
        db = {name: max(-EXACT_DB, min(one.sqnr_db, EXACT_DB)) for name, one in sums.items()}
        return Judgement(done, db, {name: np.concatenate(rows) for name, rows in equal.items()}, self.decisions)

    def _run(self, session: Session, feeds: Arrays) -> Arrays:
        outputs = (lead_with_samples(np.asarray(output), alone=self._alone) for output in session.run(feeds))
        return dict(zip(session.outputs, outputs, strict=True))


def _count(chunk: Arrays) -> int:
    return len(next(iter(chunk.values())))


def _joined(parts: Sequence[Array]) -> Array:
    """All of one shape beside each other, else the first."""
    alike = [part for part in parts if part.shape[1:] == parts[0].shape[1:] and part.ndim]
    return np.concatenate(alike) if alike else parts[0]


def _compare(decision: Decision, one: Array, other: Array) -> Float64:
    """Equal decisions and all that count, (n, 2)."""
    a, b = decide(decision, one), decide(decision, other)
    equal, count = decision.count_equal(np.atleast_1d(a), np.atleast_1d(b))
    return np.stack([equal, count], axis=1)


def _is_chance(rows: Float64, floor: float) -> bool:
    """Whether a model that is at the floor gives so many changed decisions, or more, with a probability above SURE."""
    if (rows[:, 1] == 1).all():
        changed = int((rows[:, 0] == 0).sum())
        return changed <= 1 or tail_of_binomial(changed, len(rows), 1 - floor) > SURE
    shares = rows[rows[:, 1] > 0]
    shares = shares[:, 0] / shares[:, 1]
    error = shares.std(ddof=1) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
    return bool(shares.mean() + 1.645 * error >= floor)
