"""Bias correction on samples: what rounding adds to a layer's mean output is taken off its bias.

Markus Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.2,
in its empirical form: layer after layer, each on inputs that come from the corrected layers before it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.int8.planning.weigh import bias_array, bias_name, int8_layers, round_bias
from fcdeploy.int8.walk import Arrays, Walk, chunks
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.session import Session
from fcdeploy.tables.operators import operator


def correct_biases(
    model: ir.Model, int8: ir.Model, plan: Plan, samples: Arrays, *, on_step: OnStep | None = None
) -> int:
    """Correct the integer biases of `int8` in place; return how many layers were.

    `model` is the prepared float model, `int8` what `rewrite` made of it, `samples` input name -> (samples, ...).
    """
    layers = [node for node, _ in int8_layers(model.graph, plan) if operator(node.op_type).bias is not None]
    by_name = {node.name: node for node in int8.graph}
    walk = Walk(int8, samples)
    if not layers or not walk.known:
        return 0
    truth = float_means(model, layers, samples)
    for done, node in enumerate(layers, start=1):
        layer = by_name[node.name]
        error = mean_of_chunks(walk.read(layer.outputs[0])) - truth[node.name or ""]
        bias, q = bias_array(node), plan.tensors[bias_name(node)]
        # the error holds that of rounding the bias, so it is taken off the rounded one
        rounded = 0.0 if bias is None else round_bias(bias, q) * np.asarray(q.scale)
        _store(layer, round_bias(rounded - error, q))
        if on_step:
            on_step("correcting biases", done, len(layers))
    return len(layers)


def float_means(model: ir.Model, layers: list[ir.Node], samples: Arrays) -> dict[str, NDArray[np.float64]]:
    """Mean of each layer's output per channel in the float model, by node name."""
    copy = model.clone()
    nodes = {node.name: node for node in copy.graph}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(nodes[layer.name].outputs[0] for layer in layers)
    session = Session(copy)
    sums: list[list[tuple[NDArray[np.float64], int]]] = [[] for _ in layers]
    for part in chunks(model, samples):
        for parts, y in zip(sums, session.run(part), strict=True):
            parts.append(channel_sum(y))
    return {layer.name or "": _mean(parts) for layer, parts in zip(layers, sums, strict=True)}


def mean_of_chunks(parts: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Mean per channel (axis 1) of all chunks together."""
    return _mean([channel_sum(y) for y in parts])


def channel_sum(y: NDArray[np.float32]) -> tuple[NDArray[np.float64], int]:
    """Sum per channel (axis 1) in float64, and of how many elements."""
    return y.sum(axis=tuple(i for i in range(y.ndim) if i != 1), dtype=np.float64), y.size // max(y.shape[1], 1)


def _mean(parts: list[tuple[NDArray[np.float64], int]]) -> NDArray[np.float64]:
    total = np.sum([values for values, _ in parts], axis=0)
    return np.asarray(total / max(sum(count for _, count in parts), 1))


def _store(layer: ir.Node, integers: NDArray[np.int32]) -> None:
    """Replace the integers behind the DequantizeLinear that the layer's bias comes from."""
    bias = layer.inputs[2]
    assert bias is not None
    dequantize = bias.producer()
    assert dequantize is not None and dequantize.inputs[0] is not None
    dequantize.inputs[0].const_value = ir.tensor(integers, name=dequantize.inputs[0].name)
