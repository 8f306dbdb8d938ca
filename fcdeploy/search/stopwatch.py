"""How long a form of the network takes beside the float model, on what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.measure import choose_reference, confirm
from fcdeploy.native.costs import time_against_float
from fcdeploy.records.costs import Choice, TimeTrial
from fcdeploy.records.progress import OnStep


@dataclass(frozen=True)
class Stopwatch:
    """Times an int8 model on the inputs of one run; None where that cannot be done. `against` says what a ratio is of."""

    against: str
    time: Callable[[Problem, ir.Model, Arrays, OnStep], TimeTrial | None]


def _time_in_onnxruntime(problem: Problem, int8: ir.Model, feeds: Arrays, on_step: OnStep) -> TimeTrial | None:
    reference = choose_reference(problem.file, problem.model, feeds)
    return confirm(reference, int8, Choice(), feeds, on_step=on_step)


ONNXRUNTIME = Stopwatch("the float time, measured on this CPU", _time_in_onnxruntime)
NATIVE = Stopwatch("the float time, both as native code on this CPU", time_against_float)
UNTIMED = Stopwatch("", lambda *_: None)
"""For a device that is not here."""
