"""Tiny models of Q/DQ pairs, written node by node with onnx's own helper: what probes run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.arrays import Array

MICROSOFT = "com.microsoft"
SCALE = 0.05  # of activations, unless a probe says otherwise


@dataclass(frozen=True)
class Probe:
    """A model, serialized, and what to run it on.

    `expected` is what it computes by integer arithmetic, where that is plain; else it is compared with itself as it is
    written, without optimization.  `entries` are session options.
    """

    model: bytes
    feeds: Mapping[str, Array]
    expected: Array | None = None
    entries: Mapping[str, str] = field(default_factory=dict)


class QdqGraph:
    """A graph under construction: `quantize`, `dequantize` and `pair` add conversions, `op` any node."""

    def __init__(
        self, dtype: str = "uint8", zero_point: int = 128, *, opset: int = 17, domain: str = "", seed: int = 0
    ) -> None:
        self.dtype, self.zero_point, self.opset, self.domain = dtype, zero_point, opset, domain
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.inputs: list[Any] = []
        self.feeds: dict[str, Array] = {}
        self.random = np.random.default_rng(seed)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Its name."""
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def input(self, *shape: int, fed: Array | None = None) -> str:
        """A float input; fed normal numbers, mostly inside the range of bytes at SCALE, unless given."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.feeds[name] = (2 * self.random.normal(size=shape) if fed is None else fed).astype(np.float32)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        """The name of its first output; the others have the same with their number at the end."""
        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), names, name, domain=domain, **attributes))
        return names[0]

    def _convert(self, kind: str, x: str, scale: float, zero_point: int | None) -> str:
        zero = self.constant(self.zero_point if zero_point is None else zero_point, self.dtype)
        return self.op(kind, x, self.constant(scale), zero, domain=self.domain)

    def quantize(self, x: str, scale: float = SCALE, zero_point: int | None = None) -> str:
        """x in bytes."""
        return self._convert("QuantizeLinear", x, scale, zero_point)

    def dequantize(self, x: str, scale: float = SCALE, zero_point: int | None = None) -> str:
        """Bytes in float."""
        return self._convert("DequantizeLinear", x, scale, zero_point)

    def pair(self, x: str, scale: float = SCALE, zero_point: int | None = None) -> str:
        """Quantized and read back."""
        return self.dequantize(self.quantize(x, scale, zero_point), scale, zero_point)

    def bytes(self, *shape: int) -> Array:
        """Random weights of -127 to 127."""
        return self.random.integers(-127, 128, shape).astype(np.int8)

    def weight(self, integers: Array, scale: Any, axis: int | None = None, zero: Any = "own") -> str:
        """Stored integers read back; `zero`: "own" zero points of 0, None for none, or the name of a constant."""
        along = {} if axis is None else {"axis": axis}
        stored, scales = self.constant(integers, integers.dtype), self.constant(scale)
        if zero == "own":
            zero = self.constant(np.zeros(np.shape(scale)), integers.dtype)
        zeros = [] if zero is None else [zero]
        return self.op("DequantizeLinear", stored, scales, *zeros, domain=self.domain, **along)

    def bias(self, integers: Array, scale: Any, zero: int | None = None) -> str:
        """Stored 32-bit integers read back, with a scale each."""
        zeros = [] if zero is None else [self.constant(np.full(np.shape(scale), zero), np.int32)]
        return self.op("DequantizeLinear", self.constant(integers, np.int32), self.constant(scale), *zeros, axis=0)

    def probe(
        self,
        output: str,
        kind: int = TensorProto.FLOAT,
        *,
        expected: Array | None = None,
        entries: Mapping[str, str] | None = None,
    ) -> Probe:
        """The finished model with one output."""
        graph = helper.make_graph(
            self.nodes, "probe", self.inputs,
            [helper.make_tensor_value_info(output, kind, None)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )  # fmt: skip
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        ir_version = 8 if self.opset < 21 else 10
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version).SerializeToString()
        return Probe(model, self.feeds, expected, entries or {})
