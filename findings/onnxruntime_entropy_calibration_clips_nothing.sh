#!/usr/bin/env bash
# quantize_static of onnxruntime 1.32.0 with CalibrationMethod.Entropy, of one batch of numbers with an outlier.
#
# Expected: that calibration looks for the range whose 8-bit distribution is nearest to the real one, and cuts outliers off: one of
# 100 among 200,000 numbers of a standard normal distribution does not set the range (CalibrationMethod.Percentile ends it below 10).
# Seen: the range is that of CalibrationMethod.MinMax.  The histogram has 128 bins and is compared in 128 levels, so that all of it
# is the one range that is tried; quantize_static has no option for the bins.  The same method by create_calibrator with 8,192 bins
# cuts the outlier off.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import contextlib
import io
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator, quantize_static

folder = Path(sys.argv[1])
logging.disable(logging.WARNING)
x = np.random.default_rng(0).normal(size=(200000, 1)).astype(np.float32)
x[5] = 100


class Batch(CalibrationDataReader):
    def __init__(self) -> None:
        self.rest = [{"x": x}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.rest.pop() if self.rest else None


def quantized_range(method: CalibrationMethod) -> float:
    """The largest input that the quantized model can tell."""
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(folder / "float.onnx", folder / "int8.onnx", Batch(), calibrate_method=method)
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(folder / "int8.onnx").graph.initializer}
    return float(held["x_scale"] * (127 - held["x_zero_point"].astype(np.float32)))


def entropy_range(bins: int) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        path = str(folder / "augmented.onnx")
        method, more = CalibrationMethod.Entropy, {"num_bins": bins}
        calibrator = create_calibrator(folder / "float.onnx", None, path, method, extra_options=more)
        calibrator.collect_data(Batch())
        return float(calibrator.compute_data()["x"].range_value[1])


ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
weights = [numpy_helper.from_array(np.ones((1, 1), np.float32), "w")]
product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
graph = helper.make_graph([product], "graph", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, folder / "float.onnx")

methods = (CalibrationMethod.MinMax, CalibrationMethod.Entropy, CalibrationMethod.Percentile)
ranges = {method.name: quantized_range(method) for method in methods}
print(f"the largest number is {x.max()}, the next {np.sort(x.ravel())[-2]:.2f}; ranges end at {ranges}")
assert ranges["MinMax"] > 99 and ranges["Entropy"] == ranges["MinMax"] and ranges["Percentile"] < 10, ranges
few, many = entropy_range(128), entropy_range(8192)
print(f"entropy by create_calibrator: {few:.2f} of 128 bins, {many:.2f} of 8192")
assert few > 99 and many < 50, (few, many)
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder"
