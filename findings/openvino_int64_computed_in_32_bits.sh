#!/usr/bin/env bash
# Add and Mul of int64 inputs in OpenVINO 2026.4.1 on a CPU, where the results need more than 32 bits.
#
# Expected: ONNX's int64 is computed in 64 bits, or the model is refused.
# Seen: both compile without a word, the outputs are declared as 64-bit integers and hold what 32 bits leave of the results:
# 2147483647 + 1 becomes -2147483648.  Inputs beyond 32 bits are cut before anything is computed.  So sums of fixed-point numbers
# that onnxruntime computes right are wrong here in silence.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.19.1 onnxruntime==1.26.0 numpy==2.2.6
cat >"$folder/ask.py" <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper

given = {"a": np.array([2**31 - 1, 3_000_000_000], np.int64), "b": np.array([1, 5], np.int64)}
for op, exact in (("Add", given["a"] + given["b"]), ("Mul", given["a"] * given["b"])):
    a, b, y = (helper.make_tensor_value_info(name, TensorProto.INT64, [2]) for name in "aby")
    graph = helper.make_graph([helper.make_node(op, ["a", "b"], ["y"])], "integers", [a, b], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path = f"{sys.argv[1]}/{op}.onnx"
    onnx.save(model, path)
    (right,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, given)
    compiled = ov.Core().compile_model(path, "CPU")
    found = np.asarray(compiled(given)[0])
    print(f"{op}: onnxruntime {right.tolist()}, OpenVINO {found.tolist()} ({compiled.output(0).element_type.get_type_name()})")
    assert np.array_equal(right, exact)
    assert found.dtype == np.int64 and np.array_equal(found, exact.astype(np.int32))
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder"
