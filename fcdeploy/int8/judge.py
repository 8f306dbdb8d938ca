"""Is an int8 model good enough?  By what its outputs mean, on samples that were kept apart, against the float model.

Where an output decides something (evaluate/outputs.py), equal decisions count; where nothing is decided, the outputs' SQNR.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.regions import compare_regions
from fcdeploy.arithmetic.significance import tail_of_binomial
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.decision import Decision, decide, squeeze
from fcdeploy.evaluate.outputs import OutputEnd, read_outputs
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.fidelity import EXACT_DB
from fcdeploy.int8.floor import Floor
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import split_into_chunks
from fcdeploy.samples.layout import lead_with_samples, runs_alone
from fcdeploy.samples.states import StreamingSession
from fcdeploy.samples.stretches import split_stretches

APART = 3  # of the samples that tools may run the model on, one in so many is kept apart, and those that
USED = 128  # of them leave over: corrections take no more
MOST_APART = 128
LEAST_APART = 4  # fewer tell nothing: then all samples serve for both, which is said
SURE = 0.05  # a model is below the floor where chance gives so many changed decisions with this probability at most
REGIONS = ": regions"  # behind the name of an output that is a map of things: how many of them both models find
NEAREST = 5  # classes beside the first, whose margins tell how far rounding moves a margin
TOLD = 0.002  # of decisions: by which fewer are to be expected equal than were, to be said
LEAST_SIDE = 16  # rows and columns of a map in which things are looked for
CARRIED_DB = 10.0  # by which a state must be nearer than others: errors add up for longer than a stretch
CARRIED_ROOM = 2 / 3  # of the changed decisions that the floor allows, for the same reason
ODD = 1e-6  # probabilities nearer to 0 or 1 are taken to be so near
LEAST_NEAR = 16  # numbers near a threshold, from which it is told how far rounding moves them


@dataclass(frozen=True)
class Judgement:
    """How a model did on `samples`: SQNR by floating-point output, and by deciding output equal decisions and all, (n, 2).

    Of a map of things, by its name with REGIONS behind it, the same of regions.  `expected` is how likely the class of each
    sample is to stay the same, (n,), of outputs with one class a sample.  `states` are outputs that the
    next step of a stream takes.
    """

    samples: int
    sqnr_db: Mapping[str, float]
    equal: Mapping[str, Float64]
    decisions: Mapping[str, Decision]
    expected: Mapping[str, Float64] = field(default_factory=dict)
    states: Set[str] = frozenset()

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

    def shortfall(self, floor: Floor, *, searched: bool = False) -> float:
        """How far below the floor it is: 0 where it holds, else in points of decisions, or decibels."""
        return max((miss for _, miss in self.misses(floor, searched=searched)), default=0.0)

    def misses(self, floor: Floor, *, searched: bool = False) -> list[tuple[str, float]]:
        """What is below the floor, in words, and by how much.

        Margins are pardoned one standard error; of a model that was `searched` for among many by these samples, of which
        one holds by chance, they have to promise one more than the floor.

        One answer of a few that differs may be chance.  Of fewer samples than one changed decision in which
        would be below the floor, decibels count for classes too, and where margins say that others will differ, these.
        """
        few = self.samples * (1 - floor.decisions) < 1
        errors = 0.0 if self.states else -1.0 if searched else 1.0  # of a stream the room is smaller anyway
        misses = []
        for name, rows in self.equal.items():
            share, expected = self.share(name), self.expected.get(name, np.ones(1))
            output = name.removesuffix(REGIONS)
            pardoned = output == name and _is_chance(rows, floor.decisions)
            if share < floor.decisions and not pardoned:
                what = f"{100 * share:.1f} % {self._counted(name)} of output {output!r}"
                text = f"{what}, the floor is {100 * floor.decisions:g} %"
                misses.append((text, 100 * (floor.decisions - share)))
            elif (likely := _estimate_share(expected, errors)) < (least := self._least_expected(floor)):
                text = (
                    f"{100 * likely:.1f} % equal decisions of output {output!r} are to be expected, so near are others "
                    f"to another {'decision' if self.states else 'class'}; the floor is {100 * least:.4g} %"
                )
                misses.append((text, 100 * (least - likely)))
        for name, db in self.sqnr_db.items():
            decided = name in self.equal and (self.decisions[name].sparse or not few)
            least = floor.sqnr_db + (CARRIED_DB if name in self.states else 0.0)
            if not decided and db < least:
                what = "carried state" if name in self.states else "output"
                text = f"{what} {name!r} is float's to {db:.1f} dB, the floor is {least:g} dB"
                misses.append((text, least - db))
        return misses

    def _least_expected(self, floor: Floor) -> float:
        """The share of equal decisions to expect: of a stream nearer to all, since errors add up for longer than a stretch."""
        return 1 - (1 - floor.decisions) * (CARRIED_ROOM if self.states else 1.0)

    def _counted(self, name: str) -> str:
        return "of regions found by both" if name.endswith(REGIONS) else self.decisions[name].counted

    def _say_expected(self, name: str) -> str:
        expected = self.expected[name].mean() if name in self.expected else 1.0
        return f" ({100 * expected:.1f} % to be expected of others)" if expected < self.share(name) - TOLD else ""

    def summary(self) -> str:
        """'100 % equal decisions, 41.2 dB on 64 samples', with what is to be expected of others where that is less."""
        decided = [
            f"{100 * self.share(name):.4g} % {self._counted(name)}{self._say_expected(name)}" for name in self.equal
        ]
        told = dict.fromkeys(decided)  # outputs that say the same, a label and its scores, say it once
        return f"{', '.join([*told, f'{self.worst_db:.1f} dB'])} on {self.samples} samples"


def split_samples(groups: Sequence[Arrays], *, streams: bool) -> tuple[Arrays, tuple[Arrays, ...], bool]:
    """Samples for the tools that run the model, samples for its judge, and whether no sample is both.

    `groups` are samples of one shape each.  Tools get most of the largest group, in its order, which is that of hashes: any
    part of it is a random one.  The judge gets the rest.  Where that is too little to tell anything, it gets all.
    Of `streams` groups are stretches: tools get their steps, the judge whole ones.
    """
    if not groups:
        return {}, (), False
    if streams:
        return *split_stretches(groups), True
    largest = max(range(len(groups)), key=lambda at: _count(groups[at]))
    apart = min(max(_count(groups[largest]) // APART, _count(groups[largest]) - USED), MOST_APART)
    cut = _count(groups[largest]) - apart
    tools = {name: array[:cut] for name, array in groups[largest].items()}
    rest = {name: array[cut:] for name, array in groups[largest].items()}
    others = [group for at, group in enumerate(groups) if at != largest]
    judged = tuple(group for group in (rest, *others) if _count(group))
    if sum(map(_count, judged)) < LEAST_APART:
        return groups[largest], tuple(groups), False
    return tools, judged, True


class _Tally:
    """What was measured of each output so far: sums of errors, rows of decisions, and what margins say of others."""

    def __init__(self) -> None:
        self.sums = defaultdict[str, Fidelity](Fidelity)
        self.equal, self.expected, self.margins = (defaultdict[str, list[Float64]](list) for _ in range(3))

    def add(self, name: str, one: Array, other: Array, decision: Decision | None, *, streams: bool) -> None:
        """The answers of both models to a chunk, of one shape."""
        if one.dtype.kind == "f":
            self.sums[name] += measure_fidelity(one, other)
        if decision is None:
            return
        for key, rows in _compare(name, decision, one, other):
            self.equal[key].append(rows)
        if decision.axis is not None and squeeze(one).ndim == 2:
            self.expected[name].append(_expect_equal(one, other, decision.axis))
        elif streams and decision.threshold is not None:
            self.margins[name].append(_measure_margins(decision, one, other))

    def judge(self, samples: int, decisions: Mapping[str, Decision], states: frozenset[str]) -> Judgement:
        db = {name: max(-EXACT_DB, min(one.sqnr_db, EXACT_DB)) for name, one in self.sums.items()}
        equal, expected = (
            {name: np.concatenate(rows) for name, rows in each.items()} for each in (self.equal, self.expected)
        )
        expected |= {name: _expect_alike(np.concatenate(rows)) for name, rows in self.margins.items()}
        return Judgement(samples, db, equal, decisions, expected, states)


class Judge:
    """The float model's answers to the samples kept apart, given once; `measure` holds an int8 model against them."""

    def __init__(
        self, file: Path | ir.Model, model: ir.Model, groups: Sequence[Arrays], ends: Mapping[str, OutputEnd]
    ) -> None:
        """`file` answers; `model` is its prepared form, which says how many samples a run takes. Groups are of one shape each."""
        self._inputs = input_specs(model)
        self._alone = runs_alone(self._inputs)
        self._states = frozenset(spec.state for spec in self._inputs if spec.state)
        # of a stream, chunks are its steps, and a stretch begins with the states that the float model had there
        stretches = [s for group in groups for s in _list_stretches(group)] if self._states else list(groups)
        self.chunks, self._begins = list[tuple[int, Arrays]](), set[int]()
        for group in stretches:
            self._begins.add(len(self.chunks))
            self.chunks += split_into_chunks(model, group)
        session = Session(file)
        self.answers = [self._run(session, feeds) for _, feeds in self.chunks]
        self.samples = sum(count for count, _ in self.chunks)
        first = (
            {name: _join([answer[name] for answer in self.answers]) for name in session.outputs} if self.chunks else {}
        )
        read = read_outputs(first, ends)
        self.decisions, self.found = dict(read.decisions), read.detections
        if self.found is not None:
            self.decisions[self.found.boxes] = Decision(None, None, sparse=True, rows=True)

    def measure(self, int8: ir.Model, most: int | None = None) -> Judgement:
        """A model's answers to all samples, or the first chunks of at least `most`."""
        tally, done = _Tally(), 0
        for (count, _), answer, other in zip(self.chunks, self.answers, self._answer(Session(int8)), strict=False):
            if self.found is not None:
                boxes, others = self.found.read(answer, count), self.found.read(other, count)
                tally.equal[self.found.boxes].append(self.found.compare(boxes, others))
                for name, new in self.found.measure(boxes, others).items():
                    tally.sums[name] += new
            boxed = () if self.found is None else self.found.names
            for name, f in answer.items():
                if name not in boxed and f.shape == other[name].shape:
                    tally.add(name, f, other[name], self.decisions.get(name), streams=bool(self._states))
            done += count
            if most is not None and done >= most:
                break
        return tally.judge(done, self.decisions, self._states)

    def _answer(self, session: Session) -> Iterator[Arrays]:
        """A model's answers to the chunks in turn, with states of its own within a stretch."""
        stream = StreamingSession(session, self._inputs) if self._states else None
        for index, (_, feeds) in enumerate(self.chunks):
            if stream is not None and index in self._begins:
                stream.begin({spec.name: feeds[spec.name] for spec in self._inputs if spec.state})
            yield self._run(stream or session, feeds)

    def _run(self, session: Engine, feeds: Arrays) -> Arrays:
        outputs = (lead_with_samples(np.asarray(output), alone=self._alone) for output in session.run(feeds))
        return dict(zip(session.outputs, outputs, strict=True))


