"""The networks of models/, fed wrongly in ten ways each: calibrate warns of all, and says nothing of ten right feeds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fcdeploy.commands.calibrate import calibrate  # noqa: E402
from fcdeploy.commands.export import export  # noqa: E402

ROOT = Path(__file__).parents[2]
NETWORKS = {
    "cnn10": "cnn10.py:cnn10",
    "inception": "inception.py:inception",
    "persons": "mobilenet_v1_025.py:mobilenet_v1_025",
}
SAMPLES = 64
Fed = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    name = request.param
    path = tmp_path_factory.mktemp("networks") / f"{name}.onnx"
    export(f"{ROOT}/models/{NETWORKS[name]}", state=ROOT / f"models/{name}.safetensors", output=path)
    return name, path


@cache
def draw(name: str, seed: int) -> Fed:
    """Pictures from 0 to 1 as the network reads them, and labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "models"))
        families = importlib.import_module("families")
    drawn = families.FAMILIES[name].draw(SAMPLES, 50 + seed)
    return drawn["image"], drawn["label"]


def shuffle(x: np.ndarray, labels: np.ndarray, seed: int) -> Fed:
    return x, np.random.default_rng(seed).permutation(labels)


FED_WRONGLY: dict[str, tuple[Callable[[np.ndarray, np.ndarray, int], Fed], str]] = {
    "times 255": (lambda x, labels, _: (x * 255, labels), "numbers from 0 to 255, as pixels are stored"),
    "uint8": (lambda x, labels, _: (np.rint(x * 255), labels), "whole numbers from 0 to 255, as pixels are stored"),
    "divided twice": (lambda x, labels, _: (x / 255, labels), "with its input times 255: pixels were divided by 255"),
    "NHWC": (lambda x, labels, _: (x.transpose(0, 2, 3, 1).reshape(x.shape), labels), "(NHWC)"),
    "equal": (lambda x, labels, _: (np.repeat(x[:1], len(x), axis=0), labels), "64 samples of data.npz are all equal"),
    "labels of others": (shuffle, "of chance: do labels and preprocessing fit it?"),
    "labels one higher": (
        lambda x, labels, _: (x, (labels + 1) % (labels.max() + 1)),
        "with its labels one ",
    ),
}


def warn(path: Path, folder: Path, fed: Fed) -> list[str]:
    np.savez(folder / "data.npz", image=np.ascontiguousarray(fed[0], np.float32), label=fed[1])
    made = calibrate(path, data=folder / "data.npz", output=folder / "c.calib", force=True)
    return [each for each in made.warnings if "samples" not in each.split()[:2] or "equal" in each]


@pytest.mark.parametrize("kind", FED_WRONGLY)
def test_ten_wrong_feeds_of_a_network_are_all_warned_of(kind: str, network: tuple[str, Path], tmp_path: Path) -> None:
    name, path = network
    change, cause = FED_WRONGLY[kind]
    for seed in range(10):
        found = warn(path, tmp_path, change(*draw(name, seed), seed))
        assert any(cause in warning for warning in found), (seed, found)


def test_right_feeds_are_not_warned_of(network: tuple[str, Path], tmp_path: Path) -> None:
    name, path = network
    for seed in range(10):
        assert warn(path, tmp_path, draw(name, seed)) == []
