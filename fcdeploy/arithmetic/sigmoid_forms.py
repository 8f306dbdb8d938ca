"""Functions that a table of sigmoids computes: outer * (sigmoid(inner * x) - 1/2), clipped at -1 and 1.

    tanh(x)  =  2 (sigmoid(2 x) - 1/2)                                        exactly
    erf(x)   ~  2 a (sigmoid(c sqrt(2) x) - 1/2), a = 127 / 124, c = 1.618    within 0.01

onnxruntime's QLinearSigmoid looks up bytes, whatever the scales of its input and its output: 0.4 ns an element, where a
float Erf with the conversions around it takes 1.8.  With a = 1 the nearest such function leaves 0.019 of erf; a little more
than 1, clipped, it reaches 1 at a finite x, as erf does to 8 bits.  x (1 + erf(x / sqrt(2))) / 2 is then within 0.009 of
GELU, 50 dB for inputs of variance 1, where 8 bits leave about 40.  a is such that the byte of 0 is 127 and those of -1 and
1 are 3 and 251; c was found by least largest error of that GELU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SigmoidForm:
    """outer * (sigmoid(inner * x) - 1/2), clipped at -1 and 1."""

    inner: float
    outer: float

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """The function itself."""
        with np.errstate(over="ignore"):
            return np.asarray(np.clip(self.outer * (1 / (1 + np.exp(-self.inner * x)) - 0.5), -1.0, 1.0))


TABLE = "/table"  # behind the name of a tensor: the sigmoid that is read back as that tensor
SIGMOID_FORMS = {"Tanh": SigmoidForm(2.0, 2.0), "Erf": SigmoidForm(1.618 * math.sqrt(2), 2 * 127 / 124)}
