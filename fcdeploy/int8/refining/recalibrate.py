"""What quantizing starts from, with its network rescaled or shifted: calibrated again, since every range is another."""

from __future__ import annotations

from dataclasses import replace

from fcdeploy.arithmetic.histogram import carry_over_tails
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.absorb import ABSORBED, Shifts, absorb_shifts
from fcdeploy.int8.refining.smooth import SMOOTHED, Factors, rescale
from fcdeploy.records.calibration import Calibration, TensorRecord
from fcdeploy.samples.kept_samples import open_kept


def recalibrate(problem: Problem, factors: Factors, shifts: Shifts, *, tails: bool = True) -> Problem:
    """The same network with channels divided by `factors`, then `shifts` absorbed by biases.

    It is observed on DATA if there is any, unless these hold samples that are judged and no range is to see, else on the
    samples kept for tools; what is rarer than these show, its `tails`, is estimated from the calibration then.  How samples are
    read, and how many were seen, stays as it was recorded.  Raises UnfitChannelsError where the network cannot have such
    factors or shifts.
    """
    old = problem.calibration
    model = problem.model.clone()
    if factors:
        rescale(model, factors)
    absorb_shifts(model, shifts)
    if problem.scratch is not None:
        problem.scratch.settle(model)
    given = None if problem.ranges_apart else problem.source  # which holds the samples that are judged
    source = given or open_kept(model, [problem.samples])
    calibration = observe(model, source, model_hash=old.model)
    if tails and given is None and len(old.seen) > len(calibration.seen):
        few = observe(problem.model, source, model_hash=old.model)
        calibration = replace(calibration, tensors=_carry_over_tails(calibration, few, old))
    divided, taken = ({name: tuple(row) for name, row in rows.items()} for rows in (factors, shifts))
    calibration = replace(calibration, seen=old.seen, format=old.format, axes=old.axes, states=old.states)
    return replace(problem, model=model, calibration=calibration, rescaled=divided, absorbed=taken)


def _carry_over_tails(rescaled: Calibration, few: Calibration, many: Calibration) -> dict[str, TensorRecord]:
    """The statistics of a rescaled network over few samples, with the tails of those over many.

    Channels that come near to each other on few samples need not on a rare one, which a range over few would clip.
    """
    tensors = dict(rescaled.tensors)
    for name, record in tensors.items():
        trained = name.removesuffix(ABSORBED).removesuffix(SMOOTHED)
        before, known = few.tensors.get(trained), many.tensors.get(trained)
        if before is not None and known is not None and record.kind not in ("weight", "bias"):
            histogram = carry_over_tails(record.histogram, before.histogram, known.histogram)
            tensors[name] = replace(record, histogram=histogram)
    return tensors
