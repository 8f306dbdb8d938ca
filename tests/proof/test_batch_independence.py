"""The proof that samples of a batch do not touch each other, against running them alone and together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import Net
from onnx import TensorProto, helper
from small_models import family, samples

from fcdeploy.graph.light_reader import Node, Outline, read_outline
from fcdeploy.proof.batch_independence import explain_dependence

Build = Callable[[Net, str], str]


def proof(build: Build, folder: Path, opset: int = 17) -> str:
    """Of a network of one input x (n, 4, 6)."""
    net = Net(opset=opset)
    return explain_dependence(read_outline(net.output(build(net, net.input("x", 4, 6))).save(folder / "m.onnx")))


def ints(net: Net, *values: int) -> str:
    return net.constant(values, np.int64)


APART: dict[str, Build] = {
    "relu": lambda net, x: net.op("Relu", x),
    "a constant per channel": lambda net, x: net.op("Add", x, net.constant(np.ones((4, 1)))),
    "a constant of the same rank": lambda net, x: net.op("Mul", x, net.constant(np.ones((1, 4, 6)))),
    "itself": lambda net, x: net.op("Mul", x, net.op("Sigmoid", x)),
    "flatten": lambda net, x: net.op("Flatten", x),
    "rows": lambda net, x: net.op("Reshape", net.op("Reshape", x, ints(net, -1, 6)), ints(net, -1, 4, 6)),
    "kept axis": lambda net, x: net.op("Reshape", x, ints(net, 0, 24)),
    "dense on rows": lambda net, x: net.op("MatMul", x, net.constant(np.ones((6, 5)))),
    "attention": lambda net, x: net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1])),
    "softmax": lambda net, x: net.op("Softmax", x, axis=-1),
    "mean": lambda net, x: net.op("ReduceMean", x, axes=[1, -1], keepdims=0),
    "concat": lambda net, x: net.op("Concat", x, x, axis=1),
    "slice": lambda net, x: net.op("Slice", x, ints(net, 0), ints(net, 2), ints(net, -1)),
    "pad": lambda net, x: net.op("Pad", x, ints(net, 0, 1, 0, 0, 1, 2)),
    "gather": lambda net, x: net.op("Gather", x, ints(net, 2, 0), axis=1),
    "squeeze": lambda net, x: net.op("Squeeze", net.op("Unsqueeze", x, ints(net, 1)), ints(net, 1)),
    "arg max": lambda net, x: net.op("ArgMax", x, axis=2, keepdims=0),
}


def shifted(net: Net, x: str) -> str:
    return net.op("Add", net.op("Flatten", x), net.op("ReduceMax", x, axes=[1, 2], keepdims=0))


def counted(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Cast", net.op("Gather", net.op("Shape", x), ints(net, 0)), to=1))


def gram(net: Net, x: str) -> str:
    flat = net.op("Flatten", x)
    return net.op("MatMul", net.op("Transpose", flat, perm=[1, 0]), flat)


def unused(net: Net, x: str) -> str:
    net.op("Relu", x)
    return net.op("Identity", net.constant([1.0]))


TOGETHER: dict[str, tuple[Build, str]] = {
    "batch mean": (lambda net, x: net.op("Sub", x, net.op("ReduceMean", x, axes=[0])), "reduces the batch axis"),
    "all": (lambda net, x: net.op("Div", x, net.op("ReduceMax", x)), "reduces all axes"),
    "softmax over samples": (lambda net, x: net.op("Softmax", x, axis=-3), "works along the batch axis"),
    "shifted": (shifted, "matches the batch axis with another"),
    "transposed": (lambda net, x: net.op("Transpose", x), "does not begin with the batch axis"),
    "a constant along it": (lambda net, x: net.op("Add", x, net.constant(np.ones((2, 4, 6)))), "a constant along"),
    "one row": (lambda net, x: net.op("Reshape", x, ints(net, 1, -1)), "makes a leading axis of 1"),
    "flat": (lambda net, x: net.op("Flatten", x, axis=0), "flattens the batch axis"),
    "shape": (counted, "not known to keep samples apart"),
    "joined": (lambda net, x: net.op("Concat", x, x, axis=0), "joins along the batch axis"),
    "first": (lambda net, x: net.op("Gather", x, ints(net, 0), axis=0), "picks along the batch axis"),
    "gram": (gram, "multiplies samples with each other"),
    "running": (lambda net, x: net.op("CumSum", x, ints(net, 0)), "not known to keep samples apart"),
    "unused": (unused, "does not begin with the batch axis"),
}


@pytest.mark.parametrize("name", APART)
def test_proven_and_true(name: str, tmp_path: Path) -> None:
    assert proof(APART[name], tmp_path) == ""
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    x = samples(5, 4, 6)
    together = session.run(None, {"x": x})[0]
    alone = [session.run(None, {"x": x[i : i + 1]})[0] for i in range(5)]
    assert together.tobytes() == np.concatenate(alone).tobytes()


@pytest.mark.parametrize("name", TOGETHER)
def test_not_proven_with_a_reason(name: str, tmp_path: Path) -> None:
    build, reason = TOGETHER[name]
    assert reason in proof(build, tmp_path)


def test_networks_and_their_int8_forms_are_proven(tmp_path: Path) -> None:
    for name, path in family(tmp_path).items():
        assert explain_dependence(read_outline(path)) == "", name


def test_what_quantizes_as_it_runs_is_never_proven(tmp_path: Path) -> None:
    def dynamic(net: Net, x: str) -> str:
        q, scale, zero = net.ops("DynamicQuantizeLinear", x, outputs=3)
        return net.op("DequantizeLinear", q, scale, zero)

    def weight_only(net: Net, x: str) -> str:
        w = net.op("DequantizeLinear", net.constant(np.ones((6, 8)), np.int8), net.constant(0.1))
        return net.op("MatMul", x, w)

    def integer(net: Net, x: str) -> str:
        scale, zero = net.constant(0.1), net.constant(0, np.uint8)
        q = net.op("QuantizeLinear", x, scale, zero)
        return net.op("MatMulInteger", q, net.constant(np.ones((6, 8)), np.int8), zero)

    for build in (dynamic, weight_only, integer):
        assert "quantizes activations as it runs, so that an answer depends on its batch" in proof(build, tmp_path)


def test_nodes_in_any_order(tmp_path: Path) -> None:
    """As AMD Quark writes them; onnxruntime runs such files."""
    net = Net()
    x = net.input("x", 4, 6)
    file = net.output(net.op("Relu", net.op("Neg", net.op("Relu", x)))).save(tmp_path / "m.onnx")
    model = onnx.load(file)
    nodes = [*model.graph.node][::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, file)
    ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert not explain_dependence(read_outline(file))


def test_a_long_file_in_reverse_takes_no_time() -> None:
    """30,000 nodes: looking through all that are left for each would take half an hour."""
    chain = [Node("Relu", "", "", (f"v{i}" if i else "x",), (f"v{i + 1}",)) for i in range(30_000)]
    outline = Outline(tuple(reversed(chain)), {"x": ("n", 4)}, {"v30000": ("n", 4)}, {}, 17)
    assert not explain_dependence(outline)
    circle = replace(outline, nodes=(*outline.nodes[1:], replace(chain[0], inputs=("v30000",))))
    assert "reads what no node wrote before" in explain_dependence(circle)


def test_inputs_must_begin_with_one_free_axis(tmp_path: Path) -> None:
    def reason(*shapes: list[int | str]) -> str:
        names = [f"x{i}" for i in range(len(shapes))]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
        node = helper.make_node("Sum", names, ["y"])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes[0])
        model = helper.make_model(
            helper.make_graph([node], "g", ends, [out]), opset_imports=[helper.make_opsetid("", 17)]
        )
        onnx.save(model, tmp_path / "m.onnx")
        return explain_dependence(read_outline(tmp_path / "m.onnx"))

    assert reason(["n", 3], ["n", 3]) == ""
    assert reason([1, 3]) == "input 'x0' has a leading axis of 1, not a free one"
    assert reason([]) == "input 'x0' has no axes"
    assert reason(["n", 3], ["m", 3]) == "the inputs begin with different axes: m, n"


def test_operators_of_other_domains_are_not_known(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="mine")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])), tmp_path / "m.onnx")
    assert explain_dependence(read_outline(tmp_path / "m.onnx")) == "Relu is of the domain 'mine'"


def test_samples_along_another_axis(tmp_path: Path) -> None:
    """States (2, n, 4) of two layers: those of one sample are found along axis 1, and added to its features."""
    net = Net()
    x, cache = net.input("x", 4), net.input("cache", 9, 4)
    state = net.op("Gather", cache, net.constant(0, np.int64), axis=0)
    net.output(net.op("Add", x, state)).save(tmp_path / "m.onnx")
    outline = replace(read_outline(tmp_path / "m.onnx"), inputs={"x": ("n", 4), "cache": (2, "n", 4)})
    assert explain_dependence(outline, {"cache": 1}) == ""
    assert "leading axis of 2" in explain_dependence(outline)
    assert "one for a run" in explain_dependence(outline, {"cache": None})
