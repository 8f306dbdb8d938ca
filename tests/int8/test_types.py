"""Every pair of types: what layers become, what is in the file, how close it is, and every way it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Array, Line, Net, in_memory, quantize_net, random_data
from onnx import numpy_helper
from typed_networks import DATA, LEAST, MICROSOFT, PAIRS, dense_net, node, resnet

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.commands.quantize import quantize
from fcdeploy.int8.planning.types import find_shared_blocks, find_types
from fcdeploy.int8.refining import refine
from fcdeploy.int8.refining.gptq_blocks import gptq_round_blocks
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.caveats import list_caveats
from fcdeploy.runtime.kernels import find_kernels
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kept_samples import hash_samples, keep_smallest
from fcdeploy.tables.types import ACTIVATIONS, INT8, TYPES, WEIGHTS, Types


@pytest.mark.parametrize("pair", PAIRS, ids=" x ".join)
def test_every_pair_loads_is_close_and_does_as_its_row_says(pair: tuple[str, str], tmp_path: Path) -> None:
    row = TYPES[pair]
    line = quantize_net(resnet(Net(0)), DATA, target="x86-avx2", types=row)
    assert line.kinds["dense"] == row.dense
    assert {line.kinds[name] for name in ("first", "pointwise")} == {row.other}
    wide = "int16" if row.activations == "int16" else "int8"
    assert line.kinds["add"] == (wide if row.between else "float")
    assert line.sqnr() > LEAST[pair if pair in LEAST else pair[0]]
    assert line.kernel_sqnr() > 38
    assert (line.plan.weights, line.plan.activations) == pair
    ir.save(line.int8, tmp_path / "m.onnx")
    integer = {kernel.node for kernel in find_kernels(tmp_path / "m.onnx") if kernel.integer}
    assert ("dense" in integer) == (row.dense in ("int8", "blockwise", "dynamic"))
    assert ("pointwise" in integer) == (row.other == "int8")


@pytest.mark.parametrize("target", ["x86-avx2", "x86-vnni"])
def test_integers_everywhere_are_what_they_were(target: str) -> None:
    """Types are asked for beside the rest: int8, int8 gives the plan that there was without them."""
    line = quantize_net(resnet(Net(0)), DATA, target=target)
    assert set(line.kinds.values()) == {"int8", "fused", "passthrough"}
    assert MICROSOFT not in line.int8.opset_imports


def constants(model: ir.Model) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in ir.to_proto(model).graph.initializer}


def read_weight(layer: ir.Node, values: dict[str, Array]) -> Array:
    """The weight (in, out) of a MatMulNBits, taken from its bytes one by one."""
    bits, block, inputs = (layer.attributes[key].as_int() for key in ("bits", "block_size", "K"))
    packed, scales = (values[layer.inputs[i].name or ""] for i in (1, 2))  # type: ignore[union-attr]
    weight = np.zeros((inputs, len(packed)))
    for out, column in enumerate(packed):
        for k in range(inputs):
            at, within = divmod(k, block)
            byte = int(column[at, within // 2 if bits == 4 else within])
            integer = (byte >> 4 * (within % 2)) & 15 if bits == 4 else byte
            weight[k, out] = scales[out, at] * (integer - (8 if bits == 4 else 128))
    return weight


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("read", "write", "bits"), [(64, 5, 4), (100, 7, 4), (257, 3, 4)])
def test_the_bytes_of_a_block_are_the_weights(read: int, write: int, bits: int, bias: bool) -> None:
    """In float (accuracy_level 1) the kernel computes x W + b with the weights read from the file by hand."""
    data = random_data(1, 9, x=(read,))
    line = quantize_net(dense_net(read, write, bias=bias), data, target="x86-avx2", types=TYPES["int4", "none"])
    layer = node(line.int8, "dense0")
    assert (layer.op_type, layer.domain, layer.attributes["bits"].as_int()) == ("MatMulNBits", MICROSOFT, bits)
    weight = read_weight(layer, constants(line.int8))
    original = next(n for n in line.prepared.graph if n.op_type == "Gemm")
    real = original.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    assert measure_fidelity(real, weight).sqnr_db > 18
    shift = original.inputs[2].const_value.numpy() if bias else 0.0  # type: ignore[union-attr]
    expected = data["x"].astype(np.float64) @ weight + shift
    rounding = line.outputs()[0]
    assert 30 < measure_fidelity(expected, rounding).sqnr_db < 60  # level 4: activations in bytes
    layer.attributes.add(ir.AttrInt64("accuracy_level", 1))
    np.testing.assert_allclose(line.outputs()[0], expected, rtol=1e-4, atol=1e-5)


def test_an_answer_of_weights_in_blocks_does_not_depend_on_the_batch() -> None:
    line = quantize_net(dense_net(128, 96, 64), data := random_data(2, 16, x=(128,)), types=TYPES["int4", "none"])
    session = Session(line.int8, threads=1)
    alone = np.concatenate([session.run({"x": data["x"][i : i + 1]})[0] for i in range(16)])
    np.testing.assert_allclose(alone, session.run(data)[0], rtol=1e-4, atol=1e-5)


def test_a_small_layer_has_8_bits_and_one_that_fills_no_block_none() -> None:
    line = quantize_net(dense_net(48, 256, 256, 3), random_data(3, 9, x=(48,)), types=TYPES["int4", "none"])
    assert line.kinds == {
        "dense0": "weight_only",
        "relu0": "float",
        "dense1": "blockwise",
        "relu1": "float",
        "dense2": "blockwise",
    }
    assert [node(line.int8, f"dense{i}").attributes["bits"].as_int() for i in (1, 2)] == [4, 8]
    reasons = {decision.node: decision.why for decision in line.plan.nodes}
    assert reasons["dense0"].startswith("its 48 inputs do not fill a block of 64")
    assert reasons["dense1"] == "MatMulNBits: int4 weights in blocks of 64"
    assert reasons["dense2"].endswith("8 bits, for it holds less than 1 in 64 of them")
    assert line.sqnr() > 16


def test_sequences_have_weights_in_blocks_too() -> None:
    net = Net(0)
    x = net.op("MatMul", net.input("x", 6, 80), net.constant(net.normal(80, 40, size=0.1)), name="project")
    net.output(net.op("Add", x, net.constant(net.normal(40)), name="shift"))
    line = quantize_net(net, random_data(4, 5, x=(6, 80)), types=TYPES["int4", "none"])
    assert line.kinds["project"] == "blockwise"
    assert line.sqnr() > 18


def correlated(seed: int, count: int, width: int) -> dict[str, Array]:
    """Few directions hold most of what varies, as in the layers of any trained network."""
    mixture = np.random.default_rng(77).normal(size=(12, width))
    random = np.random.default_rng(seed)
    noise = 0.1 * random.normal(size=(count, width))
    return {"x": (random.normal(size=(count, 12)) @ mixture + noise).astype(np.float32)}


def test_compensated_rounding_is_closer_on_other_samples_and_the_same_every_time() -> None:
    sizes = (256, 192, 160, 32)
    line = quantize_net(dense_net(*sizes), correlated(0, 128, 256), types=TYPES["int4", "none"])
    steps: list[tuple[str, int, int | None]] = []
    models = []
    for _ in range(2):
        models.append(line.int8.clone())
        done = gptq_round_blocks(
            line.prepared, models[-1], line.plan, line.calibration.kept, on_step=lambda *step: steps.append(step)
        )
        assert done == 3
    assert steps[:3] == [("rounding weights", i, 3) for i in (1, 2, 3)]
    first, second = (ir.to_proto(model).SerializeToString() for model in models)
    assert first == second
    held_out = correlated(1, 100, 256)
    exact = Session(line.float_model.SerializeToString()).run(held_out)[0]
    nearest, compensated = (
        measure_fidelity(exact, Session(m).run(held_out)[0]).sqnr_db for m in (line.int8, models[0])
    )
    assert compensated > nearest + 4
    assert compensated > 24


def test_data_give_more_samples_than_a_calibration_carries() -> None:
    prepared = ir.from_proto(dense_net(20, 4).model())
    source = in_memory(data := random_data(10, 300, x=(20,)), prepared)
    few, many, little = (
        keep_smallest(source, **more).arrays() for more in ({}, {"most": 1024}, {"most": 1024, "room": 8000})
    )
    assert [len(kept["x"]) for kept in (few, many, little)] == [256, 300, 100]
    np.testing.assert_array_equal(many["x"][:256], few["x"])
    np.testing.assert_array_equal(np.sort(many["x"], axis=0), np.sort(data["x"], axis=0))


def test_rows_longer_than_a_gram_matrix_may_be_are_compensated_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcdeploy.int8.refining.gptq_blocks.LARGEST_GRAM", 128)
    line = quantize_net(dense_net(300, 40), data := correlated(2, 80, 300), types=TYPES["int4", "none"])
    before = line.sqnr()
    assert gptq_round_blocks(line.prepared, line.int8, line.plan, data) == 1
    assert line.sqnr() > before + 3


def test_16_bits_are_signed_and_around_zero() -> None:
    """As DSP libraries want them: zero points 0, a clip stays, biases stay float; ONNX's own Q/DQ for the 8-bit weights."""
    line = quantize_net(resnet(Net(0)), DATA, types=TYPES["int8", "int16"])
    types = {q.dtype for q in line.plan.tensors.values()}
    assert types == {"int16", "int8"}
    assert {q.zero_point for q in line.plan.tensors.values()} == {0}
    assert line.kinds["relu1"] == "float"
    domains = {n.domain for n in line.int8.graph if n.op_type == "QuantizeLinear"}
    assert domains == {MICROSOFT}
    for layer in ("first", "dense"):
        x, weight, bias = (value.producer() for value in node(line.int8, layer).inputs)  # type: ignore[union-attr]
        assert x is not None and weight is not None
        assert (x.domain, weight.domain, bias) == (MICROSOFT, "", None)
    assert line.int8.opset_imports[MICROSOFT] == 1


