#!/usr/bin/env bash
# A scikit-learn PowerTransformer converted by skl2onnx 1.20.0, of numbers some of which are missing (NaN).
#
# Expected: "NaNs are treated as missing values: disregarded in fit, and maintained in transform" (scikit-learn 1.9.1): an imputer
# behind it fills them in.  StandardScaler, MinMaxScaler, RobustScaler and QuantileTransformer keep them in ONNX, too.
# Seen: with its default method, "yeo-johnson", they come out of ONNX as the standardized number of a transformed 0, and an imputer
# behind it finds nothing to fill in.  "box-cox" keeps them.  Where no number is missing both are right.
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
from sklearn.base import BaseEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, QuantileTransformer, RobustScaler, StandardScaler

whole = np.random.default_rng(0).lognormal(mean=1, size=(200, 2)).astype(np.float32)
missing = whole.copy()
missing[::4, 0] = np.nan


def answers(made: BaseEstimator, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    made.fit(x)
    model = to_onnx(made, x[:1])
    (found,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"X": x})
    return made.transform(x), found


for scaler in (StandardScaler(), MinMaxScaler(), RobustScaler(), QuantileTransformer(n_quantiles=20)):
    right, found = answers(scaler, missing)
    assert np.isnan(right).sum() == 50 and np.allclose(found, right, atol=1e-5, equal_nan=True), scaler
gone = np.isnan(missing)
for method in ("yeo-johnson", "box-cox"):
    right, found = answers(PowerTransformer(method), whole)
    assert np.allclose(found, right, atol=1e-4), np.abs(found - right).max()
    right, found = answers(PowerTransformer(method), missing)
    kept = [int(np.isnan(each).sum()) for each in (right, found)]
    print(f"{method}: of 50 missing numbers scikit-learn keeps {kept[0]}, ONNX {kept[1]}; the first is {found[0, 0]:.4f}")
    assert kept == [50, 0 if method == "yeo-johnson" else 50]
    assert np.unique(found[gone]).size == 1 and np.allclose(found[~gone], right[~gone], atol=1e-4)
zero = PowerTransformer().fit(missing).transform(np.zeros((1, 2), np.float32))[0, 0]
right, found = answers(make_pipeline(PowerTransformer(), SimpleImputer(strategy="constant", fill_value=-9)), missing)
print(f"with an imputer to -9 behind it: scikit-learn {right[0, 0]}, ONNX {found[0, 0]:.4f}; a 0 becomes {zero:.4f}")
assert (right[gone] == -9).all() and np.allclose(found[gone], zero, atol=1e-4)
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