def _count(chunk: Arrays) -> int:
    return len(next(iter(chunk.values())))


def _join(parts: Sequence[Array]) -> Array:
    """All of one shape beside each other, else the first."""
    alike = [part for part in parts if part.shape[1:] == parts[0].shape[1:] and part.ndim]
    return np.concatenate(alike) if alike else parts[0]


def _compare(name: str, decision: Decision, one: Array, other: Array) -> Iterator[tuple[str, Float64]]:
    """Equal decisions and all that count, (n, 2), and of a map of things also the regions that both find."""
    a, b = (decide(decision, array) for array in (one, other))
    equal, count = decision.count_equal(np.atleast_1d(a), np.atleast_1d(b))
    yield name, np.stack([equal, count], axis=1)
    if decision.sparse and one.ndim == 4 and min(one.shape[2:]) >= LEAST_SIDE:
        yield name + REGIONS, compare_regions(a, b)


def _expect_equal(one: Array, other: Array, axis: int) -> Float64:
    """How likely each sample's class stays the same, (n,), by its margin and by how far the nearest classes' margins moved.

    Of classes counted there are only whole ones; this tells a model in which one in fifty will differ from one in five
    hundred with far fewer samples.
    """
    f, q = (np.moveaxis(np.asarray(squeeze(array), np.float64), axis, -1) for array in (one, other))
    order = np.argsort(-f, axis=-1)[:, : NEAREST + 1]
    margins, moved = (-np.diff(np.take_along_axis(array, order, -1), axis=-1).cumsum(axis=-1) for array in (f, q))
    spread = np.sqrt(np.mean((moved - margins) ** 2, axis=-1))
    pairs = zip(margins[:, 0], spread, strict=True)
    return np.array([1 - 0.5 * math.erfc(m / s / math.sqrt(2)) if s > 0 else 1.0 for m, s in pairs])


