#!/usr/bin/env bash
# LRN of six channels in onnx's reference evaluator.
#
# Expected: each channel is divided by a power of the squares of its neighbours.
# Seen: in a batch of one only the first channel is; for all others the squares are taken as 0: the loop over channels counts the
# batch.  With six samples all are right.
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


x = np.random.default_rng(0).normal(size=(6, 6, 2, 2)).astype(np.float32)
square = np.stack([(x[:, max(c - 1, 0) : c + 2] ** 2).sum(axis=1) for c in range(6)], axis=1)
right = x / (1 + 0.5 / 3 * square) ** 0.6
node = helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.5, beta=0.6)
whole, one = compare([node], x, right), compare([node], x[:1], right[:1])
off = np.abs(one - right[:1]).max()
print(f"{runtime}: off by {np.abs(whole - right).max():.0e} in a batch of six, by {off:.2f} in a batch of one")
assert np.allclose(whole, right, atol=1e-5) and np.allclose(one[:, 0], right[:1, 0], atol=1e-5)
assert np.allclose(one[:, 1:], x[:1, 1:])
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder" reference
