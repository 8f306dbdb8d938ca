"""One run, many runs, workers, crashes: always the same file. Bad samples are named, stopped at, or left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_command
from networks import Net, random_data
from PIL import Image

import fcdeploy
from fcdeploy.graph.model import TensorSpec
from fcdeploy.int8.calibrating import collect as gathering
from fcdeploy.int8.calibrating import observe as observing
from fcdeploy.int8.calibrating.schedule import Passes
from fcdeploy.int8.calibrating.shard import CalibrationJob
from fcdeploy.records.calibration import Calibration, read
from fcdeploy.records.checkpoint import STAMP, Checkpoint
from fcdeploy.records.sample_layout import SampleLayout
from fcdeploy.samples.kinds import Samples, open_source

COUNT = 512
ROOT = Path(__file__).parents[2]


def network() -> Net:
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 3, 8, 8), 3, 8, name="one"), name="relu")
    x = net.op("Add", net.conv(x, 8, 8, name="two"), x, name="add")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="pool"))
    return net.output(net.op("Softmax", net.dense(x, 8, 5, name="dense")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, data.npz, and one.calib made of it in one run."""
    folder = tmp_path_factory.mktemp("gather")
    network().save(folder / "model.onnx")
    np.savez(folder / "data.npz", **random_data(0, COUNT, x=(3, 8, 8)))
    fcdeploy.calibrate(folder / "model.onnx", data=folder / "data.npz", output=folder / "one.calib")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def calibrated(capsys: pytest.CaptureFixture[str], output: str, *arguments: str, data: str = "data.npz") -> Any:
    words = ("calibrate", "model.onnx", "--data", data, "-o", output, "--force", "--json", *arguments)
    code, out, err = run_command(capsys, *words)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.usefixtures("here")
def test_shards_of_any_cut_merge_into_the_file_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.load("data.npz")["x"]
    random = np.random.default_rng(0)
    order = random.permutation(COUNT)
    cuts = {
        "16 x 32": np.array_split(np.arange(COUNT), 16),
        "7 ragged, shuffled": np.split(order, np.sort(random.choice(np.arange(1, COUNT), 6, replace=False))),
    }
    for name, parts in cuts.items():
        files = []
        for i, part in enumerate(parts):
            np.savez("part.npz", x=x[part])
            files.append(f"part{i}.calib")
            calibrated(capsys, files[-1], data="part.npz")
        random.shuffle(files)
        assert run_command(capsys, "calibration", "merge", *files, "-o", "sum.calib", "--force")[0] == 0
        assert Path("sum.calib").read_bytes() == Path("one.calib").read_bytes(), name


