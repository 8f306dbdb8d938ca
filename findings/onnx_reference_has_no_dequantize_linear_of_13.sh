#!/usr/bin/env bash
# DequantizeLinear of operator set 13, the one of most quantized files, in onnx's reference evaluator.
#
# Expected: it is there, as QuantizeLinear of operator set 13 is.
# Seen: QuantizeLinear runs, DequantizeLinear raises "No implementation for operator ... version 13, found 19, 21, 23, 25".  The
# same model at operator set 19 is right.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
install=("$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check)
"${install[@]}" onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

folder, runtime = Path(sys.argv[1]), sys.argv[2]


def ask(path: str, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(path).run(None, {"x": x})[0]


def compare(
    nodes: list[onnx.NodeProto], x: np.ndarray, right: np.ndarray, held: dict[str, np.ndarray] | None = None, opset: int = 13
) -> np.ndarray:
    """What the runtime answers; onnxruntime must answer what is right."""
    ends = [helper.make_tensor_value_info(key, TensorProto.FLOAT, each.shape) for key, each in (("x", x), ("y", right))]
    constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in (held or {}).items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    ir_version = 8 if opset < 21 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    path = str(folder / "model.onnx")
    onnx.save(model, path)
    (usual,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert usual.shape == right.shape and np.allclose(usual, right, atol=1e-4), usual
    return np.asarray(ask(path, x))


x = np.array([[-1, 0.26, 5]], np.float32)
held = {"scale": np.float32(0.5), "zero": np.uint8(2)}
write = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"])
read = helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["y"])
compare([write, helper.make_node("Cast", ["bytes"], ["y"], to=TensorProto.FLOAT)], x, np.array([[0, 3, 12]], np.float32), held)
assert np.array_equal(compare([write, read], x, np.array([[-1, 0.5, 5]], np.float32), held, 19), [[-1, 0.5, 5]])
try:
    compare([write, read], x, np.array([[-1, 0.5, 5]], np.float32), held)
except RuntimeError as error:
    print(f"{runtime}: operator set 13: {error}")
    assert "No implementation for operator 'DequantizeLinear'" in str(error)
else:
    raise SystemExit("operator set 13 runs")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder" reference