def test_16_bits_are_what_int64_arithmetic_says() -> None:
    line = quantize_net(
        dense_net(20, 9, last=False), data := random_data(5, 40, x=(20,)), types=TYPES["int16", "int16"]
    )
    values = constants(line.int8)
    scale = line.plan.tensors["x"].scale[0]
    integers = np.clip(np.rint(data["x"] / np.float32(scale)), -32768, 32767).astype(np.int64)
    layer = next(n for n in line.prepared.graph if n.op_type == "Gemm")
    weight, bias = layer.inputs[1], layer.inputs[2]
    q = line.plan.tensors[weight.name or ""]  # type: ignore[union-attr]
    stored = values[f"{weight.name}/q"]  # type: ignore[union-attr]
    assert stored.dtype == np.int16
    assert np.abs(stored).max() == 32767
    sums = integers @ stored.astype(np.int64)
    expected = sums * (scale * np.array(q.scale)) + bias.const_value.numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(line.outputs()[0], np.maximum(expected, 0), rtol=1e-3, atol=2e-4)


def test_dynamic_activations_are_scaled_by_all_of_a_run() -> None:
    """The kernel against its definition in int64, and a sample that is answered differently in other company."""
    data = random_data(6, 12, x=(33,))
    line = quantize_net(dense_net(33, 10), data, types=TYPES["int8", "dynamic"])
    layer, values = node(line.int8, "dense0"), constants(line.int8)
    assert layer.op_type == "DynamicQuantizeMatMul"
    integers, scale, bias = (values[layer.inputs[i].name or ""] for i in (1, 2, 4))  # type: ignore[union-attr]

    def defined(x: Array) -> Array:
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        step = np.float32((high - low) / 255)
        zero = np.clip(np.rint(-low / step), 0, 255)
        q = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int64) - int(zero)
        return (q @ integers.astype(np.int64)) * (step * scale) + bias

    session = Session(line.int8, threads=1)
    together, alone = session.run(data)[0], session.run({"x": data["x"][:1]})[0]
    assert measure_fidelity(defined(data["x"]), together).sqnr_db > 70
    assert measure_fidelity(defined(data["x"][:1]), alone).sqnr_db > 70
    assert np.abs(alone - together[:1]).max() > 1e-4


