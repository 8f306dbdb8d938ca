"""Stretches of a stream: consecutive steps that are kept together, so that an int8 model can carry its own states through them.

A calibration of a model with carried states keeps stretches in place of samples, input name -> (stretches, steps, ...), the
states that the float model had at every step among the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.records.calibration import flatten_stretches
from fcdeploy.samples.states import step_of

STRETCH = 64  # steps: those of a state's memory, and enough stretches of a minute of sound to choose from
SHORTEST, STRETCH_BYTES = 2, 1 << 19  # of larger states fewer steps, so that the least number of stretches takes 8 MB
MOST_TOOLS, MOST_JUDGED = 256, 8  # steps for the tools that run a model, stretches for its judge


@dataclass
class StretchCollector:
    """Steps in their order to stretches, which begin at every STRETCH-th step of a stream and end with it.

    Where steps are large, every so many as STRETCH_BYTES hold.
    """

    steps: list[Arrays] = field(default_factory=list)
    next: int = 0

    def add(self, name: str, inputs: Arrays) -> list[Arrays]:
        """Take a step by what it is called; the stretch that ended before it, if one did."""
        at = step_of(name)
        begins = at % _choose_length(inputs) == 0
        ended = self.finish() if self.ends_before(name, inputs) else []
        if begins or self.steps:
            self.steps.append({key: value.copy() for key, value in inputs.items()})
        self.next = at + 1
        return ended

    def ends_before(self, name: str, inputs: Arrays) -> bool:
        """Whether this step belongs to no stretch that is open."""
        at = step_of(name)
        return at % _choose_length(inputs) == 0 or at != self.next

    def finish(self) -> list[Arrays]:
        """The stretch so far, if there is one."""
        steps, self.steps = self.steps, []
        return [{name: np.stack([step[name] for step in steps]) for name in steps[0]}] if steps else []


def _choose_length(step: Arrays) -> int:
    """Steps in a stretch, by the size of one."""
    return min(STRETCH, max(SHORTEST, STRETCH_BYTES // max(1, sum(value.nbytes for value in step.values()))))


def split_stretches(groups: Sequence[Arrays]) -> tuple[Arrays, tuple[Arrays, ...]]:
    """Steps for the tools that run the model, and stretches for its judge: half of them, of a single stretch its end."""
    largest = max(range(len(groups)), key=lambda at: _count_steps(groups[at]))
    group = groups[largest]
    stretches, steps = next(iter(group.values())).shape[:2]
    if stretches == 1:
        cut = steps - steps // 3
        tools = {name: array[:, :cut] for name, array in group.items()}
        rest = {name: array[:, cut:] for name, array in group.items()}
    else:
        cut = stretches - min(max(1, stretches // 2), MOST_JUDGED)
        tools, rest = ({name: array[part] for name, array in group.items()} for part in (slice(cut), slice(cut, None)))
    others = [other for at, other in enumerate(groups) if at != largest][:MOST_JUDGED]
    judged = tuple(part for part in (rest, *others) if _count_steps(part))
    return {name: array[:MOST_TOOLS] for name, array in flatten_stretches(tools).items()}, judged


def _count_steps(group: Arrays) -> int:
    stretches, steps = next(iter(group.values())).shape[:2]
    return int(stretches * steps)
