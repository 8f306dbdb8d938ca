"""The reference networks are what their pages say: size, accuracy, data, and the ONNX file they become."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from fcdeploy.runtime.session import Session  # noqa: E402
from fcdeploy.stations.export import export  # noqa: E402

ROOT = Path(__file__).parent.parent
MODELS, DATA = ROOT / "models", ROOT / "calib_data"

# Weights and biases of each layer, and two numbers per channel of a batch normalization.
BLOCKS = {
    (16, 16): 2 * 16 * 16 * 9 + 2 * 32,
    (16, 32): (16 * 32 + 32 * 32) * 9 + 2 * 64 + 16 * 32 + 64,
    (32, 32): 2 * 32 * 32 * 9 + 2 * 64,
    (32, 64): (32 * 64 + 64 * 64) * 9 + 2 * 128 + 32 * 64 + 128,
    (64, 64): 2 * 64 * 64 * 9 + 2 * 128,
}
PARAMETERS = {
    "lenet5": (25 + 1) * 6 + (6 * 25 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10,
    "dense": (64 + 1) * 128 + 2 * 128 + (128 + 1) * 64 + 2 * 64 + (64 + 1) * 10,
    "resnet": 16 * 9 + 32 + 2 * BLOCKS[16, 16] + sum(BLOCKS[key] for key in list(BLOCKS)[1:]) + (64 + 1) * 10,
}
SETS = {"lenet5": "digits", "dense": "digits64", "resnet": "digits"}


def load(name: str) -> tuple[Any, Any]:
    """The network with its shipped weights, and its file as a module."""
    spec = importlib.util.spec_from_file_location(f"reference_{name}", MODELS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = getattr(module, name)()
    network.load_state_dict(load_file(MODELS / f"{name}.safetensors"))
    return network, module


def row(name: str) -> list[str]:
    """The network's row of the README's table."""
    (found,) = re.findall(rf"^\| {name} \| \[.*$", (MODELS / "README.md").read_text(), re.MULTILINE)
    return [cell.strip() for cell in found.strip("|").split("|")]


def evaluation(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.load(DATA / f"{SETS[name]}.eval.npz") as arrays:
        inputs = {key: arrays[key] for key in arrays.files if key != "label"}
        return inputs, arrays["label"]


@pytest.mark.parametrize("name", SETS)
def test_the_number_of_parameters_is_the_one_counted_by_hand(name: str) -> None:
    network, module = load(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    assert row(name)[2] == f"{PARAMETERS[name]:,}"
    assert f"{PARAMETERS[name]:,} parameters" in module.__doc__


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_weights_are_as_accurate_as_the_table_says(name: str) -> None:
    network, module = load(name)
    inputs, label = evaluation(name)
    assert list(inputs) == list(module.example_inputs())
    with torch.inference_mode():
        answer = network(**{key: torch.from_numpy(value) for key, value in inputs.items()}).numpy().argmax(1)
    right, count = int((answer == label).sum()), len(label)
    # another CPU rounds otherwise, which can turn a digit between two classes, but not two
    assert row(name)[5] == f"{(said := int(row(name)[5].split()[0]))} ({said / count:.1%})"
    assert abs(right - said) <= 1
    assert right / count >= {"dense": 0.96}.get(name, 0.97)


@pytest.mark.parametrize("name", SETS)
def test_each_exports_with_the_command_of_the_table(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weights = MODELS / f"{name}.safetensors"
    command = f"`fcdeploy export models/{name}.py:{name} --state models/{name}.safetensors -o {name}.onnx`"
    assert command in (MODELS / "README.md").read_text()
    data = DATA / f"{SETS[name]}.eval.npz"
    report = export(f"{MODELS / name}.py:{name}", state=weights, output=path, data=data)
    assert (report.values["opset"], report.values["ir_version"], report.values["free_batch"]) == (13, 7, True)
    inputs, label = evaluation(name)
    (logits,) = Session(path).run(inputs)
    assert abs(int((logits.argmax(1) == label).sum()) - int(row(name)[5].split()[0])) <= 1


@pytest.mark.parametrize("name", SETS)
def test_weights_are_small_enough_to_ship(name: str) -> None:
    assert (MODELS / f"{name}.safetensors").stat().st_size < 1_500_000


def test_calibration_and_evaluation_share_no_sample() -> None:
    for name, key in (("digits", "image"), ("digits64", "pixels")):
        with np.load(DATA / f"{name}.calib.npz") as calib, np.load(DATA / f"{name}.eval.npz") as held_out:
            assert len(calib[key]) == len(calib["label"]) == 300
            assert len(held_out[key]) == len(held_out["label"]) == 800
            assert calib["label"].dtype == held_out["label"].dtype == np.int64
            assert calib[key].dtype == np.float32
            assert (calib[key].min(), calib[key].max()) == (0, 1)
            seen = {sample.tobytes() for sample in calib[key]}
            assert not any(sample.tobytes() in seen for sample in held_out[key])


def test_both_forms_of_a_digit_are_the_same_digit() -> None:
    for kind in ("calib", "eval"):
        with np.load(DATA / f"digits.{kind}.npz") as images, np.load(DATA / f"digits64.{kind}.npz") as pixels:
            np.testing.assert_array_equal(images["image"][:, 0, ::4, ::4].reshape(-1, 64), pixels["pixels"])
            np.testing.assert_array_equal(images["image"][:, 0, 3::4, 2::4].reshape(-1, 64), pixels["pixels"])
            np.testing.assert_array_equal(images["label"], pixels["label"])


def test_the_data_can_be_made_again(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    copy = tmp_path / "calib_data"
    copy.mkdir()
    (copy / "make.py").write_bytes((DATA / "make.py").read_bytes())
    subprocess.run([sys.executable, "-m", "calib_data.make"], cwd=tmp_path, check=True)
    for path in DATA.glob("*.npz"):
        with np.load(path) as shipped, np.load(copy / path.name) as made:
            assert shipped.files == made.files
            for key in shipped.files:
                np.testing.assert_array_equal(shipped[key], made[key])
    assert sum(path.stat().st_size for path in DATA.glob("*.npz")) < 2_500_000
