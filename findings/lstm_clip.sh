#!/usr/bin/env bash
# An LSTM with `clip`, in onnx's reference evaluator, tract 0.23.9, OpenCV 4.14.0 and 5.0.0.
#
# Expected: what goes into the activations of the gates is clipped to -clip .. clip; or the file is refused.
# Seen: clip is left out without a word: the answers are those of the LSTM without it.  onnxruntime and OpenVINO clip.
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
    if runtime == "reference":
        return ReferenceEvaluator(path).run(None, {"x": x})[0]
    if runtime.startswith("opencv"):
        import cv2

        net = cv2.dnn.readNetFromONNX(path)
        net.setInput(x)
        return net.forward()
    if runtime.startswith("tract"):
        import tract

        return tract.onnx().load(path).into_model().into_runnable().run([x])[0].to_numpy()
    raise SystemExit(f"{runtime} is unknown")


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


random = np.random.default_rng(0)
x = random.normal(size=(4, 1, 3)).astype(np.float32)
held = {key: random.normal(size=shape).astype(np.float32) for key, shape in (("W", (1, 8, 3)), ("R", (1, 8, 2)), ("B", (1, 16)))}


def run_lstm(limit: float) -> np.ndarray:
    """Gates in the order of ONNX: input, output, forget, cell."""
    h, c, outputs = np.zeros((1, 2)), np.zeros((1, 2)), []
    for step in x:
        sums = step @ held["W"][0].T + h @ held["R"][0].T + held["B"][0, :8] + held["B"][0, 8:]
        i, o, f, g = np.split(np.clip(sums, -limit, limit), 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(np.clip(c, -limit, limit)) / (1 + np.exp(-o))
        outputs.append(h)
    return np.stack(outputs)[:, None].astype(np.float32)


right, free = run_lstm(0.3), run_lstm(np.inf)
found = compare([helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=2, clip=0.3)], x, right, held)
off, same = np.abs(found - right).max(), np.abs(found - free).max()
print(f"{runtime}: {off:.2f} from the LSTM with clip 0.3, {same:.0e} from the one without")
assert off > 0.1 and same < 1e-5
PYTHON
for runtime in reference opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93 tract==0.23.9; do
  [ "$runtime" = reference ] || "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
