"""Conformance: the official tritonclient, in an environment of its own, gets from this server what onnxruntime computes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from bundles import int8_model
from conftest import HELPERS
from networks import Net
from servers import PATIENCE, Server, serving
from tritonclient_env import tritonclient_python

from fcdeploy import __version__
from fcdeploy.commands.bundle import bundle

Found = dict[str, Any]
PROTOCOLS = ("http", "grpc")


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    shapes = {"x": (5, 8), "image": (2, 3, 8, 8)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.fcd`, the bundle of an int8 model, and `conv`, a Triton repository's model with two versions."""
    folder = tmp_path_factory.mktemp("models")
    bundle(int8_model(tmp_path_factory.mktemp("net")), output=folder / "net.fcd")
    for version in (1, 2):
        (folder / "conv" / str(version)).mkdir(parents=True)
        net = Net(seed=version)
        net.output(net.conv(net.input("image", 3, 8, 8), 3, 4, name="conv0")).save(
            folder / "conv" / str(version) / "model.onnx"
        )
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with serving(models, "--grpc-port", "0") as running:
        yield running


@pytest.fixture(scope="module")
def found(server: Server, data: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Everything the clients were told, by protocol."""
    arrays = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(arrays, **data)
    script = HELPERS / "tritonclient_calls.py"
    rpc = re.search(r"serving gRPC on (\S+)", "\n".join(server.said))
    assert rpc
    command = [tritonclient_python(), str(script), f"127.0.0.1:{server.port}", rpc[1], str(arrays)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(ort.InferenceSession(path).run(None, feeds))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_live_and_ready(found: Found, protocol: str) -> None:
    assert found[protocol]["live"] is True
    assert found[protocol]["ready"] is True
    assert found[protocol]["model ready"] == [True, True, False]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata(found: Found, protocol: str) -> None:
    server, model = found[protocol]["server"], found[protocol]["model"]
    assert (server["name"], server["version"]) == ("fcdeploy", __version__)
    assert "binary_tensor_data" in server["extensions"]
    assert (model["name"], model["versions"], model["platform"]) == ("conv", ["1", "2"], "onnxruntime_onnx")
    for side, name, channels in (("inputs", "image", 3), ("outputs", "conv0_out", 4)):
        (row,) = model[side]
        assert (row["name"], row["datatype"]) == (name, "FP32")
        assert [int(n) for n in row["shape"]] == [-1, channels, 8, 8]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", ["infer", "json", "typed"])
def test_answers_are_those_of_onnxruntime(
    found: Found, protocol: str, form: str, models: Path, data: dict[str, np.ndarray]
) -> None:
    if form not in found[protocol]:
        assert (protocol, form) in {("http", "typed"), ("grpc", "json")}
        return
    scores, classes = found[protocol][form]
    expected = run(models / "net.fcd" / "model.onnx", {"x": data["x"]})
    np.testing.assert_array_equal(np.float32(scores).reshape(5, 3), expected[0])
    np.testing.assert_array_equal(classes, expected[1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_output_an_id_and_gzip(found: Found, protocol: str) -> None:
    assert found[protocol]["one output"] == found[protocol]["infer"][1:]
    assert found[protocol]["id"] == "seven"
    assert found["http"]["gzip"] == found["http"]["json"][0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_versions(found: Found, protocol: str, models: Path, data: dict[str, np.ndarray]) -> None:
    for version in ("1", "2"):
        expected = run(models / "conv" / version / "model.onnx", {"image": data["image"]})
        np.testing.assert_array_equal(np.float32(found[protocol][f"version {version}"]), expected)
    assert found[protocol]["newest"] == found[protocol]["version 2"] != found[protocol]["version 1"]


ERRORS = {
    "model": (404, "model 'no' is unknown, expected one of: conv, net"),
    "version": (404, "model 'net' has no version '9', expected one of: 1"),
    "input": (400, "input 'image' is unknown, expected 'x'"),
    "missing": (400, "input 'x' is missing"),
    "shape": (400, "input 'x': shape [5, 5], expected [?, 8]"),
    "output": (400, "output 'no' is unknown, expected 'second_out', 'class_out'"),
    "memory": (400, "input 'x': shared memory is not served, expected data"),
}
CODES = {400: "StatusCode.INVALID_ARGUMENT", 404: "StatusCode.NOT_FOUND"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mistake", ERRORS)
def test_mistakes_are_named(found: Found, protocol: str, mistake: str) -> None:
    status, message = found[protocol]["errors"][mistake]
    code, expected = ERRORS[mistake]
    assert expected in message.replace('"', "'")
    assert str(code) in status if protocol == "http" else status == CODES[code]


def test_the_repository_index(found: Found) -> None:
    rows = [(row["name"], row["version"], row["state"]) for row in found["grpc"]["index"]["models"]]
    assert rows == [("conv", "1", "READY"), ("conv", "2", "READY"), ("net", "1", "READY")]
