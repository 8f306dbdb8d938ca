#!/usr/bin/env bash
# A scikit-learn OrdinalEncoder with min_frequency or max_categories of two columns, converted by skl2onnx 1.20.0.
#
# Expected: in each column its own rare categories share one code, the last, as in scikit-learn 1.9.1; or the conversion is refused,
# as that of a OneHotEncoder with the same option is ("Infrequent categories are not implemented").
# Seen: every column is coded by the rare categories of the first, without a word: a frequent category gets another code than in
# training.  One column alone is right, two with the same rare categories are, and so are columns given as an input each.
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
from skl2onnx.common.data_types import Int64TensorType
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

categories = np.array([10, 20, 30, 40], np.int64)
first = np.repeat(categories, [2, 50, 3, 60])  # 10 and 30 are rare
second = np.repeat(categories, [50, 2, 3, 60])  # 20 and 30 are
codes = {"first": [2, 0, 2, 1], "second": [0, 2, 2, 1]}
options: list[dict[str, int]] = [{"min_frequency": 10}, {"max_categories": 3}]


def run(made: OrdinalEncoder, apart: bool) -> np.ndarray:
    """The codes of the four categories in both columns, of one input or of an input for each."""
    asked = np.stack([categories, categories], axis=1)
    if apart:
        names = ("a", "b")
        model = to_onnx(made, initial_types=[(name, Int64TensorType([None, 1])) for name in names])
        feeds = dict.fromkeys(names, categories[:, None])
    else:
        model, feeds = to_onnx(made, asked[:1]), {"X": asked}
    (found,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    return found.T


for option in options:
    x = np.stack([first, second], axis=1)
    encoder = OrdinalEncoder(**option).fit(x)
    right = encoder.transform(np.stack([categories, categories], axis=1)).T
    found, apart = run(encoder, apart=False), run(encoder, apart=True)
    print(f"{option}: scikit-learn {right.tolist()}, ONNX {found.tolist()}, of an input each {apart.tolist()}")
    assert np.array_equal(right, [codes["first"], codes["second"]]) and np.array_equal(apart, right)
    assert np.array_equal(found, [codes["first"], codes["first"]])
    same = OrdinalEncoder(**option).fit(np.stack([second, second], axis=1))
    assert np.array_equal(run(same, apart=False), [codes["second"], codes["second"]])
    try:
        to_onnx(OneHotEncoder(sparse_output=False, **option).fit(x), x[:1])
    except NotImplementedError as error:
        print(f"OneHotEncoder with {option}: {str(error).splitlines()[0]}")
        assert "Infrequent categories are not implemented" in str(error)
    else:
        raise AssertionError("a OneHotEncoder with rare categories was converted")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
