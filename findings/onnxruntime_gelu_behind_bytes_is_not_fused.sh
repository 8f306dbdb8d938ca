#!/usr/bin/env bash
# A GELU of five nodes (Div, Erf, Add, Mul, Mul) that reads a DequantizeLinear, in onnxruntime 1.32.0 on the CPU.
#
# Expected: the five nodes become one Gelu, as they do behind a float tensor.
# Seen: they stay five.  Every reader of a DequantizeLinear gets a copy of its own before GELUs are looked for, so what is
# multiplied and what the Erf reads are two tensors, and the pattern does not fit any more.  With a Clip in between that
# changes nothing (its ends are those of float32) there is one Gelu, and the answers are the same.
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

folder = Path(sys.argv[1])
LIMIT = float(np.finfo(np.float32).max)


def make(front: str) -> onnx.ModelProto:
    """x -> [nothing, bytes, or bytes and a Clip] -> GELU -> y"""
    nodes, read = [], "x"
    if front != "float":
        nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"])]
        read = "d"
    if front == "clip":
        nodes.append(helper.make_node("Clip", [read, "least", "most"], ["c"]))
        read = "c"
    nodes += [
        helper.make_node("Div", [read, "root"], ["a"]), helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["e"]), helper.make_node("Mul", [read, "e"], ["f"]),
        helper.make_node("Mul", ["f", "half"], ["y"]),
    ]
    numbers = {"s": 0.05, "root": 2**0.5, "one": 1.0, "half": 0.5, "least": -LIMIT, "most": LIMIT}
    held = [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()]
    held.append(numpy_helper.from_array(np.uint8(128), "z"))
    used = {name for node in nodes for name in node.input}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], [each for each in held if each.name in used])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(front: str) -> tuple[list[str], np.ndarray]:
    """The operators that run, and the answer."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / f"{front}.onnx")
    session = ort.InferenceSession(make(front).SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    return [node.op_type for node in onnx.load(folder / f"{front}.onnx").graph.node], session.run(None, {"x": x})[0]


seen = {front: run(front) for front in ("float", "bytes", "clip")}
for front, (operators, _) in seen.items():
    print(f"{front}: {', '.join(operators)}")
assert "Gelu" in seen["float"][0] and "Erf" not in seen["float"][0]
assert "Gelu" not in seen["bytes"][0] and seen["bytes"][0].count("DequantizeLinear") == 2
assert "Gelu" in seen["clip"][0] and "Erf" not in seen["clip"][0]
assert np.allclose(seen["bytes"][1], seen["clip"][1], atol=1e-6)
PYTHON
"$folder/env/bin/python" "$folder/ask.py" "$folder"
