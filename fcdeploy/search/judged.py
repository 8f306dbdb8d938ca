"""The samples kept apart as what they judge by, whoever asks: the floor, a metric without labels, and the int8 file itself."""

from __future__ import annotations

from collections.abc import Mapping

from fcdeploy.evaluate.decision import Decision, squeeze
from fcdeploy.evaluate.output_ends import ALL_COUNT, find_ends
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
    return None if judge is None else describe_judging(judge, judge.decisions)


def describe_judging(judge: Judge, decisions: Mapping[str, Decision]) -> JudgedBy:
    """What the file says of it: which outputs decide, where boxes are, which class of a map or sequence is that of nothing."""
    many = [name for name, one in judge.decisions.items() if one.axis is not None and one.blank is None]
    many = [name for name in many if squeeze(judge.answers[0][name]).ndim > 2]
    nothing = {name: judge.decisions[name].background for name in many}
    backgrounds = {name: ALL_COUNT if each is None else each for name, each in nothing.items()}
    return JudgedBy(tuple(sorted(decisions)), judge.found, backgrounds)
