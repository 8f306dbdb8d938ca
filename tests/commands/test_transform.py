"""Dense heads as convolutions and back: against torch on windows of larger images, and against the model before."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import small_models
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net

import fcdeploy
from fcdeploy import cli
from fcdeploy.commands import transform
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.transform import conv_to_dense, dense_to_conv
from fcdeploy.errors import FcdeployError
from fcdeploy.transform import dense_to_conv as forth
from fcdeploy.transform.equality import Equality, compare, refuse_different

ROOT = Path(__file__).parents[2]
Array = np.ndarray[Any, Any]


def run(path: Path, **feeds: Array) -> list[Array]:
    found: list[Array] = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    return found


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def close(a: Array, b: Array) -> bool:
    return bool(np.abs(a.reshape(-1) - b.reshape(-1)).max() <= 1e-5 * np.abs(a).max())


def image(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def trunk(net: Net, *, pad: bool = False) -> str:
    """x (n, 2, 8, 8) to a map (n, 4, 3, 3), an answer every 2 pixels."""
    x = net.conv(net.input("x", 2, 8, 8), 2, 4, pad=pad, name="conv")
    return net.op("MaxPool", net.op("Relu", x), kernel_shape=[2, 2], strides=[2, 2], name="pool")


def head(net: Net, read: int) -> Net:
    """A dense layer, what stands between layers, and another one."""
    x = net.op("Flatten", trunk(net), axis=1)
    x = net.op("MatMul", x, net.constant(net.normal(read, 6, size=0.2)), name="first")
    x = net.op("Add", x, net.constant(net.normal(6)))
    parameters = [net.constant(np.abs(net.normal(6)) + 0.5) for _ in range(4)]
    x = net.op("HardSigmoid", net.op("BatchNormalization", x, *parameters), alpha=0.3)
    x = net.op("Mul", x, net.constant([2.0]))
    logits = net.dense(x, 6, 5, transB=1, name="logits")
    boxes = net.dense(x, 6, 4, bias=False, name="boxes")
    return net.output(net.op("Softmax", logits, axis=-1), net.op("Concat", boxes, logits, axis=1))


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lenet") / "lenet5.onnx"
    fcdeploy.export(f"{ROOT}/models/lenet5.py:lenet5", state=ROOT / "models" / "lenet5.safetensors", output=path)
    return path


def test_windows_of_a_larger_image_are_torch_s_answers(lenet: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from models.lenet5 import lenet5

    report = dense_to_conv(lenet, output=tmp_path / "conv.onnx")
    assert report.values["turned"] == 3
    assert report.values["slides"]
    assert report.values["step"] == [4, 4]
    assert report.values["max_rel"] < 1e-5
    assert report.values["window_max_rel"] < 1e-5
    assert not {"Gemm", "Reshape", "Flatten"} & set(ops(tmp_path / "conv.onnx"))
    module = lenet5()
    module.load_state_dict(load_file(ROOT / "models" / "lenet5.safetensors"))
    picture = image(1, 1, 40, 52)
    (answers,) = run(tmp_path / "conv.onnx", image=picture)
    assert answers.shape == (1, 10, 3, 6)
    for row in range(3):
        for column in range(6):
            window = picture[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
            with torch.no_grad():
                expected = module(torch.from_numpy(window.copy())).numpy()
            assert close(expected, answers[:, :, row, column])


def test_back_is_the_network_it_was(lenet: Path, tmp_path: Path) -> None:
    dense_to_conv(lenet, output=tmp_path / "conv.onnx")
    report = conv_to_dense(tmp_path / "conv.onnx", output=tmp_path / "dense.onnx", shapes={"image": (1, 1, 32, 32)})
    assert report.values["declined"] == [
        "Conv 'conv1' covers 5x5 of an input of 32x32",
        "Conv 'conv2' covers 5x5 of an input of 14x14",
    ]
    assert [op for op in ops(tmp_path / "dense.onnx") if op in ("Conv", "Gemm")] == ["Conv"] * 2 + ["Gemm"] * 3
    before, after = onnx.load(lenet), onnx.load(tmp_path / "dense.onnx")
    assert [output.type for output in before.graph.output] == [output.type for output in after.graph.output]
    stored = [sum(onnx.numpy_helper.to_array(w).size for w in m.graph.initializer) for m in (before, after)]
    assert stored[1] <= stored[0]
    x = image(4, 1, 32, 32)
    assert close(run(lenet, image=x)[0], run(tmp_path / "dense.onnx", image=x)[0])


def test_a_head_with_all_that_can_stand_in_it(tmp_path: Path) -> None:
    model = head(Net(), 36).save(tmp_path / "m.onnx")
    report = dense_to_conv(model, output=tmp_path / "conv.onnx")
    assert report.values["turned"] == 3
    assert report.values["declined"] == []
    x = image(2, 2, 8, 8)
    for before, after in zip(run(model, x=x), run(tmp_path / "conv.onnx", x=x), strict=True):
        assert after.shape == (*before.shape, 1, 1)
        assert close(before, after)
    large = image(1, 2, 12, 10, seed=1)
    maps = run(tmp_path / "conv.onnx", x=large)
    window = np.ascontiguousarray(large[:, :, 4:12, 2:10])
    for before, after in zip(run(model, x=window), maps, strict=True):
        assert after.shape[2:] == (3, 2)
        assert close(before, after[:, :, 2, 1])
    conv_to_dense(tmp_path / "conv.onnx", output=tmp_path / "dense.onnx", shapes={"x": (1, 2, 8, 8)})
    for before, after in zip(run(model, x=x), run(tmp_path / "dense.onnx", x=x), strict=True):
        assert after.shape == before.shape
        assert close(before, after)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    outputs=st.integers(1, 3),
    last=st.booleans(),
    turned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_kernels_are_the_rows_of_the_dense_layer(
    lengths: list[int], outputs: int, last: bool, turned: bool, seed: int
) -> None:
    """Whatever the shape of the map, the order it is flattened in (channels first or last), and the weight's layout."""
    net = Net(seed, opset=13)
    x = net.op("Neg", net.input("x", *lengths))
    axes = [0, *range(2, len(lengths) + 1), 1]
    flat = net.op("Flatten", net.op("Transpose", x, perm=axes) if last else x, axis=1)
    y = net.dense(flat, int(np.prod(lengths)), outputs, transB=int(turned), name="dense")
    model = ir.from_proto(net.output(y).model())
    assert forth.dense_to_conv(model).count == 1
    conv = next(node for node in model.graph if node.op_type == "Conv")
    value = conv.inputs[1]
    assert value is not None
    assert value.const_value is not None
    kernel = value.const_value.numpy()
    rows = onnx.numpy_helper.to_array(net.weights[0])
    rows = rows if turned else rows.T
    data = image(1, *lengths, seed=seed)
    want = rows.astype(np.float64) @ (data.transpose(axes) if last else data).reshape(-1)
    np.testing.assert_allclose((kernel.astype(np.float64) * data).reshape(outputs, -1).sum(axis=1), want, atol=1e-9)


