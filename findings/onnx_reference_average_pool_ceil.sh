#!/usr/bin/env bash
# AveragePool with ceil_mode in ONNX's own reference evaluator, beside onnxruntime.
#
# Expected: the reference evaluator of onnx answers as the operator's description says.  Seven numbers 1..7, windows of 3 at
# steps of 3, ceil_mode: the windows (1 2 3), (4 5 6) and (7), so 2, 5, 7.  No padding is asked for.
# Seen (onnx 1.23.2): the reference answers 1.5, 4, 6; its windows begin one element early, as if ceil_mode had padded the
# front.  onnxruntime 1.32.0 answers 2, 5, 7.  Where the last window is full the two agree.
# So a pool that is compared with the reference evaluator seems wrong by up to a window's spread though it is right.
#
# Fails when either answer changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def answers(size: int) -> tuple[list[float], list[float]]:
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[3], ceil_mode=1)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, length]) for name, length in (("x", size), ("y", None))]
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    feeds = {"x": np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, size)}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ReferenceEvaluator(model).run(None, feeds)[0].ravel().tolist(), session.run(None, feeds)[0].ravel().tolist()


reference, runtime = answers(7)
print(f"onnx {onnx.__version__} reference: {reference}; onnxruntime {ort.__version__}: {runtime}")
assert reference == [1.5, 4.0, 6.0], reference
assert runtime == [2.0, 5.0, 7.0], runtime
one, other = answers(9)
assert one == other == [2.0, 5.0, 8.0], (one, other)
PYTHON
