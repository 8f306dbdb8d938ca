"""Is an int8 model good enough?  By what its outputs mean, on samples that were kept apart, against the float model.

Where an output decides something (evaluate/outputs.py), equal decisions count; where nothing is decided, the outputs' SQNR.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.regions import compare_regions
from fcdeploy.arithmetic.significance import tail_of_binomial
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.decision import Decision, decide, squeeze
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import read_outputs
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.fidelity import EXACT_DB
from fcdeploy.int8.floor import Floor
from fcdeploy.int8.margins import (
    estimate_error,
    expect_alike,
    expect_equal,
    measure_class_margins,
    measure_class_moves,
    measure_threshold_moves,
)
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import KEPT_MOST, split_into_chunks
from fcdeploy.samples.layout import lead_with_samples, runs_alone
from fcdeploy.samples.states import StreamingSession
from fcdeploy.samples.stretches import split_stretches

APART = 3  # of the samples that tools may run the model on, one in so many is kept apart, and those that
USED = 128  # of them leave over: corrections take no more
MOST_APART = 128
LEAST_APART = 4  # fewer tell nothing: then all samples serve for both, which is said
SURE = 0.05  # a model is below the floor where chance gives so many changed decisions with this probability at most
NEGLIGIBLE = 1e-4  # of decisions: no sample of any set of a size to run is likely to be among them
HIDDEN = 10  # times as many changes as margins promise: samples that are near another class may all be missing
REGIONS = ": regions"  # behind the name of an output that is a map of things: how many of them both models find
NOTABLE_DIFFERENCE = 0.002  # of decisions: by which fewer are to be expected equal than were, to be said
LEAST_SIDE = 16  # rows and columns of a map in which things are looked for
READ_AT = (0.3, 0.4, 0.5, 0.6, 0.7)  # thresholds of things in a map of probabilities: who reads it has one of his own
CARRIED_DB = 10.0  # by which a state must be nearer than others: errors add up for longer than a stretch
CARRIED_SHARE = 2 / 3  # of the changed decisions that the floor allows, for the same reason


@dataclass(frozen=True)
class Judgement:
    """How a model did on `samples`: SQNR by floating-point output, and by deciding output equal decisions and all, (n, 2).

    Of a map of things, by its name with REGIONS behind it, the same of regions.  `expected` is how likely classes are to stay
    the same, (n,), of outputs with one class a sample: of these samples and others.  `states` are outputs that the
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

        Margins of fewer samples than a calibration keeps may be short of the floor by one standard error; of a model that
        was `searched` for among many by these samples, of which one holds by chance, they have to promise one more.

        One answer of a few that differs may be chance.  Of fewer samples than one changed decision in which
        would be below the floor, decibels count for classes too, and where margins say that others will differ, these.
        """
        few = self.samples * (1 - floor.decisions) < 1
        errors = 0.0 if self.states else -1.0 if searched else 1.0  # of a stream fewer changes are allowed anyway
        misses = []
        for name, rows in self.equal.items():
            share = self.share(name)
            output = name.removesuffix(REGIONS)
            by_chance = output == name and _is_chance(rows, floor.decisions)
            if share < floor.decisions and not by_chance:
                what = f"{_format_below(share, floor.decisions)} {self._counted(name)} of output {output!r}"
                text = f"{what}, the floor is {100 * floor.decisions:g} %"
                misses.append((text, 100 * (floor.decisions - share)))
            elif (likely := self._estimate_share(name, floor, errors)) < (
                least := self._least_expected(floor)
            ) - NEGLIGIBLE:
                stream = f", for a stream {100 * least:.2f} %" if self.states else ""
                text = (
                    f"output {output!r}: {_format_below(likely, least)} equal decisions are expected on other samples, "
                    f"since many lie close to another {'decision' if self.states else 'class'}; "
                    f"the floor is {100 * floor.decisions:g} %{stream}"
                )
                misses.append((text, 100 * (least - likely)))
        for name, db in self.sqnr_db.items():
            decided = name in self.equal and not self._has_more(name) and (self.decisions[name].sparse or not few)
            least = floor.sqnr_db + (CARRIED_DB if name in self.states else 0.0)
            if not decided and db < least:
                what = "carried state" if name in self.states else "output"
                text = f"{what} {name!r} matches float's to {db:.1f} dB, the floor is {least:g} dB"
                misses.append((text, least - db))
        return misses

    def doubts(self, floor: Floor) -> list[str]:
        """What is below the floor, in words, where so few samples allow that as chance."""
        told = [text for text, _ in self.misses(floor)]
        doubts = []
        for name in self.equal:
            share = min(self.share(name), self._estimate_share(name, floor, 0.0))
            output = name.removesuffix(REGIONS)
            if share < floor.decisions and not any(f"output {output!r}" in text for text in told):
                what = "expected equal decisions" if share < self.share(name) else self._counted(name)
                doubts.append(
                    f"{_format_below(share, floor.decisions)} {what} of output {output!r}, where the floor is "
                    f"{100 * floor.decisions:g} %: "
                    f"{self.samples} samples are too few to tell whether that is chance; give more with --data"
                )
        return doubts

    def _estimate_share(self, name: str, floor: Floor, errors: float) -> float:
        """What is to be expected, and standard errors more or less: what chance explains is no finding, and no proof either."""
        if name not in self.expected:
            return 1.0
        expected = self.expected[name]
        share = float(expected.mean())
        # of a model at the floor, but one that is nearly float is far from it, whatever the samples hide
        error = estimate_error(max(floor.decisions, 1 - HIDDEN * (1 - share)), len(expected))
        if errors < 0:  # on few samples no model but float would be proof enough
            error = min(error, (1 - floor.decisions) / 2)
        elif len(expected) >= KEPT_MOST:  # who gives as many as are kept is held to the floor itself
            error = 0.0
        return share + errors * error

    def _least_expected(self, floor: Floor) -> float:
        """The share of equal decisions to expect: of a stream nearer to all, since errors add up for longer than a stretch."""
        return 1 - (1 - floor.decisions) * (CARRIED_SHARE if self.states else 1.0)

    def _has_more(self, name: str) -> bool:
        """Whether an output has numbers beside those that decide: boxes beside scores."""
        return self.decisions[name].anchors is not None

    def _counted(self, name: str) -> str:
        return "of regions found by both" if name.endswith(REGIONS) else self.decisions[name].counted

    def _say_expected(self, name: str) -> str:
        expected = self.expected[name].mean() if name in self.expected else 1.0
        return (
            f" ({100 * expected:.1f} % expected of others)" if expected < self.share(name) - NOTABLE_DIFFERENCE else ""
        )

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
        self.equal, self.moves, self.lengths = (defaultdict[str, list[Float64]](list) for _ in range(3))

    def add(self, name: str, one: Array, other: Array, decision: Decision | None, *, streams: bool) -> None:
        """The answers of both models to a chunk; where values decide how many rows there are, they may differ in shape."""
        if decision is None:
            self.lengths[name].append(_count_alike(one, other))
        if one.shape != other.shape and not (decision and decision.rows):
            if decision is not None:
                self.equal[name].append(np.array([[0.0, max(_count_rows(one), _count_rows(other), 1)]]))
            return
        if one.dtype.kind == "f":
            self.sums[name] += measure_fidelity(one, other)
        if decision is None:
            return
        for key, rows in _compare(name, decision, one, other):
            self.equal[key].append(rows)
        if _is_class(decision, one):
            self.moves[name].append(measure_class_moves(one, other, decision.axis or 0))
        elif streams and decision.threshold is not None:
            self.moves[name].append(measure_threshold_moves(decision, one, other))

    def judge(
        self,
        samples: int,
        decisions: Mapping[str, Decision],
        margins: Mapping[str, Float64],
        states: frozenset[str],
    ) -> Judgement:
        db = {name: max(-EXACT_DB, min(one.sqnr_db, EXACT_DB)) for name, one in self.sums.items()}
        equal, moves = (
            {name: np.concatenate(rows) for name, rows in each.items()} for each in (self.equal, self.moves)
        )
        expected = {
            name: expect_equal(rows, margins[name]) if name in margins else expect_alike(rows)
            for name, rows in moves.items()
        }
        lengths = {name: np.concatenate(rows) for name, rows in self.lengths.items()}
        uneven = {name: rows for name, rows in lengths.items() if (rows[:, 0] < rows[:, 1]).any()}
        decided = {**decisions, **dict.fromkeys(uneven, Decision(None, None, rows=True))}
        return Judgement(samples, db, equal | uneven, decided, expected, states)


class Judge:
    """The float model's answers to the samples kept apart, given once; `measure` holds an int8 model against them."""

    def __init__(
        self,
        file: Path | ir.Model,
        model: ir.Model,
        groups: Sequence[Arrays],
        ends: Mapping[str, OutputEnd],
        others: Arrays | None = None,
    ) -> None:
        """`file` answers; `model` is its prepared form, which says how many samples a run takes. Groups are of one shape each.

        `others` are samples that are not judged: their classes say how near other samples are to another one.
        """
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
        self.margins = self._measure_margins(session, [] if others is None else split_into_chunks(model, others))

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
                if name not in boxed:
                    tally.add(name, f, other[name], self.decisions.get(name), streams=bool(self._states))
            done += count
            if most is not None and done >= most:
                break
        return tally.judge(done, self.decisions, self.margins, self._states)

    def _measure_margins(self, session: Session, others: Iterable[tuple[int, Arrays]]) -> dict[str, Float64]:
        """Of outputs with one class a sample, how far the float model's is from the next one, (samples,)."""
        first = self.answers[0] if self.answers else {}
        axes = {n: d.axis or 0 for n, d in self.decisions.items() if n in first and _is_class(d, first[n])}
        answers = [*self.answers, *(self._run(session, feeds) for _, feeds in others if axes)]
        return {
            name: np.concatenate([measure_class_margins(answer[name], axis) for answer in answers])
            for name, axis in axes.items()
        }

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


