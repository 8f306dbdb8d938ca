#!/usr/bin/env bash
# onnxruntime 1.32.0 writing its optimized graph (optimized_model_filepath) where there is no room left, on Linux.
#
# Expected: the session cannot be made, and the error says that the file cannot be written, or names the errno of a full disk.
# Seen: INVALID_PROTOBUF, "Protobuf serialization failed": the words of a damaged model, for a model that loads and runs. The path is
# not in the message. So a full temporary folder looks like a bad file to every tool that reads kernels from the optimized graph.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

value = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", [value("x", TensorProto.FLOAT, ["n", 4])],
    [value("y", TensorProto.FLOAT, ["n", 4])], [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
ort.InferenceSession(model, providers=["CPUExecutionProvider"])
options = ort.SessionOptions()
options.optimized_model_filepath = "/dev/full"  # every write fails as on a disk without room
try:
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    assert type(error).__name__ == "InvalidProtobuf" and "Protobuf serialization failed" in str(error)
    assert not any(word in str(error) for word in ("/dev/full", "No space", "ENOSPC", "28"))
else:
    raise SystemExit("no error")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
