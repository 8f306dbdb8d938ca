#!/usr/bin/env bash
# quantize_static of onnxruntime 1.32.0 with CalibMovingAverage and its constant.
#
# Expected: a moving average with a "constant smoothing factor" (CalibMovingAverageConstant, 0.01 unless said), as torch's
# MovingAverageMinMaxObserver: range += constant * (range of the next sample - range).  A constant of 1 leaves the last sample's
# range, and a constant near 0 the first one's.
# Seen: the plain mean of all samples' ranges, whatever the constant and the order of the samples.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

folder = Path(sys.argv[1])
logging.disable(logging.WARNING)


class Samples(CalibrationDataReader):
    def __init__(self, largest: list[int]) -> None:
        self.rest: Iterator[int] = iter(largest)

    def get_next(self) -> dict[str, np.ndarray] | None:
        value = next(self.rest, None)
        return None if value is None else {"x": np.array([[0, value]], np.float32)}


def quantized_range(largest: list[int], constant: float) -> float:
    """The largest input that the quantized model can tell: 255 steps above 0."""
    options = {"CalibMovingAverage": True, "CalibMovingAverageConstant": constant}
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Samples(largest), extra_options=options)
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(folder / "int8.onnx").graph.initializer}
    return float(held["x_scale"]) * 255


def average(largest: list[int], constant: float) -> float:
    moving = float(largest[0])
    for value in largest[1:]:
        moving += constant * (value - moving)
    return moving


ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")]
product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
graph = helper.make_graph([product], "graph", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, folder / "float.onnx")

for largest in ([20, 9, 8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 20]):
    for constant in (0.01, 0.5, 1.0):
        found, moving = quantized_range(largest, constant), average(largest, constant)
        print(f"samples up to {largest}, constant {constant}: moving average {moving:.3f}, found {found:.3f}")
        assert np.isclose(found, np.mean(largest)) and not np.isclose(found, moving, atol=0.1)
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder"
