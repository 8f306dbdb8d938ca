#!/usr/bin/env bash
# A scikit-learn Normalizer("max") converted by skl2onnx 1.20.0, of rows with negative numbers.
#
# Expected: as scikit-learn (1.9.1) has it since 0.24, each row is divided by its largest absolute value: -1, -2, -2 becomes
# -0.5, -1, -1; or the conversion is refused.
# Seen: it becomes the Normalizer of ai.onnx.ml, whose MAX is defined as X / max(X), with the sign: -1, -2, -2 becomes 1, 2, 2, and
# -3, 1, 2 becomes -1.5, 0.5, 1.  Rows of positive numbers are right, and so are "l1" and "l2".
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 \
  onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
import onnxruntime as ort
from skl2onnx import to_onnx
from sklearn.preprocessing import Normalizer

x = np.array([[1, 2, 4], [-3, 1, 2], [-1, -2, -2]], np.float32)
for norm in ("l1", "l2", "max"):
    normalizer = Normalizer(norm).fit(x)
    model = to_onnx(normalizer, x[:1])
    (found,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"X": x})
    right = normalizer.transform(x)
    texts = [np.array2string(each[1:], precision=3, separator=", ").replace("\n", "") for each in (right, found)]
    print(f"{norm}: scikit-learn {texts[0]}, ONNX {texts[1]}")
    assert np.allclose(found, x / x.max(axis=1, keepdims=True) if norm == "max" else right)
    assert np.allclose(right, x / np.abs(x).max(axis=1, keepdims=True)) == (norm == "max")
    assert np.allclose(found[0], right[0])
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
