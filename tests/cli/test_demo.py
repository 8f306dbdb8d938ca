"""fcdeploy demo: the whole line in a checkout, an error anywhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcdeploy import cli
from fcdeploy.cli import demo
from fcdeploy.cli.demo import _find_networks, _judge_speed

ROOT = Path(__file__).parents[2]


def test_in_a_checkout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One of its networks; the commands on the other two stand in the README and in the guide, and run with them."""
    monkeypatch.chdir(ROOT)
    assert [name for name, _ in demo.NETWORKS] == ["lenet5", "dense", "resnet"]
    monkeypatch.setattr(demo, "NETWORKS", demo.NETWORKS[1:2])
    assert cli.main(["demo", "--seconds", "0.2", "--json", "-o", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "fcdeploy.demo/1"
    assert list(printed["networks"]) == ["dense"]
    for name, values in printed["networks"].items():
        proof, written = values["validate"], values["quantize"]
        assert proof["float"] > 0.99
        assert abs(proof["drop"]) < 0.5  # percentage points, of 800 images
        assert proof["sqnr_db"] > 30
        assert proof["kernel_sqnr_db"] is None or proof["kernel_sqnr_db"] > 38
        assert values["bench"]["ratio"] > 0
        # what the numbers speak of is what lies in the folder
        assert written["bytes_int8"] == (tmp_path / f"{name}.int8.onnx").stat().st_size
        assert written["bytes_int8"] < 0.4 * (tmp_path / f"{name}.onnx").stat().st_size


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict"),
    [
        (0.67, 0.63, 0.70, "1.5 times faster"),
        (0.95, 0.94, 0.96, "1.05 times faster"),
        (0.99, 0.98, 0.995, "as fast"),  # a hundredth is no news
        (0.90, 0.75, 1.01, "as fast"),
        (1.01, 1.005, 1.015, "as fast"),
        (1.30, 1.2, 1.4, "slower: keep it float for speed"),
    ],
)
def test_the_verdict_says_what_the_interval_allows(ratio: float, low: float, high: float, verdict: str) -> None:
    assert _judge_speed(ratio, low, high) == verdict


def test_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.metadata.files", lambda _: [])
    assert cli.main(["demo", "--seconds", "0.2", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.endswith("has no models/lenet5.py and calib_data/, and none are installed")
    assert second == "hint: run it in a checkout of the project: scripts/demo"
    assert not list(tmp_path.iterdir())


def test_the_networks_that_were_installed_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As pip lays them out: the record of a wheel names files beside the packages."""
    packages, share = tmp_path / "lib" / "packages", tmp_path / "share" / "fcdeploy"
    record = packages / "fcdeploy-9.dist-info"
    for folder in (record, share / "models", share / "calib_data"):
        folder.mkdir(parents=True)
    (share / "models" / "lenet5.py").touch()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: fcdeploy\nVersion: 9\n")
    (record / "RECORD").write_text("fcdeploy/cli/demo.py,,\n../../share/fcdeploy/models/lenet5.py,,\n")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.chdir(tmp_path)
    assert _find_networks() == share
