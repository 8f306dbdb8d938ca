"""The program run in NumPy: integers in 64 bits, floats in float32 operation by operation. What native code is held to.

It shares nothing with the code it checks: no packed weight, no layout, no kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from fcdeploy.arithmetic.kernels import avx2
from fcdeploy.arithmetic.kernels.avx2 import gather_windows
from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.native.program.steps import (
    Combine,
    FloatLayer,
    GlobalAverage,
    Interpolate,
    Layer,
    Lookup,
    LookupTable,
    Move,
    Normalize,
    Place,
    Pointwise,
    Pool,
    Product,
    Program,
    Quantize,
    Recurrent,
    Reduce,
    Select,
    Softmax,
    Step,
)
from fcdeploy.native.program.tensors import Floats, Tensor

Function = Callable[..., Floats]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _in_64(function: Callable[..., Array]) -> Function:
    """The function in float64, its result rounded once to float32."""

    def round_once(x: Array, *numbers: float) -> Floats:
        with np.errstate(all="ignore"):
            return np.asarray(function(x.astype(np.float64), *numbers), np.float32)

    return round_once


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


_FORMULAS: dict[str, Callable[..., Array]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Celu": lambda x, alpha: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)),
    "Clip": lambda x, low, high: np.clip(x, low, high),
    "Cos": np.cos,
    "Elu": lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x),
    "Erf": _erf,
    "Exp": np.exp,
    "Floor": np.floor,
    "Gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "GeluTanh": _gelu_tanh,
    "HardSigmoid": lambda x, alpha, beta: np.clip(np.float32(alpha) * x + np.float32(beta), 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda x, alpha: np.where(x >= 0, x, np.float32(alpha) * x),
    "Log": np.log,
    "Mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "Neg": np.negative,
    "Not": lambda x: x == 0,
    "Reciprocal": lambda x: 1 / x,
    "Round": np.rint,
    "Selu": lambda x, alpha, gamma: gamma * np.where(x < 0, alpha * np.expm1(x), x),
    "Sigmoid": _sigmoid,
    "Sign": np.sign,
    "Sin": np.sin,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Swish": lambda x, alpha: x * _sigmoid(alpha * x),
    "Tanh": np.tanh,
    "ThresholdedRelu": lambda x, alpha: np.where(x > alpha, x, 0),
}
UNARY: dict[str, Function] = {name: _in_64(function) for name, function in _FORMULAS.items()}
"""ONNX operators on one tensor: float32 and the numbers of the node to float32."""

BINARY: dict[str, Function] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
    "Pow": lambda x, y: np.asarray(np.power(x.astype(np.float64), y.astype(np.float64)), np.float32),
    "PRelu": lambda x, slope: np.where(x < 0, x * slope, x),
    "Equal": lambda x, y: np.asarray(x == y, np.float32),
    "Greater": lambda x, y: np.asarray(x > y, np.float32),
    "GreaterOrEqual": lambda x, y: np.asarray(x >= y, np.float32),
    "Less": lambda x, y: np.asarray(x < y, np.float32),
    "LessOrEqual": lambda x, y: np.asarray(x <= y, np.float32),
    "And": lambda x, y: np.asarray((x != 0) & (y != 0), np.float32),
    "Or": lambda x, y: np.asarray((x != 0) | (y != 0), np.float32),
    "Xor": lambda x, y: np.asarray((x != 0) ^ (y != 0), np.float32),
}
"""ONNX operators on two tensors; Add, Mul and their kind also of the integers that shapes are made of."""


def run(program: Program, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the program, for one sample."""
    values = dict(feeds)
    for step in program.steps:
        given = [value_of(tensor, values) for tensor in step.inputs]
        for tensor, value in zip(step.outputs, compute(step, given), strict=True):
            assert value.shape == tensor.shape, f"{step.node}: {value.shape}, expected {tensor.shape}"
            values[tensor.name] = value
    return values


def value_of(tensor: Tensor, values: Mapping[str, Array]) -> Array:
    return values[tensor.name] if tensor.held is None else tensor.held


@singledispatch
def compute(step: Step, given: Sequence[Array]) -> tuple[Array, ...]:
    """What a step writes, given its inputs."""
    raise NotImplementedError(f"{type(step).__name__} has no reference")