def within_pairs(rows: Array) -> bool:
    """|w1| + |w2| <= 128 for neighbours of one sign along the last axis."""
    integers = rows.astype(np.int64)
    even, odd = integers[..., 0 : integers.shape[-1] // 2 * 2 : 2], integers[..., 1::2]
    return bool(((even * odd <= 0) | (np.abs(even + odd) <= 128)).all())


def test_dynamic_weights_keep_the_pair_bound() -> None:
    net = dense_net(64, 40)
    for tensor in net.weights[:1]:
        tensor.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(tensor)) + np.float32(0.1), tensor.name))
    data = {"x": np.abs(random_data(7, 9, x=(64,))["x"])}
    for target, kept in (("x86-avx2", True), ("x86-vnni", False)):
        line = quantize_net(net, data, target=target, types=TYPES["int8", "dynamic"])
        layer = node(line.int8, "dense0")
        assert within_pairs(constants(line.int8)[layer.inputs[1].name or ""].T) == kept  # type: ignore[union-attr]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_lstm_is_quantized_in_every_run(direction: str) -> None:
    """Against onnxruntime's float LSTM; the kernel takes its weights transposed, and in pairs within the bound."""
    net, ways = Net(0), 2 if direction == "bidirectional" else 1
    size, read = 24, 15
    weights = [net.constant(net.normal(ways, 4 * size, n, size=0.5 / np.sqrt(n))) for n in (read, size)] + [
        net.constant(net.normal(ways, 8 * size, size=0.1))
    ]
    x = net.op("Transpose", net.input("x", 7, read), perm=[1, 0, 2])
    outputs = net.ops("LSTM", x, *weights, outputs=3, name="lstm", hidden_size=size, direction=direction)
    line = quantize_net(net.output(*outputs), random_data(8, 5, x=(7, read)), types=TYPES["int8", "dynamic"])
    layer = node(line.int8, "lstm")
    assert (layer.op_type, layer.domain) == ("DynamicQuantizeLSTM", MICROSOFT)
    values = constants(line.int8)
    for index, shape in ((1, (ways, read, 4 * size)), (2, (ways, size, 4 * size))):
        integers = values[layer.inputs[index].name or ""]  # type: ignore[union-attr]
        assert (integers.dtype, integers.shape) == (np.dtype(np.int8), shape)
        assert within_pairs(np.swapaxes(integers, 1, 2))
    assert line.sqnr() > 30


