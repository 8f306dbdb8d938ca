#!/usr/bin/env bash
# A stored length of -1, as older exporters write for any length, through onnxscript 0.7.2's optimizer (onnx-ir 1.1.0).
#
# Expected: a free axis, as onnx 1.23.2's checker, its reference evaluator and onnxruntime 1.32.0 read it.
# Seen: onnx-ir keeps the number -1 and calls the shape static; the optimizer folds Shape to it.  What repeats a row as often as
# there are samples (Shape, Slice, Concat, Tile) then has -1 as its number of times, and onnxruntime does not load the model.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
  onnx==1.23.2 onnx-ir==1.1.0 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxscript import optimizer

folder = Path(sys.argv[1])
nodes = [
    helper.make_node("Shape", ["x"], ["shape"]),
    helper.make_node("Slice", ["shape", "zero", "one"], ["samples"]),
    helper.make_node("Concat", ["samples", "one"], ["times"], axis=0),
    helper.make_node("Tile", ["row", "times"], ["rows"]),
    helper.make_node("Add", ["x", "rows"], ["y"]),
]
row = np.array([[0, 1, 2]], np.float32)
held = {"zero": np.array([0]), "one": np.array([1]), "row": row}
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [-1, 3]) for name in ("x", "y")]
constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, folder / "model.onnx")

x = np.ones((4, 3), np.float32)
session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
for name, answer in (("onnxruntime", session.run(None, {"x": x})[0]), ("reference", ReferenceEvaluator(model).run(None, {"x": x})[0])):
    assert np.array_equal(answer, x + row)
    print(f"{name}: {len(answer)} rows, input {session.get_inputs()[0].shape}")

read = ir.load(folder / "model.onnx")
shape = read.graph.inputs[0].shape
print(f"onnx-ir: {shape}, static: {shape.is_static()}")
assert shape.is_static() and list(shape) == [-1, 3]
made = optimizer.optimize(read)
times = {name: value.const_value.numpy().tolist() for name, value in made.graph.initializers.items()}["times"]
print(f"optimized: {[node.op_type for node in made.graph]}, times {times}")
assert times == [-1, 1]
ir.save(made, folder / "optimized.onnx")
try:
    ort.InferenceSession(folder / "optimized.onnx", providers=["CPUExecutionProvider"])
except Exception as error:
    print(f"onnxruntime: {str(error).splitlines()[0][:150]}")
    assert "must not contain negative values" in str(error)
else:
    raise AssertionError("it loads")
PYTHON
