#!/usr/bin/env bash
# LRN with a bias of 2.75, in OpenVINO 2026.4.1.
#
# Expected: x / (bias + alpha / size * sum of squares)^beta, as onnxruntime, tract and OpenCV compute it.
# Seen: the answers are those of a bias of 2: the fraction is cut off.  (AlexNet's bias is 2, the default 1.)
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
    import openvino

    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


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


x = np.random.default_rng(0).normal(size=(1, 6, 2, 2)).astype(np.float32)


def normalize(bias: float) -> np.ndarray:
    square = np.stack([(x[:, max(c - 1, 0) : c + 2] ** 2).sum(axis=1) for c in range(6)], axis=1)
    return x / (bias + 0.5 / 3 * square) ** 0.6


node = helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.5, beta=0.6, bias=2.75)
found = compare([node], x, normalize(2.75))
off, same = np.abs(found - normalize(2.75)).max(), np.abs(found - normalize(2)).max()
print(f"{runtime}: {off:.2f} from a bias of 2.75, {same:.0e} from one of 2")
assert off > 0.1 and same < 1e-5
PYTHON
runtime=openvino==2026.4.1
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
