"""Ranges that fit the tensor: another method for the few tensors whose rounding costs most.

One method for all tensors keeps the tails of those that can do without, or cuts those that cannot.

1. Each tensor is rounded alone in the float model (sensitivity/alone.py): what its rounding costs, of all that rounding costs.
2. Those that cost most are rounded alone with the range of each other method, too.
3. Where that costs clearly less, the tensors get these methods in the int8 model: all of them, half, a quarter, and so on.
   Errors of several tensors do not add up there, so what counts is how each of these models does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from fcdeploy.arithmetic.ranges.methods import METHODS
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.timing.costs import CostBasis
from fcdeploy.records.plan import QParams
from fcdeploy.records.progress import OnStep
from fcdeploy.search.builder import begin_building
from fcdeploy.search.by_price import measure_alone
from fcdeploy.sensitivity.alone import round_alone

MOST = 12  # tensors that are tried with other methods
COSTLY = 0.02  # of what the rounding of all tensors costs: a tensor that costs less is not worth a look
CLEARLY = 0.8  # of what a tensor costs with the usual method: with another it has to cost less


def choose_by_tensor(
    problem: Problem,
    basis: CostBasis,
    noise: Callable[[ir.Model], float],
    measure: Callable[[Problem], float],
    on_step: OnStep,
) -> tuple[float, Problem] | None:
    """How the best of the problems that were tried does, a few of whose tensors have methods of their own; and that problem.

    `noise` is the error of a model's outputs, `measure` how well the int8 model of a problem does, both on a few samples.
    None where no tensor costs clearly less with another method.
    """
    found = find_better_methods(problem, basis, noise, on_step)
    tried = list[tuple[float, Problem]]()
    while found:
        other = replace(problem, own_ranges={name: method for names, method in found for name in names})
        tried.append((measure(other), other))
        found = found[: len(found) // 2]
    return max(tried, key=lambda each: each[0], default=None)


def find_better_methods(
    problem: Problem, basis: CostBasis, noise: Callable[[ir.Model], float], on_step: OnStep
) -> list[tuple[list[str], str]]:
    """Tensors of one scale, and the method with which they cost clearly less than with the usual one; the largest gain first."""
    builder = begin_building(replace(problem, effort="fast"), basis.costs)
    errors, usual = measure_alone(builder, noise, on_step), builder.usual.tensors
    others = {method: replace(problem, ranges=method).plan().tensors for method in METHODS if method != problem.ranges}
    least = COSTLY * sum(errors.values())
    costly = [name for name in sorted(errors, key=lambda name: -errors[name])[:MOST] if errors[name] >= least]
    found = list[tuple[float, list[str], str]]()
    covered = set[str]()  # a Concat joins tensors by one scale: the first of them, which costs most, speaks for all
    for done, name in enumerate(costly, start=1):
        if name in covered:
            continue
        tried = {_key(usual[name]): (errors[name], problem.ranges)}
        for method, tensors in others.items():
            q = tensors.get(name)
            if q is None or _key(q) in tried:
                continue
            with round_alone(problem.model, name, q) as model:
                if model is not None:
                    tried[_key(q)] = (noise(model), method)
        error, method = min(tried.values())
        if error < CLEARLY * errors[name]:
            alike = [other for other, q in usual.items() if q.dtype == "uint8" and _key(q) == _key(usual[name])]
            covered.update(alike)
            found.append((errors[name] - error, alike, method))
        on_step("ranges by tensor", done, len(costly))
    return [(names, method) for _, names, method in sorted(found, key=lambda each: -each[0])]


def _key(q: QParams) -> tuple[tuple[float, ...], int]:
    return q.scale, q.zero_point
