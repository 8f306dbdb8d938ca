"""Time by node: every layer is found again under the name it has in the file, whatever the runtime made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import family, samples, save, weight

from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.runtime import feeds
from fcdeploy.runtime.kernels import find_kernels, name_nodes, optimize_graph, strip_marks, trace_origins
from fcdeploy.runtime.profile import (
    NodeTime,
    _compute_excess,
    match_layers,
    profile_models,
    read_durations,
)

LAYERS = ("Conv", "Gemm", "MatMul")
RUNS = 15


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("profile")
    return {**family(folder), "chain": chain(folder / "chain.onnx"), "shortcut": shortcut(folder / "shortcut.onnx")}


def chain(path: Path) -> Path:
    """Convolution, batch norm and activation three times, of 16 to 48 channels; nodes without names."""
    random = np.random.default_rng(0)
    nodes, weights, before = [], {}, "x"
    for index, (inputs, outputs, activation) in enumerate([(16, 32, "Relu"), (32, 48, "LeakyRelu"), (48, 16, "Relu")]):
        weights[f"w{index}"] = weight(random, outputs, inputs, 3, 3)
        weights |= {f"{key}{index}": np.ones(outputs, np.float32) for key in ("s", "b", "m", "v")}
        nodes += [
            helper.make_node("Conv", [before, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"{k}{index}" for k in "csbmv"], [f"n{index}"]),
            helper.make_node(activation, [f"n{index}"], [f"r{index}"]),
        ]
        before = f"r{index}"
    return save(path, nodes, {"x": [1, 16, 12, 12]}, {before: [1, 16, 12, 12]}, weights)


def shortcut(path: Path) -> Path:
    """An Add of two convolutions of different kernels, and a Relu behind it: which one the Add is fused into is not ours."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["ca"], "a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "wb"], ["cb"], "b"),
        helper.make_node("Add", ["ca", "cb"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "wc"], ["y"], "c"),
    ]
    weights = {
        "wa": weight(random, 16, 16, 3, 3),
        "wb": weight(random, 16, 16, 1, 1),
        "wc": weight(random, 8, 16, 1, 1),
    }
    return save(path, nodes, {"x": [1, 16, 9, 9]}, {"y": [1, 8, 9, 9]}, weights)


def inputs(path: Path) -> dict[str, Any]:
    shapes = {"x": (1, 4, 7)} if "tagger" in path.name else None
    return feeds.draw_feeds(feeds.fix_shapes(input_specs(read_model(path)), None, shapes))


