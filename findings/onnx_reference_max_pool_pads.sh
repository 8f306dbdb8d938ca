#!/usr/bin/env bash
# MaxPool with other pads on one axis than on the other, in onnx's reference evaluator, and of int8.
#
# Expected: pads are the begins of all axes, then their ends, as in AveragePool and Conv.
# Seen: they are read as begin and end of the first axis, then of the second: pads of [0, 1, 2, 0] give another shape.  Pads that
# are the same everywhere hide it.  Of int8 with any pad it raises "cannot convert float NaN to integer".
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
from onnx.reference import ReferenceEvaluator

folder, runtime = Path(sys.argv[1]), sys.argv[2]


def ask(path: str, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(path).run(None, {"x": x})[0]


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


x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def pool(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    padded = np.pad(x[0, 0], ((top, bottom), (left, right)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))[None, None].astype(np.float32)


node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 1, 2, 0])
found = compare([node], x, pool(0, 1, 2, 0))
print(f"{runtime}: shape {found.shape[2:]}, expected {pool(0, 1, 2, 0).shape[2:]}, as of pads [0, 2, 1, 0]")
assert np.array_equal(found, pool(0, 2, 1, 0))
nodes = [
    helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.INT8),
    helper.make_node("MaxPool", ["bytes"], ["top"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    helper.make_node("Cast", ["top"], ["y"], to=TensorProto.FLOAT),
]
try:
    compare(nodes, x, pool(1, 1, 1, 1))
except ValueError as error:
    print(f"{runtime}: of int8: ValueError: {error}")
    assert "NaN" in str(error)
else:
    raise SystemExit("of int8 it computes")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder" reference
