#!/usr/bin/env bash
# quantize_static of onnxruntime 1.32.0 with CalibMaxIntermediateOutputs, the option that bounds the memory of calibration.
#
# Expected: as it is documented, it "will load at max value number of outputs before computing and merging the range" and "produce
# the same result as all computing with None".
# Seen: when that many samples have been run, what they told is thrown away before a range is computed.  Of ten samples in portions
# of four the ranges come from the last two; eight samples in portions of four end in "No data is collected".
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


def quantized_range(largest: list[int], portion: int | None) -> float:
    """The largest input that the quantized model can tell: 255 steps above 0."""
    options = {} if portion is None else {"CalibMaxIntermediateOutputs": portion}
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Samples(largest), extra_options=options)
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(folder / "int8.onnx").graph.initializer}
    return float(held["x_scale"]) * 255


ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")]
product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
graph = helper.make_graph([product], "graph", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, folder / "float.onnx")

largest = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
for portion, last in ((None, 10), (20, 10), (4, 2), (3, 1), (9, 1)):
    found = quantized_range(largest, portion)
    print(f"samples up to {max(largest)}, portions of {portion or 'all'}: the range ends at {found:.3f}")
    assert np.isclose(found, last), found
try:
    quantized_range(largest[:8], 4)
except ValueError as error:
    print(f"eight samples, portions of 4: {error}")
    assert "No data is collected" in str(error)
else:
    raise AssertionError("eight samples in portions of four were taken")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder"
