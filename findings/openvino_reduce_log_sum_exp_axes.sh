#!/usr/bin/env bash
# ReduceLogSumExp with `axes`, of operator set 13, in OpenVINO 2026.4.1.
#
# Expected: as ReduceMax with the same axes, which is right.
# Seen: all axes are reduced, and the answer has another shape.  From operator set 18 on, where axes are an input, it is right.
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
    import openvino

    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


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


x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
right = np.log(np.exp(x).sum(axis=1, keepdims=True))
found = compare([helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[1])], x, right)
print(f"{runtime}: shape {found.shape}, expected {right.shape}")
assert found.shape == (1, 1, 1) and np.isclose(found.item(), np.log(np.exp(x).sum()), atol=1e-5)
top = x.max(axis=1, keepdims=True)
assert np.allclose(compare([helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])], x, top), top)
later = compare([helper.make_node("ReduceLogSumExp", ["x", "axes"], ["y"])], x, right, {"axes": np.array([1])}, 18)
assert np.allclose(later, right, atol=1e-5)
PYTHON
runtime=openvino==2026.4.1
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
