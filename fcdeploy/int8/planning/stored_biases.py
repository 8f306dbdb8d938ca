"""Biases of float layers whose weights are stored in few bits, without what rounding these adds to their mean output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import dequantize, quantize
from fcdeploy.arithmetic.weights.layout import to_rows
from fcdeploy.graph.edit import add_constant, set_constant
from fcdeploy.graph.nodes import bias_of, constant_tensor, name_of, operator_of
from fcdeploy.graph.weights import read_blocks
from fcdeploy.int8.planning.mean_errors import compute_mean_error, read_means
from fcdeploy.int8.planning.weights import bias_array, find_weight_only
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan


def shift_stored_biases(model: ir.Model, plan: Plan, calibration: Calibration) -> None:
    """Take off the biases of a float model, in place, what the plan's weights in bytes are going to add.

    Of convolutions and dense layers that have a bias; of 16 bits there is nothing to take off.
    """
    for node, index, weight, axis in find_weight_only(model.graph, plan):
        q, bias, real = plan.tensors[name_of(weight)], bias_of(node), bias_array(node)
        if bias is None or real is None or index != operator_of(node).weight or q.dtype == "int16":
            continue
        means = read_means(node, tuple(constant_tensor(weight).shape.numpy()), calibration)
        if means is None:
            continue
        shifted = real.copy()
        for part, array in read_blocks(constant_tensor(weight), axis):
            of_part = replace(q, scale=q.scale[part])
            errors = to_rows(dequantize(quantize(array, of_part), of_part) - array, axis)
            shifted[part] -= compute_mean_error(errors.astype(np.float64), means if means.ndim == 1 else means[part])
        shape = tuple(constant_tensor(bias).shape.numpy())
        content = shifted.astype(np.float32).reshape(shape)
        if len(bias.uses()) == 1:
            set_constant(bias, content)
        else:
            node.replace_input_with(operator_of(node).bias or 2, add_constant(model.graph, f"{node.name}/b", content))
