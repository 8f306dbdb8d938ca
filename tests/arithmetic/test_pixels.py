"""Pictures whose bytes are read as they are: grids found in samples, weights on bytes, and the whole line with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Arrays, Line, Net, quantize_net
from onnx import TensorProto
from PIL import Image

from fcdeploy.arithmetic.pixels import (
    compute_byte_importance,
    compute_byte_means,
    find_pixel_grids,
    scale_weight_for_bytes,
)
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.int8.planning.check_plan import check_plan
from fcdeploy.int8.planning.image_inputs import read_recorded_grids
from fcdeploy.int8.planning.plan_graph import plan_graph
from fcdeploy.preprocessing.apply import preprocess_pixels
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records import plan as plans
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.plan import Plan
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.cpu import read_cpu_flags
from fcdeploy.runtime.session import Session
from fcdeploy.tables.targets import TARGETS
from fcdeploy.tables.types import TYPES

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, what most vision networks are trained with

NUMBERS = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}

VNNI = pytest.param(
    "x86-vnni",
    marks=pytest.mark.skipif(
        not any("vnni" in flag for flag in read_cpu_flags()), reason="sums of pairs saturate here"
    ),
)


def pictures(seed: int, n: int, channels: int = 3, size: int = 12, low: int = 0, high: int = 255) -> np.ndarray:
    """Smooth colour gradients with some noise, as bytes; every channel reaches `low` and `high`."""
    random = np.random.default_rng(seed)
    slope = np.add.outer(np.linspace(0, 1, size), np.linspace(0, 1, size)) / 2
    x = random.uniform(size=(n, channels, 1, 1)) * slope + random.uniform(0, 0.5, size=(n, channels, size, size))
    x = np.rint(low + (x - x.min()) / np.ptp(x) * (high - low))
    x[0, :, 0, 0], x[0, :, 0, 1] = low, high
    return x.astype(np.uint8)


def normalised(b: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> np.ndarray:
    """As torchvision's ToTensor and Normalize do it, in float32."""
    shape = (1, -1, 1, 1)
    x = torch.from_numpy(b).to(torch.float32) / 255
    return ((x - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)).numpy()


@pytest.mark.parametrize(
    ("mean", "std"),
    [(MEAN, STD), ((0.5,) * 3, (0.5,) * 3), (tuple(m / 255 for m in (104.0, 117.0, 123.7)), (1 / 255,) * 3)],
)
def test_bytes_are_found_again(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    b = pictures(0, 6)
    grid = find_pixel_grids(normalised(b, mean, std))
    step, lowest = (np.reshape(row, (1, -1, 1, 1)) for row in np.array(grid).T)
    other = pictures(1, 6)
    np.testing.assert_allclose((normalised(other, mean, std) - lowest) / step, other, atol=0.01)


@given(
    st.lists(st.tuples(st.floats(1e-3, 10), st.floats(0.1, 1.0)), min_size=1, max_size=3),
    st.integers(0, 40),
    st.integers(200, 255),
)
def test_any_grid_that_holds_zero_is_found(rows: list[tuple[float, float]], low: int, high: int) -> None:
    """Whatever is found, every value lies on one of 256 places of it."""
    b = pictures(2, 3, len(rows), 16, low, high)
    step, share = (np.reshape(row, (1, -1, 1, 1)) for row in np.array(rows).T)
    x = (step * (b - low - np.floor(share * (high - low)) + 0.3)).astype(np.float32)  # zero is not on the grid
    grid = find_pixel_grids(x)
    assert len(grid) == len(rows)
    found, lowest = (np.reshape(row, (1, -1, 1, 1)) for row in np.array(grid).T)
    np.testing.assert_allclose(found, step, rtol=1e-3)
    places = (x - lowest) / found
    assert np.abs(places - np.rint(places)).max() < 0.1
    assert places.min() > -0.1
    assert places.max() < 255.1


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).normal(size=(4, 3, 16, 16)),  # no bytes
        np.float32([0, 1, 0.5]).repeat(256).reshape(1, 3, 16, 16),  # a few levels: there may be more tomorrow
        pictures(0, 4).astype(np.float32),  # one scale for all channels is exact
        pictures(0, 4).astype(np.float32) - 128,
        normalised(pictures(0, 4), (-1.5, -1.4, -1.3)),  # zero lies outside
        np.full((2, 3, 8, 8), np.nan),
        np.zeros((2, 3, 8, 8)),
        np.zeros((0, 3, 8, 8)),
    ],
    ids=["noise", "levels", "bytes", "shifted bytes", "far from zero", "nan", "constant", "empty"],
)
def test_what_is_no_picture_or_needs_no_grids(x: np.ndarray) -> None:
    assert find_pixel_grids(x.astype(np.float32)) == ()


