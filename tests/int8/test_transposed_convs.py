"""A ConvTranspose as convolution and DepthToSpace: the same numbers by onnxruntime's ConvTranspose, integers on `portable`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import Net, in_memory, random_data

from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.transposed_convs import turn_transposed_convs
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.session import Session

axis = st.tuples(st.integers(1, 5), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2))  # kernel, dilation, pads


def build(kernel: tuple[int, int], stride: int, size: tuple[int, int], group: int = 1, **attributes: object) -> Net:
    net = Net(3)
    x = net.conv(net.input("x", 3, *size), 3, 4)
    weight = net.constant(net.normal(4, 5 // group if group == 1 else 2, *kernel, size=0.3))
    bias = net.constant(net.normal(5 if group == 1 else 2 * group))
    y = net.op(
        "ConvTranspose", net.op("Relu", x), weight, bias, strides=[stride, stride], group=group, **attributes, name="up"
    )
    return net.output(net.op("Relu", y))


def turn(net: Net, size: tuple[int, int]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The prepared model, and the same turned."""
    model = ir.from_proto(net.model())
    prepare(model)
    before = ir.to_proto(model)
    calibration = observe(model, in_memory(random_data(0, 4, x=(3, *size)), model), model_hash="m")
    turned = turn_transposed_convs(model, calibration)
    laid = [name_of(node.inputs[0]) for node in model.graph if node.op_type == "DepthToSpace"]
    assert set(laid) <= set(turned.tensors)
    return before, ir.to_proto(model)


@given(st.tuples(axis, axis), st.integers(2, 3), st.tuples(st.integers(2, 5), st.integers(2, 5)), st.integers(0, 1))
def test_the_same_numbers(
    axes: tuple[tuple[int, int, int, int], ...], stride: int, size: tuple[int, int], longer: int
) -> None:
    (kernel, dilations, begins, ends) = zip(*axes, strict=True)
    lengths = [
        stride * (n - 1) + longer + (k - 1) * d + 1 - b - e
        for n, k, d, b, e in zip(size, kernel, dilations, begins, ends, strict=True)
    ]
    assume(min(lengths) > 0)
    net = build(kernel, stride, size, pads=[*begins, *ends], dilations=list(dilations), output_padding=[longer, longer])
    before, after = turn(net, size)
    assert "ConvTranspose" not in {node.op_type for node in after.graph.node}
    x = {"x": np.random.default_rng(1).normal(size=(2, 3, *size)).astype(np.float32)}
    expected, found = (Session(model.SerializeToString(), threads=1).run(x)[0] for model in (before, after))
    assert found.shape[2:] == tuple(lengths)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_groups_stay_but_of_stride_1() -> None:
    before, after = turn(build((3, 3), 2, (4, 4), group=2), (4, 4))
    assert [node.op_type for node in before.graph.node] == [node.op_type for node in after.graph.node]
    x = {"x": np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype(np.float32)}
    for group in (1, 2):
        before, after = turn(build((3, 2), 1, (5, 4), group=group, pads=[1, 0, 0, 1]), (5, 4))
        assert [node.op_type for node in after.graph.node] == ["Conv", "Relu", "Conv", "Relu"]
        expected, found = (Session(model.SerializeToString(), threads=1).run(x)[0] for model in (before, after))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", ["", "up", "op:ConvTranspose", "relu*"])
def test_a_portable_file_has_no_float_between_integers_but_what_is_kept(tmp_path: Path, keep: str) -> None:
    file = build((2, 2), 2, (6, 6)).save(tmp_path / "up.onnx")
    data = tmp_path / "x.npz"
    np.savez(data, **random_data(0, 40, x=(3, 6, 6)))
    output, kept = tmp_path / "portable.onnx", (keep,) if keep else ()
    report = quantize(file, output=output, data=data, target="portable", costs="none", floor="none", keep_float=kept)
    nodes = [node.op_type for node in onnx.load(output).graph.node]
    assert nodes.count("ConvTranspose") == bool(keep)
    assert ("the same bytes on every CPU" in "\n".join(report.lines)) is (not keep)
    names = {row["tensor"]: row["sqnr_db"] for row in find_layers(output, file, data)}
    assert keep or names["relu3_out"] > 30


def find_layers(int8: Path, model: Path, data: Path) -> list[dict[str, Any]]:
    report = validate(int8, against=model, data=data, layers=True, same_data=True)
    rows: list[dict[str, Any]] = report.values["layers"]
    return rows
