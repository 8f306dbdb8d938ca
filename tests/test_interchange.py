"""Ranges that were measured elsewhere, and ours taken there."""

from __future__ import annotations

import io
import json
import pickle
import struct
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, in_memory, random_data
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator, load_tensors_data, save_tensors_data
from onnxruntime.quantization.quant_utils import write_calibration_table

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.cli import main
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.convert import convert
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import name_everything
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.plan_graph import plan_graph
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import Calibration, Histogram, read
from fcdeploy.records.exchange.formats import read_ranges
from fcdeploy.records.exchange.onnxruntime_json import write_json
from fcdeploy.records.exchange.tensorrt import write_cache
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.session import Session
from fcdeploy.tables.targets import TARGETS


def network(seed: int = 0) -> Net:
    """Convolution, clip, convolution, dense: every name the model has is one that preparing keeps."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 8, name="first"), name="relu")
    y = net.op("GlobalAveragePool", net.conv(x, 8, 8, name="second"), name="pool")
    return net.output(net.dense(net.op("Flatten", y, name="flat"), 8, 4, name="last"))


def prepared(net: Net) -> ir.Model:
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    prepare(model)
    return model


def ends_only(calibration: Calibration) -> Calibration:
    """The same ranges, as another tool would have measured them."""
    nothing = np.zeros(0, np.uint16), np.zeros(0, np.int64)
    return replace(
        calibration,
        tensors={
            name: replace(r, moments=None, histogram=Histogram(*nothing, r.histogram.low, r.histogram.high))
            for name, r in calibration.tensors.items()
        },
    )


def planned(model: ir.Model, calibration: Calibration, ranges: str = "minmax") -> Plan:
    return plan_graph(model, calibration, TARGETS["portable"], ranges=ranges)


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


# --- the formats, against onnxruntime's own tools and bytes written by hand


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter([DATA])

    def get_next(self) -> Any:
        return next(self.batches, None)


DATA = random_data(0, 4, x=(3, 6, 6))
TENSORS = ["first_out", "flat_out", "last_out", "pool_out", "relu_out", "second_out", "x"]


def measured(folder: Path, method: CalibrationMethod = CalibrationMethod.MinMax, **options: Any) -> TensorsData:
    """What onnxruntime's own calibration finds on the network."""
    model = network().save(folder / "net.onnx")
    with redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            str(model), augmented_model_path=str(folder / "a.onnx"), calibrate_method=method, extra_options=options
        )
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def truth() -> dict[str, tuple[float, float]]:
    """Exact ends of every tensor, from onnxruntime's float results with optimization off."""
    model = network().model()
    names = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    found = dict(zip(names, Session(model.SerializeToString(), threads=1, optimize=False).run(DATA), strict=True))
    return {name: (float(array.min()), float(array.max())) for name, array in {**DATA, **found}.items()}


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


# --- the command


def test_ranges_of_onnxruntime_quantize(tmp_path: Path) -> None:
    """From onnxruntime's ranges to an int8 model that is as good as with minmax of our own."""
    save_tensors_data(measured(tmp_path), tmp_path / "c.json")
    model = tmp_path / "net.onnx"
    report = convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    assert (report.values["unknown"], report.values["missing"]) == ([], [])
    assert report.warnings == ()
    assert report.lines[0] == f"7 ranges: onnxruntime's calibration JSON -> {tmp_path / 'c.calib'}"
    back = read(tmp_path / "c.calib")
    assert (back.made_by, back.samples) == ({"imported": "onnxruntime MinMax"}, 0)
    assert back.tensors["relu_out"].shape == (None, 8, 6, 6)
    assert (back.tensors["relu_out"].op, back.tensors["x"].kind) == ("Relu", "input")
    with fails("was measured elsewhere and has no histogram", "--ranges minmax"):
        quantize(model, output=tmp_path / "q.onnx", calibration=tmp_path / "c.calib", costs="none")
    options: Any = {"ranges": "minmax", "costs": "none", "effort": "fast"}
    made = quantize(model, output=tmp_path / "q.onnx", calibration=tmp_path / "c.calib", **options)
    assert made.values["nodes_float"] == []
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    quantize(model, output=tmp_path / "own.onnx", calibration=tmp_path / "net.calib", **options)
    exact = Session(model.read_bytes(), threads=1).run(DATA)[0]
    theirs, ours = (
        measure_fidelity(exact, Session((tmp_path / f"{name}.onnx").read_bytes(), threads=1).run(DATA)[0]).sqnr_db
        for name in ("q", "own")
    )
    assert theirs > 25
    assert abs(theirs - ours) < 3  # weights are searched with moments in the one, without in the other


