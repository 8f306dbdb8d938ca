"""Weights in files on the way: the same bytes come out, nothing stays behind, and few models are loaded at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net, quantize_net, random_data

from fcdeploy.cli import main
from fcdeploy.graph import external_data, weights
from fcdeploy.graph.scratch import Scratch, keep_tensors, make_scratch
from fcdeploy.records.costs import from_text
from fcdeploy.runtime.session import Session
from fcdeploy.tables.types import TYPES

DATA = random_data(0, 12, x=(8, 4, 4))
SEQUENCES = random_data(1, 6, x=(5, 24))


def network(net: Net) -> Net:
    """Convolutions, one of them depthwise, and dense layers of both orientations, one without a bias."""
    x = net.op("Relu", net.conv(net.input("x", 8, 4, 4), 8, 16, name="stem"), name="relu0")
    x = net.op("Relu", net.conv(x, 16, 16, group=16, name="depthwise"), name="relu1")
    x = net.op("Tanh", net.conv(x, 16, 8, name="kept"), name="tanh")
    x = net.op("Flatten", x, name="flat")
    x = net.op("Relu", net.dense(x, 128, 48, transB=1, name="turned"), name="relu2")
    x = net.op("Relu", net.op("MatMul", x, net.constant(net.normal(48, 40, size=0.2)), name="bare"), name="relu3")
    return net.output(net.dense(x, 40, 24, name="last"))


def tagger() -> onnx.ModelProto:
    """An LSTM in both directions, and a dense layer behind it."""
    random = np.random.default_rng(3)
    hidden, inputs = 20, 24
    shapes = {"w": (2, 4 * hidden, inputs), "r": (2, 4 * hidden, hidden), "b": (2, 8 * hidden), "d": (2 * hidden, 7)}
    weights = {name: 0.3 * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    make = onnx.helper.make_node
    nodes = [
        make("Transpose", ["x"], ["turned"], "turn", perm=[1, 0, 2]),
        make("LSTM", ["turned", "w", "r", "b"], ["every"], "lstm", hidden_size=hidden, direction="bidirectional"),
        make("Transpose", ["every"], ["steps"], "back", perm=[2, 0, 1, 3]),
        make("Reshape", ["steps", "shape"], ["rows"], "join"),
        make("MatMul", ["rows", "d"], ["y"], "dense"),
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    tensors.append(onnx.numpy_helper.from_array(np.array([0, 5, 2 * hidden]), "shape"))
    ends = [onnx.helper.make_tensor_value_info("x", 1, ["batch", 5, inputs]),
            onnx.helper.make_tensor_value_info("y", 1, ["batch", 5, 7])]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "tagger", ends[:1], ends[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the network, its weights outside and inside, and another one that is the current one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    onnx.save(network(Net(0)).model(), "../inside.onnx")
    onnx.save(network(Net(0)).model(), "../outside.onnx", save_as_external_data=True, location="outside.data")
    onnx.save(tagger(), "../tagger.onnx")
    np.savez("../inside.npz", **DATA)
    np.savez("../outside.npz", **DATA)
    np.savez("../tagger.npz", **SEQUENCES)
    return tmp_path


@pytest.fixture
def heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is heavy, and blocks are small."""
    lower(monkeypatch)


def lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HEAVY", 1000)
    monkeypatch.setattr(weights, "BLOCK_BYTES", 2048)
    monkeypatch.setattr(external_data, "OUTSIDE_FROM", 128)


