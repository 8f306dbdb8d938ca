"""Ranges that were measured elsewhere, and ours taken there."""

from __future__ import annotations

import ast
import io
import pickle
import struct
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import fails
from foreign_ranges import DATA, TENSORS, ends_only, measured, network, planned, prepared, truth
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, in_memory, random_data
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import load_tensors_data, save_tensors_data
from onnxruntime.quantization.quant_utils import write_calibration_table

from fcdeploy.cli import main
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.convert import convert
from fcdeploy.errors import FcdeployError
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.records.calibration import read as read_calibration
from fcdeploy.records.exchange.formats import read_ranges
from fcdeploy.records.exchange.onnxruntime_json import write_json
from fcdeploy.records.exchange.tensorrt import write_cache
from fcdeploy.runtime.session import Session


def test_ends_alone_plan_as_minmax_does() -> None:
    model = prepared(network())
    own = observe(model, in_memory(random_data(0, 4, x=(3, 6, 6)), model), model_hash="m")
    bare = ends_only(own)
    assert all(record.histogram.ends_only for record in bare.tensors.values())
    assert not any(record.histogram.ends_only for record in own.tensors.values())
    mine, theirs = planned(model, own), planned(model, bare)
    assert theirs.nodes == mine.nodes
    activations = {name: q for name, q in mine.tensors.items() if q.axis is None}
    assert len(activations) > 4
    assert {name: theirs.tensors[name] for name in activations} == activations


def test_symmetric_ranges_end_where_relu_and_clip_do(tmp_path: Path) -> None:
    """TensorRT's cache widens what a Relu writes to both sides: its bytes are those of its own range all the same."""
    net = Net(0)
    sums = net.conv(net.op("Relu", net.input("x", 3, 6, 6), name="relu"), 3, 8, name="first")
    clip = net.op("Clip", sums, net.constant(0.25), net.constant(0.5), name="clip")
    model = net.output(net.conv(clip, 8, 4, name="last")).save(tmp_path / "net.onnx")
    ends = {"x": (-3, 3), "relu_out": (0, 3), "clip_out": (0.25, 0.5), "last_out": (-1, 2)}
    (tmp_path / "c.cache").write_bytes(write_cache(ends))
    report = convert(tmp_path / "c.cache", output=tmp_path / "c.calib", model=model)
    told = {row["tensor"]: (row["min"], row["max"]) for row in report.values["tensors"]}
    found = read_calibration(tmp_path / "c.calib").tensors
    for name, right in {**ends, "last_out": (-2, 2)}.items():
        histogram = found[name].histogram
        np.testing.assert_allclose((histogram.low, histogram.high), right, rtol=1e-5, err_msg=name)
        assert told[name] == (histogram.low, histogram.high)


@pytest.mark.parametrize("ranges", ["mse", "percentile", "entropy"])
def test_ends_alone_have_no_histogram(ranges: str) -> None:
    model = prepared(network())
    own = observe(model, in_memory(random_data(0, 4, x=(3, 6, 6)), model), model_hash="m")
    with fails(
        "was measured elsewhere and has no histogram, which every range method but minmax needs", "--ranges min"
    ):
        planned(model, ends_only(own), ranges)