def test_a_convolution_is_never_dynamic_and_an_lstm_of_another_layout_neither() -> None:
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 8, 12), 8, 16, (3,), name="conv"), name="relu")
    x = net.op("Transpose", x, perm=[0, 2, 1], name="turn")
    weights = [net.constant(net.normal(1, 64, 16, size=0.2)), net.constant(net.normal(1, 64, 16, size=0.2))]
    net.output(net.ops("LSTM", x, *weights, outputs=1, name="lstm", hidden_size=16, layout=1)[0])
    prepared = ir.from_proto(net.model())
    from fcdeploy.int8.planning.types import decide_by_types

    found = decide_by_types(prepared.graph, TYPES["int8", "dynamic"])
    assert found["conv"] == ("float", "dynamic convolutions lose: ConvInteger takes 5 to 10 times the float time")
    assert found["lstm"] == ("float", "its batch comes first (layout 1), which the kernel does not know")
    assert found["turn"][0] == "float"


def plan_with(line: Line, name: str, **changes: Any) -> Plan:
    rows = tuple(replace(row, **changes) if row.node == name else row for row in line.plan.nodes)
    return replace(line.plan, nodes=rows)


def test_edits_that_do_not_fit_are_refused() -> None:
    line = quantize_net(resnet(Net(0)), DATA, types=TYPES["int4", "int8"])
    with fails("node 'first' is a Conv and cannot be 'blockwise': only dense layers with a constant weight can"):
        quantize_net(resnet(Net(0)), DATA, types=INT8, edit=lambda _: plan_with(line, "first", kind="blockwise"))
    weight = next(name for name, q in line.plan.tensors.items() if q.block)

    def without_block(plan: Plan) -> Plan:
        return replace(plan, tensors=plan.tensors | {weight: replace(plan.tensors[weight], block=0, scale=(1.0,))})

    with fails(f"weight {weight!r} needs int4 or int8 and a block"):
        quantize_net(resnet(Net(0)), DATA, types=TYPES["int4", "int8"], edit=without_block)
    with fails("node 'dense' is a Gemm and cannot be 'dynamic'") if False else fails("needs int8, axis"):
        quantize_net(
            resnet(Net(0)),
            DATA,
            types=TYPES["int4", "int8"],
            edit=lambda p: replace(p, nodes=plan_with(line, "dense", kind="dynamic").nodes),
        )


def test_every_value_of_the_options_is_in_some_row() -> None:
    assert set(WEIGHTS) == {"int8", "int16", "int4"}
    assert set(ACTIVATIONS) == {"int8", "int16", "none", "dynamic"}
    assert find_types("int8", "int8") is INT8
    assert all(isinstance(row, Types) and row.why for row in TYPES.values())


