"""Steps on floats in NumPy, in float64: native code is held to a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fcdeploy.arithmetic.function_tables import FUNCTIONS
from fcdeploy.arrays import Array
from fcdeploy.native.program.functions import BINARY, UNARY
from fcdeploy.native.program.layers import Recurrent
from fcdeploy.native.program.steps import Normalize, Pointwise, Reduce


def compute_pointwise(step: Pointwise, given: Sequence[Array]) -> tuple[Array, ...]:
    if step.kind in BINARY:
        with np.errstate(all="ignore"):
            return (np.asarray(BINARY[step.kind](*given), np.float32),)
    return (UNARY[step.kind](given[0], *step.numbers),)


def compute_reduce(step: Reduce, given: Sequence[Array]) -> tuple[Array, ...]:
    """Sums in float64: native code is held to a tolerance."""
    function: dict[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}
    x = given[0].astype(np.float64)
    return (function[step.kind](x, axis=step.axes).astype(np.float32).reshape(step.output.shape),)


def compute_normalize(step: Normalize, given: Sequence[Array]) -> tuple[Array, ...]:
    """In float64: native code is held to a tolerance."""
    rows = given[0].astype(np.float64).reshape(-1, step.length)
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float64(step.epsilon))
    return ((centred / deviation * step.gain + step.shift).astype(np.float32).reshape(given[0].shape),)


def compute_recurrent(step: Recurrent, given: Sequence[Array]) -> tuple[Array, ...]:
    """ONNX's equations for LSTM and GRU, in float64: native code is held to a tolerance."""
    gates, sigmoid = given[0].astype(np.float64), FUNCTIONS["Sigmoid"]
    weight = step.weight.astype(np.float64) * (1 if step.scale is None else step.scale[:, None].astype(np.float64))
    units = weight.shape[1]
    starts = [each.astype(np.float64) for each in given[1:]]
    state = starts[0] if starts else np.zeros((gates.shape[1], units))
    cell = starts[1] if len(starts) > 1 else np.zeros_like(state)
    states = np.zeros((*gates.shape[:2], units))
    for at in reversed(range(len(gates))) if step.backwards else range(len(gates)):
        if step.kind == "lstm":
            i, o, f, c = np.split(gates[at] + state @ weight.T + step.bias, 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
            state = sigmoid(o) * np.tanh(cell)
        else:
            first = gates[at, :, : 2 * units] + state @ weight[: 2 * units].T + step.bias[: 2 * units]
            z, r = np.split(sigmoid(first), 2, axis=1)
            own, added = weight[2 * units :].T, step.bias[2 * units :]
            inner = r * (state @ own + added) if step.reset_last else (r * state) @ own + added
            state = (1 - z) * np.tanh(gates[at, :, 2 * units :] + inner) + z * state
        states[at] = state
    last = (state, cell) if step.kind == "lstm" else (state,)
    return tuple(each.astype(np.float32) for each in (states, *last))