GENERATOR = """
import numpy as np

def samples():
    for x in np.load("data.npz")["x"]:
        yield {"x": x}
"""


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("data", ["data.npz", "gen.py:samples"])
def test_two_processes_write_the_file_of_one(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A generator, too: each worker runs it and takes every second sample."""
    Path("gen.py").write_text(GENERATOR)
    found = calibrated(capsys, "two.calib", "--workers", "2", data=data)
    assert found["samples"] == COUNT
    assert Path("two.calib").read_bytes() == Path("one.calib").read_bytes()


def spoil(*which: int) -> None:
    x = np.load("data.npz")["x"].copy()
    for i in which:
        x[i, 0, 1, 2] = np.nan
    np.savez("spoilt.npz", x=x)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_bad_samples_are_left_out_counted_and_named(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(3, 300)
    words = ("calibrate", "model.onnx", "--data", "spoilt.npz", "-o", "no.calib", "--workers", workers)
    code, _, err = run_command(capsys, *words)
    assert code == 2
    assert "input 'x': sample 3 has nan at (0, 1, 2)" in err or "input 'x': sample 300 has nan" in err
    assert not Path("no.calib").exists()
    found = calibrated(capsys, "rest.calib", "--skip-bad", "--workers", workers, data="spoilt.npz")
    assert found["samples"] == COUNT - 2
    assert [bad["sample"] for bad in found["skipped"]] == ["spoilt.npz, sample 3", "spoilt.npz, sample 300"]
    assert "has nan at (0, 1, 2)" in found["skipped"][0]["why"]
    assert found["warnings"][0].startswith("2 samples were skipped: spoilt.npz, sample 3: input 'x': sample 3 has nan")
    x = np.load("data.npz")["x"]
    np.savez("good.npz", x=np.delete(x, [3, 300], axis=0))
    calibrated(capsys, "good.calib", data="good.npz")
    assert Path("rest.calib").read_bytes() == Path("good.calib").read_bytes()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_but_bad_samples_is_an_error(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("bad.npz", x=np.full((4, 3, 8, 8), np.nan, np.float32))
    words = ("calibrate", "model.onnx", "--data", "bad.npz", "-o", "no.calib", "--skip-bad", "--workers", workers)
    code, _, err = run_command(capsys, *words)
    assert code == 2
    assert "no sample of bad.npz can be used, the first: input 'x': sample 0 has nan" in err


SLOW = """
import sys
import fcdeploy.int8.calibrating.collect as gather
import fcdeploy.int8.calibrating.observe as observe
from fcdeploy.cli import main
gather.SAVE_SECONDS, gather.SAVE_SHARE, observe.PART_SECONDS, observe.PART_SHARE = 0.0, 1e9, 0.0, 1e9
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("here")
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(folder: Path) -> None:
    """Killed again and again, the progress file being replaced all the time; each run goes on where the last one was."""
    command = [sys.executable, "-c", SLOW, "calibrate", "model.onnx", "--data", "data.npz", "-o", "killed.calib"]
    command += ["--json", "--batch", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    progress = folder / "killed.calib.progress"
    random = np.random.default_rng(0)
    steps = []
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        before = content(progress)
        while content(progress) == before:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        steps.append(progress.read_bytes())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["resumed_at"] > 0
    assert (folder / "killed.calib").read_bytes() == (folder / "one.calib").read_bytes()
    assert len(set(steps)) == 3
    assert not list(folder.glob("killed.calib.*"))


def content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


@pytest.fixture
def stopped(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The progress file of a run that a bad sample stopped near its end."""
    monkeypatch.setattr(gathering, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(gathering, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(observing, "PART_SECONDS", 0.0)
    monkeypatch.setattr(observing, "PART_SHARE", 1e9)
    spoil(500)
    words = ("calibrate", "model.onnx", "--data", "spoilt.npz", "-o", "stopped.calib", "--batch", "32", "--force")
    assert run_command(capsys, *words)[0] == 2
    return here / "stopped.calib.progress"


def again(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    return calibrated(capsys, "stopped.calib", "--batch", "32", "--skip-bad", *more, data="spoilt.npz")


def test_with_skip_bad_a_stopped_run_goes_on(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = again(capsys)
    assert (found["resumed_at"], found["samples"], len(found["skipped"])) == (480, COUNT - 1, 1)
    assert not stopped.exists()
    assert read(Path("stopped.calib")).samples == COUNT - 1
    calibrated(capsys, "fresh.calib", "--skip-bad", data="spoilt.npz")
    assert Path("fresh.calib").read_bytes() == Path("stopped.calib").read_bytes()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: content[:-5], "progress 'stopped.calib.progress' is damaged: began anew"),
        (lambda content: content[:60] + b"?" + content[61:], "progress 'stopped.calib.progress'"),
        (lambda content: content[:-9] + b"?" + content[-8:], "progress 'stopped.calib.progress' is damaged"),
        (lambda _: b"fcdeploy.checkpoint/1\n{}\n", "is not of this version, or is damaged: began anew"),
        (lambda _: b"fcdeploy.checkpoint/2\n[]\n", "is damaged: began anew"),
        (lambda _: b"", "is not of this version, or is damaged"),
    ],
)
def test_damaged_progress_is_named_and_not_used(
    damage: Any, why: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped.write_bytes(damage(stopped.read_bytes()))
    found = again(capsys)
    assert found["resumed_at"] == 0
    assert why in found["warnings"][0]
    assert found["samples"] == COUNT - 1


def test_progress_of_another_run_is_named_and_not_used(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = stopped.read_bytes()
    found = again(capsys, "--all-tensors")
    assert "belongs to another run, whose set of options differs: began anew" in found["warnings"][0]
    stopped.write_bytes(kept)
    spoil(2)
    assert "belongs to another run, whose data differs: began anew" in again(capsys)["warnings"][0]
    assert read(Path("stopped.calib")).samples == COUNT - 1


@pytest.mark.parametrize("name", [each.name for each in fields(CalibrationJob)])
def test_progress_is_bound_to_all_that_changes_a_calibration(name: str, folder: Path) -> None:
    """A field that is added is bound until it is said to change nothing."""
    samples = Samples(str(folder / "data.npz"))
    source = samples.open([TensorSpec("x", np.dtype(np.float32), (None, 3, 8, 8))])
    job = CalibrationJob("model.onnx", "a hash", samples)
    others = {
        "model": "moved.onnx", "model_hash": "another", "samples": replace(samples, limit=3), "everything": True,
        "keep_samples": False, "skip_bad": True, "passes": Passes(8, (), {}), "index": 1, "part": (1, 2), "passed": 9,
        "threads": 2, "layout": SampleLayout({"x": None}, "as was said").to_text(),
    }  # fmt: skip
    free = {"model", "skip_bad", "passes", "index", "part", "passed", "threads"}
    one, other = (gathering._identify_run(each, source, {}) for each in (job, replace(job, **{name: others[name]})))
    assert (one == other) == (name in free)
    assert json.loads(json.dumps(other)) == other


def pictures(folder: Path) -> None:
    """Two classes of 40 pictures, the last of them damaged."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{i:02}.png")
    (folder / "b" / "39.png").write_bytes(b"no picture")


@pytest.mark.parametrize("change", ["nothing", "a picture", "one more", "one that was not taken yet"])
def test_progress_of_pictures_that_have_changed_is_not_used(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below class folders, where the folder that is named does not change with them."""
    monkeypatch.chdir(tmp_path)
    network().save(Path("model.onnx"))
    pictures(Path("data"))
    monkeypatch.setattr(gathering, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(gathering, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(observing, "PART_SECONDS", 0.0)
    monkeypatch.setattr(observing, "PART_SHARE", 1e9)
    words = ("--batch", "8")
    assert run_command(capsys, "calibrate", "model.onnx", "--data", "data", "-o", "now.calib", *words)[0] == 2
    if change == "a picture":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("data/a/05.png")
    if change == "one more":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("data/a/055.png")
    if change == "one that was not taken yet":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("data/b/38.png")
    found = calibrated(capsys, "now.calib", "--skip-bad", *words, data="data")
    anew = change in ("a picture", "one more")
    assert (found["resumed_at"] == 0) is anew
    why = "progress 'now.calib.progress' is of files of data that have changed since: began anew"
    assert (why in found["warnings"]) is anew
    calibrated(capsys, "fresh.calib", "--skip-bad", data="data")
    assert Path("now.calib").read_bytes() == Path("fresh.calib").read_bytes()


@pytest.mark.parametrize("changed", [None, 2, 7])
def test_of_several_passes_the_finished_ones_are_of_all_files(changed: int | None, tmp_path: Path) -> None:
    """Two shards, of which the second pass has taken two samples and one: files 0, 2 and 1."""
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.zeros((3, 8, 8), np.float32))
    source = open_source(tmp_path, [TensorSpec("x", np.dtype(np.float32), (None, 3, 8, 8))])
    stamps = list(source.stamps())
    begun = Calibration("", {}, np.zeros(0, np.uint64), {}, {})
    sums = sum(stamps) % STAMP, (stamps[0] + stamps[1] + stamps[2]) % STAMP
    state = Checkpoint({}, {}, (2, 1), (), sums, (begun, begun))
    alone = Checkpoint({}, {}, (2, 1), (), sums[1:], (begun,))
    if changed is not None:
        os.utime(tmp_path / f"{changed}.npy", ns=(1, 1))
    assert (gathering.compute_stamps(state, source) == state.stamps) is (changed is None)
    assert (gathering.compute_stamps(alone, source) == alone.stamps) is (changed != 2)
