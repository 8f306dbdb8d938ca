"""Corrections on samples, layer after layer, each on inputs that come from the corrected layers before it.

Weights are rounded again so that their errors make up for each other (see `gptq_round_layer`), where the plan says so.  Then what
rounding adds to the layer's mean output is taken off its bias:

Markus Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.2,
in its empirical form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.weights.products import multiply
from fcdeploy.arrays import Arrays, Float32, Float64
from fcdeploy.graph.edit import set_constant
from fcdeploy.graph.nodes import constant_array, name_of, operator_of, producer_of, weight_of
from fcdeploy.int8.planning.elementwise import Function
from fcdeploy.int8.planning.weights import (
    bias_array,
    bias_name,
    find_int8_layers,
    find_shared_weights,
    lay_out_kernel,
    round_bias,
)
from fcdeploy.int8.refining.activations import ActivationWalk, iterate_activations, read_in_float
from fcdeploy.int8.refining.bias_correction import find_bend, find_shift, measure_rows, pick_positions, share_positions
from fcdeploy.int8.refining.gptq_channels import gptq_round_layer
from fcdeploy.records.plan import Plan
from fcdeploy.records.progress import OnStep
from fcdeploy.tables.targets import Target


def correct_layers(
    model: ir.Model,
    int8: ir.Model,
    plan: Plan,
    samples: Arrays,
    *,
    target: Target,
    alone: bool = False,
    on_step: OnStep | None = None,
) -> int:
    """Correct the integer weights and biases of `int8` in place; return how many layers were.

    `model` is the prepared float model, `int8` what `rewrite` made of it, `samples` input name -> (samples, ...).  Weights
    change where the plan's rounding is "gptq"; they keep the pair bound of `target`.  `alone` runs one layer of the
    float model at a time, so that it is never in memory as a whole.
    """
    weights, rounded_again = dict(find_int8_layers(model.graph, plan)), plan.gptq_nodes
    shared = find_shared_weights(model.graph, plan) if rounded_again else {}
    layers = [node for node in weights if node.name in rounded_again or operator_of(node).bias is not None]
    by_name = {node.name: node for node in int8.graph}
    walk = ActivationWalk(int8, samples)
    if not layers or not walk.known:
        return 0
    biased = [node for node in layers if operator_of(node).bias is not None]
    bends = {name_of(n): bend for n in biased if (bend := find_bend(n.outputs[0])) is not None}
    positions = share_positions(len(next(iter(samples.values()))))
    truth, behind = _measure_float(model, biased, bends, samples, positions, alone=alone)
    for done, node in enumerate(layers, start=1):
        layer = by_name[node.name]
        if node.name in rounded_again:
            alike = [each for each in shared.get(name_of(node), (node,)) if each.name in rounded_again]
            if node is alike[0]:  # else with the first layer that has the same weight
                # what the rounded model makes of the others is not known before their weight is rounded
                read = [*walk.read(layer.inputs[0]), *read_in_float(model, samples, alike[1:])]  # type: ignore[arg-type]
                integers = gptq_round_layer(node, weights[node], read, plan, target.pair_limit)
                for each in alike:
                    set_constant(_find_integers(by_name[each.name], 1), integers)
        if operator_of(node).bias is None:
            continue
        written = walk.read(layer.outputs[0])
        with np.errstate(invalid="ignore", over="ignore"):
            error = mean_of_chunks(written) - truth[name_of(node)]
        if not np.isfinite(error).all():  # a sample on which float overflows says nothing of rounding
            continue
        if node.name in bends:
            error = -find_shift(written, bends[node.name], behind[node.name], -error, positions)
        q = plan.tensors[bias_name(node)]
        # the error holds that of rounding the bias, so it is taken off the rounded one
        rounded = constant_array(_find_integers(layer, 2)) * np.asarray(q.scale)
        corrected = round_bias(rounded - error, q)
        set_constant(_find_integers(layer, 2), corrected)
        shift = (corrected * np.asarray(q.scale) - rounded).astype(np.float32)
        walk.provide(layer.outputs[0], [y + _along_channels(shift, y.ndim) for y in written], passing=True)
        if on_step:
            on_step("correcting layers", done, len(layers))
    return len(layers)


def _measure_float(
    model: ir.Model,
    layers: list[ir.Node],
    bends: Mapping[str, Function],
    samples: Arrays,
    positions: int,
    *,
    alone: bool,
) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """The float model's means by layer, (channels,), and what lies behind those that have a function there, (rows, channels)."""
    rows: dict[str, list[Float64]] = {name: [] for name in bends}

    def watch(name: str, y: Float32) -> None:
        if name in bends:
            rows[name].append(measure_rows(pick_positions(y, positions), bends[name]))

    measure = measure_float_means_layerwise if alone else measure_float_means
    truth = measure(model, layers, samples, watch)
    return truth, {name: np.concatenate(parts) for name, parts in rows.items()}