def _measure_margins(decision: Decision, one: Array, other: Array) -> Float64:
    """How far each number is above the threshold, and how far the other model moved it, (n, 2): of probabilities as odds."""
    f, q = (np.ravel(np.asarray(array, np.float64)) for array in (one, other))
    least = float(decision.threshold or 0.0)
    if 0.0 < least < 1.0:
        f, q = (np.log(np.clip(p, ODD, 1 - ODD) / np.clip(1 - p, ODD, 1 - ODD)) for p in (f, q))
        least = math.log(least / (1 - least))
    return np.stack([f - least, q - f], axis=1)


def _expect_alike(margins: Float64) -> Float64:
    """How likely each decision by a threshold stays the same, by the moves of those that are nearest to it."""
    margin, moved = np.abs(margins[:, 0]), margins[:, 1]
    nearest = np.argsort(margin, kind="stable")[: max(LEAST_NEAR, len(margin) // 4)]
    spread = float(np.sqrt(np.mean(moved[nearest] ** 2)))
    return np.array([1 - 0.5 * math.erfc(m / spread / math.sqrt(2)) if spread > 0 else 1.0 for m in margin])


def _list_stretches(group: Arrays) -> Iterator[Arrays]:
    """Each stretch of (stretches, steps, ...) by itself."""
    for index in range(_count(group)):
        yield {name: array[index] for name, array in group.items()}


def _estimate_share(expected: Float64, errors: float) -> float:
    """The mean, and standard errors more or less: what chance explains is no finding, and what it may have given no proof."""
    error = expected.std(ddof=1) / math.sqrt(len(expected)) if len(expected) > 1 else 0.0
    return float(expected.mean() + errors * error)


def _is_chance(rows: Float64, floor: float) -> bool:
    """Whether a model that is at the floor gives so many changed answers, or more, with a probability above SURE.

    Of maps, whose positions are many, only a single one that differs is chance.
    """
    if (rows[:, 1] == 1).all():
        changed = int((rows[:, 0] == 0).sum())
        return changed <= 1 or tail_of_binomial(changed, len(rows), 1 - floor) > SURE
    return bool((rows[:, 1] - rows[:, 0]).sum() <= 2)  # in both models' lists
