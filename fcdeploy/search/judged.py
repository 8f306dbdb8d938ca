"""The samples kept apart as what they judge by, whoever asks: the floor, a metric without labels, and the int8 file itself."""

from __future__ import annotations

from fcdeploy.evaluate.output_ends import find_ends
from fcdeploy.int8.judging.judge import Judge
from fcdeploy.int8.problem import Problem
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.origin import JudgedBy


def make_judge(problem: Problem) -> Judge | None:
    """Of the problem's samples kept apart; None where there are none, or they fill no batch."""
    if not problem.judged:
        return None
    model = problem.model.clone()
    infer_shapes(model)
    others = problem.samples if problem.unseen and not problem.calibration.states else None
    judge = Judge(problem.load_original(), problem.model, problem.judged, find_ends(model), others)
    return judge if judge.samples else None


def find_judged(problem: Problem) -> JudgedBy | None:
    """By what a model of the problem would be judged, the same where it is not; None without samples."""
    judge = make_judge(problem)
    return None if judge is None else JudgedBy(tuple(sorted(judge.decisions)), judge.found)
