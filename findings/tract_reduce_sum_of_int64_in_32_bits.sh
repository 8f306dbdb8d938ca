#!/usr/bin/env bash
# ReduceSum of int64 in tract 0.23.9, of numbers that fit into 32 bits and whose sum does not.
#
# Expected: as Add and CumSum, which are right, ReduceSum adds in 64 bits.
# Seen: Add and CumSum of the same numbers give 4294967294; ReduceSum gives -2, in a tensor of int64, without a word.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check tract==0.23.9 onnx==1.19.1 numpy==2.2.6
cat >"$folder/ask.py" <<'PYTHON'
import sys

import numpy as np
import onnx
import tract
from onnx import TensorProto, helper, numpy_helper

axis = numpy_helper.from_array(np.array([1]), "axis")
along = numpy_helper.from_array(np.array(1), "along")
x = np.array([[2**31 - 1, 2**31 - 1]], np.int64)


def run(nodes: list[onnx.NodeProto], shape: list[int], held: list[onnx.TensorProto]) -> list[int]:
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, size) for name, size in (("x", [1, 2]), ("y", shape))]
    graph = helper.make_graph(nodes, "sums", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path = f"{sys.argv[1]}/model.onnx"
    onnx.save(model, path)
    (found,) = tract.onnx().load(path).into_model().into_runnable().run([x])
    result = found.to_numpy()
    assert result.dtype == np.int64
    return result.reshape(-1).tolist()


added = run([helper.make_node("Add", ["x", "x"], ["y"])], [1, 2], [])
followed = run([helper.make_node("CumSum", ["x", "along"], ["y"])], [1, 2], [along])
summed = run([helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)], [1], [axis])
print(f"2147483647 twice: Add {added[0]}, CumSum {followed[-1]}, ReduceSum {summed[0]}")
assert (added[0], followed[-1], summed[0]) == (2**32 - 2, 2**32 - 2, -2)
PYTHON
"$folder/env/bin/python" "$folder/ask.py" "$folder"
