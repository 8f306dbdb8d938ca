#!/usr/bin/env bash
# A model of operator set 11 converted to operator set 23 by onnxscript's version converter (onnxscript 0.7.2).
#
# Expected: the converter supports sets from 18 on; what it does not support is left as it is with a warning ("The model was not
# modified"), unless fallback=True asks for onnx's own converter.
# Seen: without fallback the model is stamped as set 23 and its nodes stay as they were, without a warning.  A Softmax over
# axis 1 then means one axis instead of all from it on: it runs, and the answers are others.  A ReduceMax of set 13 with its
# axes as an attribute no longer loads.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
  onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import logging

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxscript import version_converter

warned: list[str] = []


class Keep(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warned.append(record.getMessage())


logging.getLogger().addHandler(Keep())


def convert(node: onnx.NodeProto, shape: list[int], opset: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, each) for name, each in (("x", [2, 3, 4]), ("y", shape))]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    converted = ir.from_proto(model)
    version_converter.convert_version(converted, target_version=23)
    return model, ir.to_proto(converted)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
before, after = convert(helper.make_node("Softmax", ["x"], ["y"], axis=1), [2, 3, 4], 11)
shares = [np.exp(x) / np.exp(x).sum(axis=axes, keepdims=True) for axes in ((1, 2), 1)]
print(f"Softmax of set 11, now {after.opset_import[0].version}: {[node.op_type for node in after.graph.node]}, warned: {warned}")
assert after.opset_import[0].version == 23 and not warned and after.graph.node[0].op_type == "Softmax"
assert np.allclose(run(before, x), shares[0], atol=1e-6) and np.allclose(run(after, x), shares[1], atol=1e-6)
before, after = convert(helper.make_node("ReduceMax", ["x"], ["y"], axes=[1]), [2, 1, 4], 13)
assert np.array_equal(run(before, x), x.max(axis=1, keepdims=True)) and not warned
try:
    run(after, x)
except Exception as error:
    print(f"ReduceMax of set 13, now {after.opset_import[0].version}: {str(error)[:140]}")
    assert "axes" in str(error)
else:
    raise SystemExit("ReduceMax loads")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
