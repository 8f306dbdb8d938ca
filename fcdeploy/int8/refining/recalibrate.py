"""What quantizing starts from, with its network rescaled or shifted: calibrated again, since every range is another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from fcdeploy.arrays import Arrays
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.absorb import Shifts, absorb_shifts
from fcdeploy.int8.refining.smooth import Factors, rescale
from fcdeploy.samples.source import Load, Source


def recalibrate(problem: Problem, factors: Factors, shifts: Shifts) -> Problem:
    """The same network with channels divided by `factors`, then `shifts` absorbed by biases.

    It is observed on DATA if there is any, else on the samples kept.  `given` is as it was prepared.  Raises ValueError,
    with a sentence, where the network cannot have such factors or shifts.
    """
    model = problem.model.clone()
    if factors:
        rescale(model, factors)
    absorb_shifts(model, shifts)
    if problem.scratch is not None:
        problem.scratch.settle(model)
    calibration = observe(model, problem.source or source_of_samples(problem), model_hash=problem.calibration.model)
    divided, taken = ({name: tuple(row) for name, row in rows.items()} for rows in (factors, shifts))
    calibration = replace(calibration, seen=problem.calibration.seen)
    return replace(problem, model=model, calibration=calibration, rescaled=divided, absorbed=taken)


def source_of_samples(problem: Problem) -> Source:
    """The samples that tools may run the model on, as a source."""

    def read() -> Iterator[tuple[str, Load]]:
        for index in range(count):
            yield f"sample {index}", partial(_sample, problem.samples, index)

    count = len(next(iter(problem.samples.values())))
    return Source("the samples kept", tuple(input_specs(problem.model)), read, count, labelled=False)


def _sample(samples: Arrays, index: int) -> Arrays:
    return {name: array[index] for name, array in samples.items()}
