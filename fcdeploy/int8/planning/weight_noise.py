"""Which stored weights lose most for their size, by recorded statistics alone: no sample is run for it.

With inputs taken as uncorrelated, rounding adds the noise sum_k var(x_k) (w'_k - w_k)^2 to an output of which
sum_k var(x_k) w_k^2 is signal; what it adds to the mean is taken off the bias (mean_errors.py).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import dequantize, quantize
from fcdeploy.arithmetic.weights.layout import lay_out_importance, to_rows
from fcdeploy.arrays import Float64
from fcdeploy.graph.nodes import attribute_of, constant_array, name_of, operator_of
from fcdeploy.int8.planning.weights import find_weight_only
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan


def order_by_noise(model: ir.Model, plan: Plan, calibration: Calibration) -> list[str]:
    """The nodes whose weights a plan stores in bytes, those first whose 16 bits buy most for the bytes they take."""
    noise, size = dict[str, float](), dict[str, int]()
    for node, index, weight, axis in find_weight_only(model.graph, plan):
        real, q = constant_array(weight).astype(np.float32), plan.tensors[name_of(weight)]
        error = dequantize(quantize(real, q), q) - real
        counts = _read_variances(node, real.shape, axis, calibration) if index == operator_of(node).weight else None
        if counts is None:
            added, signal = np.sum(error.astype(np.float64) ** 2), np.sum(real.astype(np.float64) ** 2)
        else:
            added, signal = (np.sum(to_rows(part, axis).astype(np.float64) ** 2 * counts) for part in (error, real))
        size[node.name or ""] = size.get(node.name or "", 0) + real.size
        noise[node.name or ""] = max(noise.get(node.name or "", 0.0), float(added) / max(float(signal), 1e-300))
    return sorted(noise, key=lambda name: -noise[name] / size[name])


def _read_variances(node: ir.Node, shape: tuple[int, ...], axis: int, calibration: Calibration) -> Float64 | None:
    """var(x) of what each weight reads, (K,) or with groups (out, K); None where it was not recorded."""
    record, groups = calibration.tensors.get(name_of(node.inputs[0])), attribute_of(node, "group", 1)
    inputs = shape[1 - axis] if len(shape) == 2 else shape[1] * groups
    if record is None or record.moments is None or len(record.moments.limbs) != inputs:
        return None
    return lay_out_importance(np.maximum(record.moments.mean_square() - record.moments.mean() ** 2, 0.0), shape, groups)
