#!/usr/bin/env bash
# quantize_static of onnxruntime 1.32.0: activations behind a layer, which it removes where activations are asymmetric.
#
# Expected: a Clip or Relu goes only where the bytes behind it saturate at its own ends, as with Relu and a range from 0 on.
# Seen: it goes whatever its ends are.  A Clip to 0.5 .. 2 (the floor in front of a logarithm or a division) leaves bytes for
# 0 .. 2, and everything below 0.5 comes through.  With CalibTensorRangeSymmetric, which makes ranges symmetric but leaves
# activations asymmetric, Relu is removed and negative numbers come through as they are.  Both files have no Clip and no Relu any
# more; QDQKeepRemovableActivations keeps them, and the answers are right.
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
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

folder = Path(sys.argv[1])
logging.disable(logging.WARNING)
ort.set_default_logger_severity(3)  # it removes the ends of a Clip that is gone, and says so
x = np.linspace(-3, 3, 7, dtype=np.float32)[:, None]


class Batch(CalibrationDataReader):
    def __init__(self) -> None:
        self.rest = [{"x": x}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.rest.pop() if self.rest else None


def run(path: Path) -> np.ndarray:
    (answer,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    return answer.ravel()


def quantize(activation: onnx.NodeProto, right: np.ndarray, options: dict[str, bool]) -> tuple[np.ndarray, bool]:
    """What the int8 model answers, and whether it has the activation; the float model must answer what is right."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sums"], name="first"),
        activation,
        helper.make_node("MatMul", ["active", "w"], ["y"], name="second"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    constants = {"w": np.ones((1, 1), np.float32)}
    if activation.op_type == "Clip":
        constants |= {"low": np.asarray(0.5, np.float32), "high": np.asarray(2, np.float32)}
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "float.onnx")
    assert np.allclose(run(folder / "float.onnx"), right)
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Batch(), extra_options=options)
    nodes_left = onnx.load(folder / "int8.onnx").graph.node
    return run(folder / "int8.onnx"), any(node.op_type == activation.op_type for node in nodes_left)


step = 6 / 255
clip = helper.make_node("Clip", ["sums", "low", "high"], ["active"], name="clip")
relu = helper.make_node("Relu", ["sums"], ["active"], name="relu")
clipped, positive = np.clip(x, 0.5, 2).ravel(), np.maximum(x, 0).ravel()
symmetric, keep = {"CalibTensorRangeSymmetric": True}, {"QDQKeepRemovableActivations": True}
cases = [
    ("Clip to 0.5 .. 2", clip, clipped, {}, np.clip(x, 0, 2).ravel()),
    ("Clip to 0.5 .. 2, kept", clip, clipped, keep, clipped),
    ("Relu", relu, positive, {}, positive),
    ("Relu, ranges symmetric", relu, positive, symmetric, x.ravel()),
    ("Relu, ranges symmetric, kept", relu, positive, symmetric | keep, positive),
]
for name, node, right, options, expected in cases:
    found, is_there = quantize(node, right, options)
    near = [round(float(each), 2) for each in found]
    print(f"{name}: right {right.tolist()}, found {near}; it is {'there' if is_there else 'removed'}")
    assert np.allclose(found, expected, atol=step) and is_there == name.endswith("kept")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder"
