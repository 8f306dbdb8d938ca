#!/usr/bin/env bash
# A scikit-learn SimpleImputer with add_indicator=True converted by skl2onnx 1.20.0.
#
# Expected: behind the filled-in columns stand those that say where a number was missing, as in scikit-learn 1.9.1; or the
# conversion is refused.
# Seen: the columns of the indicator are left out without a word, and what stands behind the imputer gets fewer columns than it was
# trained on.
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
from sklearn.impute import SimpleImputer

x = np.array([[1, np.nan], [3, 4], [np.nan, 8]], np.float32)
for add_indicator in (False, True):
    imputer = SimpleImputer(add_indicator=add_indicator).fit(x)
    model = to_onnx(imputer, x[:1])
    (found,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"X": x})
    right = imputer.transform(x)
    print(f"add_indicator={add_indicator}: scikit-learn {right.tolist()}, ONNX {found.tolist()}")
    assert right.shape == (3, 4 if add_indicator else 2) and found.shape == (3, 2)
    assert np.array_equal(found, right[:, :2])
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
