"""Tensors of strangers: every way in which their bytes, values, shape and type can disagree, against ONNX's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net
from onnx import TensorProto, helper, numpy_helper

from fcdeploy import console
from fcdeploy.cli import main
from fcdeploy.graph.check_tensors import find_fault
from fcdeploy.graph.model import read_model
from fcdeploy.runtime.broken_model import explain_broken_model

TYPES = [np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_, np.float16, np.complex64, np.uint32]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_whole_tensors_have_no_fault(dtype: Any, raw: bool) -> None:
    array = np.ones((2, 3), dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.reshape(-1).tolist()
    tensor = helper.make_tensor("w", kind, array.shape, values, raw=raw)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), array)
    assert not find_fault(tensor)
    tensor.dims[0] = 4
    assert "for its shape [4, 3]" in find_fault(tensor)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_four_bits_are_packed_in_pairs(count: int) -> None:
    tensor = helper.make_tensor("w", TensorProto.INT4, [count], [1] * count)
    assert not find_fault(tensor)
    tensor.dims[0] = count + 2
    assert find_fault(tensor)


@given(st.integers(0, 9), st.lists(st.integers(-2, 5), max_size=3), st.sampled_from([0, 1, 7, 8, 11, 99]))
def test_what_has_no_fault_can_be_read(count: int, shape: list[int], kind: int) -> None:
    tensor = TensorProto(dims=shape, data_type=kind, raw_data=bytes(8 * count))
    if kind in (1, 7, 11) and not find_fault(tensor):
        assert numpy_helper.to_array(tensor).shape == tuple(shape)
    elif kind in (1, 7, 11):
        with pytest.raises(ValueError, match=r".*"):
            numpy_helper.to_array(tensor).reshape(shape if min(shape, default=0) >= 0 else [10**9])


def test_a_model_is_refused_with_the_name_in_plain_sight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(0)
    net.output(net.dense(net.input("x", 8), 8, 3))
    model = onnx.load(net.save(tmp_path / "net.onnx"))
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
    tensor.name, tensor.raw_data = "\x1b[31mred\u202e", tensor.raw_data[:-4]
    onnx.save(model, tmp_path / "net.onnx")
    with fails("bytes, expected 96 for its shape", "write it again"):
        read_model(tmp_path / "net.onnx")
    assert main(["inspect", str(tmp_path / "net.onnx")]) == 2
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "x1b[31mred" in printed


def test_devices_are_no_models() -> None:
    with fails("model '/dev/zero' is a device or a pipe"):
        read_model("/dev/zero")


def test_a_model_that_onnx_refuses_is_broken_and_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nobody foresaw what is wrong with a file, ONNX's checker has the word."""
    net = Net(0)
    net.output(net.dense(net.op("Concat", net.input("x", 4), net.input("z", 4), axis=1), 8, 3))
    model = onnx.load(net.save(tmp_path / "net.onnx"))
    del model.graph.node[0].attribute[:]  # the axis
    onnx.save(model, tmp_path / "net.onnx")

    def fail(*_: object, **__: object) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr("fcdeploy.commands.inspect.inspect", fail)
    assert main(["inspect", str(tmp_path / "net.onnx")]) == 2
    assert "net.onnx' is broken: " in capsys.readouterr().err


def test_a_model_that_runs_is_not_broken_whatever_onnx_says_of_it(tmp_path: Path) -> None:
    """A stored rank that inference contradicts, which onnxruntime overlooks."""
    net = Net(0)
    net.output(net.op("Relu", net.op("Cast", net.op("Identity", net.input("x", 4), name="same"), to=1, name="cast")))
    model = net.model()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("cast_out", TensorProto.FLOAT, []))
    path = str(tmp_path / "m.onnx")
    onnx.save(model, path)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert explain_broken_model(path) == ""


@pytest.mark.parametrize("text", [False, True])
def test_a_model_that_runs_at_some_length_is_not_broken(tmp_path: Path, text: bool) -> None:
    """Pairs of rows, of numbers or of texts, which no single row has."""
    kind = TensorProto.STRING if text else TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", ["n"]), ("y", [2, "m"]))]
    shape = numpy_helper.from_array(np.array([2, -1]), "shape")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [shape]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "m.onnx")
    assert explain_broken_model(str(tmp_path / "m.onnx")) == ""


def test_control_characters_are_written_out() -> None:
    assert console.show_control("a\x1b[2Jb\u202e\n") == "a\\x1b[2Jb\\u202e\n"


def test_the_size_of_every_type_is_what_onnx_writes() -> None:
    """Of those that it knows, which grow with it: the newest has two of 6 bits."""
    for name, kind in TensorProto.DataType.items():
        if name not in ("UNDEFINED", "STRING"):
            tensor = numpy_helper.from_array(np.zeros(5, helper.tensor_dtype_to_np_dtype(kind)), "t")
            assert (tensor.data_type, find_fault(tensor)) == (kind, ""), name