def test_what_the_model_has_not_and_the_other_way_round(tmp_path: Path) -> None:
    model = network().save(tmp_path / "net.onnx")
    ends = {name: pair for name, pair in truth().items() if name not in ("pool_out", "flat_out")}
    (tmp_path / "c.json").write_bytes(write_json({**ends, "other": (0.0, 1.0), "k0": (-1.0, 1.0)}))
    report = convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    assert (report.values["unknown"], report.values["missing"]) == (["other"], ["pool_out", "flat_out"])
    assert report.warnings == (
        "1 ranges are of no tensor of the model: 'other'",
        "2 tensors of the model have no range: 'pool_out', 'flat_out'; their layers will stay float",
    )
    made = quantize(
        model,
        output=tmp_path / "q.onnx",
        calibration=tmp_path / "c.calib",
        ranges="minmax",
        costs="none",
        effort="fast",
    )
    assert {row["node"] for row in made.values["nodes_float"]} == {"pool", "flat", "last"}
    (tmp_path / "c.json").write_bytes(write_json({"other": (0.0, 1.0)}))
    with fails("none of the 1 ranges of ", "with its tensors' names unchanged"):
        convert(tmp_path / "c.json", output=tmp_path / "c2.calib", model=model)
    assert not (tmp_path / "c2.calib").exists()