@compute.register
def _(step: Layer, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), weight = given, step.weight
    if step.window is None:
        sums = avx2.multiply_bytes(x.reshape(-1, x.shape[-1]), weight, exact=True) + step.bias
        channels = sums.reshape(*x.shape[:-1], -1)
    else:
        channels = _convolve(x, weight, step.window, step.groups, step.inputs[0]) + step.bias
    assert np.abs(channels).max(initial=0) < 2**31
    real = channels.astype(np.int32).astype(np.float32) * step.factor
    to = step.output.coding
    if to is None:
        value = real if step.real_bias is None else real + step.real_bias
    else:
        value = _clip(np.rint(real).astype(np.float64) + to.zero_point, step.low, step.high)
    return (value if step.window is None else np.moveaxis(value, -1, 1),)


def _convolve(x: Array, weight: Array, window: Window, groups: int, source: Tensor) -> Array:
    """Sums of products (B, *space', out); what is outside is the zero point, or 0 of floats."""
    fill = 0 if source.coding is None else source.coding.zero_point
    patches = gather_windows(x, window.kernel, fill, window.strides, (*window.begins, *window.ends), window.dilations)
    each, outs = weight.shape[1], len(weight) // groups
    wide = np.int64 if source.coding is not None else np.float64
    rows = np.moveaxis(weight, 1, -1).reshape(len(weight), -1, each).astype(wide)  # (out, positions, in / groups)
    sums = []
    for group in range(groups):
        own = patches[..., group * each : (group + 1) * each].astype(wide)
        part = rows[group * outs : (group + 1) * outs]
        flat = own.reshape(-1, part.shape[1] * each)
        # float64 holds every partial sum of two bytes' products exactly, and is multiplied far faster than int64
        product = np.rint(flat.astype(np.float64) @ part.reshape(outs, -1).T.astype(np.float64)) if wide is np.int64 else (
            flat @ part.reshape(outs, -1).T
        )  # fmt: skip
        sums.append(product.astype(wide).reshape(*own.shape[:-2], outs))
    return np.concatenate(sums, axis=-1)


def _clip(integers: Array, low: int, high: int) -> Array:
    return np.asarray(np.clip(integers, low, high), np.uint8)


@compute.register
def _(step: FloatLayer, given: Sequence[Array]) -> tuple[Array, ...]:
    """In float64: native code adds up in float32, so it is held to a tolerance."""
    (x,) = given
    if step.window is None:
        sums = x.astype(np.float64) @ step.weight.astype(np.float64).T + step.bias
        return (sums.astype(np.float32),)
    channels = _convolve(x, step.weight, step.window, step.groups, step.inputs[0]) + step.bias
    return (np.moveaxis(channels, -1, 1).astype(np.float32),)


@compute.register
def _(step: Product, given: Sequence[Array]) -> tuple[Array, ...]:
    """Of floats in float64: native code adds up in float32, so it is held to a tolerance."""
    codings = [tensor.coding for tensor in step.inputs]
    if codings[0] is None or codings[1] is None:
        return (np.matmul(*(each.astype(np.float64) for each in given)).astype(np.float32),)
    a, b = (
        each.astype(np.int64) - coding.zero_point
        for each, coding in zip(given, codings, strict=True)
        if coding is not None
    )
    real = np.matmul(a, b).astype(np.float32) * step.factor
    to = step.output.coding
    return (real if to is None else _clip(np.rint(real).astype(np.float64) + to.zero_point, step.low, step.high),)


@compute.register
def _(step: Combine, given: Sequence[Array]) -> tuple[Array, ...]:
    a, b = (_real(tensor, value) for tensor, value in zip(step.inputs, given, strict=True))
    to = step.output.coding
    assert to is not None
    return (np.clip(to.encode(a + b if step.kind == "add" else a * b), step.low, step.high),)


def _real(tensor: Tensor, value: Array) -> Floats:
    return tensor.coding.values[value] if tensor.coding is not None else value


