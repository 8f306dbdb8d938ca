"""Pipelines of scikit-learn, as skl2onnx writes them, through the whole line: see scripts/pipelines."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

import fcdeploy
from fcdeploy.errors import FcdeployError

TRAINED, ALL = 600, 900
DRAW = np.random.default_rng(0)
NUMBERS = DRAW.normal(size=(ALL, 8)).astype(np.float32)
GAPS = np.where(DRAW.random(NUMBERS.shape) < 0.1, np.nan, NUMBERS).astype(np.float32)
KINDS = DRAW.integers(0, 40, (ALL, 2))
WORDS = np.array(["red", "green", "blue", "grey"])[KINDS[:, :1] % 4]
CLASSES = (NUMBERS[:, 0] * NUMBERS[:, 1] + NUMBERS[:, 2] > 0).astype(np.int64)
WORDED = np.array(["no", "yes"])[CLASSES]
AMOUNTS = (2 * NUMBERS[:, 0] + NUMBERS[:, 1] ** 2).astype(np.float32)


def classify(*steps: Any) -> Any:
    return make_pipeline(*steps, MLPClassifier(hidden_layer_sizes=(64, 32), max_iter=60, random_state=0))


def estimate(*steps: Any) -> Any:
    return make_pipeline(*steps, MLPRegressor(hidden_layer_sizes=(64, 32), max_iter=60, random_state=0))


PIPELINES: dict[str, tuple[Any, np.ndarray, np.ndarray, bool | None]] = {
    "StandardScaler, ZipMap": (classify(StandardScaler()), NUMBERS, CLASSES, True),
    "StandardScaler": (classify(StandardScaler()), NUMBERS, CLASSES, False),
    "MinMaxScaler, classes in words": (classify(MinMaxScaler()), NUMBERS, WORDED, False),
    "RobustScaler": (classify(RobustScaler()), NUMBERS, CLASSES, False),
    "SimpleImputer, StandardScaler": (classify(SimpleImputer(), StandardScaler()), GAPS, CLASSES, False),
    "median imputed, ZipMap": (classify(SimpleImputer(strategy="median"), StandardScaler()), GAPS, CLASSES, True),
    "PolynomialFeatures": (classify(PolynomialFeatures(2), StandardScaler()), NUMBERS, CLASSES, False),
    "MaxAbsScaler, three classes": (classify(MaxAbsScaler()), NUMBERS, NUMBERS[:, :3].argmax(1), False),
    "Normalizer": (classify(Normalizer()), NUMBERS, CLASSES, False),
    "OneHotEncoder": (classify(OneHotEncoder(handle_unknown="ignore")), KINDS, KINDS.sum(1) % 3, False),
    "StandardScaler, MLPRegressor": (estimate(StandardScaler()), NUMBERS, AMOUNTS, None),
    "PolynomialFeatures, MLPRegressor": (estimate(StandardScaler(), PolynomialFeatures(2)), NUMBERS, AMOUNTS, None),
}
"""Name -> pipeline, inputs, targets, and whether a ZipMap stands at the end (None: no classifier)."""


def make_arrays(
    pipeline: Any, inputs: np.ndarray, targets: np.ndarray, zipmap: bool | None
) -> tuple[Any, dict[str, Any]]:
    """The model, trained on the first rows, and all rows by name."""
    pipeline.fit(inputs[:TRAINED], targets[:TRAINED])
    options = None if zipmap is None else {"zipmap": zipmap}
    model = to_onnx(pipeline, inputs[:1], options=options, target_opset=17)
    return model, {model.graph.input[0].name: inputs}


def make_columns() -> tuple[Any, dict[str, Any], np.ndarray]:
    """Numbers and words, each column an input of its own."""
    parts = [("numbers", StandardScaler(), ["a", "b"]), ("words", OneHotEncoder(), ["colour"])]
    pipeline = classify(ColumnTransformer(parts))
    table = pd.DataFrame({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1], "colour": WORDS[:, 0]})
    targets = (NUMBERS[:, 0] > 0) ^ (WORDS[:, 0] == "red")
    pipeline.fit(table[:TRAINED], targets[:TRAINED].astype(np.int64))
    ends = [
        ("a", FloatTensorType([None, 1])),
        ("b", FloatTensorType([None, 1])),
        ("colour", StringTensorType([None, 1])),
    ]
    model = to_onnx(pipeline, initial_types=ends, options={"zipmap": False}, target_opset=17)
    return model, {"a": NUMBERS[:, :1], "b": NUMBERS[:, 1:2], "colour": WORDS}, targets.astype(np.int64)


def run_line(model: Any, rows: dict[str, Any], targets: np.ndarray) -> str:
    """What validate says of the int8 model, once a bundle of it was verified."""
    calibrated = {name: array[:TRAINED] for name, array in rows.items()}
    held = {name: array[TRAINED:] for name, array in rows.items()} | {"label": targets[TRAINED:]}
    with open("m.onnx", "wb") as file:  # noqa: PTH123
        file.write(model.SerializeToString())
    fcdeploy.calibrate("m.onnx", data=calibrated, output="m.calib", force=True)
    made = fcdeploy.quantize("m.onnx", calibration="m.calib", output="q.onnx", costs="none", force=True)
    proof = fcdeploy.validate("q.onnx", against="m.onnx", data=held)
    fcdeploy.bundle("q.onnx", output="b.fcd", calibration="m.calib", force=True)
    assert fcdeploy.verify("b.fcd").passed
    figures = "no figure" if proof.float is None or proof.int8 is None else f"{proof.float:.4f} -> {proof.int8:.4f}"
    return f"{proof.metric} {figures}, {len(made.nodes_int8)} integer kernels, {len(made.nodes_float)} nodes in float, verified"


def main() -> int:
    makers: dict[str, Callable[[], tuple[Any, ...]]] = {
        name: (lambda row=row: (*make_arrays(*row), row[2])) for name, row in PIPELINES.items()
    }
    makers["ColumnTransformer of numbers and words"] = make_columns
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, make in makers.items():
            try:
                said = run_line(*make())
            except FcdeployError as error:
                said, refused = f"refused: {error.message}", refused + 1
            print(f"{name:40}{said}", flush=True)
    print(f"{len(makers) - refused} of {len(makers)} went the whole line")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
