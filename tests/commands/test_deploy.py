"""One command for the whole line: what it prints can be repeated, and it stops where a limit is missed."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from colour_models import make_colour_classifier
from networks import Net
from PIL import Image

from fcdeploy import load_bundle
from fcdeploy.cli import deploy, main
from fcdeploy.records.report import Report
from fcdeploy.reporting import bench as bench_report

NAMES = ("apple", "berry", "corn", "date", "egg", "fig")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my photos")
    colours = make_colour_classifier(folder / "my model.onnx", 3, "normal")
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 30)):
        for at, name in enumerate(NAMES):
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                pixels = np.clip(255 * colours[at] + random.normal(0, 9, (27, 27, 3)), 0, 255).astype(np.uint8)
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                (folder / part / name / f"{k}.png").write_bytes(file.getvalue())
    return folder


def test_from_photos_to_a_bundle(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setattr("fcdeploy.cli.deploy.SECONDS", 0.1)
    words = ["deploy", "my model.onnx", "--data", "train", "--eval", "val", "--preprocess", "torchvision-imagenet"]
    words += ["--max-drop", "5", "-o", "fruit.fcd"]
    assert main([*words, "--max-ratio", "0.001"]) == 1
    said = capsys.readouterr()
    assert "stopped at bench: nothing is bundled" in said.err
    assert not Path("fruit.fcd").exists()

    assert main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*words, "--force", "--json"]) == 0
    said = capsys.readouterr()
    made = json.loads(said.out)
    assert made["output"] == "fruit.fcd"
    assert made["validate"]["float"] == 1.0
    printed = [shlex.split(line.removeprefix("$ ")) for line in said.err.splitlines() if line.startswith("$ ")]
    assert [line[1] for line in printed] == ["calibrate", "quantize", "validate", "bench", "bundle", "verify"]
    assert printed[2][-2:] == [">", "fruit.validation.json"]
    manifest = load_bundle("fruit.fcd").manifest
    assert manifest.format.classes == NAMES
    assert manifest.reports == ("plan", "calibration", "validation", "bench")
    assert json.loads(Path("fruit.fcd/bench.json").read_text())["ratio"] == made["bench"]["ratio"]

    assert main([*words, "--force"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert re.search(r"drop -?\d\.\d\d \(-\d+\.\d\d \.\. \d+\.\d\d\)$", rows["top1"])
    assert re.search(r" ms +\d+\.\d\d \(\d+\.\d\d \.\. \d+\.\d\d\)$", rows["time"])

    assert main([*words[:4], "--eval", "train", *words[6:], "--force"]) == 2
    said = capsys.readouterr()
    assert "(--same-data is an option of the validate command above, which can be run by itself)" in said.err

    before = Path("fruit.int8.onnx").read_bytes()
    assert main(printed[1][1:]) == 0  # as it was printed
    assert Path("fruit.int8.onnx").read_bytes() == before


def test_a_machine_too_noisy_for_a_time_is_said() -> None:
    """Where the interval is too wide, what `bench` says of it stands above the verdict; not where a limit decides."""
    times = {"float_ms": 1.0, "int8_ms": 0.5, "ratio": 0.5, "ratio_low": 0.2, "ratio_high": 0.9, "conclusive": False}
    time = {**times, "max_ratio": None, "interval": 10.0}
    proof = {"float": None, "metric": None}
    (told,) = bench_report._conclude(time, None, 10, 20)
    noisy, _, _ = told.partition(", after 20 s; ")
    assert noisy.startswith("the machine is too noisy to tell: 0.500 of the float time")
    reports = {
        "quantize": Report("quantize", {"bytes_float": 100, "bytes_int8": 25}),
        "validate": Report("validate", proof),
        "bench": Report("bench", time),
        "verify": Report("verify", {}, lines=("passed: bit-equal",)),
    }
    files = deploy.Files(*[Path("a")] * 6, Path("a.fcd"))
    said = deploy._summarize(files, reports)
    assert said.lines == (noisy, "passed: bit-equal", "next: fcdeploy serve a.fcd")
    assert said.tables[0].rows[-1] == ("time", "1 ms", "0.5 ms", "0.50 (0.20 .. 0.90)")
    for better in ({"max_ratio": 0.95}, {"conclusive": True}):
        calm = deploy._summarize(files, reports | {"bench": Report("bench", time | better)})
        assert calm.lines == ("passed: bit-equal", "next: fcdeploy serve a.fcd")


def test_what_model_may_be(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(photos)
    rest = ["--data", "train", "--eval", "val", "-o", "x.fcd"]
    net = Net()
    net.output(net.op("Relu", net.input("x", 3))).save(Path("net.onnx"))
    for model, more, message in (
        ("none.onnx", (), "model 'none.onnx' does not exist"),
        ("torchvision.models:resnet18", (), "has random weights, and fcdeploy downloads none"),
        ("net.onnx", ("--state", "foo=h"), "--state foo=h: 'foo' is no output of the model"),
        ("net.onnx", ("--input", "1,3"), "--input '1,3' is for a PyTorch module, and 'net.onnx' is a file"),
        (
            "a.b:c",
            ("--state", "w.pth", "--state", "v.pth"),
            "--state 'v.pth' is a second file of weights, expected one",
        ),
        ("a b:c", ("--state", "w.pth"), "is neither FILE.py:FUNCTION nor PACKAGE.MODULE:FUNCTION"),
        ("torchvision.models:resnet18", ("--state", "w.pth"), "--state 'w.pth' is no file"),
    ):
        assert main(["deploy", model, *rest, *more]) == 2
        assert message in capsys.readouterr().err
    assert not list(Path().glob("x.*"))


def test_no_file_is_written_over_without_being_asked_to(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the report, which comes late, nor the module that is written for `export`."""
    monkeypatch.chdir(photos)
    rest = ["--data", "train", "--eval", "val"]
    for model, file, more in (
        ("my model.onnx", "mine.validation.json", ()),
        ("my model.onnx", "mine.bench.json", ()),
        ("torchvision.models:resnet18", "mine.model.py", ("--state", "w.pth")),
    ):
        Path(file).write_text("of the user")
        assert main(["deploy", model, *rest, *more, "-o", "mine.fcd"]) == 2
        assert f"'{file}' exists" in capsys.readouterr().err
        assert Path(file).read_text() == "of the user"
        assert not Path("mine.calib").exists()
        Path(file).unlink()


def test_a_module_of_a_package_gets_as_many_classes_as_folders(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package lies in the current folder here, which `export FILE.py` makes importable."""
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fcdeploy.cli.deploy.SECONDS", 0.1)
    Path("my_networks.py").write_text(
        "import torch\ndef small(num_classes):\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, num_classes))\n"
    )
    torch.manual_seed(0)
    save_file({"2.weight": torch.randn(6, 3), "2.bias": torch.randn(6)}, "w.safetensors")
    words = ["deploy", "my_networks:small", "--state", "w.safetensors", "--input", "1,3,16,16", "--max-drop", "50"]
    words += ["--data", str(photos / "train"), "--eval", str(photos / "val"), "-o", "small.fcd"]
    assert main(words) == 0, capsys.readouterr().err
    assert Path("small.model.py").read_text().endswith("return small(num_classes=6)\n")
    said = capsys.readouterr().err
    assert "$ fcdeploy export small.model.py:network -o small.onnx --state w.safetensors --input 1,3,16,16" in said
