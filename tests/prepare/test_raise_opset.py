"""Models of old operator sets compute in set 13 what onnxruntime computes for them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.errors import FcdeployError
from fcdeploy.prepare.passes.raise_opset import ROWS, raise_opset
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.session import Session

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 3, 4, 6)).astype(np.float32)


def model_of(
    op: str,
    opset: int,
    x: np.ndarray[Any, Any] = X,
    constants: tuple[Any, ...] = (),
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node on `x`, which an Identity-like Neg makes, so that nothing is known of it beforehand."""
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(constants)]
    wrote = [f"y{i}" for i in range(outputs)]
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node(op, ["n", *names], wrote, **attributes)]
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", kind, [None, *x.shape[1:]])],
        [helper.make_tensor_value_info(name, kind, None) for name in wrote],
        [numpy_helper.from_array(np.asarray(v), n) for v, n in zip(constants, names, strict=True) if v is not None],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    return onnx.shape_inference.infer_shapes(made)


def assert_same(made: onnx.ModelProto, x: np.ndarray[Any, Any] = X) -> ir.Model:
    """The model prepared answers as the model does, bit for bit."""
    before = Session(made.SerializeToString(), optimize=False)
    model = ir.from_proto(made)
    prepare(model)
    assert model.opset_imports[""] == 13
    after = Session(model, optimize=False)
    assert before.outputs == after.outputs
    for want, found in zip(before.run({"x": x}), after.run({"x": x}), strict=True):
        np.testing.assert_array_equal(found, want)
    return model


CASES: list[tuple[str, int, tuple[Any, ...], int, dict[str, Any]]] = [
    *(
        (op, opset, (), 1, {"axis": axis})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (7, 11)
        for axis in (0, 1, 2, 3)
    ),
    *((op, 11, (), 1, {"axis": axis}) for op in ("Softmax", "Hardmax") for axis in (-1, -2, -4)),
    ("Softmax", 9, (), 1, {}),
    ("Clip", 7, (), 1, {"min": -0.5}),
    ("Clip", 8, (), 1, {"max": 0.25}),
    ("Clip", 10, (), 1, {}),
    ("Pad", 9, (), 1, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": -2.5}),
    ("Pad", 7, (), 1, {"pads": [0, 0, 1, 2, 0, 0, 1, 1], "mode": "reflect"}),
    ("Slice", 9, (), 1, {"starts": [1, -3], "ends": [2, 100], "axes": [1, 3]}),
    ("Slice", 7, (), 1, {"starts": [0, 1], "ends": [2, 2]}),
    ("Split", 11, (), 3, {"axis": 1}),
    ("Split", 7, (), 2, {"axis": 3, "split": [1, 5]}),
    ("Unsqueeze", 9, (), 1, {"axes": [0, 3]}),
    ("ReduceSum", 11, (), 1, {"axes": [-1, 2], "keepdims": 0}),
    ("ReduceSum", 7, (), 1, {}),
    ("Dropout", 7, (), 1, {"ratio": 0.9}),
    ("Dropout", 10, (), 1, {"ratio": 0.9}),
    ("BatchNormalization", 7, tuple(np.abs(RANDOM.standard_normal((4, 3))).astype(np.float32)), 1, {}),
    ("Upsample", 7, (), 1, {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}),
    ("Upsample", 7, (), 1, {"scales": [1.0, 1.0, 2.0, 3.0]}),
    ("Upsample", 9, (np.array([1, 1, 1.5, 2], np.float32),), 1, {"mode": "linear"}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "opset", "constants", "outputs", "attributes"), CASES, ids=str)
def test_an_old_operator_computes_what_it_did(
    op: str, opset: int, constants: tuple[Any, ...], outputs: int, attributes: dict[str, Any]
) -> None:
    assert_same(model_of(op, opset, X, constants, outputs, **attributes))


def test_a_scale_for_every_element_of_a_sample_stays() -> None:
    constants = tuple(np.abs(RANDOM.standard_normal((4, 3, 4, 6))).astype(np.float32))
    made = model_of("BatchNormalization", 7, X, constants, spatial=0, epsilon=1e-3)
    before, model = Session(made.SerializeToString()), ir.from_proto(made)
    prepare(model)
    np.testing.assert_allclose(Session(model).run({"x": X})[0], before.run({"x": X})[0], rtol=1e-5, atol=1e-6)


SCALES = st.sampled_from([0.25, 0.4, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0])


@settings(max_examples=60, deadline=None)
@given(SCALES, SCALES, st.sampled_from(["nearest", "linear"]), st.integers(2, 9), st.integers(2, 9))
def test_resize_samples_where_operator_set_10_did(
    height: float, width: float, mode: str, rows: int, columns: int
) -> None:
    assume(mode == "linear" or (height - 1) * (width - 1) >= 0)
    x = RANDOM.standard_normal((1, 2, rows, columns)).astype(np.float32)
    scales = np.array([1, 1, height, width], np.float32)
    assert_same(model_of("Resize", 10, x, (scales,), mode=mode), x)
    if height >= 1 and width >= 1:
        assert_same(model_of("Upsample", 9, x, (scales,), mode=mode), x)


def test_a_resize_that_rounds_both_ways_is_refused() -> None:
    made = model_of("Resize", 10, X, (np.array([1, 1, 0.5, 2], np.float32),), mode="nearest")
    with pytest.raises(FcdeployError, match="it enlarges one axis and shrinks another"):
        prepare(ir.from_proto(made))


def test_nodes_in_the_bodies_of_an_if_are_converted_too() -> None:
    made = model_of("Neg", 11)
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    bodies = {
        f"{which}_branch": helper.make_graph([helper.make_node("Squeeze", [name], ["z"], axes=[0])], which, [], [value])
        for which, name in (("then", "u"), ("else", "n"))
    }
    made.graph.node.pop()
    made.graph.node.extend([
        helper.make_node("Unsqueeze", ["n"], ["u"], axes=[0]),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y0"], **bodies),
    ])  # fmt: skip
    del made.graph.value_info[:]
    assert_same(made)


def scan_of_8(lengths: str = "") -> onnx.ModelProto:
    """Running sums of operator set 8, (batch, sequence, 3), with what they start from."""
    kind = TensorProto.FLOAT
    row = [helper.make_tensor_value_info(name, kind, [3]) for name in ("s_in", "x_in", "s_out", "y_out")]
    body = helper.make_graph(
        [helper.make_node("Add", ["s_in", "x_in"], ["s_out"]), helper.make_node("Identity", ["s_out"], ["y_out"])],
        "body", row[:2], row[2:],
    )  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["n"]),
            helper.make_node("Scan", [lengths, "s", "n"], ["last", "y"], num_scan_inputs=1, body=body),
        ],
        "g", [helper.make_tensor_value_info("x", kind, [2, 5, 3])],
        [helper.make_tensor_value_info("last", kind, [2, 3]), helper.make_tensor_value_info("y", kind, [2, 5, 3])],
        [
            numpy_helper.from_array(RANDOM.standard_normal((2, 3)).astype(np.float32), "s"),
            numpy_helper.from_array(np.array([4, 5]), "len"),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)