NAMES = [f"{name}{end}" for name in ("residual", "dense", "binary", "tagger") for end in ("", "8")] + [
    "chain",
    "shortcut",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_a_time(models: dict[str, Path], name: str) -> None:
    path = models[name]
    found = profile_models([(path, inputs(path))], runs=RUNS, threads=1)[0]
    layers = [node for node in read_model(path).graph if node.op_type in LAYERS]
    assert layers
    for node in layers:
        assert node.name in found.nodes
        time_of = found.nodes[node.name]
        assert not time_of.inserted
        assert any(part in time_of.op for part in ("Conv", "Gemm", "MatMul"))
    total = sum(node.us for node in found.nodes.values())
    assert 0 < total <= found.latency_us * 1.001
    assert all(node.us >= 0 for node in found.nodes.values())
    assert all(key == node.node for key, node in found.nodes.items())
    for key, node in found.nodes.items():
        assert node.inserted == (key not in {n.name for n in read_model(path).graph})


@pytest.mark.parametrize("name", ["chain", "residual", "shortcut"])
def test_a_layer_is_found_by_its_own_kernel(models: dict[str, Path], name: str) -> None:
    """Not by a neighbour's: a blocked weight has as many numbers as before, zeros of padding channels left out."""
    model = name_nodes(models[name])
    source = (model if isinstance(model, ir.Model) else ir.load(model)).graph
    seen = 0
    for running, origin in trace_origins(source, optimize_graph(model)).items():
        if origin is None or origin.op_type != "Conv":
            continue
        seen += 1
        before, after = (np.sort(np.abs(_weight(node)[_weight(node) != 0])) for node in (origin, running))
        after = after / (after.max() / before.max())  # a batch norm of one scale for all
        np.testing.assert_allclose(after, before, rtol=1e-3)
    assert seen == sum(node.op_type == "Conv" for node in source)


def _weight(node: ir.Node) -> np.ndarray[Any, Any]:
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def test_float_convolutions_have_their_blocked_kernel(models: dict[str, Path]) -> None:
    for name in ("chain", "residual", "shortcut"):
        rows = [row for row in find_kernels(models[name]) if row.op == "Conv"]
        assert {(row.kernel, row.note, row.integer) for row in rows} == {("Conv", "blocked layout", False)}
        assert all(row.node for row in rows)
    as_bytes = {row.node: row for row in find_kernels(models["residual8"])}
    assert all(
        as_bytes[name].kernel == "QLinearConv" and as_bytes[name].integer for name in ("conv1", "conv2", "conv3")
    )


def test_nodes_of_the_runtime_have_their_own_names(models: dict[str, Path]) -> None:
    found = profile_models([(models["residual"], inputs(models["residual"]))], runs=RUNS, threads=1)[0].nodes
    assert {node.op for node in found.values() if node.inserted} == {"ReorderOutput"}
    found = profile_models([(models["residual8"], inputs(models["residual8"]))], runs=RUNS, threads=1)[0].nodes
    assert "Transpose" in {node.op for node in found.values() if node.inserted}
    assert "QuantizeLinear" in {node.op for node in found.values() if not node.inserted}


def test_bytes_are_a_model_too(models: dict[str, Path]) -> None:
    path = models["chain"]
    from_path = profile_models([(path, inputs(path))], runs=3, threads=1)[0].nodes
    from_bytes = profile_models([(path.read_bytes(), inputs(path))], runs=3, threads=2)[0].nodes
    assert list(from_path) == list(from_bytes)
    assert {"Conv:c0", "Conv:c1", "Conv:c2"} <= set(from_path)


def test_weights_outside_the_file(tmp_path: Path) -> None:
    """Without names the model has to be rewritten before it is run, and still finds its weights."""
    path = tmp_path / "m.onnx"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(
        nodes, "outside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert {"MatMul:h", "Relu:y"} == set(profile_models([(path, {"x": samples(1, 64)})], runs=3, threads=1)[0].nodes)


def test_the_time_is_where_the_work_is(tmp_path: Path) -> None:
    """A layer of 64 times the work takes most of the time, on any machine."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], "large"),
        helper.make_node("Gemm", ["h", "w2"], ["y"], "small"),
    ]
    weights = {"w1": weight(random, 1024, 1024), "w2": weight(random, 1024, 16)}
    path = save(tmp_path / "two.onnx", nodes, {"x": [8, 1024]}, {"y": [8, 16]}, weights)
    found = profile_models([(path, {"x": samples(8, 1024)})], runs=RUNS, threads=1)[0].nodes
    assert found["large"].us > 2 * found["small"].us


def test_layers_of_two_models_are_matched(models: dict[str, Path]) -> None:
    one, other = models["residual"], models["residual8"]
    float_found, int8_found = profile_models([(one, inputs(one)), (other, inputs(other))], runs=3, threads=1)
    pairs = {a.node: (a.op, b.op) for a, b in match_layers(float_found.nodes, int8_found.nodes)}
    assert {name: pairs[name] for name in ("conv1", "dense")} == {
        "conv1": ("Conv", "QLinearConv"),
        "dense": ("Gemm", "QGemm"),
    }

    def nodes(*rows: tuple[str, str, tuple[str, ...]]) -> dict[str, NodeTime]:
        return {name: NodeTime(name, op, 1.0, False, outputs) for name, op, outputs in rows}

    renamed = match_layers(nodes(("a", "Conv", ("t",))), nodes(("b", "QLinearConv", ("t",))))
    assert [(a.node, b.node) for a, b in renamed] == [("a", "b")]
    assert match_layers(nodes(("a", "ReduceMean", ("t",))), nodes(("a", "Flatten", ("t",)))) == []


def event(name: str, op: str, start: int, spent: int, index: int = 0) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": spent,
            "args": {"op_name": op, "node_index": str(index)}}  # fmt: skip


def test_durations_of_events() -> None:
    """Medians between the whole microseconds; warm-up, and what happens inside a loop, left out."""
    spent = [900, 900, 900, *[3] * 6, *[4] * 6]
    runs = [event("n", "Relu", 10_000 * i, us) for i, us in enumerate(spent)]
    assert read_durations(runs) == {("n", "Relu"): pytest.approx(4.0)}
    loop = [e for i in range(4) for e in (event("l", "Loop", 1000 * i, 500), event("in", "Add", 1000 * i + 10, 5))]
    after = [event("after", "Add", 1000 * i + 500, 7) for i in range(4)]
    assert read_durations(loop + after) == {("l", "Loop"): 500.5, ("after", "Add"): 7.5}
    twins = [event("n", "Cast", 100 * i + 10 * k, 5 + k, index=k) for i in range(4) for k in range(2)]
    assert read_durations(twins) == {("n", "Cast"): 5.5, ("n_2", "Cast"): 6.5}
    assert read_durations([{"cat": "Session", "name": "x_kernel_time"}]) == {}


def test_the_profiler_s_own_time_is_taken_off() -> None:
    assert _compute_excess([5.0, 5.0], 20.0) == 0
    assert _compute_excess([5.0, 5.0], 6.0) == pytest.approx(2.0)
    excess = _compute_excess([1.0, 1.0, 10.0], 7.0)
    assert sum(max(0.0, us - excess) for us in (1.0, 1.0, 10.0)) == pytest.approx(7.0)
    assert excess == pytest.approx(3.0)


def test_names_without_the_runtime_s_marks() -> None:
    assert strip_marks("conv_token_12") == ["conv_token_12", "conv"]
    assert "relu_1" in strip_marks("relu_1_nchwc")
    assert "conv" in strip_marks("fused conv")
    assert "slice" in strip_marks("slice/GatherSliceToSplitFusion_token_1")
    assert "dense" in strip_marks("dense/MatMulAddFusion")
    assert strip_marks("plain") == ["plain"]