@pytest.mark.parametrize("ranges", ["percentile", "mse", "entropy"])
@pytest.mark.parametrize("form", ["JSON", "calibration.cache", "calibration.flatbuffers", "TensorRT"])
def test_every_format_is_refused_by_methods_that_need_a_histogram(
    form: str, ranges: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = measured(tmp_path, CalibrationMethod.Entropy if form == "JSON" else CalibrationMethod.MinMax)
    if form == "JSON":  # with the histograms that onnxruntime counted, which are passed over
        save_tensors_data(found, tmp_path / "foreign")
    elif form == "TensorRT":
        Path("foreign").write_bytes(write_cache(truth()))
    else:
        write_calibration_table(found, str(tmp_path))
        Path("foreign").write_bytes(Path(form).read_bytes())
    convert("foreign", output="foreign.calib", model="net.onnx")
    words = ["quantize", "net.onnx", "--int8", "--calibration", "foreign.calib", "-o", "int8.onnx", "--ranges", ranges]
    capsys.readouterr()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "was measured elsewhere and has no histogram, which every range method but minmax needs" in err
    assert "hint: --ranges minmax, or a calibration of your own: fcdeploy calibrate MODEL --data DATA" in err
    assert not Path("int8.onnx").exists()


def test_a_tensor_without_a_range_stays_float() -> None:
    model = prepared(network())
    own = ends_only(observe(model, in_memory(random_data(0, 4, x=(3, 6, 6)), model), model_hash="m"))
    less = {name: record for name, record in own.tensors.items() if name != "pool_out"}
    found = {d.node: d for d in planned(model, replace(own, tensors=less)).nodes}
    assert (found["pool"].kind, found["second"].kind) == ("float", "int8")
    assert "tensor 'pool_out'" in found["pool"].why


def test_json_of_onnxruntime_is_read(tmp_path: Path) -> None:
    save_tensors_data(measured(tmp_path), tmp_path / "c.json")
    ranges, name = read_ranges(tmp_path / "c.json")
    assert (ranges.made_by, name) == ("onnxruntime MinMax", "onnxruntime's calibration JSON")
    assert sorted(ranges.ends) == TENSORS
    for tensor, ends in truth().items():
        if tensor != "first_out":  # onnxruntime measures it behind the Relu that it fused
            np.testing.assert_allclose(ranges.ends[tensor], ends, atol=1e-6)


def test_json_by_channel_and_with_histograms(tmp_path: Path) -> None:
    save_tensors_data(measured(tmp_path, per_channel=True), tmp_path / "c.json")
    ranges, _ = read_ranges(tmp_path / "c.json")
    np.testing.assert_allclose(ranges.ends["second_out"], truth()["second_out"], atol=1e-6)
    assert "7 of them were measured channel by channel" in ranges.doubts[0]
    found = measured(tmp_path, CalibrationMethod.Entropy)
    save_tensors_data(found, tmp_path / "c.json")
    ranges, _ = read_ranges(tmp_path / "c.json")
    assert ranges.made_by == "onnxruntime Entropy"
    assert ranges.ends == {name: (float(d.lowest), float(d.highest)) for name, d in found.items()}


def test_json_for_onnxruntime_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(write_json(truth()))
    found = load_tensors_data(tmp_path / "c.json")
    assert found.calibration_method is CalibrationMethod.MinMax
    for name, (low, high) in truth().items():
        assert [float(v.item()) for v in found[name].range_value] == [low, high]
        assert found[name].lowest.dtype == np.float32
    assert read_ranges(tmp_path / "c.json")[0].ends == truth()


def test_onnxruntime_quantizes_with_our_ranges(tmp_path: Path) -> None:
    """Its quantizer takes the file in the place of data, and its scales are the ranges / 255."""
    model = network().save(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz", everything=True)
    convert(tmp_path / "net.calib", output=tmp_path / "c.json", model=model)
    with redirect_stdout(io.StringIO()):
        quantize_static(
            str(model), str(tmp_path / "q.onnx"), None, calibration_cache_path=tmp_path / "c.json",
            activation_type=QuantType.QUInt8,
        )  # fmt: skip
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "q.onnx").graph.initializer}
    for name in ("x", "relu_out", "second_out"):
        low, high = truth()[name]
        np.testing.assert_allclose(scales[f"{name}_scale"], (max(high, 0) - min(low, 0)) / 255, rtol=1e-5)