def _is_class(decision: Decision, output: Array) -> bool:
    """Whether an output says one class a sample."""
    return decision.axis is not None and squeeze(output).ndim == 2


def _count_rows(output: Array) -> int:
    return len(output) if output.ndim else 1


def _count_alike(one: Array, other: Array) -> Float64:
    """Twice the rows that both may have, and all that there are, (1, 2): none where the rows are of other shapes."""
    least, most = sorted((_count_rows(one), _count_rows(other)))
    return np.array([[2.0 * least * (one.shape[1:] == other.shape[1:]), least + most]])


def _count(chunk: Arrays) -> int:
    return len(next(iter(chunk.values())))


def _join(parts: Sequence[Array]) -> Array:
    """All of one shape beside each other, else the first."""
    alike = [part for part in parts if part.shape[1:] == parts[0].shape[1:] and part.ndim]
    return np.concatenate(alike) if alike else parts[0]


def _compare(name: str, decision: Decision, one: Array, other: Array) -> Iterator[tuple[str, Float64]]:
    """Equal decisions and all that count, (n, 2), and of a map of things also the regions that both find."""
    if decision.anchors is not None:  # who reads them has a threshold of his own
        scores = [decision.read_scores(array) for array in (one, other)]
        at = [decision.count_equal(*((each > least).astype(np.int64) for each in scores)) for least in READ_AT]
        equal, count = np.sum(at, axis=0)
    else:
        a, b = (decide(decision, array) for array in (one, other))
        equal, count = decision.count_equal(np.atleast_1d(a), np.atleast_1d(b))
    if one.dtype.kind == "f" and one.shape == other.shape and len(equal) == _count_rows(one):
        # a class by arg max may be that of a NaN, which decides nothing
        lost = (np.isfinite(one) & ~np.isfinite(other)).reshape(len(equal), -1).any(axis=1)
        equal = np.where(lost, 0.0, equal)
    yield name, np.stack([equal, count], axis=1)
    if decision.sparse and decision.threshold is not None and one.ndim == 4 and min(one.shape[2:]) >= LEAST_SIDE:
        # where things touch, a map is near one threshold or another: five tell more of a few maps than one does
        found = [compare_regions(one > at, other > at) for at in READ_AT]
        yield name + REGIONS, np.sum(found, axis=0)


def _format_below(share: float, least: float) -> str:
    """A share in percent, with as many digits as tell it from one above it."""
    digits = next((n for n in (1, 2, 3) if round(100 * share, n) < round(100 * least, n)), 4)
    return f"{100 * share:.{digits}f} %"


def _list_stretches(group: Arrays) -> Iterator[Arrays]:
    """Each stretch of (stretches, steps, ...) by itself."""
    for index in range(_count(group)):
        yield {name: array[index] for name, array in group.items()}


def _is_chance(rows: Float64, floor: float) -> bool:
    """Whether a model that is at the floor gives so many changed answers, or more, with a probability above SURE.

    Of maps, whose positions are many, only a single one that differs is chance; where all have to be equal, none is.
    """
    if floor >= 1:
        return False
    if (rows[:, 1] == 1).all():
        changed = int((rows[:, 0] == 0).sum())
        return changed <= 1 or tail_of_binomial(changed, len(rows), 1 - floor) > SURE
    return bool((rows[:, 1] - rows[:, 0]).sum() <= 2)  # in both models' lists
