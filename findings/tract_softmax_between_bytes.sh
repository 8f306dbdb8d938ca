#!/usr/bin/env bash
# A Softmax between pairs of QuantizeLinear and DequantizeLinear, in tract 0.23.9.
#
# Expected: as Sigmoid between such pairs, which is right to a level: the shares of three numbers, in steps of 1/256.
# Seen: every share is the largest byte (255/256), whatever the input, in uint8 and in int8, with any scale.  The same Softmax
# without the second pair behind it is right.  So the attention of a network with integer activations is uniform, without a word.
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

folder, runtime = Path(sys.argv[1]), sys.argv[2]


def ask(path: str, x: np.ndarray) -> np.ndarray:
    import tract

    return tract.onnx().load(path).into_model().into_runnable().run([x])[0].to_numpy()


def compare(
    nodes: list[onnx.NodeProto], x: np.ndarray, right: np.ndarray, held: dict[str, np.ndarray] | None = None, opset: int = 13
) -> np.ndarray:
    """What the runtime answers; onnxruntime must answer what is right."""
    ends = [helper.make_tensor_value_info(key, TensorProto.FLOAT, each.shape) for key, each in (("x", x), ("y", right))]
    constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in (held or {}).items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    ir_version = 8 if opset < 21 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    path = str(folder / "model.onnx")
    onnx.save(model, path)
    (usual,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert usual.shape == right.shape and np.allclose(usual, right, atol=1e-4), usual
    return np.asarray(ask(path, x))


def pair(x: str, y: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    """Quantized and read back."""
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{y}/bytes"]),
        helper.make_node("DequantizeLinear", [f"{y}/bytes", scale, zero], [y]),
    ]



x = np.array([[-2, 0.5, 1.25], [0, 3, -1]], np.float32)
shares = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
softmax = helper.make_node("Softmax", ["a"], ["s"], axis=1)
for zero, low in ((np.uint8(128), np.uint8(0)), (np.int8(0), np.int8(-128))):
    held = {"scale": np.float32(0.25), "zero": zero, "step": np.float32(1 / 256), "low": low}
    right = np.minimum(np.rint(shares * 256), 255) / 256
    found = compare([*pair("x", "a", "scale", "zero"), softmax, *pair("s", "y", "step", "low")], x, right, held)
    print(f"{runtime}, {zero.dtype}: right {right[0].tolist()}, found {found[0].tolist()}")
    assert np.all(found == 255 / 256)
plain = helper.make_node("Softmax", ["a"], ["y"], axis=1)
assert np.allclose(compare([*pair("x", "a", "scale", "zero"), plain], x, shares, held), shares, atol=1e-5)
PYTHON
runtime=tract==0.23.9
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
