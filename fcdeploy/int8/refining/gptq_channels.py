"""Weights of an integer layer rounded again by what it reads, so that their errors make up for each other (gptq.py)."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.weights.gptq import compute_gram, round_by_gptq
from fcdeploy.arithmetic.weights.im2col import extract_patches
from fcdeploy.arithmetic.weights.layout import from_rows
from fcdeploy.arrays import Float32, Float64
from fcdeploy.graph.nodes import attribute_of, name_of, output_axis
from fcdeploy.graph.windows import read_window
from fcdeploy.int8.nodes import is_depthwise
from fcdeploy.int8.planning.weights import lay_out_kernel, read_kernel_shape
from fcdeploy.records.plan import Plan

ROWS = 32768  # of the inputs' matrix, over all samples: more move the rounding of hardly a weight
LARGEST = 2**26  # elements of that matrix: 256 MB
LARGEST_GRAM = 4608  # inputs of a layer: 170 MB. Longer rows are taken in pieces, whose errors stay their own


def gptq_round_layer(
    node: ir.Node, weight: ir.Value, inputs: list[Float32], plan: Plan, pair_limit: int | None
) -> NDArray[np.int8]:
    """Integers of a layer's weight at the plan's scales; `inputs` is what the layer reads, in chunks of samples.

    The mean of the inputs is taken off first: what it adds to the output is left to bias correction.
    """
    shape = read_kernel_shape(node, weight)
    grid = plan.tensors[name_of(node.inputs[0])].pixels
    rows = np.concatenate([part for _, part in lay_out_kernel(node, weight, grid)]).astype(np.float64)
    scale = np.broadcast_to(plan.tensors[name_of(weight)].scale, len(rows))
    limit = None if is_depthwise(node) else pair_limit
    read = _list_matrices(node, shape, inputs)  # (groups, rows, K) each
    groups = len(read[0])
    each = len(rows) // groups
    rounded = [
        _round_group(rows[g * each : (g + 1) * each], [x[g] for x in read], scale[g * each : (g + 1) * each], limit)
        for g in range(groups)
    ]
    return from_rows(np.concatenate(rounded), shape, output_axis(node)).astype(np.int8)


def _round_group(rows: Float64, read: list[Float32], scale: Float64, limit: int | None) -> Float64:
    pieces = [slice(begin, begin + LARGEST_GRAM) for begin in range(0, rows.shape[1], LARGEST_GRAM)]
    pieces_rounded = [
        round_by_gptq(rows[:, c], _compute_covariance([x[:, c] for x in read]), scale, pair_limit=limit) for c in pieces
    ]
    return np.concatenate(pieces_rounded, axis=1)


def _compute_covariance(read: list[Float32]) -> Float64:
    """Gram matrix of the inputs less their mean."""
    mean = np.concatenate(read).mean(axis=0, dtype=np.float64).astype(np.float32)
    return compute_gram([x - mean for x in read])


def _list_matrices(node: ir.Node, shape: tuple[int, ...], inputs: list[Float32]) -> list[Float32]:
    """The inputs as matrices of rows, one for each chunk: (groups, rows, K)."""
    if node.op_type != "Conv":
        flat = [x.reshape(1, -1, x.shape[-1]) for x in inputs]
        step = max(sum(x.shape[1] for x in flat) // ROWS, 1)
        return [x[:, ::step] for x in flat]
    groups = int(attribute_of(node, "group", 1))
    samples = sum(len(x) for x in inputs)
    length = math.prod(shape[1:]) * groups
    most = min(ROWS, LARGEST // length) // max(samples, 1)
    return [extract_patches(x, read_window(node, x.shape[2:], shape[2:]), groups, max(most, 1)) for x in inputs]
