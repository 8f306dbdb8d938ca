"""Axes of any length, tried at lengths of their own: what works at the example's and twice that may work at no other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.output_ends import find_ends
from fcdeploy.graph.model import input_specs
from fcdeploy.graph.nodes import name_of
from fcdeploy.records.report import Report
from fcdeploy.runtime.session import Session

BATCH = "batch"
MOST_BYTES = 4 << 20  # of a sample: the largest lengths take four times the memory of a run, or more
POOR_DB = 20.0  # of the outputs at lengths that were not calibrated on: below it a warning


def list_lengths(lengths: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Lengths for axes of these names and lengths: odd ones, each other than its neighbours', smaller and larger ones.

    The batch stays 2.
    """
    axes = [name for name in lengths if name != BATCH]
    offsets = {
        name: 2 * place for place, name in enumerate(axes)
    }  # axes that are always equal would hide what mixes them
    fixed = {BATCH: 2} if BATCH in lengths else {}
    for numerator, denominator in ((1, 1), (1, 2), (4, 3), (2, 1)):
        made = {name: lengths[name] * numerator // denominator + 1 + offsets[name] for name in axes}
        yield {**fixed, **made}


@dataclass(frozen=True)
class TriedLengths:
    """Lengths of free axes by name, why the float model or the int8 one does not run at them, and the worst output's SQNR.

    Shares of classes whose largest is the same do not count: of one sample, in between two classes, their SQNR says little.
    """

    lengths: Mapping[str, int]
    float_error: str = ""
    int8_error: str = ""
    sqnr_db: float | None = None

    def __str__(self) -> str:
        return " ".join(f"{name}={length}" for name, length in self.lengths.items())


def try_lengths(file: Path, model: ir.Model, int8: ir.Model, feeds: Arrays) -> list[TriedLengths]:
    """Run both models at lengths of their own on what `feeds`, one sample, holds, repeated and cut; nothing without free axes."""
    named = _name_free_axes(model)
    lengths = {axis: feeds[name].shape[at] for (name, at), axis in named.items()}
    if not lengths or sum(array.nbytes for array in feeds.values()) > MOST_BYTES:
        return []
    sessions = Session(file, threads=1), Session(int8, threads=1)
    axes = [end.axis if end.kind == "softmax" else None for end in find_ends(model).values()]
    tried = []
    for wanted in list_lengths(
        {f"{axis} ": length for axis, length in lengths.items()}
    ):  # no name is that of the batch
        given = {axis.removesuffix(" "): length for axis, length in wanted.items()}
        resized = {name: np.require(array, requirements="C") for name, array in feeds.items()}
        for (name, at), axis in named.items():
            resized[name] = np.take(resized[name], np.arange(given[axis]) % feeds[name].shape[at], axis=at)
        tried.append(_run_both(sessions, resized, axes, TriedLengths(given)))
    return tried


def add_lengths(report: Report, tried: list[TriedLengths]) -> Report:
    """The report with which lengths work; where the int8 model does not run and the float one does, it is the first warning."""
    if not tried:
        return report
    works = [each for each in tried if not each.float_error and not each.int8_error]
    parts = [f"free lengths tried: {', '.join(map(str, works)) or 'none'} run{'s' if len(works) == 1 else ''}"]
    parts += [f"{each} does not in float either: {each.float_error}" for each in tried if each.float_error][:1]
    broken = [each for each in tried if each.int8_error]
    warnings = [f"at {each} the int8 model does not run, and the float one does: {each.int8_error}" for each in broken]
    warnings += [
        f"at {each} the outputs match float's to {each.sqnr_db:.1f} dB only: calibrate on samples of such lengths too"
        for each in works
        if each.sqnr_db is not None and each.sqnr_db < POOR_DB
    ]
    rows = [
        {
            "lengths": dict(each.lengths), "float": not each.float_error, "int8": not each.int8_error,
            "sqnr_db": None if each.sqnr_db is None or math.isinf(each.sqnr_db) else round(each.sqnr_db, 2),
        }
        for each in tried
    ]  # fmt: skip
    return report.extend(values={"free_lengths": rows}, lines=["; ".join(parts)], warnings=warnings)


MADE_UP = re.compile(
    r"(unk__|(.*_)?dynamic_axes_|DynamicDimension\.|s)\d+$|(unk__|dynamic_axes|DynamicDimension)$|.*_dim_\d+$|\W",
    re.ASCII,
)
"""What exporters call an axis whose name they do not know."""


def _name_free_axes(model: ir.Model) -> dict[tuple[str, int], str]:
    """Input and axis of every length that is free, but that of the samples: its name, made up where it has none."""
    at = {spec.name: spec.sample_axis for spec in input_specs(model) if not spec.state}
    samples = {
        value.shape[axis].value  # type: ignore[union-attr]
        for value in model.graph.inputs
        if value.shape is not None
        and (axis := at.get(name_of(value))) is not None
        and not isinstance(value.shape[axis], int)
    }
    named, called = {}, dict[str, str]()
    for value in model.graph.inputs:
        name = name_of(value)
        for axis, length in enumerate(value.shape or ()):
            if (
                name in at
                and axis != at[name]
                and not isinstance(length, int)
                and (length.value is None or length.value not in samples)
            ):
                said = str(length.value or "")
                label = f"{name}[{axis}]" if not said or MADE_UP.match(said) else said
                named[name, axis] = called.setdefault(said or label, label)  # one length, whatever it is called
    return named


def _run_both(
    sessions: tuple[Session, Session], feeds: Arrays, axes: Sequence[int | None], tried: TriedLengths
) -> TriedLengths:
    """`axes`: along which axis an output has shares of classes, or None."""
    try:
        exact = sessions[0].run(feeds)
    except FcdeployError as error:
        return replace(tried, float_error=error.message)
    try:
        rounded = sessions[1].run(feeds)
    except FcdeployError as error:
        return replace(tried, int8_error=error.message)
    decibels = [
        measure_fidelity(f, q).sqnr_db
        for f, q, axis in zip(exact, rounded, axes, strict=True)
        if np.asarray(f).dtype.kind == "f" and f.shape == q.shape and f.size
        if axis is None or not np.array_equal(f.argmax(axis), q.argmax(axis))
    ]
    return replace(tried, sqnr_db=min(decibels, default=None))
