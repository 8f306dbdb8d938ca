"""Nodes of an ONNX graph run by torch, one function an operator, so that gradients go through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fcdeploy.graph.nodes import attribute_of, clip_bounds, constant_array, fill_value, ints_of, is_constant, name_of

Function = Callable[..., Any]


def why_not_run(nodes: Sequence[ir.Node]) -> str:
    """Why torch cannot run these nodes; empty where it can."""
    for node in nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            return f"{node.op_type} {node.name!r} has no gradient here"
        if attribute_of(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return f"{node.op_type} {node.name!r} pads by rule"
        if len(node.outputs) > 1 and node.op_type != "Split":
            return f"{node.op_type} {node.name!r} writes more than one tensor"
    return ""


def run_node(node: ir.Node, inputs: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """What a node computes of its inputs, by name; those that are lengths, axes or bounds are read from its constants."""
    written = OPERATORS[node.op_type](node, *inputs)
    parts = written if isinstance(written, tuple) else (written,)
    return {name_of(value): part for value, part in zip(node.outputs, parts, strict=True)}


def read_inputs(node: ir.Node, known: Mapping[str, Tensor]) -> list[Tensor | None]:
    """The inputs of a node: tensors that are known by name, else constants."""
    return [None if value is None else _read(value, known) for value in node.inputs]


def _read(value: ir.Value, known: Mapping[str, Tensor]) -> Tensor:
    if name_of(value) in known:
        return known[name_of(value)]
    assert is_constant(value), f"{name_of(value)!r} is neither known nor constant"
    return torch.from_numpy(constant_array(value).copy())


def _convolve(node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.dim() - 2
    run: Function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    stride, dilation = (list(attribute_of(node, name, (1,) * rank)) for name in ("strides", "dilations"))
    return run(_pad_ends(node, x, 0.0), weight, bias, stride, 0, dilation, attribute_of(node, "group", 1))


def _pad_ends(node: ir.Node, x: Tensor, value: float) -> Tensor:
    """`x` with what the attribute `pads` adds to its last axes, before and behind."""
    pads = () if attribute_of(node, "auto_pad", "NOTSET") == "VALID" else attribute_of(node, "pads", ())
    return F.pad(x, _in_torchs_order(pads), value=value) if any(pads) else x


def _in_torchs_order(pads: Sequence[int]) -> list[int]:
    """(begins, ends) as torch has them: the pair of the last axis first."""
    half = len(pads) // 2
    return [n for axis in reversed(range(half)) for n in (pads[axis], pads[half + axis])]


def _multiply(node: ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if attribute_of(node, "transA", 0) else a
    b = b.T if attribute_of(node, "transB", 0) else b
    y = attribute_of(node, "alpha", 1.0) * (a @ b)
    return y if c is None else y + attribute_of(node, "beta", 1.0) * c


def _largest(node: ir.Node, x: Tensor) -> Tensor:
    window = attribute_of(node, "kernel_shape", ())
    run: Function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(window) - 1]
    stride, dilation = (list(attribute_of(node, name, (1,) * len(window))) for name in ("strides", "dilations"))
    ceil = bool(attribute_of(node, "ceil_mode", 0))
    return run(_pad_ends(node, x, float("-inf")), list(window), stride, 0, dilation, ceil_mode=ceil)


def _average(node: ir.Node, x: Tensor) -> Tensor:
    window = list(attribute_of(node, "kernel_shape", ()))
    run: Function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(window) - 1]
    stride, ceil = (
        list(attribute_of(node, "strides", (1,) * len(window))),
        bool(attribute_of(node, "ceil_mode", 0)),
    )
    padded = _pad_ends(node, x, 0.0)
    if attribute_of(node, "count_include_pad", 0) or padded is x:
        return run(padded, window, stride, 0, ceil)
    filled = _pad_ends(node, torch.ones_like(x), 0.0)  # a window's numbers that are of the input
    return run(padded, window, stride, 0, ceil) / run(filled, window, stride, 0, ceil)


def _reshape(_: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = [x.shape[axis] if n == 0 else int(n) for axis, n in enumerate(shape.tolist())]
    return x.reshape(wanted)


def _flatten(node: ir.Node, x: Tensor) -> Tensor:
    axis = attribute_of(node, "axis", 1)
    return x.reshape(x.shape[:axis].numel(), -1)


def _permute(node: ir.Node, x: Tensor) -> Tensor:
    return x.permute(*(attribute_of(node, "perm", ()) or reversed(range(x.dim()))))


def _unsqueeze(node: ir.Node, x: Tensor, *_: Any) -> Tensor:
    axes = ints_of(node, "axes", 1) or ()
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(node: ir.Node, x: Tensor, *_: Any) -> Tensor:
    axes = ints_of(node, "axes", 1)
    return x.squeeze() if axes is None else x.squeeze([axis % x.dim() for axis in axes])


def _slice(_: ir.Node, x: Tensor, *bounds: Tensor | None) -> Tensor:
    begins, ends, axes, steps = (
        None if at >= len(bounds) or bounds[at] is None else bounds[at].tolist()  # type: ignore[union-attr]
        for at in range(4)
    )
    assert begins is not None and ends is not None
    for at, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        axis, step = (at if axes is None else axes[at]), (1 if steps is None else steps[at])
        picked = range(x.shape[axis])[slice(begin, None if step < 0 and end < -(2**31) else end, step)]
        x = x.index_select(axis, torch.tensor(list(picked), dtype=torch.long))
    return x


def _pad(node: ir.Node, x: Tensor, pads: Tensor, *_: Any) -> Tensor:
    return F.pad(x, _in_torchs_order(pads.tolist()), value=fill_value(node))


def _reduce_mean(node: ir.Node, x: Tensor, *_: Any) -> Tensor:
    axes = ints_of(node, "axes", 1)
    return x.mean(tuple(range(x.dim())) if axes is None else tuple(axes), bool(attribute_of(node, "keepdims", 1)))


def _reduce_sum(node: ir.Node, x: Tensor, *_: Any) -> Tensor:
    axes = ints_of(node, "axes", 1)
    return x.sum(tuple(range(x.dim())) if axes is None else tuple(axes), bool(attribute_of(node, "keepdims", 1)))


def _gather(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = attribute_of(node, "axis", 0) % x.dim()
    picked = x.index_select(axis, (indices.long() % x.shape[axis]).reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _split(node: ir.Node, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = attribute_of(node, "axis", 0)
    parts = attribute_of(node, "split", ()) if lengths is None else tuple(lengths.tolist())
    return tuple(x.split(list(parts) or -(-x.shape[axis] // len(node.outputs)), axis))


def _normalize(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, eps=attribute_of(node, "epsilon", 1e-5))


def _normalize_layer(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = attribute_of(node, "axis", -1) % x.dim()
    y = F.layer_norm(x, x.shape[axis:], eps=attribute_of(node, "epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def _gelu(node: ir.Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=attribute_of(node, "approximate", "none"))


def _hard_sigmoid(node: ir.Node, x: Tensor) -> Tensor:
    return torch.clamp(attribute_of(node, "alpha", 0.2) * x + attribute_of(node, "beta", 0.5), 0, 1)


def _average_all(_: ir.Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _alone(function: Function) -> Function:
    """An operator that its inputs say all of."""
    return lambda _, *inputs: function(*inputs)


OPERATORS: dict[str, Function] = {
    "Conv": _convolve,
    "Gemm": _multiply,
    "MatMul": _alone(torch.matmul),
    "Add": _alone(torch.add),
    "Sub": _alone(torch.sub),
    "Mul": _alone(torch.mul),
    "Div": _alone(torch.div),
    "Pow": _alone(torch.pow),
    "Neg": _alone(torch.neg),
    "Abs": _alone(torch.abs),
    "Reciprocal": _alone(torch.reciprocal),
    "Sqrt": _alone(torch.sqrt),
    "Max": _alone(torch.maximum),
    "Min": _alone(torch.minimum),
    "Exp": _alone(torch.exp),
    "Log": _alone(torch.log),
    "Erf": _alone(torch.erf),
    "Tanh": _alone(torch.tanh),
    "Sigmoid": _alone(torch.sigmoid),
    "Relu": _alone(torch.relu),
    "HardSwish": _alone(F.hardswish),
    "Identity": _alone(torch.clone),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, attribute_of(node, "alpha", 0.01)),
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Clip": lambda node, x, *_: torch.clamp(x, *clip_bounds(node)),
    "Softmax": lambda node, x: torch.softmax(x, attribute_of(node, "axis", -1)),
    "BatchNormalization": _normalize,
    "LayerNormalization": _normalize_layer,
    "MaxPool": _largest,
    "AveragePool": _average,
    "GlobalAveragePool": _average_all,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Gather": _gather,
    "Split": _split,
    "Concat": lambda node, *parts: torch.cat(parts, attribute_of(node, "axis", 0)),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _permute,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Pad": _pad,
}
"""Standard operator -> a function of the node and its inputs."""
