"""What ONNX operators on floats compute, element by element: of one tensor, and of two."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fcdeploy.arithmetic.function_tables import FUNCTIONS
from fcdeploy.arrays import Array
from fcdeploy.native.program.tensors import Floats

Function = Callable[..., Floats]


def _in_64(function: Callable[..., Array]) -> Function:
    """The function in float64, its result rounded once to float32."""

    def round_once(x: Array, *numbers: float) -> Floats:
        with np.errstate(all="ignore"):
            return np.asarray(function(x.astype(np.float64), *numbers), np.float32)

    return round_once


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


_FORMULAS: dict[str, Callable[..., Array]] = {
    **{op: FUNCTIONS[op] for op in ("Cos", "Erf", "Exp", "Log", "Reciprocal", "Sigmoid", "Sin", "Softplus", "Tanh")},
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Celu": lambda x, alpha: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)),
    "Clip": lambda x, low, high: np.clip(x, low, high),
    "Elu": lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x),
    "Floor": np.floor,
    "Gelu": lambda x: 0.5 * x * (1 + FUNCTIONS["Erf"](x / math.sqrt(2))),
    "GeluTanh": _gelu_tanh,
    "HardSigmoid": lambda x, alpha, beta: np.clip(np.float32(alpha) * x + np.float32(beta), 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda x, alpha: np.where(x >= 0, x, np.float32(alpha) * x),
    "Mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "Neg": np.negative,
    "Not": lambda x: x == 0,
    "Round": np.rint,
    "Selu": lambda x, alpha, gamma: gamma * np.where(x < 0, alpha * np.expm1(x), x),
    "Sign": np.sign,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Swish": lambda x, alpha: x * FUNCTIONS["Sigmoid"](alpha * x),
    "ThresholdedRelu": lambda x, alpha: np.where(x > alpha, x, 0),
}
UNARY: dict[str, Function] = {name: _in_64(function) for name, function in _FORMULAS.items()}
"""ONNX operators on one tensor: float32 and the numbers of the node to float32."""

_TABLED: dict[str, Callable[..., Array]] = {
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "Cosh": np.cosh,
    "Shrink": lambda x, lambd, bias: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)),
    "Sinh": np.sinh,
    "Tan": FUNCTIONS["Tan"],
}
TABLED: dict[str, Function] = {name: _in_64(function) for name, function in _TABLED.items()}
"""The same of those that have no kernel on floats: of bytes each is a table."""

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