def test_onnxruntime_keeps_relu_where_ranges_are_symmetric(tmp_path: Path) -> None:
    """It takes a Relu out whatever its range is, unless it gets the option that the report names."""
    model = network().save(tmp_path / "net.onnx")
    (tmp_path / "c.cache").write_bytes(write_cache(truth()))
    ranges, made = tmp_path / "c.json", tmp_path / "q.onnx"
    (line,) = (line for line in convert(tmp_path / "c.cache", output=ranges).lines if "quantize_static" in line)
    told, worst = ast.literal_eval(line.partition("extra_options=")[2]), {}
    for name, options in {"as told": told, "without": {}}.items():
        quantize_static(str(model), str(made), None, calibration_cache_path=ranges, extra_options=options)
        right, found = (Session(file).run(DATA)[0] for file in (model, made))
        worst[name] = float(np.abs(found - right).max() / np.abs(right).max())
    assert worst["as told"] < 0.05 < 0.5 < worst["without"], worst


@pytest.mark.parametrize("file", ["calibration.cache", "calibration.flatbuffers", "calibration.json"])
def test_tables_of_onnxruntime(tmp_path: Path, file: str) -> None:
    found = measured(tmp_path)
    write_calibration_table(found, str(tmp_path))
    path = tmp_path / "any name at all"
    path.write_bytes((tmp_path / file).read_bytes())  # a file is known by what is in it
    ranges, name = read_ranges(path)
    assert sorted(ranges.ends) == TENSORS
    if file == "calibration.json":
        assert name == "onnxruntime's calibration JSON"
        return
    assert name == f"onnxruntime's {file}"
    assert "a tensor that reaches further below zero than above is clipped" in ranges.doubts[0]
    for tensor, data in found.items():
        larger = max(data.lowest.item(), data.highest.item())
        np.testing.assert_allclose(ranges.ends[tensor], (-larger, larger), rtol=1e-6)


def test_older_json_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('\n {"a": [-1, 2.5], "b c": [0, 3]}')
    assert read_ranges(tmp_path / "c.json")[0].ends == {"a": (-1.0, 2.5), "b c": (0.0, 3.0)}


def test_tensorrt_by_hand(tmp_path: Path) -> None:
    """Lines as TensorRT writes them: 3c010a14 is about 1/127, the scale of an input from 0 to 1."""
    path = tmp_path / "c.cache"
    path.write_text(
        "TRT-8000-EntropyCalibration\nimages: 3c010a14\n(Unnamed Layer* 1) [Convolution]: 40000000\na:b: 3F\n"
    )
    ranges, name = read_ranges(path)
    assert (name, ranges.made_by) == ("TensorRT's calibration cache", "TensorRT TRT-8000-EntropyCalibration")
    np.testing.assert_allclose(ranges.ends["images"], (-1, 1), rtol=3e-4)
    assert ranges.ends["(Unnamed Layer* 1) [Convolution]"] == (-254.0, 254.0)
    assert ranges.ends["a:b"][1] == pytest.approx(63 * 2.0**-149 * 127)
    assert "ranges are symmetric" in ranges.doubts[0]
    lines = write_cache({"images": (0.0, 1.0), "dead": (0.0, 0.0)}).decode().splitlines()
    assert lines[0] == "TRT-8601-EntropyCalibration2"
    scale = struct.unpack(">f", bytes.fromhex(lines[1].removeprefix("images: ")))[0]
    assert scale == pytest.approx(1 / 127, rel=2e-7)
    assert lines[2].removeprefix("dead: ") == lines[1].removeprefix("images: ")


NUMBERS = st.floats(-(2.0**99), 2.0**99, width=32)


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1)


ENDS = st.dictionaries(NAMES, st.tuples(NUMBERS, NUMBERS).map(lambda pair: (min(pair), max(pair))), min_size=1)


@given(ENDS)
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, ends: dict[str, tuple[float, float]]) -> None:
    path = tmp_path_factory.mktemp("c") / "file"
    path.write_bytes(write_json(ends))
    assert read_ranges(path)[0].ends == ends
    path.write_bytes(write_cache(ends))
    back = read_ranges(path)[0].ends
    assert list(back) == list(ends)
    for name, (low, high) in ends.items():
        amax = max(-low, high)
        assert back[name][0] == -back[name][1]
        assert amax <= back[name][1] <= (amax or 1.0) * (1 + 2.0**-22) + 1e-40


