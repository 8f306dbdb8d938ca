#!/usr/bin/env bash
# QuantizeLinear of operator set 21 that says its type by `output_dtype` and has no zero point, in tract 0.23.9 and OpenCV 4.14.0.
#
# Expected: the type is what `output_dtype` says, and uint8 where neither it nor a zero point is there; or the file is refused.
# Seen: tract makes uint8 of it whatever it says: negative numbers become 0.  OpenCV 4 makes int8 of it, even where nothing
# is said (operator set 13, too): numbers above 127 become 127.  OpenCV 5 takes both rightly.
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
    if runtime.startswith("tract"):
        import tract

        return tract.onnx().load(path).into_model().into_runnable().run([x])[0].to_numpy()
    if runtime.startswith("opencv"):
        import cv2

        net = cv2.dnn.readNetFromONNX(path)
        net.setInput(x)
        return net.forward()
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


x = np.array([[-100, -1, 5, 200]], np.float32)
held = {"scale": np.float32(1)}
read = helper.make_node("DequantizeLinear", ["bytes", "scale"], ["y"])
as_int8 = helper.make_node("QuantizeLinear", ["x", "scale"], ["bytes"], output_dtype=TensorProto.INT8)
as_usual = helper.make_node("QuantizeLinear", ["x", "scale"], ["bytes"])
signed, unsigned = np.clip(x, -128, 127), np.clip(x, 0, 255)
told = compare([as_int8, read], x, signed, held, 21)
untold = compare([as_usual, read], x, unsigned, held)
print(f"{runtime}: {x[0].tolist()} become {told[0].tolist()} where int8 is asked for, {untold[0].tolist()} where nothing is")
right = unsigned if runtime.startswith("tract") else signed
assert np.array_equal(told, right) and np.array_equal(untold, right)
PYTHON
for runtime in tract==0.23.9 opencv-python-headless==4.14.0.94; do
  "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
