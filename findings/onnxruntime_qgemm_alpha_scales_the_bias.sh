#!/usr/bin/env bash
# com.microsoft QGemm with an `alpha`, and a bias of 32-bit integers, in onnxruntime 1.32.0.
#
# Expected: its documentation calls alpha the multiplier of the product A * B, and the bias has the scale a_scale * b_scale: so
# y = alpha * a_scale * b_scale * (A * B) + a_scale * b_scale * C, as Gemm with alpha and beta = 1 has it.
# Seen: alpha multiplies the bias, too: y = alpha * a_scale * b_scale * (A * B + C).  Who writes a Gemm with alpha as a QGemm has to
# divide the bias by alpha.  With alpha 1 both are the same.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.19.1 numpy==2.2.6
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)  # weights so small that no pair of products saturates on a CPU without VNNI
a = random.integers(0, 256, (3, 9)).astype(np.uint8)
b = random.integers(-60, 61, (9, 5)).astype(np.int8)
c = random.integers(-4000, 4000, 5).astype(np.int32)
a_scale, b_scale = np.float32(0.02), np.float32(0.01)


def run(alpha: float) -> np.ndarray:
    held = {"as": a_scale, "az": np.uint8(0), "b": b, "bs": b_scale, "bz": np.int8(0), "c": c}
    node = helper.make_node("QGemm", ["a", "as", "az", "b", "bs", "bz", "c"], ["y"], domain="com.microsoft", alpha=alpha)
    ends = helper.make_tensor_value_info("a", TensorProto.UINT8, [3, 9]), helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph([node], "product", [ends[0]], [ends[1]], stored)
    sets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"a": a})[0]


product, step = a.astype(np.int64) @ b.astype(np.int64), float(a_scale) * float(b_scale)
for alpha in (1.0, 0.5, -0.75):
    expected, seen = step * (alpha * product + c), step * alpha * (product + c)
    found = run(alpha)
    off = float(np.abs(found - expected).max())
    print(f"alpha {alpha}: {off:.3f} from alpha on the product alone, {np.abs(found - seen).max():.0e} from alpha on both")
    assert np.allclose(found, seen, atol=1e-4)
    assert (off < 1e-4) == (alpha == 1)
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