def test_our_ranges_for_tensorrt(tmp_path: Path) -> None:
    model = network().save(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    report = convert(tmp_path / "net.calib", output=tmp_path / "c.cache", header="TRT-100300-EntropyCalibration2")
    lines = (tmp_path / "c.cache").read_text().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    expected = {name: max(-low, high) / 127 for name, (low, high) in truth().items() if name != "first_out"}
    found = {line.split(": ")[0]: struct.unpack(">f", bytes.fromhex(line.split(": ")[1]))[0] for line in lines[1:]}
    assert found == pytest.approx(expected, rel=1e-5)
    assert report.lines[1] == "6 of them widen, because the format is symmetric: -amax to amax"
    assert sorted(report.values["widened"]) == sorted(expected)
    again = convert(tmp_path / "c.cache", output=tmp_path / "t.calib", model=model)
    assert again.warnings == (
        "ranges are symmetric: of a tensor that is never negative half of the levels are not used",
    )
    assert {name: r.histogram.high for name, r in read(tmp_path / "t.calib").tensors.items()} == pytest.approx(
        {name: scale * 127 for name, scale in expected.items()}, rel=1e-5
    )


def test_from_one_tool_to_another(tmp_path: Path) -> None:
    """No model is needed, and names stay as they are."""
    (tmp_path / "c.json").write_text('{"a": [-1, 2]}')
    convert(tmp_path / "c.json", output=tmp_path / "c.cache")
    convert(tmp_path / "c.cache", output=tmp_path / "d.json")
    assert read_ranges(tmp_path / "d.json")[0].ends == {"a": pytest.approx((-2, 2), rel=1e-6)}


def test_ranges_for_a_model_whose_weights_lie_beside_it(tmp_path: Path) -> None:
    model, ranges = tmp_path / "net.onnx", tmp_path / "c.json"
    onnx.save(network().model(), model, save_as_external_data=True, location="net.data", size_threshold=0)
    ranges.write_bytes(write_json(truth()))
    convert(ranges, model=model, output=tmp_path / "c.calib")
    report = quantize(
        model, calibration=tmp_path / "c.calib", ranges="minmax", costs="none", output=tmp_path / "int8.onnx"
    )
    assert report.values["nodes_int8"]


def test_mistakes_of_convert(tmp_path: Path) -> None:
    model = network().save(tmp_path / "net.onnx")
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    own, other = tmp_path / "net.calib", tmp_path / "c.json"
    other.write_bytes(write_json(truth()))
    with fails("c.txt' ends with none of .json, .cache, .calib", "-o NAME.json writes onnxruntime's calibration JSON"):
        convert(own, output=tmp_path / "c.txt")
    with fails("is a calibration file of fcdeploy's already", "-o NAME.json"):
        convert(own, output=tmp_path / "c.calib", model=model)
    with fails("does not say which model its ranges are of, and a .calib has to", "--model MODEL"):
        convert(other, output=tmp_path / "c.calib")
    with fails("c.json' is also an input"):
        convert(other, output=other, force=True)
    with fails("net.calib' exists", "--force"):
        convert(other, output=own, model=model)
    with fails("header 'x' is not TRT-VERSION-ALGORITHM", "--header TRT-8601-EntropyCalibration2"):
        convert(own, output=tmp_path / "c.cache", header="x")
    with fails("nothing.json' does not exist", "ranges are read from TensorRT's calibration cache, onnxruntime's"):
        convert(tmp_path / "nothing.json", output=tmp_path / "c.cache")
    changed = network(1).save(tmp_path / "other.onnx")
    with fails("was made from another model than"):
        convert(own, output=tmp_path / "c.cache", model=changed)
    own.write_bytes(own.read_bytes()[:200])
    with fails("is not a calibration file, or is damaged"):
        convert(own, output=tmp_path / "c.cache")


# --- the command


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    network().save(Path("net.onnx"))
    Path("c.json").write_bytes(write_json(truth()))
    command = ["calibration", "convert"]
    assert main([*command, "c.json", "-o", "c.calib", "--model", "net.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert next(iter(found)) == "schema"
    assert (found["schema"], found["from"]) == ("fcdeploy.calibration-convert/1", "onnxruntime's calibration JSON")
    assert len(found["tensors"]) == 7
    assert main([*command, "c.json", "-o", "c.cache", "--header", "TRT-1-A"]) == 0
    shown = capsys.readouterr()
    assert "7 of them widen, because the format is symmetric" in shown.out
    assert Path("c.cache").read_text().startswith("TRT-1-A\n")
    assert main([*command, "c.json", "-o", "c.calib"]) == 2
    assert "error: output 'c.calib' exists" in capsys.readouterr().err
    assert main(["calibration", "show", "c.calib"]) == 0
    assert "relu_out" in capsys.readouterr().out
    for tensor in ("relu_out", "x"):
        assert main(["calibration", "show", "c.calib", "--tensor", tensor]) == 0
        assert "nan" not in capsys.readouterr().out


def test_a_name_means_what_it_meant_in_the_model(tmp_path: Path) -> None:
    """Folding a batch normalization moves its result into the convolution: the range of the one, not of the other."""
    net = Net(3)
    x = net.conv(net.input("x", 3, 6, 6), 3, 8, name="conv", bias=False)
    scale = [net.constant(value) for value in (np.full(8, 50.0), np.zeros(8), np.zeros(8), np.ones(8))]
    x = net.op(
        "Add", net.op("BatchNormalization", x, *scale, name="norm"), net.conv("x", 3, 8, name="side"), name="add"
    )
    model = net.output(net.op("GlobalAveragePool", net.conv(x, 8, 8, name="last"), name="pool")).save(
        tmp_path / "n.onnx"
    )
    np.savez(tmp_path / "d.npz", **DATA)
    calibrate(model, data=tmp_path / "d.npz")
    names = ["conv_out", "norm_out"]
    proto = onnx.load(model)
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    conv, norm = Session(proto.SerializeToString(), threads=1, optimize=False).run(DATA, names)
    assert np.abs(norm).max() > 40 * np.abs(conv).max()
    own = read(tmp_path / "n.calib").tensors
    assert "conv_out" not in own
    assert own["norm_out"].histogram.high == pytest.approx(norm.max(), rel=1e-5)
    ends = {"conv_out": (float(conv.min()), float(conv.max())), "norm_out": (float(norm.min()), float(norm.max()))}
    (tmp_path / "c.json").write_bytes(write_json(ends))
    report = convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    assert [row["tensor"] for row in report.values["tensors"]] == ["norm_out"]
    assert report.values["unknown"] == []  # the model has the other, and preparing folds it away


def test_a_model_of_imported_ranges_validates(tmp_path: Path) -> None:
    """It was calibrated on samples that nobody knows, so there is nothing to compare the samples with."""
    model = network().save(tmp_path / "net.onnx")
    (tmp_path / "c.json").write_bytes(write_json(truth()))
    convert(tmp_path / "c.json", output=tmp_path / "c.calib", model=model)
    quantize(model, output=tmp_path / "q.onnx", calibration=tmp_path / "c.calib", ranges="minmax", costs="none")
    np.savez(tmp_path / "d.npz", **DATA)
    report = validate(tmp_path / "q.onnx", against=model, data=tmp_path / "d.npz")
    assert report.values["calibration_samples"] is None
