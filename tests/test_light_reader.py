"""ONNX files read without onnx, against onnx itself."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net
from onnx import TensorProto, helper, numpy_helper
from small_models import family

from fcdeploy.errors import FcdeployError
from fcdeploy.graph import light_reader
from fcdeploy.graph.light_reader import LightConstant, read_outline


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return family(tmp_path_factory.mktemp("family"))


def dims(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    shape = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in shape)


def test_outlines_are_what_onnx_reads(models: dict[str, Path]) -> None:
    for path in models.values():
        graph, outline = onnx.load(path).graph, read_outline(path)
        assert [(n.op, n.name, n.domain) for n in outline.nodes] == [(n.op_type, n.name, n.domain) for n in graph.node]
        assert [n.inputs for n in outline.nodes] == [tuple(n.input) for n in graph.node]
        assert [n.outputs for n in outline.nodes] == [tuple(n.output) for n in graph.node]
        assert outline.outputs == {value.name: dims(value) for value in graph.output}
        weights = {tensor.name: tensor for tensor in graph.initializer}
        assert outline.inputs == {value.name: dims(value) for value in graph.input if value.name not in weights}
        assert {name: constant.dims for name, constant in outline.constants.items()} == {
            name: tuple(tensor.dims) for name, tensor in weights.items()
        }
        for ours, theirs in zip(outline.nodes, graph.node, strict=True):
            expected = {a.name: helper.get_attribute_value(a) for a in theirs.attribute}
            for name, value in ours.attributes.items():
                there = expected[name]
                assert value == (
                    there.decode() if isinstance(there, bytes) else tuple(there) if isinstance(there, list) else there
                )


@pytest.mark.parametrize("raw", [True, False])
def test_integers_of_constants_are_read(tmp_path: Path, raw: bool) -> None:
    values = [0, -1, 3, 2**40]
    tensor = (
        numpy_helper.from_array(np.array(values), "shape")
        if raw
        else helper.make_tensor("shape", TensorProto.INT64, [4], values)
    )
    net = Net()
    net.weights.append(tensor)
    path = net.output(net.op("Reshape", net.input("x", 3, "t", 5), "shape")).save(tmp_path / "m.onnx")
    outline = read_outline(path)
    assert outline.constants["shape"] == LightConstant((4,), tuple(values))
    assert outline.inputs == {"x": ("n", 3, "t", 5)}
    assert outline.opset == 17


@given(st.binary(max_size=200))
def test_no_bytes_bring_it_down(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "m.onnx"
    path.write_bytes(data)
    with suppress(FcdeployError):
        read_outline(path)


def test_cut_files_are_refused_or_read(models: dict[str, Path], tmp_path: Path) -> None:
    whole = models["residual8"].read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole), 997):
        cut.write_bytes(whole[:length])
        with fails("is not an ONNX model, or is damaged"):
            read_outline(cut)


def test_a_file_that_is_cut_while_it_is_read_is_damaged(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it mapped, the process would end by SIGBUS, and with it a server that looks for changed models."""
    path = tmp_path / "m.onnx"
    shutil.copy(next(iter(models.values())), path)
    read = light_reader._read_model
    monkeypatch.setattr(light_reader, "_read_model", lambda data: (os.truncate(path, 100), read(data))[1])
    with fails("is not an ONNX model, or is damaged"):
        read_outline(path)
