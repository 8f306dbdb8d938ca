#!/usr/bin/env bash
# Cast from float to an integer or to bool and back, in OpenCV 4.14.0.
#
# Expected: fractions are cut off, bool is 0 or 1; or the file is refused.
# Seen: Cast changes nothing.  -1.7, 1.7 and 2.5 stay as they are, integer division gives halves, `Not` of 3 that was made bool
# is 0 but of 0.3 is 1.  OpenCV 5 is right.
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
    import cv2

    net = cv2.dnn.readNetFromONNX(path)
    net.setInput(x)
    return net.forward()


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


x = np.array([[-1.7, 1.7, 0.3, 3]], np.float32)


def cast(into: int, source: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], to=into)


back = cast(TensorProto.FLOAT, "i", "y")
for name, into, right in (("int64", TensorProto.INT64, np.trunc(x)), ("bool", TensorProto.BOOL, np.ones_like(x))):
    found = compare([cast(into, "x", "i"), back], x, right)
    print(f"{runtime}: {x[0].tolist()} to {name} and back is {found[0].tolist()}, expected {right[0].tolist()}")
    assert np.array_equal(found, x)
whole = np.array([[7, 8, 9, 10]], np.float32)
nodes = [cast(TensorProto.INT64, "x", "n"), helper.make_node("Div", ["n", "two"], ["i"]), back]
found = compare(nodes, whole, whole // 2, {"two": np.array([2])})
print(f"{runtime}: integers {whole[0].tolist()} over 2 are {found[0].tolist()}")
assert np.array_equal(found, whole / 2)
PYTHON
runtime=opencv-python-headless==4.14.0.94
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
