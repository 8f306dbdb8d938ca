"""A network, and its ranges as onnxruntime's own tools measure them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from networks import Net, random_data
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from fcdeploy.graph.model import name_everything
from fcdeploy.int8.planning.plan_graph import plan_graph
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import Calibration, Histogram
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.session import Session
from fcdeploy.tables.targets import TARGETS


def network(seed: int = 0) -> Net:
    """Convolution, clip, convolution, dense: every name the model has is one that preparing keeps."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 8, name="first"), name="relu")
    y = net.op("GlobalAveragePool", net.conv(x, 8, 8, name="second"), name="pool")
    return net.output(net.dense(net.op("Flatten", y, name="flat"), 8, 4, name="last"))


def prepared(net: Net) -> ir.Model:
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    prepare(model)
    return model


def ends_only(calibration: Calibration) -> Calibration:
    """The same ranges, as another tool would have measured them."""
    nothing = np.zeros(0, np.uint16), np.zeros(0, np.int64)
    return replace(
        calibration,
        tensors={
            name: replace(r, moments=None, histogram=Histogram(*nothing, r.histogram.low, r.histogram.high))
            for name, r in calibration.tensors.items()
        },
    )


def planned(model: ir.Model, calibration: Calibration, ranges: str = "minmax") -> Plan:
    return plan_graph(model, calibration, TARGETS["portable"], ranges=ranges)


# --- the formats, against onnxruntime's own tools and bytes written by hand


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter([DATA])

    def get_next(self) -> Any:
        return next(self.batches, None)


DATA = random_data(0, 4, x=(3, 6, 6))


TENSORS = ["first_out", "flat_out", "last_out", "pool_out", "relu_out", "second_out", "x"]


def measured(folder: Path, method: CalibrationMethod = CalibrationMethod.MinMax, **options: Any) -> TensorsData:
    """What onnxruntime's own calibration finds on the network."""
    model = network().save(folder / "net.onnx")
    with redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            str(model), augmented_model_path=str(folder / "a.onnx"), calibrate_method=method, extra_options=options
        )
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def truth() -> dict[str, tuple[float, float]]:
    """Exact ends of every tensor, from onnxruntime's float results with optimization off."""
    model = network().model()
    names = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    found = dict(zip(names, Session(model.SerializeToString(), threads=1, optimize=False).run(DATA), strict=True))
    return {name: (float(array.min()), float(array.max())) for name, array in {**DATA, **found}.items()}
