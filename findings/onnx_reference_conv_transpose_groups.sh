#!/usr/bin/env bash
# ConvTranspose with two groups in the reference evaluator of onnx 1.23.2.
#
# Expected: the reference evaluator defines what operators compute, `group` of ConvTranspose included; onnxruntime 1.32.0 and it agree.
# Seen: with one group they agree to 1e-5; with two, onnxruntime computes and the reference raises "cannot reshape array".
# A test of a grouped ConvTranspose needs another reference.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, load_from_string, numpy_helper
from onnx.reference import ReferenceEvaluator

random = np.random.default_rng(0)
x = random.normal(size=(1, 4, 5, 5)).astype(np.float32)


def model(group: int) -> bytes:
    w = numpy_helper.from_array(random.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=group)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape)), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "transposed", ends[:1], ends[1:], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def run(data: bytes) -> np.ndarray:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


one = model(1)
difference = float(np.abs(run(one) - ReferenceEvaluator(load_from_string(one)).run(None, {"x": x})[0]).max())
print(f"one group: onnxruntime and the reference differ by {difference:.1e}")
assert difference < 1e-5
two = model(2)
print(f"two groups: onnxruntime gives {run(two).shape}")
assert run(two).shape == (1, 6, 7, 7)
try:
    ReferenceEvaluator(load_from_string(two)).run(None, {"x": x})
except ValueError as error:
    print(f"two groups: the reference raises ValueError: {error}")
    assert "cannot reshape" in str(error)
else:
    raise SystemExit("two groups: the reference computes")
PYTHON
