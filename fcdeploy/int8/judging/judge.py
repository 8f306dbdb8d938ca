"""Is an int8 model good enough?  By what its outputs mean, on samples that were kept apart, against the float model.

Where an output decides something (evaluate/outputs.py), equal decisions count; where nothing is decided, the outputs' SQNR.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.regions import compare_regions
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.boxes.compare import compare_boxes, measure_boxes
from fcdeploy.evaluate.boxes.find_heads import find_boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.decision import READ_AT, Decision, decide, squeeze
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import read_outputs
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.judging.fidelity import EXACT_DB
from fcdeploy.int8.judging.floor import Floor
from fcdeploy.int8.judging.judgement import REGIONS, Judgement
from fcdeploy.int8.judging.margins import (
    Margins,
    TextAnswer,
    expect_alike,
    join_margins,
    list_class_margins,
    list_text_margins,
    measure_class_moves,
    measure_threshold_moves,
)
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import count_samples, split_into_chunks
from fcdeploy.samples.layout import lead_with_samples, runs_alone, take_first
from fcdeploy.samples.source import get_fixed_batch
from fcdeploy.samples.states import StreamingSession

FIRST = 4  # samples after which a model may turn out to be far below a floor; then after twice as many, and so on
LEAST_SIDE = 16  # rows and columns of a map in which things are looked for


class _Tally:
    """What was measured of each output so far: sums of errors, rows of decisions, and what margins say of others."""

    def __init__(self) -> None:
        self.sums = defaultdict[str, Fidelity](Fidelity)
        self.equal, self.moves, self.noise, self.lengths = (defaultdict[str, list[Float64]](list) for _ in range(4))

    def add_errors(self, name: str, one: Array, other: Array, text: TextAnswer | None) -> None:
        """By how much the answers to a chunk differ, which are of one shape; `text` is what `one` says where it is texts."""
        if one.dtype.kind == "f":
            self.sums[name] += measure_fidelity(one, other)
        if text is not None:
            self.noise[name].append(text.measure_noise(other))

    def add_decisions(
        self, name: str, one: Array, other: Array, decision: Decision | None, text: TextAnswer | None, *, streams: bool
    ) -> None:
        """What the answers to a chunk decide; where values decide how many rows there are, they may differ in shape."""
        if decision is None:
            self.lengths[name].append(_count_alike(one, other))
        if one.shape != other.shape and not (decision and decision.rows):
            if decision is not None and decision.has_steps(one, other):
                kept = (decide(decision, output) for output in (one, other))
                self.equal[name].append(np.stack(decision.count_equal(*kept), axis=1))
            elif decision is not None:
                self.equal[name].append(np.array([[0.0, max(_count_rows(one), _count_rows(other), 1)]]))
            return
        if decision is None:
            return
        for key, rows in _compare(name, decision, one, other):
            self.equal[key].append(rows)
        if text is not None:
            self.moves[name].append(text.measure_moves(other))
        elif _is_class(decision, one):
            self.moves[name].append(measure_class_moves(one, other, decision.axis or 0))
        elif streams and decision.threshold is not None:
            self.moves[name].append(measure_threshold_moves(decision, one, other))

    def judge(
        self,
        samples: int,
        decisions: Mapping[str, Decision],
        states: frozenset[str],
        margins: Mapping[str, Margins] | None = None,
    ) -> Judgement:
        """What was counted, and with the `margins` of samples what is to be expected of them."""
        db = {name: max(-EXACT_DB, min(one.sqnr_db, EXACT_DB)) for name, one in self.sums.items()}
        equal, moves = (
            {name: np.concatenate(rows) for name, rows in each.items()} for each in (self.equal, self.moves)
        )
        expected = {
            name: margins[name].expect_equal(rows) if margins and name in margins else expect_alike(rows)
            for name, rows in ({} if margins is None else moves).items()
        }
        noise = {name: np.concatenate(rows) for name, rows in self.noise.items()}
        moved = {name: float(rows.mean()) for name, rows in noise.items() if len(rows)}
        lengths = {name: np.concatenate(rows) for name, rows in self.lengths.items()}
        uneven = {name: rows for name, rows in lengths.items() if (rows[:, 0] < rows[:, 1]).any()}
        decided = {**decisions, **dict.fromkeys(uneven, Decision(None, None, rows=True))}
        return Judgement(samples, db, equal | uneven, decided, expected, states, moved)


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
        self._alone, self._fixed = runs_alone(self._inputs), get_fixed_batch(self._inputs) is not None
        self._states = frozenset(spec.state for spec in self._inputs if spec.state)
        # of a stream, chunks are its steps, and a stretch begins with the states that the float model had there
        stretches = [s for group in groups for s in _list_stretches(group)] if self._states else list(groups)
        self.chunks, self._begins = list[tuple[int, Arrays]](), set[int]()
        for group in stretches:
            self._begins.add(len(self.chunks))
            self.chunks += split_into_chunks(model, group)
        session = Session(file)
        self.answers = [self._run(session, *chunk) for chunk in self.chunks]
        self.samples = sum(count for count, _ in self.chunks)
        first = (
            {name: _join([answer[name] for answer in self.answers]) for name in session.outputs} if self.chunks else {}
        )
        read = read_outputs(first, ends, self._find_boxes(ends), self.answers)
        self.decisions, self.found = dict(read.decisions), read.detections
        if self.found is not None:
            self.decisions[self.found.boxes] = Decision(None, None, sparse=True, rows=True)
        self._boxes = [
            [] if self.found is None else read_boxes(self.found, answer, count, find_picture_size(feeds))
            for (count, feeds), answer in zip(self.chunks, self.answers, strict=True)
        ]
        self.margins = self._measure_margins(session, [] if others is None else split_into_chunks(model, others))
        blanks = {name: d.blank for name, d in self.decisions.items() if d.blank is not None}
        self._texts = [
            {name: TextAnswer.of(answer[name], blank) for name, blank in blanks.items() if name in answer}
            for answer in self.answers
        ]

    def _find_boxes(self, ends: Mapping[str, OutputEnd]) -> BoxLayout | None:
        """Boxes in the answers to pictures of the first one's size."""
        if not self.chunks or self._states:
            return None
        shapes = [{name: array.shape[1:] for name, array in feeds.items()} for _, feeds in self.chunks]
        alike = [answer for answer, shape in zip(self.answers, shapes, strict=True) if shape == shapes[0]]
        answers = {name: _join([answer[name] for answer in alike]) for name in alike[0]}
        return find_boxes(answers, ends, find_picture_size(self.chunks[0][1]))

    def measure(self, int8: ir.Model, most: int | None = None, *, least: Floor | None = None) -> Judgement:
        """A model's answers to all samples, or the first chunks of at least `most`; of one that is far below `least`, fewer."""
        tally, done, look = _Tally(), 0, FIRST
        for index, (count, other) in enumerate(self._answer(Session(int8))):
            self._add_errors(tally, index, other)
            self._add_decisions(tally, index, other)
            done += count
            if most is not None and done >= most:
                break
            if least is not None and done >= look:
                told, look = tally.judge(done, self.decisions, self._states), 2 * done
                if told.is_far_below(least):
                    return told
        return tally.judge(done, self.decisions, self._states, self.margins)

    def measure_errors(self, int8: ir.Model, most: int) -> Judgement:
        """The errors alone of a model's answers to the first chunks of at least `most` samples, not what they decide."""
        tally, done = _Tally(), 0
        for index, (count, other) in enumerate(self._answer(Session(int8))):
            self._add_errors(tally, index, other)
            done += count
            if done >= most:
                break
        return tally.judge(done, {}, self._states)

    def _add_errors(self, tally: _Tally, index: int, other: Arrays) -> None:
        """Count by how much a model's answer to a chunk differs."""
        (count, feeds), answer = self.chunks[index], self.answers[index]
        boxed = () if self.found is None else self.found.names
        if self.found is not None:
            for name, new in measure_boxes(self.found, answer, other, count, find_picture_size(feeds)).items():
                tally.sums[name] += new
        for name, f in answer.items():
            if name not in boxed and f.shape == other[name].shape:
                tally.add_errors(name, f, other[name], self._texts[index].get(name))

    def _add_decisions(self, tally: _Tally, index: int, other: Arrays) -> None:
        """Count what a model's answer to a chunk decides otherwise."""
        (count, feeds), answer = self.chunks[index], self.answers[index]
        boxed = () if self.found is None else self.found.names
        if self.found is not None:
            found = read_boxes(self.found, other, count, find_picture_size(feeds))
            tally.equal[self.found.boxes].append(compare_boxes(self.found, self._boxes[index], found))
        for name, f in answer.items():
            if name not in boxed:
                known = self.decisions.get(name), self._texts[index].get(name)
                tally.add_decisions(name, f, other[name], *known, streams=bool(self._states))

    def _measure_margins(self, session: Session, others: Iterable[tuple[int, Arrays]]) -> dict[str, Margins]:
        """Of outputs with one class or text a sample, how far what the float model says is from another."""
        first = self.answers[0] if self.answers else {}
        names = [n for n, d in self.decisions.items() if n in first and (d.blank is not None or _is_class(d, first[n]))]
        answers = [*self.answers, *(self._run(session, *chunk) for chunk in others if names)]
        return {name: join_margins([_list_margins(self.decisions[name], a[name]) for a in answers]) for name in names}

    def _answer(self, session: Session) -> Iterator[tuple[int, Arrays]]:
        """How many samples are in each chunk, and a model's answer to it, with states of its own within a stretch."""
        stream = StreamingSession(session, self._inputs) if self._states else None
        for index, (count, feeds) in enumerate(self.chunks):
            if stream is not None and index in self._begins:
                stream.begin({spec.name: feeds[spec.name] for spec in self._inputs if spec.state})
            yield count, self._run(stream or session, count, feeds)

    def _run(self, session: Engine, samples: int, feeds: Arrays) -> Arrays:
        def run_first() -> Arrays:
            return dict(zip(session.outputs, session.run(take_first(feeds, self._inputs, 1)), strict=True))

        outputs = dict(zip(session.outputs, map(np.asarray, session.run(feeds)), strict=True))
        return lead_with_samples(outputs, samples, alone=self._alone, run_first=None if self._fixed else run_first)


