#!/usr/bin/env bash
# QuantizeLinear and DequantizeLinear with blocks along the first axis (operator set 21), of an activation, in OpenCV 5.0.0.
#
# Expected: element (i, j) has the scale of row i // block_size and column j; or the file is refused.
# Seen: other scales are taken: what comes back is no nearer to the input than its own size.  Along the last axis it is right,
# and so is a stored weight along either, which is where such files usually have blocks.
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


x = np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32)
for axis in (0, 1):
    scale = np.linspace(0.01, 0.08, 8).astype(np.float32).reshape((2, 4) if axis == 0 else (4, 2))
    wide = np.repeat(scale, 2, axis)
    right = np.clip(np.rint(x / wide), -128, 127) * wide
    held = {"scale": scale, "zero": np.zeros(scale.shape, np.int8)}
    told = {"axis": axis, "block_size": 2}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"], **told),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["y"], **told),
    ]
    off = float(np.abs(compare(nodes, x, right, held, 21) - right).max())
    print(f"{runtime}, blocks along axis {axis}: off by up to {off:.3f} of numbers up to 1")
    assert (off > 0.1) == (axis == 0), off
    stored = {"w": np.full((4, 4), 100, np.int8), **held}
    read = helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["weight"], **told)
    added = helper.make_node("Add", ["x", "weight"], ["y"])
    assert np.allclose(compare([read, added], x, x + 100 * wide, stored, 21), x + 100 * wide, atol=1e-4)
PYTHON
runtime=opencv-python-headless==5.0.0.93
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