@compute.register
def _(step: LookupTable, given: Sequence[Array]) -> tuple[Array, ...]:
    bytes_ = given[0].view(np.uint8) if given[0].dtype == np.int8 else given[0]
    return (_look_up(step.table, bytes_).view(step.output.dtype),)


@compute.register
def _(step: Lookup, given: Sequence[Array]) -> tuple[Array, ...]:
    return (_look_up(step.table, given[0]),)


def _look_up(table: Array, x: Array) -> Array:
    if table.ndim == 1:
        return table[x]
    channels = np.arange(len(table)).reshape(-1, *[1] * (x.ndim - 2))
    return table[channels, x]


@compute.register
def _(step: Quantize, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), to = given, step.output.coding
    assert to is not None
    if step.gain is not None and step.shift is not None:
        channels = (-1, *[1] * (x.ndim - 2))
        x = x * step.gain.reshape(channels) + step.shift.reshape(channels)
    return (np.clip(to.encode(x), step.low, step.high),)


@compute.register
def _(step: Pool, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), source, window = given, step.inputs[0], step.window
    pads = (*window.begins, *window.ends)
    if step.kind == "max":
        fill: Any = 0 if x.dtype == np.uint8 else -np.inf
        seen = gather_windows(x, window.kernel, fill, window.strides, pads, window.dilations)
        return (np.moveaxis(seen.max(axis=-2), -1, 1),)
    real = _real(source, x)
    seen = gather_windows(real, window.kernel, 0, window.strides, pads, window.dilations)
    ones = np.ones_like(real[:1, :1])
    inside = gather_windows(ones, window.kernel, int(step.padded), window.strides, pads, window.dilations).sum(axis=-2)
    total = np.zeros_like(seen[..., 0, :])
    for position in range(seen.shape[-2]):
        total += seen[..., position, :]
    mean = np.moveaxis(total / inside, -1, 1)
    to = step.output.coding
    return (mean if to is None else np.clip(to.encode(mean), step.low, step.high),)


@compute.register
def _(step: GlobalAverage, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), source, to = given, step.inputs[0].coding, step.output.coding
    assert source is not None and to is not None
    space = tuple(range(2, x.ndim))
    total = x.astype(np.int64).sum(axis=space, keepdims=True) - int(np.prod(x.shape[2:])) * source.zero_point
    rounded = np.rint(total.astype(np.float32) * step.factor).astype(np.float64)
    return (_clip(rounded + to.zero_point, step.low, step.high).reshape(step.output.shape),)


@compute.register
def _(step: Softmax, given: Sequence[Array]) -> tuple[Array, ...]:
    """The sum is taken from the first element to the last, in float32."""
    x = np.moveaxis(given[0], step.axis, -1)
    largest = x.max(axis=-1, keepdims=True)
    if step.table is None:
        parts = np.exp(x.astype(np.float64) - largest).astype(np.float32)
    else:
        parts = step.table[largest.astype(np.int64) - x]
    total = np.cumsum(parts, axis=-1, dtype=np.float32)[..., -1:]
    real = np.moveaxis(parts / total, -1, step.axis)
    to = step.output.coding
    return (real if to is None else np.clip(to.encode(real), step.low, step.high),)


@compute.register
def _(step: Move, given: Sequence[Array]) -> tuple[Array, ...]:
    index = step.index
    if step.kind == "take" and index is None:  # what is out of range takes the nearest row
        rows, at = len(given[0]), given[1].astype(np.int64)
        index = np.clip(np.where(at < 0, at + rows, at), 0, rows - 1)
    parts = given if step.kind == "concat" else given[:1]
    return (move_elements(step.kind, parts, step.output.shape, step.arguments, fill=step.fill, index=index),)


def move_elements(
    kind: str,
    parts: Sequence[Array],
    shape: tuple[int, ...],
    arguments: tuple[tuple[int, ...], ...],
    *,
    fill: float = 0,
    index: Array | None = None,
) -> Array:
    """The elements of arrays in other places, as `steps.Move` says."""
    x = parts[0]
    if kind == "reshape":
        return x.reshape(shape)
    if kind == "transpose":
        return x.transpose(arguments[0])
    if kind == "slice":
        begin, step = arguments
        at = [np.arange(n) * s + b for n, b, s in zip(shape, begin, step, strict=True)]
        return np.asarray(x[np.ix_(*at)])
    if kind == "concat":
        return np.concatenate(list(parts), axis=arguments[0][0])
    if kind == "pad":
        return np.pad(x, list(zip(*arguments, strict=True)), constant_values=fill)
    if kind == "take":
        assert index is not None
        return np.asarray(x.take(index, axis=arguments[0][0]))
    assert kind == "expand", kind
    return np.broadcast_to(x, shape)


