#!/usr/bin/env bash
# onnxruntime's quantize_static with per_channel=True, and a Gemm whose bias has the shape (1, N), in onnxruntime 1.32.0.
#
# Expected: ONNX lets C be anything that broadcasts to (M, N), and exporters write a bias as a row (1, N): it is quantized like
# the same numbers of shape (N,), one scale for each column.
# Seen: ValueError, "The truth value of an array with more than one element is ambiguous": where scales of weights are raised so
# that a bias fits 32 bits, bias[i] is taken for a number, and is a whole row.  With (N,), and with one scale for all columns, both pass.
# extra_options={"QDQDisableWeightAdjustForInt32Bias": True} leaves that step out.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import logging
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.WARNING)  # advice to prepare the model first, which changes nothing of this
folder = sys.argv[1]
random = np.random.default_rng(0)
weight, bias = random.normal(size=(8, 5)).astype(np.float32), random.normal(size=5).astype(np.float32)
samples = random.normal(size=(20, 4, 8)).astype(np.float32)


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        x = next(self.left, None)
        return None if x is None else {"x": x}


def quantize(shape: tuple[int, ...], per_channel: bool, **more: bool) -> str:
    """The error that quantizing raises, or the largest difference from float."""
    held = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias.reshape(shape), "c")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, n]) for name, n in (("x", 8), ("y", 5))]
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w", "c"], ["y"], "gemm")], "g", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{folder}/float.onnx")
    try:
        quantize_static(
            f"{folder}/float.onnx", f"{folder}/int8.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, extra_options=more,
        )
    except ValueError as error:
        return f"ValueError: {error}"
    run = [ort.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"]) for name in ("float", "int8")]
    exact, rounded = (each.run(None, {"x": samples[0]})[0] for each in run)
    return f"within {np.abs(exact - rounded).max():.2f} of {np.abs(exact).max():.1f}"


rows = {
    "a bias (5,), per channel": quantize((5,), True),
    "a bias (1, 5), one scale": quantize((1, 5), False),
    "a bias (1, 5), per channel": quantize((1, 5), True),
    "a bias (1, 5), per channel, not adjusted": quantize((1, 5), True, QDQDisableWeightAdjustForInt32Bias=True),
}
for what, said in rows.items():
    print(f"{what}: {said}")
assert ["ValueError: The truth value" in said for said in rows.values()] == [False, False, True, False]
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" "$folder"
