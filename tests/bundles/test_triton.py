"""Triton model repositories: the configuration is read by Triton's own protobuf, the folder by our server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bundles import int8_model
from conftest import fails
from networks import Net
from onnx import TensorProto
from small_models import product
from tritonclient_env import tritonclient_python

from fcdeploy import cli
from fcdeploy.commands.bundle import bundle
from fcdeploy.serve.repository import find_models

PARSE = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = text_format.Parse(open(sys.argv[1], encoding="utf-8").read(), model_config_pb2.ModelConfig())
print(json_format.MessageToJson(config, preserving_proto_field_name=True))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return int8_model(tmp_path_factory.mktemp("model"))


def parsed(file: Path) -> dict[str, Any]:
    """As Triton reads it: an unknown field or a wrong type fails."""
    command = [tritonclient_python(), "-c", PARSE, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_configuration(model: Path, tmp_path: Path) -> None:
    bundle(model, triton=tmp_path / "models", name="digits", version="3")
    assert parsed(tmp_path / "models" / "digits" / "config.pbtxt") == {
        "name": "digits",
        "backend": "onnxruntime",
        "max_batch_size": 32,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["8"]}],
        "output": [
            {"name": "second_out", "data_type": "TYPE_FP32", "dims": ["3"]},
            {"name": "class_out", "data_type": "TYPE_INT64", "dims": ["1"], "reshape": {}},
        ],
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "parameters": {
            "intra_op_thread_count": {"string_value": "1"},
            "inter_op_thread_count": {"string_value": "1"},
        },
        "dynamic_batching": {},
    }


def test_the_folder_is_a_repository_that_we_serve_too(model: Path, tmp_path: Path) -> None:
    for version in ("1", "2"):
        bundle(model, triton=tmp_path, version=version)
    assert [(place.name, place.version) for place in find_models(tmp_path)] == [("net", "1"), ("net", "2")]
    x = np.ones((2, 8), np.float32)
    one, other = (ort.InferenceSession(path).run(None, {"x": x})[0] for path in (find_models(tmp_path)[0].path, model))
    np.testing.assert_array_equal(one, other)


def test_samples_that_depend_on_each_other_are_not_put_together(tmp_path: Path) -> None:
    """The mean over the batch axis: a run of two requests would answer otherwise."""
    net = Net()
    x = net.input("x", 4)
    path = net.output(net.op("Sub", x, net.op("ReduceMean", x, axes=[0], keepdims=1))).save(tmp_path / "mixed.onnx")
    bundle(path, triton=tmp_path / "models")
    found = parsed(tmp_path / "models" / "mixed" / "config.pbtxt")
    assert found["max_batch_size"] == 1
    assert "dynamic_batching" not in found


def test_a_leading_axis_that_is_not_free_belongs_to_the_shape(tmp_path: Path) -> None:
    net = Net()
    proto = net.output(net.dense(net.input("x", 4), 4, 2, name="y")).model()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, tmp_path / "one.onnx")
    bundle(tmp_path / "one.onnx", triton=tmp_path / "models")
    found = parsed(tmp_path / "models" / "one" / "config.pbtxt")
    assert found["input"][0]["dims"] == ["1", "4"]
    assert found["output"][0]["dims"] == ["1", "2"]
    assert "max_batch_size" not in found  # 0


def test_names_of_any_letters(tmp_path: Path) -> None:
    net = Net()
    name = 'in "put"\\é'
    path = net.output(net.op("Neg", net.input(name, "a", dtype=TensorProto.FLOAT16), name="y")).save(
        tmp_path / "m.onnx"
    )
    bundle(path, triton=tmp_path / "models", data=_npz(tmp_path, name))
    (row,) = parsed(tmp_path / "models" / "m" / "config.pbtxt")["input"]
    assert (row["name"], row["data_type"], row["dims"]) == (name, "TYPE_FP16", ["-1"])


def _npz(folder: Path, name: str) -> Path:
    np.savez(folder / "data.npz", **{name: np.zeros((4, 3), np.float16)})
    return folder / "data.npz"


def test_weights_outside_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(product("w.bin"))
    (tmp_path / "w.bin").write_bytes(bytes(64))
    bundle(tmp_path / "m.onnx", triton=tmp_path / "models")
    assert sorted(path.name for path in (tmp_path / "models" / "m" / "1").iterdir()) == ["model.onnx", "w.bin"]


def test_what_is_there_is_kept_unless_force_says_so(model: Path, tmp_path: Path) -> None:
    bundle(model, triton=tmp_path)
    with fails("model 'net' version 1 is in ", "--version 2, or --force"):
        bundle(model, triton=tmp_path)
    bundle(model, triton=tmp_path, force=True)
    other = int8_model(Path(shutil.copytree(model.parent, tmp_path / "other")), classes=4)
    with fails("config.pbtxt' differs from what this model needs, and other versions use it", "--name"):
        bundle(other, triton=tmp_path, version="2")
    (tmp_path / "file").write_text("")
    with fails("is a file, expected a folder", "--triton models"):
        bundle(model, triton=tmp_path / "file")
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["1", "config.pbtxt"]


def test_session_options_that_triton_cannot_set_are_a_warning(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "fcdeploy.session", '{"session.x64quantprecision": "1"}'
    onnx.save(proto, tmp_path / "m.onnx")
    (warning,) = bundle(tmp_path / "m.onnx", triton=tmp_path / "models").warnings
    assert warning.startswith("Triton cannot set 'session.x64quantprecision', which the model asks for")


def test_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", str(model), "--triton", str(tmp_path / "models"), "-o", str(tmp_path / "n.zip")]) == 0
    assert "net/1/model.onnx, config.pbtxt" in capsys.readouterr().out
    assert cli.main(["bundle", str(model)]) == 2
    assert "there is no output: neither -o nor --triton was given" in capsys.readouterr().err
