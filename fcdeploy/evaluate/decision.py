"""How an output becomes decisions: along which axis its scores lie, above which threshold it says yes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Array


@dataclass(frozen=True)
class DecisionRule:
    """How an output becomes classes: `axis` holds the scores; None: one score a class 1 above `threshold`."""

    axis: int | None
    classes: int | None
    threshold: float | None = None

    def __call__(self, output: Array) -> Array:
        if self.axis is not None:
            return np.asarray(output.argmax(axis=self.axis))
        return output if self.threshold is None else (output > self.threshold).astype(np.int64)

    def __str__(self) -> str:
        if self.axis is not None:
            return f"arg max over axis {self.axis}"
        return "its own integers" if self.threshold is None else f"above {self.threshold:g}"


def infer_decision(output: Array, probability: bool, labelled: bool) -> DecisionRule | None:
    """How an output decides when nothing else tells: an axis of scores, integers, one probability, or not at all."""
    output = squeeze(output)
    if output.dtype.kind in "biu":
        return DecisionRule(None, None)
    if output.ndim == 1:
        return DecisionRule(None, 2, 0.5 if probability else 0.0) if probability or labelled else None
    axis = 1 if output.ndim != 3 else 2
    return DecisionRule(axis, output.shape[axis]) if output.shape[axis] > 1 else None


def decide(decision: DecisionRule, output: Array) -> Array:
    """The decisions (n, ...) that an output makes."""
    return np.asarray(decision(squeeze(output)))


def squeeze(array: Array) -> Array:
    """Without axes of length 1 at the end, but for the samples' own: (n, 10, 1, 1) and (n, 1) as (n, 10) and (n,)."""
    while array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
