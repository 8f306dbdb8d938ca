"""Nodes that read only constants."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from prepare_graphs import apply, graph, normal, op, ops

from fcdeploy.prepare.passes.fold_constants import fold_constants


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_a_chain_of_constants_is_one_constant(opset: int) -> None:
    nodes = [
        op("Transpose", "w", "t"),
        op("Mul", "t two", "m"),
        op("Split", "m sizes", "a b", axis=0),
        op("Sub", "a b", "s"),
        op("MatMul", "x s", "y"),
    ]
    constants = {"w": normal(5, 8), "two": np.float32(2), "sizes": np.asarray([4, 4])}
    model = graph(nodes, {"x": ["n", 4]}, ["y"], constants, opset=opset)
    expected = ReferenceEvaluator(ir.to_proto(model))
    x = normal(3, 4)
    (before,) = expected.run(None, {"x": x})
    assert apply(fold_constants, model, feeds={"x": x}).count == 4
    assert ops(model) == ["MatMul"]
    np.testing.assert_allclose(ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0], before, atol=1e-5)


def test_scalars_stay_scalars() -> None:
    nodes = [op("Add", "one two", "three"), op("Cast", "three", "index", to=7), op("Gather", "table index", "g"),
             op("Mul", "x g", "y"), op("Add", "one g", "s")]  # fmt: skip
    constants = {"one": np.float32(1), "two": np.float32(1), "table": np.float32([0.5, 1, 2, 3])}
    model = graph(nodes, {"x": ["n", 4]}, ["y", "s"], constants)
    assert apply(fold_constants, model, feeds={"x": normal(3, 4)}).count == 3
    y, s = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": np.ones((3, 4), np.float32)})
    assert s.shape == () and s == 3 and (y == 2).all()
    assert [n.inputs[1].shape.rank() for n in model.graph] == [0, 0]


def test_two_runs_give_the_same_bytes() -> None:
    def folded() -> bytes:
        nodes = [op("Transpose", "w", "t"), op("Exp", "t", "e"), op("MatMul", "x e", "y")]
        model = graph(nodes, {"x": ["n", 8]}, ["y"], {"w": np.arange(40, dtype=np.float32).reshape(5, 8) / 40})
        fold_constants(model)
        return ir.to_proto(model).SerializeToString(deterministic=True)

    assert folded() == folded()


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (
            [op("Expand", "one large", "c")],
            "Expand 'n_c' stays: its result takes 80000 bytes, more than the 20 it would free",
        ),
        (
            [op("NonZero", "vector", "z"), op("Cast", "z", "c", to=1)],
            "the size of its output 'z' is not known before it runs",
        ),
        ([op("Bernoulli", "vector", "c", seed=1.0)], "Bernoulli 'n_c' stays: its result is random"),
    ],
)
def test_declines(nodes: list[onnx.NodeProto], why: str) -> None:
    constants = {"one": np.float32([1]), "large": np.asarray([100, 200]), "vector": np.float32([0.5, 0.5])}
    model = graph(
        [*nodes, op("ReduceSum", "c", "r", keepdims=0), op("Add", "x r", "y")], {"x": ["n", 2]}, ["y"], constants
    )
    changes = fold_constants(model)
    assert changes.count == 0
    assert why in changes.declined[0]


def test_a_weight_that_others_read_is_not_stored_twice() -> None:
    nodes = [op("Transpose", "w", "t"), op("MatMul", "x t", "m"), op("MatMul", "m w", "y")]
    model = graph(nodes, {"x": ["n", 20]}, ["y"], {"w": normal(30, 20)})
    changes = apply(fold_constants, model)
    assert changes.declined == ("Transpose 'n_t' stays: its result takes 2400 bytes, more than the 0 it would free",)


def test_an_output_of_the_graph_is_computed_as_before() -> None:
    model = graph([op("Exp", "w", "c"), op("Relu", "x", "y")], {"x": ["n", 2]}, ["c", "y"], {"w": normal(3)})
    assert apply(fold_constants, model).declined == ("Exp 'n_c' stays: its output 'c' is an output of the graph",)


def test_an_operator_that_the_runtime_lacks_is_left_to_it() -> None:
    model = graph(
        [op("Transpose", "w", "t"), op("Relu", "t", "r"), op("Add", "x r", "y")],
        {"x": ["n", 2]},
        ["y"],
        {"w": normal(2)},
    )
    model.graph[0].domain = "no.such.domain"
    (reason, *_) = fold_constants(model).declined
    assert "Transpose 'n_t' stays: onnxruntime cannot compute it apart" in reason


def test_slices_of_one_weight_are_folded_together_but_not_where_another_node_keeps_it() -> None:
    def gates(also: list[onnx.NodeProto]) -> ir.Model:
        starts = [op("Slice", f"w at{i} at{i + 1} zero", f"s{i}") for i in range(3)]
        nodes = [*starts, op("Concat", "s2 s0 s1", "c", axis=0), op("MatMul", "x c", "y"), *also]
        limits = {f"at{i}": np.asarray([100 * i]) for i in range(4)}
        constants = {"w": normal(300, 8), "zero": np.asarray([0]), **limits}
        return graph(nodes, {"x": ["n", 300]}, ["y", *(["z"] if also else [])], constants)

    x = normal(2, 300)
    model = gates([])
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    assert apply(fold_constants, model, feeds={"x": x}).count == 4
    assert ops(model) == ["MatMul"]
    np.testing.assert_allclose(ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0], expected, atol=1e-5)
    kept = gates([op("MatMul", "x w", "z")])  # the whole weight stays, so its slices would only add to the file
    changes = fold_constants(kept)
    assert changes.count == 0
    assert "Slice 'n_s1' stays: its result takes 3200 bytes, more than the 0 it would free" in changes.declined
