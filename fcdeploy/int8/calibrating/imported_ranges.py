"""Ranges that another tool measured, as a calibration of a prepared model: ends alone, no histograms, no samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import clip_bounds, is_op, name_of
from fcdeploy.int8.calibrating.observe import observable_tensors
from fcdeploy.records.calibration import Calibration, Histogram, TensorRecord


def import_ranges(
    model: ir.Model, ends: Mapping[str, tuple[float, float]], *, model_hash: str, made_by: str
) -> tuple[Calibration, list[str]]:
    """The calibration, and the tensors that a plan could use but that have no range."""
    records = {}
    for value in observable_tensors(model.graph, everything=True):
        name = name_of(value)
        if name in ends:
            records[name] = _make_record(value, *ends[name])
    missing = [name_of(value) for value in observable_tensors(model.graph) if value.name not in ends]
    nothing = np.zeros(0, np.uint64)
    return Calibration(model_hash, records, nothing, {}, {"imported": made_by}), missing


def _make_record(value: ir.Value, low: float, high: float) -> TensorRecord:
    producer = value.producer()
    if producer is not None and is_op(
        producer, "Relu", "Clip"
    ):  # a symmetric format widens ranges beyond what it writes
        low, high = map(float, np.clip([low, high], *clip_bounds(producer)))
    shape = [n if isinstance(n, int) else None for n in value.shape] if value.shape is not None else []
    name, op = (name_of(producer), producer.op_type) if producer else ("", "")
    histogram = Histogram(
        np.zeros(0, np.uint16), np.zeros(0, np.int64), float(np.float32(low)), float(np.float32(high))
    )
    kind = "activation" if producer else "input"
    return TensorRecord(name_of(value), kind, name, op, (None, *shape[1:]), histogram)
