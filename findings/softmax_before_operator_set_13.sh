#!/usr/bin/env bash
# Softmax, LogSoftmax and Hardmax of operator set 11, in onnx's reference evaluator, OpenVINO, OpenCV 4.14.0 and OpenCV 5.0.0.
#
# Expected: what operator set 11 says: the axes from `axis` on are taken as one ("coerced into 2D"), so with axis 1 all numbers
# of a sample add up to one.
# Seen: one axis alone is normalized, as from operator set 13 on: each of 4 columns adds up to one, 4 in all.  Where `axis` is
# the last one both are the same.  OpenVINO does so in Softmax alone, and in set 9 it does not; OpenCV 4 has no Hardmax.
# onnxruntime and tract are right.  Old files with a Softmax over a picture come out otherwise.
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


x = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)


def shares(axes: int | tuple[int, ...]) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axes, keepdims=True)


def largest(axes: int | tuple[int, ...]) -> np.ndarray:
    return (x == x.max(axis=axes, keepdims=True)).astype(np.float32)


for op, rule in (("Softmax", shares), ("LogSoftmax", lambda axes: np.log(shares(axes))), ("Hardmax", largest)):
    if op == "Hardmax" and runtime.startswith("opencv-python-headless==4"):
        continue
    found = compare([helper.make_node(op, ["x"], ["y"], axis=1)], x, rule((1, 2)), opset=11)
    off = [float(np.abs(found - rule(axes)).max()) for axes in ((1, 2), 1)]
    print(f"{runtime}: {op} of operator set 11, axis 1: {off[0]:.2g} from all axes, {off[1]:.2g} from one")
    right = runtime.startswith("openvino") and op != "Softmax"
    assert off[right] > 0.1 and off[not right] < 1e-5
    last = compare([helper.make_node(op, ["x"], ["y"], axis=2)], x, rule(2), opset=11)
    assert np.allclose(last, rule(2), atol=1e-5)
if runtime.startswith("openvino"):
    older = compare([helper.make_node("Softmax", ["x"], ["y"], axis=1)], x, shares((1, 2)), opset=9)
    assert np.allclose(older, shares((1, 2)), atol=1e-5)
PYTHON
for runtime in reference openvino==2026.4.1 opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93; do
  [ "$runtime" = reference ] || "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
