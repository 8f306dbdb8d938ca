#!/usr/bin/env bash
# QuantizeLinear with an odd zero point, of numbers half way between two levels, in OpenVINO 2026.4.1, OpenCV 4.14.0 and 5.0.0.
#
# Expected: the quotient is rounded, ties to the even number, then the zero point is added: 0.5 becomes 0 + 3, 1.5 becomes 2 + 3.
# Seen: the zero point is added first and the sum is rounded, ties to the even number: 0.5 + 3 becomes 4, 1.5 + 3 becomes 4.
# With even zero points nobody sees it; with odd ones every tie is a level off, so that files do not agree byte for byte.
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

folder, runtime = Path(sys.argv[1]), sys.argv[2]


def ask(path: str, x: np.ndarray) -> np.ndarray:
    if runtime.startswith("openvino"):
        import openvino

        return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    if runtime.startswith("opencv"):
        import cv2

        net = cv2.dnn.readNetFromONNX(path)
        net.setInput(x)
        return net.forward()
    raise SystemExit(f"{runtime} is unknown")


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


x = np.array([[0.5, 1.5, 2.5, -0.5, 1, 0.75]], np.float32)
nodes = [
    helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"]),
    helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["y"]),
]
for zero in (2, 3):
    found = compare(nodes, x, np.rint(x), {"scale": np.float32(1), "zero": np.int8(zero)})
    print(f"{runtime}, zero point {zero}: {x[0].tolist()} become {found[0].tolist()}, expected {np.rint(x)[0].tolist()}")
    assert np.array_equal(found, np.rint(x + zero) - zero)
    assert np.array_equal(found, np.rint(x)) == (zero % 2 == 0)
PYTHON
for runtime in openvino==2026.4.1 opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93; do
  "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