def quantize(name: str, out: str, *arguments: str) -> bytes:
    data = ("--data", f"../{name}.npz", "--force", "-o", out)
    assert main(["quantize", f"../{name}.onnx", *data, "--floor", "none", *arguments]) == 0
    return Path(out).read_bytes()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("inside", ("--int8",)),
        ("outside", ("--int8", "--effort", "best", "--samples", "16")),
        ("outside", ("--int8", "--target", "portable", "--keep-float", "op:Conv")),
        ("outside", ("--weights", "int16", "--activations", "int16")),
        ("outside", ("--weights", "int8", "--activations", "int16")),
        ("outside", ("--weights", "int4", "--activations", "none")),
        ("outside", ("--weights", "int8", "--activations", "dynamic")),
        ("outside", ("--weights", "int8", "--activations", "none")),
        ("tagger", ("--weights", "int8", "--activations", "dynamic")),
        ("tagger", ("--int8",)),
    ],
)
def test_heavy_or_not_the_file_says_the_same(
    name: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = ("--costs", "none") if "--int8" in arguments else ()
    light = quantize(name, "light.onnx", *arguments, *costs)
    lower(monkeypatch)
    assert quantize(name, "heavy.onnx", *arguments, *costs) == light
    assert sorted(path.name for path in Path().iterdir()) == ["heavy.onnx", "light.onnx"]


@pytest.mark.usefixtures("heavy")
def test_times_are_measured_with_two_models_loaded_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    most, load = 0, Session.__init__
    loaded: weakref.WeakSet[Session] = weakref.WeakSet()

    def count(self: Session, model: Any, **how: Any) -> None:
        nonlocal most
        load(self, model, **how)
        if not isinstance(model, ir.Model) or weights.initializer_bytes(model) > 1000:
            loaded.add(self)
            most = max(most, len(loaded))

    monkeypatch.setattr(Session, "__init__", count)
    quantize("outside", "int8.onnx", "--int8", "--costs", "costs.json")
    found = from_text(Path("costs.json").read_text(), "costs")
    assert most == 2
    assert {"stem", "depthwise", "turned", "bare", "last"} <= set(found.nodes)
    assert min(found.nodes["turned"]) > 0
    assert found.confirmed
    again = quantize("outside", "again.onnx", "--int8", "--costs", "costs.json")
    assert again == Path("int8.onnx").read_bytes()


@pytest.mark.usefixtures("heavy")
def test_what_a_scratch_was_for_is_gone_when_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("wrong.npz", x=np.zeros((2, 3, 3), np.float32))
    assert main(["quantize", "../outside.onnx", "--int8", "--data", "wrong.npz", "-o", "int8.onnx"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    gc.collect()
    assert [path.name for path in Path().iterdir()] == ["wrong.npz"]


def tensors() -> Iterator[ir.TensorProtocol]:
    random = np.random.default_rng(0)
    yield from (ir.tensor(random.integers(-9, 9, size).astype(np.int8)) for size in (3, 5000))


def test_a_weight_is_made_once_for_what_it_depends_on(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    source, other = tensors()
    made: list[float] = []

    def make(scale: float) -> tuple[np.ndarray[Any, Any], ...]:
        made.append(scale)
        return np.full((64, 64), scale, np.float32), np.full(2, scale, np.float32)

    for scale in (1.0, 2.0, 1.0):
        found = scratch.keep(source, ("kind", np.array([scale]), None), lambda scale=scale: make(scale))
        assert [each.numpy().flat[0] for each in found] == [scale, scale]
        assert [isinstance(each, ir.ExternalTensor) for each in found] == [True, False]
        for each in found:
            each.name = f"name of {scale}"
    assert made == [1.0, 2.0]
    scratch.keep(other, ("kind", np.array([1.0]), None), lambda: make(3.0))
    scratch.keep(source, ("kind", np.array([1.0]), 128), lambda: make(4.0))
    assert made == [1.0, 2.0, 3.0, 4.0]
    assert [each.numpy().flat[0] for each in keep_tensors(None, source, (), lambda: make(5.0))] == [5.0, 5.0]
    folder = scratch.file.parent
    assert folder.is_dir()
    del scratch
    gc.collect()
    assert not folder.exists()


def test_a_heavy_model_moves_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.load(tmp_path / "inside.onnx")
    assert make_scratch(model, tmp_path) is None
    expected = Session(model, threads=1).run(DATA)[0]
    lower(monkeypatch)
    scratch = make_scratch(model, tmp_path)
    assert scratch is not None
    held = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    assert max(tensor.nbytes for tensor in held if not isinstance(tensor, ir.ExternalTensor)) < 128
    np.testing.assert_array_equal(Session(model, threads=1).run(DATA)[0], expected)
    halves, name = ir.load(tmp_path / "outside.onnx"), "k0"  # files of two folders in one model
    halves.graph.initializers[name].const_value = model.graph.initializers[name].const_value
    folders = {v.const_value.base_dir for v in halves.graph.initializers.values() if hasattr(v.const_value, "base_dir")}
    assert len(folders) == 2
    np.testing.assert_array_equal(Session(halves, threads=1).run(DATA)[0], expected)


KINDS = [
    ("int8", "int8"),
    ("int16", "int16"),
    ("int8", "int16"),
    ("int4", "none"),
    ("int8", "dynamic"),
    ("int8", "none"),
]


@settings(max_examples=12)
@given(
    types=st.sampled_from(KINDS),
    read=st.integers(1, 90),
    write=st.integers(1, 40),
    turned=st.booleans(),
    empty=st.integers(0, 3),
    size=st.sampled_from([200, 1000, 5000]),
    seed=st.integers(0, 99),
)
def test_weights_made_block_by_block_are_those_made_at_once(
    types: tuple[str, str], read: int, write: int, turned: bool, empty: int, size: int, seed: int
) -> None:
    """Whatever the type and the orientation, with outputs whose weights are all zero too."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(write, read)).astype(np.float32)
    weight[random.permutation(write)[:empty]] = 0
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 3, 4, 4), 3, 5, name="conv"), name="relu")
    x = net.op("Flatten", x, name="flat")
    x = net.op("Relu", net.dense(x, 80, read, name="first"), name="relu1")
    net.output(net.op("Gemm", x, net.constant(weight if turned else weight.T), name="dense", transB=int(turned)))
    data = random_data(2, 4, x=(3, 4, 4))
    made = []
    for each in (1 << 30, size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(weights, "BLOCK_BYTES", each)
            line = quantize_net(net, data, types=TYPES[types])
            made.append(ir.to_proto(line.int8).SerializeToString(deterministic=True))
    assert made[0] == made[1]
