"""All passes together, to a fixed point."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from prepare_graphs import apply, count, graph, normal, op, ops, random_feeds, run

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.prepare.passes.remove_unused import remove_unused
from fcdeploy.prepare.pipeline import PASSES, prepare
from fcdeploy.prepare.shape_inference import infer_shapes


def prepared(model: ir.Model) -> Changes:
    results = prepare(model)
    names = [node.name for node in model.graph.all_nodes()]
    assert len(set(names)) == len(names)
    declined = tuple(reason for changes in results for reason in changes.declined)
    return Changes("prepare", sum(changes.count for changes in results), declined)


def residual_network(opset: int, *, folded: bool) -> ir.Model:
    """Two residual blocks and a classifier; not folded, it is written the long way round."""
    rng = np.random.default_rng(3)

    def random(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.3)

    nodes, constants, x = [], {}, "x"
    for at, channels in enumerate((4, 4)):
        constants |= {f"w{at}": random(channels, channels, 3, 3)}
        if folded:
            nodes.append(op("Conv", f"{x} w{at} beta{at}", f"b{at}", pads=[1] * 4))
        else:
            nodes += [
                op("Pad", f"{x} pads", f"p{at}"),
                op("Conv", f"p{at} w{at}", f"c{at}"),
                op("BatchNormalization", f"c{at} ones beta{at} zeros ones", f"b{at}", epsilon=0.0),
            ]
        constants[f"beta{at}"] = random(channels)
        nodes += [op("Add", f"b{at} {x}", f"s{at}"), op("Relu", f"s{at}", f"r{at}")]
        x = f"r{at}"
    constants |= {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32), "d": random(4, 5), "e": random(5)}
    constants |= {"pads": np.asarray([0, 0, 1, 1, 0, 0, 1, 1]), "axes": np.asarray([2, 3]), "six": np.float32(6)}
    if folded:
        nodes += [op("GlobalAveragePool", x, "g"), op("Flatten", "g", "f"), op("Gemm", "f d e", "y")]
    else:
        mean = {"axes": [2, 3]} if opset < 18 else {}
        nodes += [
            op("ReduceMean", x if opset < 18 else f"{x} axes", "g", keepdims=0, **mean),
            op("Dropout", "g", "f"),
            op("MatMul", "f d", "m"),
            op("Add", "m e", "a"),
            op("Identity", "a", "y"),
        ]
    return graph(nodes, {"x": ["n", 4, 6, 6]}, ["y"], constants, opset=opset)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_the_long_way_round_ends_as_the_short_one(opset: int) -> None:
    long, short = residual_network(opset, folded=False), residual_network(opset, folded=True)
    feeds = random_feeds(long)
    apply(prepared, long, feeds=feeds)
    apply(prepared, short, feeds=feeds)
    assert ops(long) == ops(short)
    np.testing.assert_allclose(run(long, feeds)[0], run(short, feeds)[0], atol=1e-5)


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (residual_network(18, folded=False) for _ in range(2))
    prepare(first)
    prepare(second)
    data = [ir.to_proto(model).SerializeToString(deterministic=True) for model in (first, second)]
    assert data[0] == data[1]
    prepare(first)
    assert ir.to_proto(first).SerializeToString(deterministic=True) == data[0]


def test_the_bodies_of_an_if_are_left_alone() -> None:
    branches = {}
    for name, op_type in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 4, 6, 6])
        inner = [op("Identity", "b", f"{name}_i"), op(op_type, f"{name}_i", f"{name}_y")]
        branches[name] = helper.make_graph(inner, name, [], [out])
    nodes = [
        op("Conv", "x w", "c"),
        op("BatchNormalization", "c ones beta beta ones", "b"),
        op("ReduceMax", "b", "m", keepdims=0),
        op("Greater", "m zero", "flag"),
        op("If", "flag", "z", **branches),
        op("Identity", "z", "y"),
    ]
    constants = {"w": normal(4, 4, 1, 1), "ones": np.ones(4, np.float32), "beta": normal(4), "zero": np.float32(0)}
    model = graph(nodes, {"x": ["n", 4, 6, 6]}, {"y": ["n", 4, 6, 6]}, constants)
    apply(prepared, model)
    assert count(model) == {"Conv": 1, "ReduceMax": 1, "Greater": 1, "If": 1}
    assert [len(subgraph) for subgraph in model.graph.subgraphs()] == [2, 2]


def test_a_batchnorm_read_by_a_subgraph_keeps_and_says_so() -> None:
    branches = {}
    for name in ("then_branch", "else_branch"):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 4, 6, 6])
        branches[name] = helper.make_graph([op("Add", "c z", f"{name}_y")], name, [], [out])
    nodes = [
        op("Conv", "x w", "c"),
        op("BatchNormalization", "c ones beta beta ones", "z"),
        op("If", "flag", "y", **branches),
    ]
    constants = {"w": normal(4, 4, 1, 1), "ones": np.ones(4, np.float32), "beta": normal(4), "flag": np.asarray(True)}
    model = graph(nodes, {"x": ["n", 4, 6, 6]}, {"y": ["n", 4, 6, 6]}, constants)
    changes = apply(prepared, model)
    assert any("its input 'c' is also read by 'n_else_branch_y' and 1 more" in reason for reason in changes.declined)
    assert "BatchNormalization" in ops(model)


def test_nothing_is_removed_that_someone_reads() -> None:
    nodes = [op("Relu", "x", "a"), op("Exp", "a", "dead"), op("Log", "dead", "deader"), op("Neg", "a", "y")]
    model = graph(nodes, {"x": ["n", 2], "spare": ["n", 2]}, ["y"], {"unused": normal(3)})
    assert apply(remove_unused, model).count == 3
    assert ops(model) == ["Relu", "Neg"]
    assert [value.name for value in model.graph.inputs] == ["x", "spare"]


def test_a_declared_output_shape_is_not_replaced_by_an_inferred_one() -> None:
    model = graph([op("Relu", "x", "y")], {"x": [2, 3]}, ["y"])
    model.graph.outputs[0].shape = ir.Shape(["n", 3])
    infer_shapes(model)
    assert str(model.graph.outputs[0].shape) == "[n,3]"


def test_shape_inference_that_fails_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    model = graph([op("MatMul", "x w", "y")], {"x": ["n", 3]}, ["y"], {"w": normal(3, 2)})
    model.graph.opset_imports[""] = 9999
    prepare(model)
    assert capfd.readouterr() == ("", "")


def test_new_names_are_free_in_subgraphs_too() -> None:
    out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["n", 2])
    branch = helper.make_graph([op("Relu", "x", "inner")], "branch", [], [out])
    other = helper.make_graph(
        [op("Neg", "x", "inner_2")],
        "other",
        [],
        [helper.make_tensor_value_info("inner_2", TensorProto.FLOAT, ["n", 2])],
    )
    node = op("If", "flag", "y", then_branch=branch, else_branch=other)
    model = graph([node], {"x": ["n", 2]}, {"y": ["n", 2]}, {"flag": np.asarray(True)})
    edits = Edits(model, "test")
    assert [edits.free_name("inner"), edits.free_name("inner"), edits.free_name("new")] == ["inner_3", "inner_4", "new"]


def test_big_weights_are_never_serialized() -> None:
    """A weight that may only be looked at through its shape: reading it is an error."""

    def forbidden() -> ir.TensorProtocol:
        raise AssertionError("a big weight was read")

    nodes = [op("MatMul", "x w1", "m"), op("Relu", "m", "r"), op("Gemm", "r w2", "y", transB=1)]
    value = {name: helper.make_tensor_value_info(name, 1, ["n", 4096]) for name in ("x", "y")}
    weights = [helper.make_tensor_value_info(name, 1, [4096, 4096]) for name in ("w1", "w2")]
    made = helper.make_graph(nodes, "big", [value["x"], *weights], [value["y"]])
    result = ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    for weight in list(result.graph.inputs)[1:]:
        result.graph.inputs.remove(weight)
        weight.const_value = ir.LazyTensor(forbidden, ir.DataType.FLOAT, ir.Shape([4096, 4096]), name=weight.name)
        result.graph.register_initializer(weight)
    prepare(result)
    assert ops(result) == ["Gemm", "Relu", "Gemm"]


def test_importing_the_passes_loads_nothing_heavy() -> None:
    code = (
        "import sys, fcdeploy.prepare.passes.fold_constants as f;"
        "print([n for n in ('onnxscript', 'onnxruntime', 'torch', 'sympy.core') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_pass_reports_under_its_own_name() -> None:
    model = graph([op("Relu", "x", "y")], {"x": ["n", 2]}, ["y"])
    assert [run_pass(model).name for run_pass in PASSES] == [run_pass.__name__ for run_pass in PASSES]
