"""Tensors in a model's message, checked before anything is made of them: sizes against shapes, types, and places.

The rules are those of onnx.proto: the bytes of `raw_data`, or the values of the one list that is for the type, are as many
as the shape says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from fcdeploy.errors import FcdeployError

BITS: dict[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16, TensorProto.INT16: 16,
    TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.BOOL: 8, TensorProto.FLOAT16: 16, TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32, TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64, TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16, TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8, TensorProto.UINT4: 4, TensorProto.INT4: 4, TensorProto.FLOAT4E2M1: 4,
    24: 8, 25: 2, 26: 2, 27: 6, 28: 6,  # FLOAT8E8M0, UINT2, INT2, two of FLOAT6: onnx 1.20 has no names for them all
}  # fmt: skip
LISTS: dict[int, str] = {
    TensorProto.FLOAT: "float_data", TensorProto.COMPLEX64: "float_data", TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data", TensorProto.INT64: "int64_data", TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data", TensorProto.STRING: "string_data",
}  # fmt: skip
"""Type -> the list of its values; the others have `int32_data`."""
PAIRS = {TensorProto.COMPLEX64, TensorProto.COMPLEX128}
AGAIN = "write it again where it came from"


def check_tensors(model: onnx.ModelProto, name: str) -> None:
    """Raise FcdeployError at the first tensor of a model, wherever it is, that is not what its shape and type say."""
    graphs = [model.graph, *(node for function in model.functions for node in function.node)]
    for part in graphs:
        for tensor in _iterate_tensors(part):
            fault = find_fault(tensor)
            if fault:
                raise FcdeployError(f"model {name!r}: tensor {tensor.name[:100]!r} {fault}", AGAIN)


def _iterate_tensors(part: onnx.GraphProto | onnx.NodeProto) -> Iterator[TensorProto]:
    """Weights and constants, those of graphs inside nodes too."""
    nodes = part.node if isinstance(part, onnx.GraphProto) else [part]
    if isinstance(part, onnx.GraphProto):
        yield from part.initializer
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _iterate_tensors(graph)


def find_fault(tensor: TensorProto) -> str:
    """What is wrong with a tensor, "" where nothing is. Values outside the file are checked against it elsewhere."""
    shape = list(tensor.dims)
    if min(shape, default=0) < 0:
        return f"has the shape {shape}, expected no negative length"
    kind = tensor.data_type
    if kind != TensorProto.STRING and kind not in BITS:
        return f"has the data type {kind}, which ONNX does not know" if kind else "has no data type"
    if tensor.data_location == TensorProto.EXTERNAL:
        return "" if kind != TensorProto.STRING else "is text outside the file, expected numbers there"
    count = math.prod(shape)
    if tensor.HasField("raw_data"):
        if kind == TensorProto.STRING:
            return "is text as raw bytes, expected a list of strings"
        wanted, there = -(-count * BITS[kind] // 8), len(tensor.raw_data)
        return "" if there == wanted else f"has {there} bytes, expected {wanted} for its shape {shape}"
    there = len(getattr(tensor, LISTS.get(kind, "int32_data")))
    packed = 8 // BITS.get(kind, 8) or 1  # values of one byte, which is one number of the list
    wanted = -(-count // packed) * (1 + (kind in PAIRS))
    return "" if there == wanted else f"has {there} values, expected {wanted} for its shape {shape}"
