#!/usr/bin/env bash
# QuantizeLinear of numbers beyond 32 bits, in onnx's reference evaluator, tract, OpenCV 4.14.0 and OpenCV 5.0.0.
#
# Expected: QuantizeLinear saturates, so all that is too large becomes the largest byte, an infinity too.
# Seen: what exceeds 32 bits behind the division becomes the smallest byte: 3e9 and infinity become -128 (of a scale of 1 and a
# zero point of 3).  Negative numbers are right.  onnxruntime saturates, OpenVINO does.  One exploding activation changes sign.
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
    if runtime == "reference":
        return ReferenceEvaluator(path).run(None, {"x": x})[0]
    if runtime.startswith("opencv"):
        import cv2

        net = cv2.dnn.readNetFromONNX(path)
        net.setInput(x)
        return net.forward()
    if runtime.startswith("tract"):
        import tract

        return tract.onnx().load(path).into_model().into_runnable().run([x])[0].to_numpy()
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


x = np.array([[100, 200, 2e9, 3e9, np.inf, -3e9]], np.float32)
right = np.array([[100, 124, 124, 124, 124, -131]], np.float32)
held = {"scale": np.float32(1), "zero": np.int8(3)}
nodes = [
    helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"]),
    helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["y"]),
]
found = compare(nodes, x, right, held, 19)
print(f"{runtime}: {x[0].tolist()} become {found[0].tolist()}, expected {right[0].tolist()}")
assert np.array_equal(found[0, [0, 1, 2, 5]], right[0, [0, 1, 2, 5]])
assert np.all(found[0, 3:5] == -131)
PYTHON
for runtime in reference opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93 tract==0.23.9; do
  [ "$runtime" = reference ] || "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
