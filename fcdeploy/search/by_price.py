"""Nodes leave int8 by price: each tensor that is rounded costs time in proportion to its error, and the cheapest split is taken.

What a tensor's rounding alone costs the outputs is measured once, in the float model, where such errors add up.  With a price
for error, time and error are one sum, whose least is a minimum cut (int8/timing/partition.py): it sees at once which nodes must
leave together, what converting between them costs, and which tensor is worth it.  The lowest price that holds the floor is
found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx_ir as ir

from fcdeploy.records.progress import OnStep
from fcdeploy.search import ladder
from fcdeploy.search.builder import Builder
from fcdeploy.search.by_place import Measure, leave, leave_all, read_stored
from fcdeploy.search.groups import name_tensor_group
from fcdeploy.search.ladder import PathStep
from fcdeploy.sensitivity.alone import round_alone

# of all errors together, in times of the network in float; where one tensor makes nearly all of them, others are near nothing
PRICES = tuple(2.0 ** (i / 2) for i in range(-12, 37))
NAMED = 0.05  # of all errors: what leaves int8 for a tensor with that much is said to do so for it


def leave_by_price(
    builder: Builder,
    measure: Measure,
    noise: Callable[[ir.Model], float],
    on_step: OnStep,
    stop: Callable[[], bool] = lambda: False,
) -> list[PathStep]:
    """What came of the prices that were tried, the dearest first, or nothing where no tensor's rounding costs anything.

    Weights are stored as `leave_all` stores them.  When `stop` says so, what has come of it so far.
    """
    errors = measure_alone(builder, noise, on_step, stop)
    whole = sum(errors.values())
    if not whole:
        return []
    everything = leave_all(builder, measure)
    stored = read_stored(everything)
    moved = tuple((name_tensor_group(name), "float") for name, error in errors.items() if error >= NAMED * whole)
    time = builder.cost(dict.fromkeys(builder.list_integer(), "float"))
    steps: dict[tuple[str, ...], PathStep] = {}

    def leave_at(price: float) -> PathStep:
        some = builder.split({name: price * time * error / whole for name, error in errors.items()})
        if some not in steps:
            steps[some] = replace(leave(builder, measure, some, stored), moved=moved)
        return steps[some]

    low, high = -1, len(PRICES)  # too low a price, and one that is high enough
    while high - low > 1 and not stop():
        middle = (low + high) // 2
        if ladder.meets_bound(leave_at(PRICES[middle]).score, 0.0):
            high = middle
        else:
            low = middle
    return [*([] if everything is None else [everything]), *steps.values()]


def measure_alone(
    builder: Builder, noise: Callable[[ir.Model], float], on_step: OnStep, stop: Callable[[], bool] = lambda: False
) -> Mapping[str, float]:
    """Tensor -> the error of the outputs when it alone is rounded, of those that the plan rounds."""
    tensors = builder.list_rounded()
    errors = {}
    for done, (tensor, q) in enumerate(tensors.items(), start=1):
        if stop():
            break
        with round_alone(builder.problem.model, tensor, q) as model:
            errors[tensor] = 0.0 if model is None else noise(model)
        on_step("what each rounding costs", done, len(tensors))
    return errors