def test_a_scan_over_a_batch_is_a_scan_within_a_scan() -> None:
    assert_same(scan_of_8(), RANDOM.standard_normal((2, 5, 3)).astype(np.float32))


def test_a_scan_with_a_length_for_every_sample_is_refused() -> None:
    with pytest.raises(FcdeployError, match="Scan 'Scan:last' of operator set 8 is given a length for every sample"):
        prepare(ir.from_proto(scan_of_8("len")))


def test_a_dropout_whose_mask_is_read_is_refused() -> None:
    made = model_of("Dropout", 10, outputs=2)
    made.graph.output[1].type.tensor_type.elem_type = TensorProto.BOOL
    with pytest.raises(FcdeployError, match="its mask is read"):
        raise_opset(ir.from_proto(made))


BELOW_7 = {  # said otherwise only in sets that onnxruntime runs no longer
    *("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor", "Gemm", "PRelu"),
    *("GRU", "LSTM", "RNN", "Cast", "GlobalLpPool", "LpPool", "Selu"),
}


def test_every_operator_that_is_written_otherwise_has_a_row() -> None:
    """By the schemas: attributes that went or whose default changed, and operators that went."""
    changed = set()
    for older in onnx.defs.get_all_schemas_with_history():
        if older.domain or older.since_version > 13 or not onnx.defs.has(older.name, 13):
            continue
        newest = onnx.defs.get_schema(older.name, 13)
        for key, attribute in older.attributes.items():
            later = newest.attributes.get(key)
            same = later is not None and later.default_value == attribute.default_value
            if not same and key != "consumed_inputs":  # said which memory to use again, and nothing else
                changed.add(older.name)
        if newest.deprecated:
            changed.add(older.name)
    assert changed - {op for op, *_ in ROWS} <= BELOW_7
