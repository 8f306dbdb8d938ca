"""Sessions: what they need to be imported, the ends they report, weights from memory, and arrays checked against them."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import fails
from imports import HEAVY, imported
from networks import Net
from small_models import product

from fcdeploy.errors import FcdeployError, LoadError
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime import options
from fcdeploy.runtime.feeds import check_feeds
from fcdeploy.runtime.session import LoadOptions, Session, explain_fault

SPECS = (TensorSpec("x", np.dtype(np.float32), (None, 3)), TensorSpec("ids", np.dtype(np.int64), (None,)))
GOOD = {"x": np.zeros((2, 3), np.float32), "ids": np.zeros(2, np.int64)}


def test_running_a_model_imports_numpy_and_onnxruntime_only() -> None:
    found = imported("import fcdeploy.runtime.session, fcdeploy.runtime.feeds")
    assert {"numpy", "onnxruntime"} <= found
    assert not found & HEAVY


def test_a_session_knows_its_ends() -> None:
    session = Session(product("", bytes(64)))
    assert session.input_specs == (TensorSpec("x", np.dtype(np.float32), (None, 4)),)
    assert [spec.name for spec in session.output_specs] == session.outputs == ["y"]


def test_weights_from_memory() -> None:
    weight = np.arange(16, dtype=np.float32)
    session = Session(product("w.bin"), load=LoadOptions(weights={"w.bin": weight.tobytes()}))
    np.testing.assert_array_equal(session.run({"x": np.eye(4, dtype=np.float32)})[0], weight.reshape(4, 4))


@pytest.mark.parametrize("location", ["w.bin", "../w.bin", "{folder}/w.bin"])
def test_with_weights_from_memory_no_file_is_read(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    for folder in (tmp_path, tmp_path / "inside"):
        (folder / "w.bin").write_bytes(bytes(64))
    monkeypatch.chdir(tmp_path / "inside")
    with fails("cannot load the model"):
        Session(product(location.format(folder=tmp_path)), load=LoadOptions(weights={}))


def test_options_are_read_from_a_model_s_bytes_and_file(tmp_path: Path) -> None:
    model = onnx.load_from_string(product("", bytes(64)))
    for key, value in (("author", "ä"), (options.KEY, '{"session.disable_prepacking": "1"}')):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, tmp_path / "m.onnx")
    expected = {"session.disable_prepacking": "1"}
    assert options.read_options(model.SerializeToString()) == options.read_options(tmp_path / "m.onnx") == expected


@pytest.mark.parametrize(
    "damaged", [b"", b"\x72", b"\x72\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x72\x05ab", b"\x3a\xff\xff\x7f", b"\xff" * 20]
)
def test_damaged_bytes_have_no_options(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(damaged)
    assert options.read_options(damaged) == options.read_options(tmp_path / "m.onnx") == {}


def test_arrays_that_fit() -> None:
    check_feeds(GOOD, SPECS)
    check_feeds({"any": np.zeros((1, 2, 3), np.int8)}, [TensorSpec("any", np.dtype(np.int8), ())])


@pytest.mark.parametrize(
    ("feeds", "message", "hint"),
    [
        ({"x": GOOD["x"]}, "input 'ids' is missing: the model wants x float32[?, 3], ids int64[?]", "ids int64[?]"),
        ({**GOOD, "z": GOOD["x"]}, "input 'z' is unknown: the model wants x float32[?, 3], ids int64[?]", "leave 'z'"),
        ({**GOOD, "x": [[0.0, 0.0, 0.0]]}, "input 'x' is of type list, expected an array", "numpy.asarray"),
        ({**GOOD, "x": np.zeros((2, 3))}, "input 'x' is float64, the model wants float32", "astype('float32')"),
        ({**GOOD, "x": np.zeros((2, 4), np.float32)}, "has shape [2, 4], the model wants [?, 3]", "first axis"),
        ({**GOOD, "x": np.zeros(3, np.float32)}, "has shape [3], the model wants [?, 3]", "array[None]"),
    ],
)
def test_arrays_that_do_not_fit(feeds: dict[str, np.ndarray], message: str, hint: str) -> None:
    with fails(message, hint):
        check_feeds(feeds, SPECS)


def test_faults_are_said_by_the_innermost_node_alone() -> None:
    """What onnxruntime says of a node in a body, and where in its source, is a line of 300 letters."""
    text = (
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running If node. Name:'choose' "
        "Status Message: Non-zero status code returned while running Gather node. Name:'body/take' Status Message: "
        "indices element out of data bounds"
    )
    assert explain_fault(RuntimeError(text)) == "node 'body/take', a Gather: indices element out of data bounds"
    net = Net(0)
    net.output(net.op("Reshape", net.input("x", "k"), net.constant([3, -1], np.int64), name="three"))
    with pytest.raises(FcdeployError) as refused:
        Session(net.model().SerializeToString()).run({"x": np.ones((1, 4), np.float32)})
    assert refused.value.message.startswith(
        "onnxruntime cannot run the model on x float32[1, 4]: node 'three', a Reshape: The input tensor cannot be reshaped"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_graph_that_finds_no_room_says_nothing_of_the_model(tmp_path: Path) -> None:
    """onnxruntime speaks of protobuf, and of a number, where it cannot write the graph that it optimized."""
    model = product("", bytes(64))
    for dump in (Path("/dev/full"), tmp_path / "missing" / "graph.onnx"):
        with pytest.raises(FcdeployError, match="cannot write to the temporary folder") as caught:
            Session(model, load=LoadOptions(dump=dump))
        assert not isinstance(caught.value, LoadError)


def test_a_file_that_cannot_be_read_is_no_fault_of_the_model(tmp_path: Path) -> None:
    """Else export takes it for a model that takes no other batch, and writes one of a fixed batch."""
    path = tmp_path / "loop.onnx"
    path.symlink_to(path)
    with pytest.raises(OSError, match=r"loop\.onnx") as raised:
        Session(path)
    assert raised.value.errno == errno.ELOOP
