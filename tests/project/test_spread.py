"""A trained MobileNetV2 whose channel ranges were spread by factors that cancel: int8 takes them back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import fcdeploy
from fcdeploy.user_code import load_file
from scripts.benchmarks import spread

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread")
    family = load_file(ROOT / "models" / "families.py").FAMILIES["mobilenet_v2_small"]
    np.savez(folder / "calib.npz", **family.draw(40, 1000))
    np.savez(folder / "eval.npz", **family.draw(120, 2000))
    return folder


def test_a_network_spread_by_factors_that_cancel(data: Path) -> None:
    """Left as they are the factors cost tens of points; taken back, nothing, and every layer is in integer kernels.

    A bound for each channel takes both passes that give factors back, equalize and level_bounds.
    """
    model, int8 = data / "model.onnx", data / "int8.onnx"
    spread.network(data, model, "bounds", 1)
    drops = []
    for taken_back in (False, True):
        with spread.factors_taken_back(taken_back):
            report = fcdeploy.quantize(
                model, data=data / "calib.npz", output=int8, costs="none", effort="fast", floor="none", force=True
            )
        drops.append(fcdeploy.validate(int8, against=model, data=data / "eval.npz").values["drop"])
    assert drops[0] > 20
    assert drops[1] <= 0.5
    assert report.values["nodes_float"] == []
    assert report.values["integer_share"] == 1