BY_NAME = '{"CLS": "TensorsData", "calibration_method": "x", "data": {"a": %s}}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no calibration of a format that can be read"),
        (b"hello", "is no calibration of a format that can be read"),
        (b"\0" * 100, "is no calibration of a format that can be read"),
        (pickle.dumps({"a": (1, 2)}), "is a Python pickle, which may run any code and is never read"),
        (pickle.dumps({"a": (1, 2)}, 0), "is a Python pickle"),
        (b'{"a": [1, 2]', "onnxruntime's calibration JSON '{}' is damaged: Expecting ',' delimiter"),
        (b'{"a": [2, 1]}', "tensor 'a' has the ends 2 and 1, expected two finite numbers in order"),
        (b'{"a": [1, 1e999]}', "tensor 'a' is [1, inf], expected [lowest, highest]"),
        (b'{"a": [NaN, 1]}', "tensor 'a' is [nan, 1], expected [lowest, highest]"),
        (b'{"a": [1, 1e39]}', "tensor 'a' has the ends 1 and 1e+39"),
        (b'{"a": 3}', "tensor 'a' is 3, expected [lowest, highest]"),
        (b"{}", "it holds no ranges"),
        (b'{"CLS": "Other"}', "it is a 'Other', expected 'TensorsData' with an object 'data'"),
        ((BY_NAME % '{"highest": 1}').encode(), "tensor 'a' has no number 'lowest'"),
        ((BY_NAME % '{"lowest": {"data": []}, "highest": 1}').encode(), "tensor 'a' has no number 'lowest'"),
        ((BY_NAME % '{"lowest": "1", "highest": 1}').encode(), "tensor 'a' has no number 'lowest'"),
        ((BY_NAME % "7").encode(), "tensor 'a' has no number 'lowest'"),
        (b'{"CLS":' + b"[" * 200_000, "it is nested without end"),
        (b"TRT-8601-X\na: 3c010a14\na: 3c010a14\n", "tensor 'a' is there twice"),
        (b"TRT-8601-X\na: 7f800000\n", "tensor 'a' has the ends -inf and inf"),
        (b"TRT-8601-X\na: bf800000\n", "tensor 'a' has the scale -1, expected a positive number"),
        (b"TRT-8601-X\na: 7fc00000\n", "tensor 'a' has the scale nan"),
        (b"TRT-8601-X\na 3c010a14\n", "line 'a 3c010a14' is not a name, a colon and a number in hexadecimal digits"),
        (b"TRT-8601-X\n", "it holds no ranges"),
        (b"TRT-8601\na: 3c010a14\n", "its header is 'TRT-8601', expected TRT-VERSION-ALGORITHM"),
        (b"TRT-8601-X\n\xff: 3c010a14\n", "it is not UTF-8 at byte 11"),
        (b"a 1\nb\n", "line 'b' is not a name and a number"),
        (b"a 1\na 2\n", "tensor 'a' is there twice"),
        (b"a inf\n", "tensor 'a' has the ends -inf and inf"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with fails(message.replace("{}", str(path))):
        read_ranges(path)


def test_damaged_flatbuffers(tmp_path: Path) -> None:
    """Any byte may be wrong, and the file may end anywhere: either ranges, or one error."""
    write_calibration_table(measured(tmp_path), str(tmp_path))
    whole = (tmp_path / "calibration.flatbuffers").read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for trial in range(600):
        data = bytearray(whole[: random.integers(len(whole))] if trial % 2 else whole)
        for at in random.integers(0, len(data), 3 * (trial % 2 == 0)):
            data[at] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
        (tmp_path / "f").write_bytes(data)
        try:
            read_ranges(tmp_path / "f")
        except FcdeployError as error:
            refused += error.message.count("\n") == 0
    assert refused > 300


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate((256 << 20) + 1)
    with fails("has 268435457 bytes, expected 268435456 at most"):
        read_ranges(tmp_path / "f")
