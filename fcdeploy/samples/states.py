"""States that a streaming model hands on: what one step gives is what the next one takes.

Data hold the other inputs, samples in order.  Each is one step of one long sequence, or, with an axis of time in front, a
sequence of its own, which begins anew.  Steps become samples like others, with the states that the float model really has
there; a sequence begins with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.records.signature import TensorSpec, format_shape, is_shape_alike
from fcdeploy.runtime.engine import Engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples import checks
from fcdeploy.samples.layout import stack_samples
from fcdeploy.samples.source import Batch, Load, Source

STEP = ", step "  # between what a sequence is called and the number of a step
FIRST = f"{STEP}0"  # how the name of the first step ends


def open_steps(source: Source, inputs: Sequence[TensorSpec], model: Path) -> Source:
    """The steps of a source of samples or sequences without states; `inputs` are all, `model` is the float file."""
    given = [spec for spec in inputs if not spec.state]

    def read() -> Iterator[tuple[str, Load]]:
        session = StreamingSession(Session(model, threads=1), inputs)
        for index, (place, load) in enumerate(source.read()):
            arrays = load()
            for at, step in _split_steps(arrays, given, f"{source.name}: {place}"):
                name = f"{place}{STEP}{index if at is None else at}"
                fitted, labels = checks.fit_sample(step, given, name, source.name)
                if name.endswith(FIRST):
                    session.begin()
                states = session.states()
                session.run(stack_samples([fitted | states], inputs))
                yield name, partial(dict, fitted | states | labels)

    first = next(source.read(), None)
    split = first is not None and next(_split_steps(first[1](), given, source.name))[0] is not None
    return Source(
        source.name, tuple(inputs), read, None if split else source.count, source.labelled, files=source.files
    )


@dataclass
class StreamingSession:
    """A session that takes the states it gave in its last run, whatever it is given; zeros when a sequence begins."""

    session: Engine
    inputs: Sequence[TensorSpec]
    last: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outputs = self.session.outputs

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """The inputs to feed, states among them."""
        return self.session.input_specs

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the order of `outputs`."""
        return self.session.output_specs

    @property
    def platform(self) -> str:
        """As with the session's own."""
        return self.session.platform

    @property
    def batches_pay(self) -> bool:
        """As with the session's own."""
        return self.session.batches_pay

    def begin(self, states: Arrays | None = None) -> None:
        """Forget all states, or take these."""
        self.last = dict(states or {})

    def states(self) -> Arrays:
        """What the next run takes."""
        return {spec.name: self.last.get(spec.name, _zeros(spec)) for spec in self.inputs if spec.state}

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Any]:
        """The named outputs of one step, all by default, in order."""
        by_name = dict(zip(self.outputs, self.session.run({**feeds, **self.states()}), strict=True))
        for spec in self.inputs:
            if spec.state:
                self.last[spec.name] = np.asarray(by_name[spec.state]).astype(spec.dtype)
        return [by_name[name] for name in (self.outputs if outputs is None else outputs)]

    def run_batch(self, batch: Batch) -> list[Any]:
        """The outputs of the step that a batch is, which may be the first of a sequence."""
        if batch.names[0].endswith(FIRST):
            self.begin()
        return self.run(batch.inputs)


def step_of(name: str) -> int:
    """The number of a step in its stream, by what it is called; -1 of a sample of none."""
    number = name.rpartition(STEP)[2]
    return int(number) if STEP in name and number.isdecimal() else -1


def check_states(states: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Raise FcdeployError where `--state OUT=IN` names what is not there, or two of other types or shapes."""
    ins, outs = {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs}
    for name, out in states.items():
        for kind, wanted, known in (("output", out, outs), ("input", name, ins)):
            if wanted not in known:
                raise FcdeployError(
                    f"--state {out}={name}: {wanted!r} is no {kind} of the model, which has {quote_names(known)}",
                    _hint_pair(inputs, outputs),
                )
        one, other = ins[name], outs[out]
        if not _fits(one, other):
            raise FcdeployError(
                f"--state {out}={name}: output {other} cannot be given to input {one}",
                "fcdeploy inspect MODEL shows both",
            )


def _fits(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether an output can be given to an input, as far as both say."""
    alike = not one.shape or not other.shape or is_shape_alike(one.shape, other.shape)
    return one.dtype == other.dtype and alike


def _hint_pair(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """A pair that can be carried: of one shape, in whose place no other would do, rather than the first that might."""
    pairs = [(out, one) for out in outputs for one in inputs if _fits(one, out)]
    alike = [(out, one) for out, one in pairs if out.shape == one.shape]
    for out, one in alike or pairs:
        return f"--state {out.name}={one.name}"
    return "leave --state out: no output can be given to an input"


def parse_states(texts: Sequence[str]) -> dict[str, str]:
    """`OUT=IN` each: the output that each input is carried from."""
    states: dict[str, str] = {}
    for text in texts:
        out, _, name = text.partition("=")
        if not out or not name:
            raise FcdeployError(
                f"--state {text!r} is not OUT=IN, an output and the input that takes it next", "--state h_out=h"
            )
        if name in states:
            raise FcdeployError(
                f"--state gives input {name!r} both {states[name]!r} and {out!r}", "name each input once"
            )
        states[name] = out
    return states


def _split_steps(
    arrays: Mapping[str, Any], given: Sequence[TensorSpec], place: str
) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """The steps of one sample, numbered, where it has an axis of time; else the sample, and None."""
    values = {name: np.asarray(value) for name, value in arrays.items()}
    timed = [
        spec.name for spec in given if spec.name in values and values[spec.name].ndim == len(spec.sample_shape) + 1
    ]
    lengths = {name: len(values[name]) for name in timed}
    if not timed:
        yield None, dict(values)
        return
    steps = max(lengths.values())
    if min(lengths.values()) != steps or not steps:
        text = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise FcdeployError(f"{place}: inputs have different numbers of steps: {text}", "give each input as many steps")
    for at in range(steps):
        yield (
            at,
            {
                name: value[at, ...]
                if name in timed or (checks.is_label(name) and value.ndim and len(value) == steps)
                else value
                for name, value in values.items()
            },
        )


def _zeros(spec: TensorSpec) -> Array:
    """A state before the first step: an axis of any length holds the one sample of a run."""
    free = [axis for axis, length in enumerate(spec.shape) if length is None]
    if len(free) > 1:
        raise FcdeployError(
            f"input {spec.name!r} of shape {format_shape(spec.shape)} is a state, and only one of its axes may have any length",
            f"export the model with fixed lengths of {spec.name!r}, but for that of samples",
        )
    return np.zeros([1 if length is None else length for length in spec.shape], spec.dtype)


def without_states(inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The inputs that data hold, of any shape: with an axis of time or without."""
    return [replace(spec, shape=()) for spec in inputs if not spec.state]


def carry_states(session: Engine, inputs: Sequence[TensorSpec]) -> Engine:
    """A session that keeps its own states, where some inputs are states."""
    return StreamingSession(session, inputs) if any(spec.state for spec in inputs) else session