def test_pooling_over_the_map_slides_too(tmp_path: Path) -> None:
    net = Net()
    x = net.op("ReduceMean", trunk(net), axes=[2, 3], keepdims=0)
    model = net.output(net.dense(x, 4, 5)).save(tmp_path / "m.onnx")
    dense_to_conv(model, output=tmp_path / "conv.onnx")
    assert "AveragePool" in ops(tmp_path / "conv.onnx")
    large = image(1, 2, 10, 8)
    (maps,) = run(tmp_path / "conv.onnx", x=large)
    assert maps.shape == (1, 5, 2, 1)
    assert close(run(model, x=np.ascontiguousarray(large[:, :, 2:]))[0], maps[:, :, 1])


def test_padding_is_said_to_see_beyond_a_window(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Flatten", trunk(net, pad=True), axis=1)
    model = net.output(net.dense(x, 64, 5)).save(tmp_path / "m.onnx")
    report = dense_to_conv(model, output=tmp_path / "conv.onnx")
    assert report.values["window_max_rel"] > 1e-3
    assert report.lines[-2].endswith("Conv 'conv' see beyond its edge")


def test_a_layer_that_stays_is_named_and_the_sizes_stay(tmp_path: Path) -> None:
    net = Net()
    x = net.dense(net.op("Flatten", trunk(net), axis=1), 36, 6, name="first")
    x = net.op("Reshape", x, net.constant([-1, 3], np.int64), name="pairs")
    model = net.output(net.dense(x, 3, 2, name="second")).save(tmp_path / "m.onnx")
    report = dense_to_conv(model, output=tmp_path / "conv.onnx")
    assert not report.values["slides"]
    assert report.values["declined"] == [
        "Reshape 'pairs' has no form without the old shape",
        "Gemm 'second' reads Reshape 'pairs', no flattened map",
    ]
    assert "its sizes stay fixed" in report.warnings[0]
    x = image(3, 2, 8, 8)
    assert close(run(model, x=x)[0], run(tmp_path / "conv.onnx", x=x)[0])


def test_convolutions_that_are_dense_layers_in_disguise(tmp_path: Path) -> None:
    """A squeeze and excitation: 1x1 on 1x1 becomes dense, what multiplies the map gets a map."""
    net = Net()
    x = trunk(net)
    s = net.op("GlobalAveragePool", x)
    s = net.op("Relu", net.conv(s, 4, 2, (1, 1), name="squeeze"))
    s = net.op("Sigmoid", net.conv(s, 2, 4, (1, 1), name="excite"))
    x = net.op("Mul", x, s, name="scale")
    apart = net.conv(x, 4, 4, (3, 3), group=4, pad=False, name="apart")
    padded = net.conv(x, 4, 4, (3, 3), name="padded")
    model = net.output(net.op("Flatten", apart), padded, net.conv(apart, 4, 3, (1, 1), name="last")).save(
        tmp_path / "m.onnx"
    )
    report = conv_to_dense(model, output=tmp_path / "dense.onnx")
    assert report.values["turned"] == 3
    assert report.values["declined"] == [
        "Conv 'conv' covers 3x3 of an input of 8x8",
        "Conv 'apart' has 4 groups",
        "Conv 'padded' reads padding, or has gaps in its kernel",
    ]
    x = image(3, 2, 8, 8)
    before, after = run(model, x=x), run(tmp_path / "dense.onnx", x=x)
    assert [item.shape for item in after] == [(3, 4), (3, 4, 3, 3), (3, 3)]
    assert all(close(a, b) for a, b in zip(before, after, strict=True))


def test_samples_of_data_are_compared(tmp_path: Path) -> None:
    model = head(Net(), 36).save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=image(11, 2, 8, 8))
    report = dense_to_conv(model, output=tmp_path / "c.onnx", data=tmp_path / "d.npz", samples=10)
    assert report.values["samples"] == 10
    assert report.lines[-1].startswith("3 layers turned, ")
    assert report.lines[-1].endswith(f"on 10 samples of d.npz -> {tmp_path / 'c.onnx'}")


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = head(Net(), 36).save(tmp_path / "m.onnx")
    honest = forth.dense_to_conv

    def wrong(network: ir.Model) -> Any:
        changes = honest(network)
        value = next(v for n, v in network.graph.initializers.items() if str(n).endswith(".kernel"))
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy() * np.float32(1.001), name=value.name)
        return changes

    monkeypatch.setattr(forth, "dense_to_conv", wrong)
    with fails("dense-to-conv of", "--data DATA"):
        dense_to_conv(model, output=tmp_path / "c.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_samples_are_counted_where_they_lie() -> None:
    fed = {"scale": np.ones(()), "x": np.ones((3, 5), np.float32)}
    for axes, count in ((None, 3), ({"x": 1}, 5), ({"x": None}, 1), ({"scale": None, "x": 0}, 3)):
        assert compare(lambda fed: [fed["x"]], lambda fed: [fed["x"]], [fed], axes=axes).samples == count


def test_the_difference_is_of_the_largest_value() -> None:
    a, b = np.array([[1.0, -4.0]], np.float32), np.array([[1.0, -4.5], [0, 0]], np.float32)[:1]
    found = compare(lambda _: [a], lambda _: [b], [{"x": a}, {"x": a}])
    assert found == Equality(2, 0.125, 0.5)
    refuse_different(Equality(1, 1e-5, 0.0), "it")
    with fails("it differs by 1.1e-05 of its largest value, expected 1e-05: nothing is written"):
        refuse_different(Equality(1, 1.1e-5, 0.0), "it")
    with fails("output 0 is not finite", "--data"):
        compare(lambda _: [a * np.nan], lambda _: [a], [{"x": a}])


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = small_models.dense(tmp_path / "dense.onnx", 3)
    out = tmp_path / "out.onnx"
    with fails("dense-to-conv turns no layer of", "fcdeploy inspect"):
        dense_to_conv(dense, output=out)
    with fails("Gemm 'dense1' reads an input of the graph, no flattened map; and 1 more"):
        dense_to_conv(dense, output=out)
    with fails("conv-to-dense turns no layer of"):
        conv_to_dense(dense, output=out)
    with fails("is also an input", "another name"):
        dense_to_conv(dense, output=dense, force=True)
    with fails("are for --data", "--data DATA"):
        dense_to_conv(dense, output=out, samples=3)
    byte = small_models.quantized(dense, small_models.samples(8, 5), tmp_path / "byte.onnx")
    with fails("the model is quantized already"):
        dense_to_conv(byte, output=out)
    free = Net()
    x = free.conv(free.input("x", 2, "h", "w"), 2, 3, (4, 4), pad=False, name="all")
    model = free.output(x).save(tmp_path / "free.onnx")
    with fails("which length do the free axes", "--shape x:"):
        conv_to_dense(model, output=out)
    assert not out.exists()
    words = ["transform", "conv-to-dense", str(model), "--shape", "x:1,2,4,4", "-o", str(out)]
    assert cli.main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert next(iter(printed)) == "schema"
    assert printed["schema"] == "fcdeploy.transform-conv-to-dense/1"
    assert printed["turned"] == 1
    assert cli.main(words) == 2
    assert capsys.readouterr().err == (
        f"error: output {str(out)!r} exists\nhint: add --force to replace it, or give another name with -o\n"
    )
    assert cli.main([*words, "--force"]) == 0


def test_images_that_take_too_much_memory_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that fixes its batch, for instance: 9 images of 2 x 16 x 16, and behind the Conv 4 x 14 x 14, of 4 bytes."""
    net = Net()
    model = net.output(net.dense(net.op("Flatten", trunk(net)), 36, 3)).save(tmp_path / "m.onnx")
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 9
    onnx.save(fixed, model)
    peak = 9 * 2 * (4 * 14 * 14) * 4  # what the Conv and the Relu write
    for most, slides in ((peak, True), (peak - 1, False)):
        monkeypatch.setattr(transform, "LARGEST", most)
        report = dense_to_conv(model, output=tmp_path / "conv.onnx", force=True)
        assert report.values["slides"] == slides
        assert report.values["samples"] == 9  # in one run, where a free batch is run three times for seven
        said = "images of twice the size take 56.4 kB in a run, expected at most 56.4 kB"
        assert any(said in line for line in report.warnings) != slides
        (after,) = run(tmp_path / "conv.onnx", x=image(9, 2, 8, 8))
        assert after.shape == (9, 3, 1, 1)


def test_a_shape_inside_keeps_a_network_from_sliding(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Reshape", trunk(net), net.constant([-1, 2, 18], np.int64), name="pairs")
    x = net.op("Reshape", net.op("Tanh", x), net.constant([-1, 4, 3, 3], np.int64), name="again")
    model = net.output(net.dense(net.op("Flatten", x), 36, 3)).save(tmp_path / "m.onnx")
    report = dense_to_conv(model, output=tmp_path / "conv.onnx")
    assert report.values["turned"] == 1
    assert report.warnings == (
        "it does not slide over larger images, and its sizes stay fixed: "
        "Reshape 'pairs' fails on images of twice the size",
    )
    (after,) = run(tmp_path / "conv.onnx", x=image(2, 2, 8, 8))
    assert after.shape == (2, 3, 1, 1)


def test_a_network_of_convolutions_takes_other_sizes_as_the_hint_says(tmp_path: Path) -> None:
    """What is refused at another size is quantized after the command of the hint, and answers as it did before."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", 3, 32, 32), 3, 8))
    up = net.op("Resize", x, "", net.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    model = net.output(net.conv(up, 8, 4)).save(tmp_path / "net.onnx")
    data, out = tmp_path / "data.npz", tmp_path / "free.onnx"
    np.savez(data, x=image(20, 3, 48, 40))
    with pytest.raises(FcdeployError, match=r"has shape \(3, 48, 40\), the model wants \(3, 32, 32\)") as refused:
        quantize(model, data=data, output=tmp_path / "q.onnx")
    words = re.search(r"fcdeploy (transform \S+) MODEL -o OUT", refused.value.hint)
    assert words is not None
    assert cli.main([*words[1].split(), str(model), "-o", str(out)]) == 0

    small = image(2, 3, 32, 32)
    assert close(run(out, x=small)[0], run(model, x=small)[0])
    wide = image(1, 3, 48, 40)
    assert run(out, x=wide)[0].shape == (1, 4, 96, 80)
    np.testing.assert_allclose(
        run(out, x=wide)[0][..., :60, :60], run(model, x=wide[..., :32, :32])[0][..., :60, :60], atol=1e-5
    )
    quantize(out, data=data, output=tmp_path / "q.onnx", floor="none")
    assert run(tmp_path / "q.onnx", x=wide)[0].shape == (1, 4, 96, 80)


@pytest.mark.parametrize("kind", ["a size that Resize says", "a sum with a map of this size", "classes of the whole"])
def test_sizes_that_are_a_part_of_the_network_stay(kind: str, tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input("x", 3, 16, 16), 3, 8)
    if kind.startswith("a size"):
        y = net.op("Resize", x, "", "", net.constant([1, 8, 32, 32], np.int64), mode="nearest")
    elif kind.startswith("a sum"):
        y = net.op("Add", x, net.constant(np.ones((1, 8, 16, 16))))
    else:
        y = net.op("Flatten", net.op("GlobalAveragePool", x))
    model, out = net.output(y).save(tmp_path / "net.onnx"), tmp_path / "free.onnx"
    with fails("dense-to-conv turns no layer of", "fcdeploy inspect"):
        dense_to_conv(model, output=out)
    assert not out.exists()