def test_one_value_beside_the_grid_is_enough_to_leave_it() -> None:
    x = normalised(pictures(0, 4))
    x[3, 2, 5, 5] += 0.3 * 1 / (255 * 0.225)
    assert find_pixel_grids(x) == ()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 2))
def test_weights_on_bytes_compute_the_same(seed: int, channels: int, pad: int) -> None:
    """Against torch's convolution of the normalised image, padding included."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(5, channels, 3, 3))
    b = random.integers(0, 256, size=(2, channels, 6, 6))
    grid = tuple((random.uniform(0.01, 1), -random.uniform(0, 2)) for _ in range(channels))
    step, lowest = (np.reshape(row, (1, -1, 1, 1)) for row in np.array(grid).T)
    wide = np.zeros((2, 4, 6, 6))
    wide[:, :channels], wide[:, channels] = b, 255
    conv = torch.nn.functional.conv2d
    expected = conv(torch.from_numpy(lowest + step * b), torch.from_numpy(weight), padding=pad).numpy()
    read = torch.from_numpy(scale_weight_for_bytes(weight, grid, 4).astype(np.float64))
    got = conv(torch.from_numpy(wide), read, padding=pad).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())


def test_moments_of_bytes_follow_from_those_of_the_image() -> None:
    b = pictures(3, 5).astype(np.float64)
    step, lowest = np.array([0.1, 0.2, 0.3]), np.array([-1.0, 0.0, -7.0])
    x = lowest.reshape(1, -1, 1, 1) + step.reshape(1, -1, 1, 1) * b
    axes = (0, 2, 3)
    grid = tuple(zip(step, lowest, strict=True))
    np.testing.assert_allclose(compute_byte_means(x.mean(axes), grid, 4), [*b.mean(axes), 255])
    found = compute_byte_importance(x.mean(axes), (x**2).mean(axes), grid, 4)
    np.testing.assert_allclose(found, np.array([*(b.var(axes) + b.mean(axes) ** 2 / 32), 255.0**2 / 32]))


def classifier(channels: int = 3, **attributes: int) -> Net:
    net = Net(3)
    x = net.conv(net.input("x", channels, 12, 12), channels, 16, name="first", **attributes)
    y = net.op("Relu", net.conv(net.op("Relu", x), 16, 16, name="second"))
    return net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 16, 5, name="last"))


def line(data: Arrays, net: Net | None = None, **options: object) -> Line:
    return quantize_net(net or classifier(), data, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["portable", VNNI])
def test_a_network_on_pictures_reads_their_bytes(target: str) -> None:
    """Bytes in the int8 model are those of the pictures."""
    b = pictures(4, 24)
    made = line({"x": normalised(b)}, target=target)
    assert len(made.plan.tensors["x"].pixels) == 3
    reader = next(node for node in made.int8.graph if node.op_type == "QuantizeLinear")
    part = ir.convenience.extract(made.int8.graph, ["x"], [reader.outputs[0].name or ""])
    (integers,) = Session(ir.Model(part, ir_version=made.int8.ir_version)).run({"x": normalised(b)})
    np.testing.assert_array_equal(integers.astype(int) - made.plan.tensors["x"].zero_point, b)
    assert made.kernel_sqnr() > 38


def test_bytes_of_pictures_are_nearer_to_float_than_one_scale_for_all_channels() -> None:
    """On average over draws: one pixel between two steps, and a network reads the picture by a scale as other inputs are."""
    read, scaled = [], []
    for seed in range(4, 10):
        exact = normalised(pictures(seed, 24))
        noisy = exact.copy()
        noisy[0, :, 3, 3] += 0.007
        read.append(line({"x": exact}).sqnr())
        scaled.append(line({"x": noisy}).sqnr())
    assert np.mean(read) > np.mean(scaled)


def test_samples_beyond_the_grids_of_those_kept_are_not_clipped() -> None:
    made = line({"x": normalised(pictures(4, 24))})
    record = made.calibration.tensors["x"]
    assert made.plan.tensors["x"].pixels
    for ends in ({"high": 4 * record.histogram.high}, {"low": 4 * record.histogram.low}):
        seen = replace(record, histogram=replace(record.histogram, **ends))
        calibration = replace(made.calibration, tensors={**made.calibration.tensors, "x": seen})
        plan = plan_graph(made.prepared, calibration, TARGETS["portable"], ranges="minmax")
        assert not plan.tensors["x"].pixels


def read_bytes(made: ir.Model, x: np.ndarray) -> np.ndarray:
    """What the QuantizeLinear behind the input makes of it."""
    reader = next(node for node in made.graph if node.op_type == "QuantizeLinear")
    part = ir.convenience.extract(made.graph, ["x"], [reader.outputs[0].name or ""])
    (integers,) = Session(ir.Model(part, ir_version=made.ir_version)).run({"x": x})
    return integers.astype(int) - int(np.asarray(reader.inputs[2].const_value))  # type: ignore[union-attr]


def rows_of_pixels(channels: int) -> Net:
    net = Net(4)
    x = net.op("Flatten", net.input("x", channels, 12, 12))
    return net.output(net.dense(net.op("Relu", net.dense(x, channels * 144, 16)), 16, 4, name="last"))


@pytest.mark.parametrize(
    ("net", "channels", "numbers", "scale"),
    [
        (classifier(), 3, f"mean = {list(MEAN)}\nstd = {list(STD)}", None),
        (classifier(), 3, "mean = 0.0", 1 / 255),
        (classifier(), 3, "mean = 0.2\nstd = 0.2", 1 / 51),  # one step for all channels, and zero is a byte: 51
        (classifier(1), 1, "mean = 0.1307\nstd = 0.3081", None),
        (rows_of_pixels(1), 1, "mean = 0.0", 1 / 255),
        (rows_of_pixels(3), 3, "scale = 1.0", 1.0),
    ],
    ids=["three grids", "one", "one, shifted", "gray", "rows", "as stored"],
)
def test_pixels_that_no_picture_had_are_bytes_too(
    tmp_path: Path, net: Net, channels: int, numbers: str, scale: float | None
) -> None:
    """Dark pictures alone are calibrated on; what is recorded says how far bright ones reach."""
    net.save(tmp_path / "m.onnx")
    (tmp_path / "p.toml").write_text(f"size = 12\n{numbers}\n")
    (tmp_path / "dark").mkdir()
    for at, picture in enumerate(pictures(9, 24, channels, high=150)):
        pixels = picture.transpose(1, 2, 0)
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(tmp_path / "dark" / f"{at}.png")
    out, plan = tmp_path / "q.onnx", tmp_path / "p.json"
    calibrate(tmp_path / "m.onnx", data=tmp_path / "dark", preprocess=tmp_path / "p.toml", output=tmp_path / "c.calib")
    quantize(tmp_path / "m.onnx", calibration=tmp_path / "c.calib", output=out, save_plan=plan, costs="none", floor="none",
             effort="fast")  # fmt: skip

    bright = pictures(10, 4, channels)
    how = read_preprocessing(
        tmp_path / "p.toml", spec := TensorSpec("x", np.dtype(np.float32), (None, channels, 12, 12))
    )
    x = np.stack([preprocess_pixels(picture.transpose(1, 2, 0), how, spec) for picture in bright])
    q = plans.from_json(json.loads(plan.read_text()), "p").tensors["x"]
    assert (q.scale[0] == pytest.approx(scale, rel=1e-6)) if scale else q.pixels
    lowest = int(np.rint(x.min() / scale)) if scale else 0
    np.testing.assert_array_equal(read_bytes(ir.load(out), x), bright.astype(int) + lowest)


def test_samples_beside_the_recorded_steps_have_a_range_of_their_own() -> None:
    """What samples hold decides, not what is said of them."""
    how = read_preprocessing("scale-0-1", TensorSpec("x", np.dtype(np.float32), (None, 3, 12, 12)))
    for x in (normalised(pictures(4, 24)), pictures(4, 24) / np.float32(400), np.full((8, 3, 12, 12), np.float32(0.5))):
        calibration = replace(line({"x": x}).calibration, format=DataFormat(how))
        assert read_recorded_grids("x", calibration) == ()
    calibration = replace(line({"x": pictures(4, 24) / np.float32(255)}).calibration, format=DataFormat(how))
    assert np.ptp(read_recorded_grids("x", calibration), axis=0).max() == 0


@pytest.mark.parametrize(("dtype", "ends"), [(np.uint8, (0, 255)), (np.int8, (-128, 127))])
def test_an_input_of_bytes_is_read_to_its_ends(dtype: type, ends: tuple[int, int]) -> None:
    net = Net(5)
    x = net.op("Cast", net.input("x", 3, 12, 12, dtype=NUMBERS[dtype]), to=TensorProto.FLOAT, name="cast")
    net.output(net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 3, 16, name="first"))))
    seen = (pictures(11, 12, high=90).astype(int) + ends[0]).astype(dtype)
    q = line({"x": seen}, net).plan.tensors["cast_out"]
    assert (q.scale, q.zero_point) == ((1.0,), -ends[0])


@pytest.mark.parametrize("weights", ["int8", "int16"])
def test_16_bits_need_no_bytes(weights: str) -> None:
    types = TYPES[weights, "int16" if weights == "int8" else "int8"]
    made = line({"x": normalised(pictures(4, 12))}, types=types)
    assert not made.plan.tensors["x"].pixels
    assert made.sqnr() > 30


def test_grey_pictures_are_read_as_bytes_where_zero_lies_between_two() -> None:
    data = {"x": normalised(pictures(5, 16, 1), (0.5,), (0.5,))}
    made = line(data, classifier(1))
    assert len(made.plan.tensors["x"].pixels) == 1
    assert made.sqnr() > 30


@pytest.mark.parametrize(
    "net",
    [
        classifier(4),
        Net(1).output("y"),
    ],
    ids=["four channels", "two readers"],
)
def test_only_a_convolution_with_room_that_reads_alone_does(net: Net) -> None:
    channels = 4
    if net.outputs == ["y"]:
        channels, net = 3, Net(1)
        x = net.input("x", 3, 12, 12)
        net.output(net.op("Add", net.conv(x, 3, 16), net.conv(x, 3, 16)))
    b = pictures(6, 12, channels)
    made = line({"x": normalised(b, (*MEAN, 0.4)[:channels], (*STD, 0.2)[:channels])}, net)
    assert not made.plan.tensors["x"].pixels
    assert made.sqnr() > 25


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    classifier().save(folder / "m.onnx")
    np.savez(folder / "d.npz", x=normalised(pictures(7, 24)))
    calibrate(folder / "m.onnx", data=folder / "d.npz", output=folder / "c.calib")
    return folder


@pytest.mark.parametrize("effort", ["fast", "balanced", "best"])
def test_a_plan_with_pixels_gives_the_same_bytes_again(made: Path, tmp_path: Path, effort: str) -> None:
    first, again, file = tmp_path / "q.onnx", tmp_path / "r.onnx", tmp_path / "p.json"
    options = {"calibration": made / "c.calib", "costs": "none", "floor": "none"}
    report = quantize(made / "m.onnx", output=first, save_plan=file, effort=effort, **options)  # type: ignore[arg-type]
    assert "input 'x' holds pictures: their bytes are read as they are" in report.lines
    assert json.loads(file.read_text())["tensors"]["x"]["pixels"][0][0] == pytest.approx(1 / 255 / STD[0], rel=1e-4)
    quantize(made / "m.onnx", output=again, plan=file, calibration=made / "c.calib")
    assert first.read_bytes() == again.read_bytes()


def test_layers_are_compared_without_the_bytes(made: Path, tmp_path: Path) -> None:
    """They are no tensor of the float model, and exact."""
    quantize(
        made / "m.onnx",
        output=tmp_path / "q.onnx",
        calibration=made / "c.calib",
        costs="none",
        floor="none",
        effort="fast",
    )
    options = {"data": made / "d.npz", "layers": True, "same_data": True}
    report = validate(tmp_path / "q.onnx", against=made / "m.onnx", **options)  # type: ignore[arg-type]
    assert not [text for text in report.warnings if "no tensor named" in text]


def test_a_first_layer_left_in_float_reads_the_input_itself(made: Path, tmp_path: Path) -> None:
    options = {
        "calibration": made / "c.calib",
        "costs": "none",
        "keep_float": ["first"],
        "floor": "none",
        "effort": "fast",
    }
    quantize(made / "m.onnx", output=tmp_path / "q.onnx", **options)  # type: ignore[arg-type]
    model = ir.load(tmp_path / "q.onnx")
    assert "BatchNormalization" not in [node.op_type for node in model.graph]


def test_plans_whose_pixels_do_not_fit_are_refused() -> None:
    made = line({"x": normalised(pictures(8, 12))})
    q = made.plan.tensors["x"]

    def with_input(**changes: object) -> Plan:
        tensors = {**made.plan.tensors, "x": replace(q, **changes)}  # type: ignore[arg-type]
        return replace(made.plan, tensors=tensors)

    graph = made.prepared.graph
    check_plan(graph, made.plan, "the plan")
    for changes in ({"pixels": q.pixels[:2]}, {"scale": (0.5,)}, {"zero_point": 3}):
        with fails("node 'first' reads pixels, which need scale 1, zero_point 0 and 3 rows", "writes one to edit"):
            check_plan(graph, with_input(**changes), "the plan")
    inner = next(name for name in made.plan.tensors if "relu" in name)
    tensors = {**made.plan.tensors, inner: replace(made.plan.tensors[inner], pixels=q.pixels)}
    with fails("cannot read the bytes of a picture", "leave pixels out"):
        check_plan(graph, replace(made.plan, tensors=tensors), "the plan")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("none", "has pixels 'none', expected [step, lowest] for each channel"),
        ([[1.0]], "expected [step, lowest] for each channel"),
        ([[True, 0.0]], "expected [step, lowest] for each channel"),
        ([[1.0, float("nan")]], "expected [step, lowest] for each channel"),
        ([[0.0, 0.0]], "expected steps of at least"),
        ([[-1.0, 0.0]], "expected steps of at least"),
    ],
)
def test_pixels_of_a_plan_file_are_read_with_care(rows: object, message: str) -> None:
    written = plans.to_json(line({"x": normalised(pictures(8, 12))}).plan)
    assert plans.from_json(written, "p").tensors["x"].pixels
    written["tensors"]["x"]["pixels"] = rows
    with fails(message, "writes one to edit"):
        plans.from_json(written, "p")
