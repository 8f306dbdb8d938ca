#!/usr/bin/env bash
# The GELU by tanh, x / 2 (1 + tanh(r (x + c x^3))), in six spellings between two Relus, in onnxruntime 1.32.0 on the CPU.
#
# Expected: all of them, or at least all with a Pow for the cube, become one FastGelu: they differ in the order of factors alone.
# Seen: one does, (x * 1/2) * (1 + tanh) with a Pow.  With the half behind the sum (x * ((1 + tanh) * 1/2), as JAX writes it) or at
# last ((x * (1 + tanh)) * 1/2) all nodes stay, and with the cube as x * x * x they stay in any spelling.
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
NUMBERS = {"c": 0.044715, "r": (2 / np.pi) ** 0.5, "one": 1.0, "half": 0.5, "three": 3.0}
CUBES = {"Pow": [("Pow", "x three", "k")], "x * x * x": [("Mul", "x x", "k2"), ("Mul", "k2 x", "k")]}
ENDS = {
    "(x / 2) * s": [("Mul", "x half", "h"), ("Mul", "h s", "y")],
    "x * (s / 2)": [("Mul", "s half", "h"), ("Mul", "x h", "y")],
    "(x * s) / 2": [("Mul", "x s", "h"), ("Mul", "h half", "y")],
}


def make(cube: str, end: str) -> onnx.ModelProto:
    steps = [("Relu", "u", "x"), *CUBES[cube], ("Mul", "k c", "m"), ("Add", "x m", "a"), ("Mul", "a r", "i"), ("Tanh", "i", "t")]
    steps += [("Add", "t one", "s"), *ENDS[end], ("Relu", "y", "v")]
    nodes = [helper.make_node(op, read.split(), [written], name=written) for op, read, written in steps]
    used = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(np.float32(value), name) for name, value in NUMBERS.items() if name in used]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in "uv"]
    model = helper.make_model(helper.make_graph(nodes, "graph", ends[:1], ends[1:], held), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(cube: str, end: str) -> tuple[bool, np.ndarray]:
    """Whether there is one kernel, and the answer."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = ort.InferenceSession(make(cube, end).SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]
    return "FastGelu" in operators and "Tanh" not in operators, session.run(None, {"u": np.linspace(-4, 4, 256, dtype=np.float32).reshape(4, 64)})[0]


print("onnxruntime", ort.__version__)
found = {(cube, end): run(cube, end) for cube in CUBES for end in ENDS}
answers = [answer for _, answer in found.values()]
for (cube, end), (fused, _) in found.items():
    print(f"{cube:10} {end:12} {'one FastGelu' if fused else 'node by node'}")
assert all(np.allclose(answer, answers[0], atol=1e-6) for answer in answers), "they do not compute the same"
assert {key for key, (fused, _) in found.items() if fused} == {("Pow", "(x / 2) * s")}, "other spellings are found than before"
PYTHON
"$folder/env/bin/python" "$folder/ask.py" "$folder"
