"""Samples, and models with one source of error that is too large."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.evaluate.choose_metric import choose_metric
from fcdeploy.evaluate.metric import Metric
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.evaluate.outputs import OutputsRead
from fcdeploy.samples.source import Batch
from fcdeploy.sensitivity.error_sources import ErrorSource

Array = np.ndarray[Any, Any]


def batch(x: Array, **labels: Array) -> Batch:
    return Batch(tuple(f"sample {i}" for i in range(len(x))), {"x": x}, labels)


def spoil(model: ir.Model, source: ErrorSource, times: int = 32) -> None:
    """Some bits fewer for one source."""
    if source.kind == "weights":
        weight = model.graph.initializers[source.integers[0]]
        coarse = np.rint(weight.const_value.numpy() / 16.0) * 16
        weight.const_value = ir.tensor(np.clip(coarse, -128, 127).astype(np.int8), name=weight.name)
        return
    (quantize,) = (node for node in model.graph if node.outputs[0].name == source.integers[0])
    scale = quantize.inputs[1].const_value.numpy() * np.float32(times)
    wide = ir.Value(name=f"{source.name}/wide", const_value=ir.tensor(np.asarray(scale), name=f"{source.name}/wide"))
    wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(scale.shape)
    model.graph.register_initializer(wide)
    for node in [quantize, *quantize.outputs[0].consumers()]:
        node.replace_input_with(1, wide)


def top1(outputs: Arrays, labels: Arrays) -> tuple[Metric | None, OutputsRead]:
    return choose_metric(None, outputs, labels, {name: OutputEnd("dense", 1) for name in outputs})
