"""Under Ray Serve the same engine answers: Ray is really started, in a process of its own. And the manifest for KServe."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import onnxruntime as ort
import pytest
import yaml
from bundles import int8_model
from conftest import fails
from starlette.requests import Request

from fcdeploy import cli
from fcdeploy.serve.http_request import HeadParser, Route

SERVING = Path(__file__).parent.parent / "docs" / "serving.md"


@pytest.fixture(scope="module")
def ray_app() -> ModuleType:
    """Imported here, since each worker of pytest runs what stands at the top."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Ray says of itself when it is imported
        return importlib.import_module("fcdeploy.serve.ray_app")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return Path(shutil.copy(int8_model(tmp_path_factory.mktemp("net")), folder / "net.onnx"))


@pytest.fixture(scope="module")
def found(model: Path) -> dict[str, Any]:
    """What a deployment on a Ray of one machine answered."""
    script = Path(__file__).with_name("ray_calls.py")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script), str(model.parent)],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **quiet},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


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
