"""Files that the system does not give: readers say that, and not that the file is damaged."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fails
from small_models import dense

import fcdeploy
from fcdeploy.bundles.read import open_bundle
from fcdeploy.cli import main
from fcdeploy.files import refuse_unread
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.records import calibration
from fcdeploy.samples.kinds import open_source


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and what is made of it, and samples of three kinds."""
    folder = tmp_path_factory.mktemp("files")
    model = dense(folder / "m.onnx", 3)
    samples = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.savez(folder / "d.npz", x=samples)
    (folder / "d.csv").write_text("\n".join(["a,b,c,d,e", *(",".join(map(str, row)) for row in samples)]))
    fcdeploy.calibrate(model, data=folder / "d.npz", output=folder / "m.calib")
    fcdeploy.bundle(model, output=folder / "b.zip")
    return folder


def read_samples(path: Path) -> None:
    specs = input_specs(read_model(path.with_name("m.onnx")))
    source = open_source(path, specs)
    with no_descriptors():
        open_source(path, specs)
    assert source


READERS: dict[str, Callable[[Path], Any]] = {
    "m.onnx": read_model, "./m.onnx": read_outline, "b.zip": open_bundle, "m.calib": calibration.read,
    "d.npz": read_samples, "d.csv": read_samples,
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_lack_of_descriptors_is_no_damage(files: Path, name: str) -> None:
    path, read = files / name, READERS[name]
    if read is read_samples:
        with fails("cannot be read: Too many open files", "ulimit -n"):
            read(path)
        return
    read(path)  # all that it imports
    with fails("cannot be read: Too many open files", "ulimit -n"), no_descriptors():
        read(path)


@pytest.mark.parametrize("number", [5, 13, 4])
def test_what_the_system_says_is_said(number: int) -> None:
    with fails("'m.onnx' cannot be read: ", "try it again"):
        refuse_unread("m.onnx", OSError(number, "something"))
    refuse_unread("m.onnx", OSError("a parser's own"))
    refuse_unread("m.onnx", ValueError(5))


def test_a_command_without_descriptors_ends_in_a_sentence(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where something fails behind it, as an event loop does that cannot be closed."""
    words = ["inspect", str(files / "m.onnx")]
    assert main(words) == 0
    capsys.readouterr()
    with no_descriptors():
        assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["error", "hint"]
    assert "internal" not in said[0]
