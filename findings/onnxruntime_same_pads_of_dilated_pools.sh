#!/usr/bin/env bash
# A MaxPool or AveragePool with dilations and auto_pad SAME_UPPER or SAME_LOWER, in onnxruntime 1.32.0.
#
# Expected: as ONNX has it, an output as long as the input over the stride, rounded up: the pads follow from what the window
# reaches over, (kernel - 1) * dilation + 1.  Convolutions with both are refused.
# Seen: pads of the kernel as if it were not dilated, so that a window of 3 x 3 dilated by 2 makes 6 x 7 of 8 x 9, with a warning
# in the log that another shape was expected.  onnx's reference evaluator and shape inference say 8 x 9.  With the pads written
# out onnxruntime agrees with NumPy.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
install=("$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check)
"${install[@]}" onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import itertools

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

ort.set_default_logger_severity(3)
X = np.random.default_rng(0).normal(size=(1, 2, 8, 9)).astype(np.float32)
REACH, DILATION, TAPS = 5, 2, (-2, 0, 2)  # of a kernel of 3


def make(kind: str, **how: object) -> onnx.ModelProto:
    node = helper.make_node(kind, ["x"], ["y"], kernel_shape=[3, 3], dilations=[DILATION] * 2, **how)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", X.shape), ("y", [None] * 4))]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


def pool(kind: str) -> np.ndarray:
    """Stride 1 and SAME: a window around every position, and nothing outside counts."""
    y = np.empty_like(X)
    for i, j in itertools.product(range(X.shape[2]), range(X.shape[3])):
        at = [(i + a, j + b) for a in TAPS for b in TAPS if 0 <= i + a < X.shape[2] and 0 <= j + b < X.shape[3]]
        seen = np.stack([X[:, :, r, c] for r, c in at])
        y[:, :, i, j] = seen.max(axis=0) if kind == "MaxPool" else seen.mean(axis=0)
    return y


for kind, rule in itertools.product(("MaxPool", "AveragePool"), ("SAME_UPPER", "SAME_LOWER")):
    model, right = make(kind, auto_pad=rule), pool(kind)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    declared = tuple(dim.dim_value for dim in inferred.dim)
    seen, written = run(model), run(make(kind, pads=[REACH // 2] * 4))
    print(f"{kind}, {rule}: {seen.shape}, inferred {declared}")
    assert declared == X.shape
    assert seen.shape == (1, 2, 6, 7)
    assert written.shape == X.shape and np.allclose(written, right, atol=1e-6)
PYTHON
"$folder/env/bin/python" "$folder/ask.py"
