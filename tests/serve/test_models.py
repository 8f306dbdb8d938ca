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

from fcdeploy.commands.export import export  # noqa: E402
from fcdeploy.commands.quantize import quantize  # noqa: E402
from fcdeploy.commands.validate import validate  # noqa: E402
from fcdeploy.runtime.session import Session  # noqa: E402
from fcdeploy.user_code import load_file as load_module  # noqa: E402

ROOT = Path(__file__).parents[2]
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
# Of the networks with random weights, as published: torchvision's, or what MLPerf Tiny's Keras models count.
PUBLISHED = {
    "mobilenet_v1_025": ("mobilenet_v1_025.py", "MobileNetV1", 221_794),
    "ds_cnn": ("ds_cnn.py", "DsCnn", 24_908),
    "autoencoder": ("autoencoder.py", "Autoencoder", 269_992),
    "mlp": ("mlp.py", "Mlp", 785 * 4096 + 2 * 4097 * 4096 + 4097 * 10),
    "dense4096": ("mlp.py", "Dense", 4097 * 4096),
    "mobilenet_v2": ("mobilenet_v2.py", "MobileNetV2", 3_504_872),
    "resnet50": ("resnet50.py", "ResNet50", 25_557_032),
    "alexnet": ("alexnet.py", "AlexNet", 60_965_224),
    "vgg16": ("vgg16.py", "Vgg16", 138_357_544),
}
SMALL = ("mobilenet_v1_025", "ds_cnn", "autoencoder")
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
    """The network's row of the README's tables."""
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


@pytest.mark.parametrize("name", ["lenet5", "dense"])  # resnet is exported with the commands of the README
def test_exported_they_are_as_accurate(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weights = MODELS / f"{name}.safetensors"
    data = DATA / f"{SETS[name]}.eval.npz"
    report = export(f"{MODELS / name}.py:{name}", state=weights, output=path, data=data)
    assert (report.values["opset"], report.values["ir_version"], report.values["free_batch"]) == (13, 7, True)
    inputs, label = evaluation(name)
    (logits,) = Session(path).run(inputs)
    assert abs(int((logits.argmax(1) == label).sum()) - int(row(name)[5].split()[0])) <= 1


@pytest.mark.parametrize("name", SETS)
def test_weights_are_small_enough_to_ship_and_the_table_says_how_to_export(name: str) -> None:
    command = f"`fcdeploy export models/{name}.py:{name} --state models/{name}.safetensors -o {name}.onnx`"
    assert command in (MODELS / "README.md").read_text()
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_at_scale_have_the_published_number_of_parameters(name: str) -> None:
    file, architecture, published = PUBLISHED[name]
    module = load_module(MODELS / file)
    with torch.device("meta"):  # shapes without numbers: half a gigabyte of VGG-16 is not needed for counting
        network = getattr(module, architecture)()
    learned = sum(parameter.numel() for parameter in network.parameters())
    running = sum(buffer.numel() for key, buffer in network.named_buffers() if "running" in key)
    assert learned + (running if name in SMALL else 0) == published  # Keras counts running means and variances
    assert row(name)[2] == f"{learned:,}"
    assert f"{learned:,} parameters" in module.__doc__
    if name in SMALL:
        assert f"{published:,} parameters" in module.__doc__
    options = " --input 1,4096" if name == "dense4096" else ""
    assert row(name)[5] == f"`fcdeploy export models/{file}:{name}{options} -o {name}.onnx`"


@pytest.mark.parametrize("name", [name for name in SMALL if name != "mobilenet_v1_025"])
def test_random_weights_are_the_same_every_time(name: str) -> None:
    module = load_module(MODELS / f"{name}.py")
    first, second = (getattr(module, name)().state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    x, again, other = (next(iter(module.samples(4, seed).values())) for seed in (7, 7, 8))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)


def test_batch_statistics_are_those_of_the_inputs() -> None:
    module = load_module(MODELS / "autoencoder.py")
    network = module.autoencoder()
    layer, norm = network.hidden[0], network.hidden[1]
    batches = [layer(module.samples(64, seed)["frames"]).detach() for seed in range(1, 5)]
    mean = sum(batch.mean(0) for batch in batches) / 4
    variance = sum(batch.var(0) for batch in batches) / 4
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.running_var.max() > 2 * norm.running_var.min()  # channels differ, as those of trained networks do
    assert not network.training and not norm.training


def test_weights_have_he_s_variance() -> None:
    weight = load_module(MODELS / "mlp.py").dense4096().layer.weight
    assert weight.var().item() == pytest.approx(2 / 4096, rel=0.01)
    assert weight.mean().abs().item() < 1e-4


def test_images_are_smooth() -> None:
    images = load_module(MODELS / "random_weights.py").smooth_images(8, 3, 64, 64, seed=0)
    assert images.shape == (8, 3, 64, 64)
    neighbours = torch.corrcoef(torch.stack([images[..., 1:].flatten(), images[..., :-1].flatten()]))[0, 1]
    colours = torch.corrcoef(torch.stack([images[:, 0].flatten(), images[:, 1].flatten()]))[0, 1]
    assert neighbours > 0.9
    assert 0.3 < colours < 0.98
    assert images.mean().abs() < 0.5
    assert 0.5 < images.std() < 1.5


def test_small_networks_at_scale_export(tmp_path: Path) -> None:
    """mobilenet_v1_025 is made of the layers of ds_cnn, which is exported below: that it runs is enough here."""
    check_export("autoencoder", tmp_path / "model.onnx")
    module = load_module(MODELS / "mobilenet_v1_025.py")
    with torch.device("meta"):
        network = module.MobileNetV1().eval()
        shape = network(torch.empty(3, 3, module.SIZE, module.SIZE)).shape
    assert shape == (3, module.CLASSES)


def check_export(name: str, output: Path) -> None:
    report = export(f"{MODELS / name}.py:{name}", output=output)
    assert (report.values["opset"], report.values["free_batch"]) == (13, True)
    assert report.values["parameters"] == int(row(name)[2].replace(",", ""))


def test_a_depthwise_network_goes_to_integer_kernels(tmp_path: Path) -> None:
    model, int8 = tmp_path / "ds_cnn.onnx", tmp_path / "ds_cnn.int8.onnx"
    check_export("ds_cnn", model)
    draw = load_module(MODELS / "ds_cnn.py").samples
    for kind, seed in (("calib", 1000), ("eval", 2000)):
        np.savez(tmp_path / f"{kind}.npz", **{key: value.numpy() for key, value in draw(64, seed).items()})
    made = quantize(model, data=tmp_path / "calib.npz", output=int8, costs="none").values
    ops = [node["op"] for node in made["nodes_int8"]]
    assert (ops.count("Conv"), ops.count("Gemm"), ops.count("AveragePool")) == (9, 1, 1)
    assert not made["nodes_float"]
    proof = validate(int8, against=model, data=tmp_path / "eval.npz").values
    assert 38 < proof["sqnr_db"] < 60  # 8 bits; far above them nothing would have been quantized
    assert proof["kernel_sqnr_db"] > 40
