"""Dense layers whose weights can do with one scale for all channels, which is faster, and hardly less accurate.

onnxruntime's QGemm multiplies its sums by one scale a column in 5 ns a column, by a single one in next to nothing, and
lays out the scales in every run: of a dense layer at batch 1 that is a tenth to a third of the time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.weights.rounding import round_rows, search_scale, search_scales
from fcdeploy.arrays import Float64
from fcdeploy.graph.nodes import name_of, output_axis, shape_of
from fcdeploy.int8.planning.weights import find_int8_layers, lay_out_kernel, weigh_importance
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan

MOST_LOSS_DB = 6.0  # of signal over error of a layer's own results: one bit
MOST_ROWS, MOST_COLUMNS = 256, 1024  # of a weight that is judged by a part of it
COLUMN_US, LAYER_US = 0.005, 0.5  # saved for every output and every layer; read off two x86 CPUs, batch 1


def find_one_scale_layers(
    graph: ir.Graph, plan: Plan, calibration: Calibration, pair_limit: int | None
) -> dict[str, float]:
    """Dense layers whose error grows by at most MOST_LOSS_DB with one scale, and about how many microseconds that saves.

    The error of a result is that of its weights, sum E[x^2] (w - s q)^2, and of its rounded inputs, sum w^2 S^2 / 12 with
    their scale S, both summed over the outputs.
    """
    saved = {}
    for node, weight in find_int8_layers(graph, plan):
        if node.op_type not in ("Gemm", "MatMul"):
            continue
        axis = output_axis(node)
        rows = _sample_rows(lay_out_kernel(node, weight), int(weight.shape[axis]))  # type: ignore[index, arg-type]
        h = _sample_columns(np.atleast_2d(weigh_importance(node, calibration)))[0]
        step = plan.tensors[name_of(node.inputs[0])].scale[0]
        rounding = float((rows**2).sum()) * step**2 / 12
        errors = []
        for search in (search_scales, search_scale):
            scale = np.broadcast_to(search(rows, h, pair_limit), len(rows))
            integers = round_rows(rows, scale, h, pair_limit)
            errors.append(rounding + float((h * (rows - integers * scale[:, None]) ** 2).sum()))
        if errors[1] <= errors[0] * 10 ** (MOST_LOSS_DB / 10):
            outputs = shape_of(weight)[axis]
            saved[name_of(node)] = LAYER_US + COLUMN_US * outputs
    return saved


def _sample_rows(blocks: Iterable[tuple[slice, NDArray[np.floating]]], height: int) -> Float64:
    """Evenly spaced rows of so many, and evenly spaced pairs of columns of them."""
    kept = np.linspace(0, height - 1, min(height, MOST_ROWS)).astype(np.intp)
    return np.concatenate([
        _sample_columns(rows[kept[(kept >= part.start) & (kept < part.stop)] - part.start]) for part, rows in blocks
    ])  # fmt: skip


def _sample_columns(rows: NDArray[np.floating]) -> Float64:
    width = rows.shape[1]
    if width <= MOST_COLUMNS:
        return rows.astype(np.float64)
    pairs = 2 * np.linspace(0, width // 2 - 1, MOST_COLUMNS // 2).astype(np.intp)
    columns = np.stack([pairs, pairs + 1], axis=1).reshape(-1)
    return rows[:, columns].astype(np.float64)
