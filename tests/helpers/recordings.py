"""Networks whose tensors are recorded, and recording them: what tests of calibrations share."""

from __future__ import annotations

from functools import partial
from typing import Any

import onnx_ir as ir
from networks import Arrays, Net, in_memory
from onnx import TensorProto

from fcdeploy.graph.model import input_specs, name_everything
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import Calibration
from fcdeploy.samples.source import Source


def model_of(net: Net, *, prepared: bool = True) -> ir.Model:
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    if prepared:
        prepare(model)
    return model


def record(model: ir.Model, data: Arrays, **options: Any) -> Calibration:
    return observe(model, in_memory(data, model), model_hash="hash", **options)


def images(net: Net) -> Net:
    a, b = net.input("a", 4, 8, 8), net.input("b", 4, 8, 8)
    x = net.op("Relu", net.op("Add", net.conv(a, 4, 8), net.conv(b, 4, 8)), name="sum_relu")
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 8, 16))))
    return net.output(net.op("Softmax", net.dense(x, 16, 5)))


def tokens(net: Net) -> Net:
    index = net.input("index", 6, dtype=TensorProto.INT64)
    x = net.op("Gather", net.constant(net.normal(9, 8)), index)
    return net.output(net.op("Relu", net.op("MatMul", x, net.constant(net.normal(8, 5)))))


def free_size(net: Net) -> Net:
    """Images of any height and width."""
    x = net.op("Relu", net.conv(net.input("x", 3, "h", "w"), 3, 6))
    return net.output(net.conv(net.op("MaxPool", x, kernel_shape=[2, 2]), 6, 2))


def any_shapes(model: ir.Model, samples: list[Arrays]) -> Source:
    inputs = tuple(input_specs(model))
    return Source("mixed", inputs, lambda: ((f"{i}", partial(dict, s)) for i, s in enumerate(samples)), None, False)
