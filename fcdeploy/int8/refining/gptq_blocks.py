"""Weights in blocks, rounded so that errors make up for each other on samples: layer after layer, on the rounded prefix."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.weights.gptq import compute_gram, round_blocks_by_gptq
from fcdeploy.arithmetic.weights.layout import pack_blocks, to_rows
from fcdeploy.arrays import Arrays, Float32, Float64
from fcdeploy.graph.edit import set_constant
from fcdeploy.graph.nodes import constant_array, name_of, output_axis, weight_of
from fcdeploy.int8.planning.types import bits_of, find_shared_blocks
from fcdeploy.int8.refining.activations import ActivationWalk, read_in_float
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.records.progress import OnStep

# Samples where DATA has as many: for 4096 inputs 1024 of them are worth 1.1 dB over the 256 that a calibration carries
MANY, MANY_BYTES = 1024, 32 << 20
LARGEST_GRAM = 4096  # inputs: 134 MB.  Longer rows are taken in pieces, whose errors stay their own


def gptq_round_blocks(
    model: ir.Model, int8: ir.Model, plan: Plan, samples: Arrays, *, on_step: OnStep | None = None
) -> int:
    """Round the weights of every layer in blocks again, in place; return how many layers were.

    `model` is the prepared float model, `int8` what `rewrite` made of it, `samples` input name -> (samples, ...).  A weight that
    several layers share is rounded once, by what they all read.
    """
    kinds = plan.kinds
    layers = [node for node in model.graph if kinds[name_of(node)] == "blockwise"]
    by_name = {node.name: node for node in int8.graph}
    walk = ActivationWalk(int8, samples)
    if not layers or not walk.known:
        return 0
    shared, rounded = find_shared_blocks(model, plan), set[ir.Node]()
    for done, node in enumerate(layers, start=1):
        alike = shared.get(node.name or "", (node,))
        weight, read = weight_of(node), by_name[node.name].inputs[0]
        assert weight is not None and read is not None
        if node not in rounded:  # else with the first layer that has the same weight
            q = plan.tensors[name_of(weight)]
            rows = to_rows(constant_array(weight), output_axis(node))
            # what the rounded model makes of it is not known before their weight is rounded
            later = read_in_float(model, samples, [each for each in alike if each is not node])
            integers, scales = _round_rows(rows, [*walk.read(read), *later], q)
            for each in alike:
                _, packed, scales_of_weight = by_name[each.name].inputs[:3]
                assert packed is not None and scales_of_weight is not None
                set_constant(packed, pack_blocks(integers, q.block, bits_of(q)))
                set_constant(scales_of_weight, scales.astype(np.float32))
            rounded |= {*alike}
        if on_step:
            on_step("rounding weights", done, len(layers))
    return len(layers)


def _round_rows(rows: NDArray[np.floating], inputs: Iterable[Float32], q: QParams) -> tuple[NDArray[np.int8], Float64]:
    """Integers (out, in) and scales (out, blocks) by what the layer reads."""
    read = [x.reshape(-1, rows.shape[1]) for x in inputs]
    pieces = [slice(begin, begin + LARGEST_GRAM) for begin in range(0, rows.shape[1], LARGEST_GRAM)]
    rounded = []
    for c in pieces:
        piece = rows[:, c].astype(np.float64)
        integers, scales = round_blocks_by_gptq(piece, compute_gram([x[:, c] for x in read]), q.block, dtype=q.dtype)
        rounded.append((integers.astype(np.int8), scales))
    return np.concatenate([q for q, _ in rounded], axis=1), np.concatenate([s for _, s in rounded], axis=1)
