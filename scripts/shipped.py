"""The trained networks of models/ as int8 models for native code, each with its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import fcdeploy
from fcdeploy.graph.model import read_model
from scripts.checkout import ROOT

DIGITS = {"lenet5": "digits", "dense": "digits64", "resnet": "digits"}
"""Networks that read the digits of calib_data/; the others are models/families.py's."""


def make_model(name: str, families: Mapping[str, Any], folder: Path) -> tuple[Path, dict[str, np.ndarray[Any, Any]]]:
    """The int8 model as `quantize --engine native` makes it without measuring anything, and one sample."""
    if name in DIGITS:
        source, weights, inputs = f"models/{name}.py:{name}", f"models/{name}.safetensors", []
        with np.load(ROOT / "calib_data" / f"{DIGITS[name]}.calib.npz") as stored:
            arrays = dict(stored)
    else:
        family = families[name]
        source, weights, inputs = family.function, family.weights, [family.input] if family.input else []
        arrays = family.calibration()
    report = fcdeploy.export(f"{ROOT / source}", state=ROOT / weights, output=folder / "float.onnx", inputs=inputs)
    data = {row["name"]: arrays[row["name"]] for row in report.values["inputs"]}
    np.savez(folder / "data.npz", **data)
    fcdeploy.quantize(
        folder / "float.onnx", data=folder / "data.npz", output=folder / "int8.onnx", costs="none", floor="none", engine="native"
    )  # fmt: skip
    graph: ir.Model = read_model(folder / "int8.onnx")
    feeds = {value.name: data[value.name][:1].astype(value.dtype.numpy()) for value in graph.graph.inputs}
    np.savez(folder / "feeds.npz", **feeds)
    return folder / "int8.onnx", feeds