@pytest.mark.parametrize(
    ("pair", "message", "hint"),
    [
        (("int2", "int8"), "--weights 'int2' is unknown, expected int8, int16, int4", "--weights int8"),
        (("int8", "fp8"), "--activations 'fp8' is unknown, expected int8, int16, none, dynamic", "--activations int8"),
        (("int4", "dynamic"), "do not go together: the kernel of 4-bit weights scales", "--activations none"),
        (("int16", "dynamic"), "do not go together: onnxruntime has no dynamic kernel", "--weights int8"),
    ],
)
def test_types_that_there_are_not(pair: tuple[str, str], message: str, hint: str) -> None:
    with fails(message, hint):
        find_types(*pair)


def test_float_and_int8_models_need_no_remark() -> None:
    line = quantize_net(resnet(Net(0)), DATA)
    assert list_caveats(line.int8) == list_caveats(line.prepared) == ()


def test_rounding_in_blocks_reads_no_sample_that_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(0)
    hidden = net.op("Relu", net.dense(net.input("x", 64), 64, 48))
    net.output(net.dense(hidden, 48, 8)).save(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", **random_data(0, 300, x=(64,)))
    read, judged = set[int](), set[int]()
    rounding, refining = refine.gptq_round_blocks, refine.refine_built

    def watch_rounding(model: Any, int8: Any, plan: Any, samples: dict[str, Array], **options: Any) -> None:
        read.update(hash_samples([samples]))
        rounding(model, int8, plan, samples, **options)

    def watch_refining(problem: Any, *rest: Any) -> None:
        judged.update(hash_samples(problem.judged))
        refining(problem, *rest)

    monkeypatch.setattr(refine, "gptq_round_blocks", watch_rounding)
    monkeypatch.setattr("fcdeploy.search.candidates.refine_built", watch_refining)
    quantize(
        tmp_path / "net.onnx", output=tmp_path / "q.onnx", data=tmp_path / "data.npz", weights="int4", activations="none",
        floor="50,0",
    )  # fmt: skip
    assert len(read) >= 150 and len(judged) >= 50 and not read & judged


def tied_net() -> Net:
    """Three layers with one weight, as in networks whose layers share them, and a last one."""
    net, random = Net(0), np.random.default_rng(0)
    weight, hidden = net.constant(random.normal(size=(96, 96)) * 0.12), net.input("x", 96)
    for _ in range(3):
        hidden = net.op("Relu", net.op("MatMul", hidden, weight))
    return net.output(net.op("MatMul", hidden, net.constant(random.normal(size=(96, 8)) * 0.1)))


@pytest.mark.parametrize("activations", ["none", "int8"])
def test_a_weight_in_blocks_that_layers_share_is_rounded_and_stored_once(activations: str, tmp_path: Path) -> None:
    float_file, out = tied_net().save(tmp_path / "net.onnx"), tmp_path / "q.onnx"
    np.savez(tmp_path / "data.npz", **correlated(0, 300, 96))
    held_out = correlated(1, 200, 96)
    exact, decibels = Session(float_file).run(held_out)[0], []
    for effort in ("fast", "balanced"):
        quantize(
            float_file, output=out, data=tmp_path / "data.npz", weights="int4", activations=activations, floor="none",
            costs="none", effort=effort, force=True,
        )  # fmt: skip
        blocks = [each for each in ir.load(out).graph if each.op_type == "MatMulNBits"]
        assert [len({each.inputs[index] for each in blocks}) for index in (1, 2)] == [2, 2]
        assert len(blocks) == 4
        answers = Session(out).run(held_out)[0]
        np.testing.assert_array_equal(Session(out, precise=True).run(held_out)[0], answers)  # it loads so, too
        decibels.append(measure_fidelity(exact, answers).sqnr_db)
    assert decibels[1] > decibels[0] + 2  # by what all three read
    assert out.stat().st_size < float_file.stat().st_size / 3


def test_copies_of_one_weight_are_known() -> None:
    """Copies that `separate_shared_weights` made; others of the same shape are not among them."""
    line = quantize_net(tied_net(), random_data(0, 300, x=(96,)), types=TYPES["int4", "none"])
    layers = [each for each in line.prepared.graph if each.op_type in ("Gemm", "MatMul")][:3]
    assert len({each.inputs[1] for each in layers}) == 3
    assert find_shared_blocks(line.prepared, line.plan) == {str(each.name): tuple(layers) for each in layers}
    other = quantize_net(dense_net(96, 96, 96, 96), random_data(0, 300, x=(96,)), types=TYPES["int4", "none"])
    assert find_shared_blocks(other.prepared, other.plan) == {}