@compute.register
def _(step: Pointwise, given: Sequence[Array]) -> tuple[Array, ...]:
    if step.kind in BINARY:
        with np.errstate(all="ignore"):
            return (np.asarray(BINARY[step.kind](*given), np.float32),)
    return (UNARY[step.kind](given[0], *step.numbers),)


@compute.register
def _(_: Select, given: Sequence[Array]) -> tuple[Array, ...]:
    return (np.where(given[0] != 0, given[1], given[2]),)


@compute.register
def _(step: Place, given: Sequence[Array]) -> tuple[Array, ...]:
    x, axis = given[0].astype(np.float32), step.axis
    find = np.argmax if step.kind == "max" else np.argmin
    found = x.shape[axis] - 1 - find(np.flip(x, axis), axis) if step.last else find(x, axis)
    return (np.asarray(found, np.int64).reshape(step.output.shape),)


@compute.register
def _(step: Reduce, given: Sequence[Array]) -> tuple[Array, ...]:
    """Sums in float64: native code is held to a tolerance."""
    function: dict[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}
    x = given[0].astype(np.float64)
    return (function[step.kind](x, axis=step.axes).astype(np.float32).reshape(step.output.shape),)


@compute.register
def _(step: Interpolate, given: Sequence[Array]) -> tuple[Array, ...]:
    real = _real(step.inputs[0], given[0])
    for axis in reversed(range(len(step.lines))):  # columns first
        line = step.lines[axis]
        part = line.part.reshape(-1, *[1] * (len(step.lines) - 1 - axis))
        first, second = (real.take(each, axis + 2) for each in (line.first, line.second))
        real = np.asarray(first * (np.float32(1) - part) + second * part, np.float32)
    to = step.output.coding
    return (real if to is None else np.clip(to.encode(real), step.low, step.high),)


@compute.register
def _(step: Normalize, given: Sequence[Array]) -> tuple[Array, ...]:
    """In float64: native code is held to a tolerance."""
    rows = given[0].astype(np.float64).reshape(-1, step.length)
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float64(step.epsilon))
    return ((centred / deviation * step.gain + step.shift).astype(np.float32).reshape(given[0].shape),)


@compute.register
def _(step: Recurrent, given: Sequence[Array]) -> tuple[Array, ...]:
    """ONNX's equations for LSTM and GRU, in float64: native code is held to a tolerance."""
    gates = given[0].astype(np.float64)
    weight = step.weight.astype(np.float64) * (1 if step.scale is None else step.scale[:, None].astype(np.float64))
    units = weight.shape[1]
    starts = [each.astype(np.float64) for each in given[1:]]
    state = starts[0] if starts else np.zeros((gates.shape[1], units))
    cell = starts[1] if len(starts) > 1 else np.zeros_like(state)
    states = np.zeros((*gates.shape[:2], units))
    for at in reversed(range(len(gates))) if step.backwards else range(len(gates)):
        if step.kind == "lstm":
            i, o, f, c = np.split(gates[at] + state @ weight.T + step.bias, 4, axis=1)
            cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(c)
            state = _sigmoid(o) * np.tanh(cell)
        else:
            first = gates[at, :, : 2 * units] + state @ weight[: 2 * units].T + step.bias[: 2 * units]
            z, r = np.split(_sigmoid(first), 2, axis=1)
            own, added = weight[2 * units :].T, step.bias[2 * units :]
            inner = r * (state @ own + added) if step.reset_last else (r * state) @ own + added
            state = (1 - z) * np.tanh(gates[at, :, 2 * units :] + inner) + z * state
        states[at] = state
    last = (state, cell) if step.kind == "lstm" else (state,)
    return tuple(each.astype(np.float32) for each in (states, *last))
