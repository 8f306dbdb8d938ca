"""Keeping to the forms that other runtimes take: nodes that one of them refuses or gets wrong as integers stay in float."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.int8.problem import Problem
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.runtime.other_runtimes import Untaken, find_untaken, find_untried
from fcdeploy.tables.other_runtimes import TITLES

ROUNDS = 20  # what stays float changes what stands beside it


def keep_to_runtimes(problem: Problem, runtimes: Sequence[str]) -> Problem:
    """The problem with every node in float that the runtimes do not take otherwise, its weights too where need be.

    Raises FcdeployError where a form remains that leaving nodes in float does not change.
    """
    for _ in range(ROUNDS):
        plan = problem.plan()
        untaken = _find(problem.build(plan), runtimes)
        stored, left = list(problem.keep_float), dict(problem.left_float)
        for row in untaken:
            for place in row.places:
                kind = plan.kinds.get(place, "float")
                if kind == "weight_only":
                    stored.append(glob.escape(place))
                elif kind != "float":
                    left.setdefault(place, row.describe())
        if len(stored) == len(problem.keep_float) and len(left) == len(problem.left_float):
            _refuse(problem, untaken, runtimes)
            return problem
        problem = replace(problem, keep_float=tuple(stored), left_float=left)
    return problem


def refuse_untaken(problem: Problem, int8: ir.Model, runtimes: Sequence[str]) -> None:
    """Raise FcdeployError where one of the runtimes does not take what was made."""
    _refuse(problem, _find(int8, runtimes), runtimes)


def describe_runtimes_kept(int8: ir.Model, runtimes: Sequence[str]) -> str:
    """The sentence of the report."""
    names = ", ".join(TITLES[name] for name in runtimes)
    untried, details = find_untried(_infer_types(int8))
    if untried:
        return f"whether it runs in {names} is not known: never tried with {', '.join(untried)}"
    return f"kept to what {names} take" + (f"; none was tried with {', '.join(details)}" if details else "")


def _find(int8: ir.Model, runtimes: Sequence[str]) -> list[Untaken]:
    return find_untaken(_infer_types(int8), runtimes) if runtimes else []


def _infer_types(model: ir.Model) -> ir.Model:
    typed = model.clone()
    infer_shapes(typed)
    return typed


def _refuse(problem: Problem, untaken: Sequence[Untaken], runtimes: Sequence[str]) -> None:
    if untaken:
        refusing = {row.runtime for row in untaken}
        others = [name for name in runtimes if name not in refusing]
        hint = f"--for {','.join(others)}" if others else "leave --for out: none of them takes it"
        raise FcdeployError(f"model {str(problem.file)!r}: {untaken[0].describe()}", hint)
