"""Arithmetic with one number on bytes, and the functions that a table of sigmoids computes, as the runtime runs them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Array, Line, Net, quantize_net, random_data
from onnx import TensorProto, helper

from fcdeploy.arithmetic.quantization import dequantize, quantize
from fcdeploy.arithmetic.sigmoid_forms import SIGMOID_FORMS
from fcdeploy.int8.planning.scales import update_reinterpreted_scales
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.kernels import find_kernels
from fcdeploy.runtime.session import Session
from fcdeploy.tables.operators import OPERATORS

DATA = random_data(0, 24, x=(4, 6, 6))


def hard_swish(*, output: bool = False, edit: object = None) -> Line:
    net = Net(0)
    x = net.conv(net.input("x", 4, 6, 6), 4, 8, name="first")
    y = net.op("Mul", x, net.op("HardSigmoid", x, name="gate", alpha=1 / 6), name="swish")
    z = net.conv(net.op("Add", y, net.constant(0.25), name="shift"), 8, 4, name="last")
    net.output(z, *(["shift_out", "gate_out"] if output else []))
    return quantize_net(net, DATA, edit=edit)


def read_bytes(line: Line, *names: str) -> list[Array]:
    proto = ir.to_proto(line.int8)
    for name in names:
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    return Session(proto.SerializeToString(), threads=1).run(line.data, list(names))


def test_a_hard_swish_is_a_clip_and_a_product_of_the_same_bytes(tmp_path: Path) -> None:
    line = hard_swish()
    assert line.kinds == {
        "first": "int8", "gate": "reinterpreted", "swish": "int8", "shift": "reinterpreted", "last": "int8",
    }  # fmt: skip
    x, y = read_bytes(line, "first_out/q", "swish_out/q")
    q = line.plan.tensors
    gate = quantize(np.clip(dequantize(x, q["first_out"]) / 6 + 0.5, 0, 1).astype(np.float32), q["gate_out"])
    product = dequantize(x, q["first_out"]).astype(np.float64) * dequantize(gate, q["gate_out"])
    exact = np.clip(np.rint(product / q["swish_out"].scale[0]) + q["swish_out"].zero_point, 0, 255)
    assert np.abs(exact - y).max() <= 1  # halves, which the kernel rounds in float32
    assert np.mean(exact == y) > 0.99
    ir.save(line.int8, tmp_path / "int8.onnx")
    kernels = [kernel.kernel for kernel in find_kernels(tmp_path / "int8.onnx")]
    assert sorted(set(kernels) - {"QuantizeLinear", "DequantizeLinear", "Transpose"}) == [
        "Clip",
        "QLinearConv",
        "QLinearMul",
    ]


def test_arithmetic_behind_moved_bytes() -> None:
    net = Net(0)
    x = net.conv(net.input("x", 4, 6, 6), 4, 8, name="first")
    x = net.op("Transpose", net.op("Sigmoid", x), perm=[0, 1, 3, 2], name="turned")
    net.output(net.conv(net.op("Add", x, net.constant(0.25), name="shift"), 8, 4, name="last"))
    line = quantize_net(net, DATA)
    assert (line.kinds["turned"], line.kinds["shift"]) == ("passthrough", "reinterpreted")
    assert line.sqnr() > 30


def test_what_is_read_twice_may_be_an_output() -> None:
    line = hard_swish(output=True)
    assert line.sqnr() > 30
    assert line.kernel_sqnr() > 60


def test_the_range_of_an_input_of_hard_swish_ends_where_its_result_does() -> None:
    q = hard_swish().plan.tensors["first_out"]
    assert -3.3 < -q.scale[0] * q.zero_point < -2.7 or q.zero_point * q.scale[0] < 3


@pytest.mark.parametrize("op", SIGMOID_FORMS)
def test_a_function_from_the_table_of_sigmoids(op: str, tmp_path: Path) -> None:
    net = Net(0)
    x = net.conv(net.input("x", 4, 6, 6), 4, 8, name="first")
    net.output(net.conv(net.op(op, x, name="curve"), 8, 4, name="last"))
    line = quantize_net(net, DATA)
    assert line.kinds["curve"] == "int8"
    (made,) = [node for node in line.int8.graph if node.name == "curve"]
    assert made.op_type == "Sigmoid"
    q = line.plan.tensors
    read = dequantize(read_bytes(line, "first_out/q")[0], q["first_out"]).astype(np.float64)
    (user,) = (name for node in line.int8.graph if node.op_type == "DequantizeLinear"
               for name in [node.inputs[0].name or ""] if node.outputs[0].name == "curve_out/dq")  # fmt: skip
    found = dequantize(read_bytes(line, user)[0], q["curve_out"])
    true = {"Tanh": np.tanh, "Erf": np.vectorize(math.erf)}[op](read)
    assert np.abs(found - true).max() < {"Tanh": 0.6, "Erf": 2.0}[op] * q["curve_out"].scale[0]
    ir.save(line.int8, tmp_path / "int8.onnx")
    assert {kernel.kernel for kernel in find_kernels(tmp_path / "int8.onnx")} >= {"QLinearSigmoid"}


def test_forms_are_as_near_as_they_say() -> None:
    x = np.linspace(-8, 8, 4001)
    np.testing.assert_allclose(SIGMOID_FORMS["Tanh"](x), np.tanh(x), atol=1e-12)
    erf = np.vectorize(math.erf)
    near = SIGMOID_FORMS["Erf"]
    assert np.abs(near(x) - erf(x)).max() < 0.0103
    half = 0.5 * x
    assert np.abs(half * near(x / np.sqrt(2)) - half * erf(x / np.sqrt(2))).max() < 0.0086


@pytest.mark.parametrize("op", SIGMOID_FORMS)
def test_the_range_in_the_table_gives_the_byte_of_zero_and_whole_bytes_of_the_ends(op: str) -> None:
    cover = OPERATORS[op].output
    assert cover is not None
    scale = (cover.high - cover.low) / 255
    assert -cover.low / scale == pytest.approx(127)
    assert 1 / scale == pytest.approx(round(1 / scale))
    assert SIGMOID_FORMS[op].outer / 2 / scale == pytest.approx(127)  # sigmoid 0 is byte 0


def test_an_edited_scale_moves_what_follows_from_it() -> None:
    def edit(plan: Plan) -> Plan:
        q = replace(plan.tensors["first_out"], scale=(0.06,), zero_point=50)
        return update_reinterpreted_scales(prepared.graph, replace(plan, tensors=plan.tensors | {"first_out": q}))

    prepared = hard_swish().prepared
    line = hard_swish(edit=edit)
    assert line.plan.tensors["gate_out"].zero_point == 0
    assert line.plan.tensors["gate_out"].scale[0] == pytest.approx(0.01)
    assert line.sqnr() > 25


def test_a_plan_whose_scales_do_not_follow_is_refused() -> None:
    def edit(plan: Plan) -> Plan:
        return replace(plan, tensors=plan.tensors | {"gate_out": replace(plan.tensors["gate_out"], scale=(0.5,))})

    with fails("node 'gate': tensor 'gate_out' needs scale 0.0"):
        hard_swish(edit=edit)


def test_other_nodes_cannot_be_reinterpreted() -> None:
    def edit(plan: Plan) -> Plan:
        return replace(
            plan, nodes=tuple(replace(d, kind="reinterpreted") if d.node == "swish" else d for d in plan.nodes)
        )

    with fails("node 'swish' is a Mul and no arithmetic with one number, of positive gain"):
        hard_swish(edit=edit)


def test_a_gate_made_float_by_hand_is_still_right() -> None:
    def edit(plan: Plan) -> Plan:
        return replace(plan, nodes=tuple(replace(d, kind="float") if d.node == "gate" else d for d in plan.nodes))

    line = hard_swish(edit=edit)
    assert line.kinds["gate"] == "float"
    assert line.sqnr() > 30
