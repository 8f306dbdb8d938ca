"""What rounded weights add to the mean output of a layer, by the mean input alone: no sample is run for it.

E[(W' - W) x] = (W' - W) E[x], the analytic form of bias correction in Markus Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.2, with means as they were recorded.  Behind ReLU,
hard-swish and gates inputs are hardly ever zero on average, and this is most of what rounded weights do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.pixels import Pixels, compute_byte_means
from fcdeploy.arithmetic.weights.layout import lay_out_importance
from fcdeploy.arrays import Float64
from fcdeploy.graph.nodes import attribute_of, name_of, output_axis
from fcdeploy.graph.windows import read_window
from fcdeploy.records.calibration import Calibration, TensorRecord


def compute_mean_error(errors: NDArray[np.floating], means: Float64 | None) -> Float64:
    """Of weights' errors in rows (out, K), what they add to each output on average, (out,); `means` are `read_means`."""
    # unlike BLAS in one order, whatever the number of threads
    return np.zeros(len(errors)) if means is None else np.asarray((errors * means).sum(axis=1))


def read_means(node: ir.Node, shape: Sequence[int], calibration: Calibration, grid: Pixels = ()) -> Float64 | None:
    """E[x] of what each weight of a layer reads, (K,) or with groups (out, K); None where it was not recorded.

    `shape` is the weight's as the kernel is given it, with channels of zeros; `grid` that of a picture read as bytes.
    """
    record, groups = calibration.tensors.get(name_of(node.inputs[0])), attribute_of(node, "group", 1)
    if record is None or record.moments is None:
        return None
    inputs = shape[1 - output_axis(node)] if len(shape) == 2 else shape[1] * groups
    mean = record.moments.mean()
    if len(mean) > inputs:
        return None
    mean = compute_byte_means(mean, grid, inputs) if grid else np.pad(mean, (0, inputs - len(mean)))
    laid_out = lay_out_importance(mean, tuple(shape), groups)
    return laid_out * np.repeat(_cover(node, shape[2:], record), shape[1]) if len(shape) > 2 else laid_out


def _cover(node: ir.Node, kernel: Sequence[int], record: TensorRecord) -> Float64:
    """The share of positions at which each place of a kernel lies on the input, and not on its padding, flat."""
    space = record.shape[2:]
    if len(space) != len(kernel) or None in space:
        return np.ones(int(np.prod(kernel)))
    window = read_window(node, [n or 0 for n in space], kernel)
    outputs = window.outputs([n or 0 for n in space])
    cover = np.ones(1)
    for n, k, stride, begin, dilation, count in zip(
        space, kernel, window.strides, window.begins, window.dilations, outputs, strict=True
    ):
        at = np.arange(count) * stride - begin + np.arange(k)[:, None] * dilation
        inside = ((at >= 0) & (at < n)).mean(axis=1) if count > 0 else np.ones(k)
        cover = np.multiply.outer(cover, inside)
    return cover.reshape(-1)