def _is_class(decision: Decision, output: Array) -> bool:
    """Whether an output says one class a sample."""
    return decision.axis is not None and squeeze(output).ndim == 2


def _list_margins(decision: Decision, output: Array) -> Margins:
    if decision.blank is not None:
        return list_text_margins(output, decision.blank)
    return list_class_margins(output, decision.axis or 0)


def _count_rows(output: Array) -> int:
    return len(output) if output.ndim else 1


def _count_alike(one: Array, other: Array) -> Float64:
    """Twice the rows that both may have, and all that there are, (1, 2): none where the rows are of other shapes."""
    least, most = sorted((_count_rows(one), _count_rows(other)))
    return np.array([[2.0 * least * (one.shape[1:] == other.shape[1:]), least + most]])


def _join(parts: Sequence[Array]) -> Array:
    """All of one shape beside each other, else the first."""
    alike = [part for part in parts if part.shape[1:] == parts[0].shape[1:] and part.ndim]
    return np.concatenate(alike) if alike else parts[0]


def _compare(name: str, decision: Decision, one: Array, other: Array) -> Iterator[tuple[str, Float64]]:
    """Equal decisions and all that count, (n, 2), and of a map of things also the regions that both find."""
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


def _list_stretches(group: Arrays) -> Iterator[Arrays]:
    """Each stretch of (stretches, steps, ...) by itself."""
    for index in range(count_samples(group)):
        yield {name: array[index] for name, array in group.items()}
