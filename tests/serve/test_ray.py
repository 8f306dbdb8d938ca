"""A Ray that runs already: under its Serve the same engine answers, and calibrating and validating there change no byte.

And the manifest for KServe.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import onnxruntime as ort
import pytest
import yaml
from bundles import int8_model
from conftest import HELPERS, fails
from ray_head import ray_head
from starlette.requests import Request

from fcdeploy import cli
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.serve.http_request import HeadParser, Route

OWN = """
import numpy as np

def samples():
    for x in np.load("data.npz")["x"]:
        yield {"x": x}

def score(outputs, labels):
    return outputs["second_out"].max(axis=1)
"""
COMMAND = "import sys; from fcdeploy.cli import main; sys.exit(main(sys.argv[1:]))"
RAYS_OWN = "You have likely discovered a bug in Ray"  # what its core says before it aborts, once in many runs
SERVING = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def ray_app() -> ModuleType:
    """Imported here, since each worker of pytest runs what stands at the top."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Ray says of itself when it is imported
        return importlib.import_module("fcdeploy.serve.ray_app")


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a Ray, and the environment in which it is reached."""
    pytest.importorskip("ray")
    with ray_head(cpus=3) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its int8 form, good and bad samples, a generator and a metric; beside it a folder to serve."""
    folder = tmp_path_factory.mktemp("ray")
    int8 = int8_model(folder)
    (folder / "served").mkdir()
    shutil.copy(int8, folder / "served" / "net.onnx")
    x = np.load(folder / "data.npz")["x"]
    (folder / "own.py").write_text(OWN)
    x[7, 0] = np.nan
    np.savez(folder / "spoilt.npz", x=x)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return folder / "served" / "net.onnx"


def run_there(head: tuple[str, dict[str, str]], folder: Path, *command: str) -> str:
    """What Python prints with these arguments where the Ray can be reached."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=head[1],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if RAYS_OWN not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found(head: tuple[str, dict[str, str]], folder: Path) -> dict[str, Any]:
    """What a deployment there answered, and what commands said."""
    script = str(HELPERS / "ray_calls.py")
    return dict(json.loads(run_there(head, folder, script, head[0], "served").splitlines()[-1]))


def test_it_is_ready_and_describes_the_model(found: dict[str, Any]) -> None:
    assert found["ready"] == [200, {"ready": True}]
    status, metadata = found["metadata"]
    assert (status, metadata["name"], metadata["versions"]) == (200, "net", ["1"])
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}]


def test_it_answers_as_onnxruntime_does(found: dict[str, Any], model: Path) -> None:
    scores, classes = ort.InferenceSession(model).run(None, {"x": np.float32(found["x"])})
    status, answer = found["json"]
    assert status == 200
    np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]).reshape(3, 3), scores)
    assert answer["outputs"][1]["data"] == classes.tolist()
    status, answer, values = found["binary"]
    assert (status, [output["name"] for output in answer["outputs"]]) == (200, ["second_out"])
    np.testing.assert_array_equal(np.float32(values).reshape(3, 3), scores)
    np.testing.assert_array_equal(np.float32(found["handle"]["second_out"]), scores)


def test_calibrating_there_writes_the_same_file(found: dict[str, Any], folder: Path) -> None:
    code, said = found["calibrated"]
    assert code == 0, said
    calibrate(folder / "net.onnx", data=folder / "data.npz", output=folder / "here.calib")
    assert (folder / "there.calib").read_bytes() == (folder / "here.calib").read_bytes()
    code, said = found["spoilt"]
    assert code == 2
    assert "sample 7 has nan" in said
    assert not (folder / "no.calib").exists()


def test_validating_at_an_address_prints_the_same_report(
    head: tuple[str, dict[str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With data and a metric of the user's own file, which the workers find where the command runs."""
    monkeypatch.chdir(folder)
    words = ["validate", "net.int8.onnx", "--against", "net.onnx", "--data", "own.py:samples"]
    words += ["--metric", "own.py:score", "--same-data", "--json"]
    assert cli.main(words) == 0
    here = capsys.readouterr().out
    assert run_there(head, folder, "-c", COMMAND, *words, "--workers", "3", "--cluster", f"ray:{head[0]}") == here
    assert '"samples": 64' in here


def test_mistakes_are_those_of_the_server(found: dict[str, Any]) -> None:
    assert found["unknown"] == [404, {"error": "model 'no' is unknown, expected one of: net"}]
    status, answer = found["mistake"]
    assert status == 400
    assert answer["error"].startswith("the body is not JSON")


def test_options_of_the_application(ray_app: ModuleType) -> None:
    with fails("option 'replica' is unknown, expected source, replicas, threads", "replica=..."):
        ray_app.app({"source": "x.onnx", "replica": "2"})
    with fails("threads is 'two', expected a whole number", "threads=1"):
        ray_app.app({"source": "x.onnx", "threads": "two"})
    with fails("there is no source, expected a model, a bundle or a folder", "source=model.onnx"):
        ray_app.app({"threads": 1})


def test_a_request_s_head_is_the_one_that_fcdeploy_serve_reads(ray_app: ModuleType) -> None:
    scope = {
        "type": "http", "method": "POST", "path": "/v2/models/a b/infer", "raw_path": b"/v2/models/a%20b/infer",
        "query_string": b"x=1", "headers": [(b"content-encoding", b"gzip"), (b"x-other", b"1"),
                                            (b"inference-header-content-length", b"12")],
    }  # fmt: skip
    head = HeadParser().read(ray_app.build_head(Request(scope)))
    assert (head.route, head.coding, head.header_length) == (Route("infer", "a b", ""), "gzip", 12)


def test_the_manifest_for_kserve_starts_the_server_as_it_is() -> None:
    text = re.search(r"```yaml\n(.*?)```", SERVING.read_text(), re.DOTALL)
    assert text
    manifest = yaml.safe_load(text[1])
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    (container,) = manifest["spec"]["predictor"]["containers"]
    program, command, *arguments = container["command"] + container["args"]
    assert program == "fcdeploy"
    serve = cli.fcdeploy.get_command(click.Context(cli.fcdeploy), command)
    assert serve
    given = serve.make_context(command, arguments).params
    assert (given["host"], given["port"]) == ("0.0.0.0", container["ports"][0]["containerPort"])
    for probe, address in (("livenessProbe", "live"), ("readinessProbe", "ready")):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == (f"/v2/health/{address}", given["port"])