def _along_channels(row: Float32, rank: int) -> Float32:
    """(channels,) along axis 1 of a tensor of so many axes."""
    return row.reshape(1, -1, *[1] * (rank - 2))


def measure_float_means(
    model: ir.Model, layers: list[ir.Node], samples: Arrays, watch: Callable[[str, Float32], None] | None = None
) -> dict[str, Float64]:
    """Mean of each layer's output per channel in the float model, by node name; `watch` gets each output as it comes."""
    if not layers:  # the runtime refuses a run without outputs
        return {}
    sums: list[list[tuple[Float64, int]]] = [[] for _ in layers]
    for written in iterate_activations(model, [name_of(layer.outputs[0]) for layer in layers], samples):
        for layer, parts, y in zip(layers, sums, written, strict=True):
            parts.append(channel_sum(y))
            if watch is not None:
                watch(name_of(layer), y)
    return {name_of(layer): _mean(parts) for layer, parts in zip(layers, sums, strict=True)}


def measure_float_means_layerwise(
    model: ir.Model, layers: list[ir.Node], samples: Arrays, watch: Callable[[str, Float32], None] | None = None
) -> dict[str, Float64]:
    """As `measure_float_means`, layer after layer, each on what those before it wrote; of dense ones some outputs at a time."""
    walk = ActivationWalk(model, samples)
    for layer in layers:
        weight = weight_of(layer)
        assert weight is not None
        dense = layer.op_type == "Gemm"
        read = walk.read(layer.inputs[0] if dense else layer.outputs[0])  # type: ignore[arg-type]
        written = _run_dense(layer, weight, read) if dense else read
        walk.provide(layer.outputs[0], written)
        for y in written if watch is not None else ():
            watch(name_of(layer), y)  # type: ignore[misc]
    return {name_of(layer): mean_of_chunks(walk.read(layer.outputs[0])) for layer in layers}


def _run_dense(layer: ir.Node, weight: ir.Value, read: list[Float32]) -> list[Float32]:
    """What a dense layer writes, chunk by chunk."""
    bias = bias_array(layer)
    parts = [[multiply(x, rows.T).astype(np.float32) for x in read] for _, rows in lay_out_kernel(layer, weight)]
    whole = [np.concatenate(each, axis=1) for each in zip(*parts, strict=True)]
    return whole if bias is None else [y + bias.astype(np.float32) for y in whole]


def mean_of_chunks(parts: list[Float32]) -> Float64:
    """Mean per channel (axis 1) of all chunks together."""
    return _mean([channel_sum(y) for y in parts])


def channel_sum(y: Float32) -> tuple[Float64, int]:
    """Sum per channel (axis 1) in float64, and of how many elements."""
    return y.sum(axis=tuple(i for i in range(y.ndim) if i != 1), dtype=np.float64), y.size // max(y.shape[1], 1)


def _mean(parts: list[tuple[Float64, int]]) -> Float64:
    total = np.sum([values for values, _ in parts], axis=0)
    return np.asarray(total / max(sum(count for _, count in parts), 1))


def _find_integers(layer: ir.Node, index: int) -> ir.Value:
    """The integers behind the DequantizeLinear that the layer's weight or bias comes from."""
    dequantize = producer_of(layer.inputs[index])
    assert dequantize is not None and dequantize.inputs[0] is not None
    return dequantize.inputs[0]
