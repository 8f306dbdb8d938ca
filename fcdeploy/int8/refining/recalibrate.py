"""What quantizing starts from, with its network rescaled or shifted: calibrated again, since every range is another."""

from __future__ import annotations

from dataclasses import replace

from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.absorb import Shifts, absorb_shifts
from fcdeploy.int8.refining.smooth import Factors, rescale
from fcdeploy.samples.kept_samples import open_kept


def recalibrate(problem: Problem, factors: Factors, shifts: Shifts) -> Problem:
    """The same network with channels divided by `factors`, then `shifts` absorbed by biases.

    It is observed on DATA if there is any, unless these hold samples that are judged and no range is to see, else on the
    samples kept for tools; how samples are read, and how many were seen, stays as it was recorded.  Raises ValueError, with
    a sentence, where the network cannot have such factors or shifts.
    """
    model = problem.model.clone()
    if factors:
        rescale(model, factors)
    absorb_shifts(model, shifts)
    if problem.scratch is not None:
        problem.scratch.settle(model)
    given = None if problem.ranges_apart else problem.source  # which holds the samples that are judged
    source = given or open_kept(model, [problem.samples])
    calibration = observe(model, source, model_hash=problem.calibration.model)
    divided, taken = ({name: tuple(row) for name, row in rows.items()} for rows in (factors, shifts))
    old = problem.calibration
    calibration = replace(calibration, seen=old.seen, format=old.format, axes=old.axes, states=old.states)
    return replace(problem, model=model, calibration=calibration, rescaled=divided, absorbed=taken)
