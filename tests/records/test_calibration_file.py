"""The calibration file: its format, the way there and back, and every way in which one can be broken."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fails
from safetensors.numpy import save

from fcdeploy.arithmetic.histogram import compute_moments, make_histogram
from fcdeploy.errors import FcdeployError
from fcdeploy.records.calibration import Calibration, Histogram, Moments, TensorRecord, read, to_bytes

HINT = "fcdeploy calibrate MODEL --data DATA writes one"


def calibration() -> Calibration:
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    w = np.linspace(-1, 1, 7, dtype=np.float32)
    tensors = (
        TensorRecord("x", "input", "", "", (None, 3, 5), make_histogram(x), compute_moments(x, 1)),
        TensorRecord("w", "weight", "conv1", "Conv", (7,), make_histogram(w)),
        TensorRecord(
            "y", "activation", "conv1", "Conv", (None, 3, None), make_histogram(x * 0), compute_moments(x * 0, 1)
        ),
        TensorRecord("größe\n", "activation", "relu", "Relu", (None,), make_histogram(np.float32([np.nan, np.inf]))),
    )
    seen = np.array([1, 5, 5, 2**64 - 1], np.uint64)
    kept = {"x": x[:2], "ids": np.array([[1], [2]], np.int64)}
    made_by = {"cpu": "portable", "onnxruntime": "1.31.1"}
    return Calibration("ab" * 32, {t.name: t for t in tensors}, seen, kept, made_by)


def same(a: Calibration, b: Calibration) -> bool:
    """Equal in every bit and in the order of tensors."""

    def exact(array: np.ndarray) -> Any:
        return array.dtype, array.shape, array.tobytes()

    def plain(c: Calibration) -> Any:
        rows = [
            (
                r.name, r.kind, r.layer, r.op, r.shape, r.histogram.low, r.histogram.high,
                exact(r.histogram.codes), exact(r.histogram.counts),
                r.moments and (r.moments.samples, exact(r.moments.limbs)),
            )
            for r in c.tensors.values()
        ]  # fmt: skip
        kept = {name: exact(value) for name, value in c.kept.items()}
        return c.model, list(c.tensors), rows, exact(c.seen), kept, c.made_by, c.data

    return bool(plain(a) == plain(b))


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_there_and_back(tmp_path) -> None:
    made = calibration()
    back = read(written(tmp_path / "a.calib", to_bytes(made)))
    assert same(back, made)
    assert to_bytes(back) == to_bytes(made)
    assert back.samples == 4


def test_an_empty_one_comes_back_too(tmp_path) -> None:
    made = Calibration("", {}, np.zeros(0, np.uint64), {}, {})
    assert same(read(written(tmp_path / "a.calib", to_bytes(made))), made)


def test_equal_calibrations_are_equal_bytes() -> None:
    made = calibration()
    turned = replace(
        made,
        kept=dict(reversed(made.kept.items())),
        made_by=dict(reversed(made.made_by.items())),
    )
    assert to_bytes(turned) == to_bytes(made)
    laid_out = replace(made, kept={"x": np.asfortranarray(made.kept["x"]), "ids": made.kept["ids"]})
    assert to_bytes(laid_out) == to_bytes(made)


def test_the_format_is_the_documented_one() -> None:
    """Read without the library: 8 bytes of length, a JSON header, arrays end to end."""
    made = calibration()
    data = to_bytes(made)
    (length,) = struct.unpack("<Q", data[:8])
    outer = json.loads(data[8 : 8 + length])
    inner = json.loads(outer.pop("__metadata__")["fcdeploy"])
    assert {key: (entry["dtype"], entry["shape"]) for key, entry in outer.items()} == {
        "codes": ("U16", [sum(len(t.histogram.codes) for t in made.tensors.values())]),
        "counts": ("I64", [sum(len(t.histogram.codes) for t in made.tensors.values())]),
        "ends": ("F32", [4, 2]),
        "moments": ("I64", [6, 2, 2]),
        "seen": ("U64", [4]),
        "kept.x": ("F32", [2, 3, 5]),
        "kept.ids": ("I64", [2, 1]),
    }
    assert list(inner) == ["schema", "model", "data", "made_by", "tensors"]
    assert inner["schema"] == "fcdeploy.calibration/1"
    assert inner["data"] == hashlib.sha256(struct.pack("<4Q", 1, 5, 5, 2**64 - 1)).hexdigest()
    assert inner["tensors"][0] == {
        "name": "x", "kind": "input", "layer": "", "op": "", "shape": [None, 3, 5],
        "bins": len(made.tensors["x"].histogram.codes), "channels": 3, "samples": 4,
    }  # fmt: skip
    assert (inner["tensors"][1]["channels"], inner["tensors"][1]["samples"]) == (0, 0)
    start, end = outer["ends"]["data_offsets"]
    ends = struct.unpack("<8f", data[8 + length + start : 8 + length + end])
    assert ends[:2] == (made.tensors["x"].histogram.low, made.tensors["x"].histogram.high)
    assert ends[4:] == (0.0,) * 4
    start, _ = outer["codes"]["data_offsets"]
    (code,) = struct.unpack("<H", data[8 + length + start :][:2])
    smallest_positive = min(float(v) for v in np.random.default_rng(0).normal(size=60).astype(np.float32) if v > 0)
    assert code == struct.unpack("<I", struct.pack("<f", smallest_positive))[0] >> 16


def parts() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a good file, to be spoiled."""
    from safetensors.numpy import load

    data = to_bytes(calibration())
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["fcdeploy"]), load(data)


def spoiled(header: Any, arrays: dict[str, np.ndarray]) -> bytes:
    return save(arrays, metadata={"fcdeploy": json.dumps(header)})


def with_array(key: str, value: Any) -> bytes:
    header, arrays = parts()
    return spoiled(header, {**arrays, key: value})


def with_field(tensor: int, field: str, value: Any) -> bytes:
    header, arrays = parts()
    header["tensors"][tensor][field] = value
    return spoiled(header, arrays)


def with_header(key: str, value: Any) -> bytes:
    header, arrays = parts()
    return spoiled({**header, key: value}, arrays)


def without(key: str) -> bytes:
    header, arrays = parts()
    return spoiled({k: v for k, v in header.items() if k != key}, {k: v for k, v in arrays.items() if k != key})


def changed(key: str, index: Any, value: Any) -> bytes:
    header, arrays = parts()
    array = arrays[key].copy()
    array[index] = value
    return spoiled(header, {**arrays, key: array})


ARRAYS = parts()[1]
BINS = len(ARRAYS["codes"])
BROKEN = {
    "no codes": (without("codes"), "it has no 'codes'"),
    "no seen": (without("seen"), "it has no 'seen'"),
    "no model": (without("model"), "it has no 'model'"),
    "no tensors": (without("tensors"), "it has no 'tensors'"),
    "no data": (without("data"), "it has no 'data'"),
    "no made_by": (without("made_by"), "it has no 'made_by'"),
    "codes wide": (with_array("codes", ARRAYS["codes"].astype(np.int64)), "array 'codes' is int64"),
    "counts float": (with_array("counts", ARRAYS["counts"].astype(np.float64)), "'counts' is float64"),
    "counts flat": (with_array("counts", ARRAYS["counts"].reshape(1, -1)), f"(1, {BINS}), expected int64 (n)"),
    "ends double": (with_array("ends", ARRAYS["ends"].astype(np.float64)), "expected float32 (n, 2)"),
    "ends of three": (with_array("ends", np.zeros((4, 3), np.float32)), "array 'ends' is float32 (4, 3)"),
    "ends of fewer": (with_array("ends", ARRAYS["ends"][:3]), "it lists 4 tensors, but array 'ends' has 3"),
    "moments flat": (with_array("moments", ARRAYS["moments"].reshape(6, 4)), "expected int64 (n, 2, 2)"),
    "seen signed": (with_array("seen", ARRAYS["seen"].astype(np.int64)), "array 'seen' is int64"),
    "counts short": (with_array("counts", ARRAYS["counts"][:-1]), f"{BINS} bins, but array 'counts' has {BINS - 1}"),
    "codes short": (with_array("codes", ARRAYS["codes"][:-1]), f"{BINS} bins, but array 'codes' has {BINS - 1}"),
    "bins lie": (with_field(0, "bins", 3), "bins, but array 'codes' has"),
    "bins negative": (with_field(0, "bins", -1), "tensor 'x' has a size that is no count"),
    "bins text": (with_field(0, "bins", "9"), "tensor 'x' has a size that is no count"),
    "bins infinite": (with_field(0, "bins", float("inf")), "tensor 'x' has a size that is no count"),
    "channels lie": (with_field(1, "channels", 2), "tensors have 8 channels, but array 'moments' has 6"),
    "no samples": (with_field(0, "samples", 0), "the moments of tensor 'x' are none"),
    "kind": (with_field(1, "kind", "wait"), "tensor 'w' is a 'wait' of 'conv1'"),
    "name": (with_field(1, "name", 7), "tensor 7 is a 'weight'"),
    "name list": (with_field(1, "name", []), "tensor [] is a 'weight'"),
    "layer": (with_field(1, "layer", None), "of None"),
    "twice": (with_field(1, "name", "x"), "tensor 'x' is there twice"),
    "shape text": (with_field(1, "shape", "3"), "tensor 'w' has shape ('3',)"),
    "shape none": (with_field(1, "shape", None), "is damaged"),
    "shape negative": (with_field(1, "shape", [-1]), "tensor 'w' has shape (-1,)"),
    "tensors number": (with_header("tensors", 5), "its tensors are no list of objects"),
    "tensors names": (with_header("tensors", ["x"]), "its tensors are no list of objects"),
    "model number": (with_header("model", 5), "it does not say which model"),
    "made_by list": (with_header("made_by", []), "it does not say which model"),
    "hash": (with_header("data", "00"), "the hash of its samples does not fit"),
    "sample exchanged": (changed("seen", 0, 2), "the hash of its samples does not fit"),
    "seen unsorted": (with_array("seen", ARRAYS["seen"][::-1].copy()), "array 'seen' is not sorted"),
    "codes unsorted": (changed("codes", 0, ARRAYS["codes"][1] + 1), "the bins of tensor 'x' are not ascending"),
    "codes twice": (changed("codes", 0, ARRAYS["codes"][1]), "the bins of tensor 'x' are not ascending"),
    "count negative": (changed("counts", 0, -1), "tensor 'x' has a bin whose count is no count"),
    "count zero": (changed("counts", 0, 0), "tensor 'x' has a bin whose count is no count"),
    "counts overflow": (changed("counts", slice(0, 2), 2**62), "tensor 'x' has a bin whose count is no count"),
    "ends nan": (changed("ends", (0, 0), np.nan), "tensor 'x' has ends nan"),
    "ends infinite": (changed("ends", (0, 1), np.inf), "and inf"),
    "ends turned": (changed("ends", (0, 1), -100.0), "and -100"),
    "fraction": (changed("moments", (0, 0, 1), 2**52), "the moments of tensor 'x' are none"),
    "square": (changed("moments", (0, 1, 0), -1), "the moments of tensor 'x' are none"),
    "kept uneven": (with_array("kept.ids", np.zeros((3, 1), np.int64)), "kept samples differ in number"),
    "kept scalar": (with_array("kept.ids", np.zeros((), np.int64)), "kept samples differ in number"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_file_that_contradicts_itself(name, tmp_path) -> None:
    data, message = BROKEN[name]
    with fails(message, HINT):
        read(written(tmp_path / "a.calib", data))


@pytest.mark.parametrize("schema", ["fcdeploy.calibration/2", None, 3, "x" * 1000])
def test_another_version_of_the_format(schema, tmp_path) -> None:
    path = written(tmp_path / "a.calib", with_header("schema", schema))
    with fails(f"{str(path)!r} has format {str(schema)[:40]!r}, expected 'fcdeploy.calibration/1'", HINT):
        read(path)


def test_a_stream_that_was_kept_step_by_step(tmp_path) -> None:
    """As files of before stretches were: their axis of steps would be read as one of stretches."""
    path = written(tmp_path / "a.calib", with_header("states", {"x": "y"}))
    with fails("has format 'fcdeploy.calibration/1', expected 'fcdeploy.calibration/2'", "calibrate again"):
        read(path)


@pytest.mark.parametrize(
    "shapes", [((2,), (2,)), ((2, 3), (2, 4)), ((2, 0), (2, 0)), ((0, 3), (0, 3))], ids=["steps", "two", "none", "0"]
)
def test_stretches_that_are_none(shapes, tmp_path) -> None:
    header, arrays = parts()
    header |= {"schema": "fcdeploy.calibration/2", "states": {"x": "y"}}
    arrays |= {"kept.x": np.zeros(shapes[0], np.float32), "kept.ids": np.zeros(shapes[1], np.int64)}
    with fails("its kept samples differ in number", HINT):
        read(written(tmp_path / "a.calib", spoiled(header, arrays)))


def test_a_group_of_no_samples(tmp_path) -> None:
    header, arrays = parts()
    arrays |= {"kept.x": np.zeros((0, 3, 5), np.float32), "kept.ids": np.zeros((0, 1), np.int64)}
    with fails("its kept samples differ in number", HINT):
        read(written(tmp_path / "a.calib", spoiled(header, arrays)))


@pytest.mark.parametrize("header", [[], 3, None, "text"])
def test_a_header_that_is_no_object(header, tmp_path) -> None:
    with fails(f"has format {str(header)!r}, expected", HINT):
        read(written(tmp_path / "a.calib", spoiled(header, parts()[1])))


def nested_json() -> bytes:
    return save({}, metadata={"fcdeploy": "[" * 200_000})


def other_types() -> bytes:
    """A valid file of a type that NumPy does not have."""
    header = json.dumps({"x": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0"


OTHERS = {
    "empty": b"",
    "text": b"not a calibration at all",
    "zip": b"PK\x03\x04" + bytes(100),
    "length beyond the file": struct.pack("<Q", 2**60) + b"{}",
    "length zero": bytes(8),
    "header no JSON": struct.pack("<Q", 4) + b"{{{{",
    "header no text": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "metadata no JSON": save({}, metadata={"fcdeploy": "{"}),
    "metadata without end": nested_json(),
    "other types": other_types(),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_a_file_that_is_something_else(name, tmp_path) -> None:
    path = written(tmp_path / "a.calib", OTHERS[name])
    with fails(f"{str(path)!r} is not a calibration file, or is damaged", HINT):
        read(path)


def test_a_safetensors_file_of_weights(tmp_path) -> None:
    path = written(tmp_path / "weights.safetensors", save({"w": np.zeros(3, np.float32)}))
    with fails("has format 'None', expected 'fcdeploy.calibration/1'", HINT):
        read(path)


def test_a_file_that_is_not_there(tmp_path) -> None:
    for path in (tmp_path / "a.calib", tmp_path):
        with fails(f"calibration {str(path)!r} does not exist", HINT):
            read(path)


class Trap:
    """Unpickling one leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_nothing_is_unpickled(tmp_path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    pickle.loads(trap)
    assert mark.exists()
    mark.unlink()
    as_text, as_array = trap.decode("latin-1"), np.frombuffer(trap, np.uint8)
    for data in (trap, with_header("made_by", as_text), with_array("kept.x", as_array)):
        with pytest.raises(FcdeployError):
            read(written(tmp_path / "a.calib", data))
    assert not mark.exists()
    with pytest.raises(Exception, match=r"object"):  # is not even written
        to_bytes(replace(calibration(), kept={"x": np.array([object()])}))


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled or cut off; half of the time in the headers."""
    (length,) = struct.unpack("<Q", data[:8])
    end = 8 + length if chance.random() < 0.5 else len(data)
    at = chance.randrange(end)
    match chance.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[at + chance.randrange(1, 9) :]
        case 2:
            return data[:at] + data[at : at + chance.randrange(1, 9)] + data[at:]
        case 3:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    digits = [i for i in range(8, 8 + length) if chr(data[i]).isdigit()]  # the header stays valid, but lies
    at = chance.choice(digits)
    return data[:at] + str(chance.randrange(10)).encode() + data[at + 1 :]


def outcome(path: Path) -> Calibration | FcdeployError:
    try:
        return read(path)
    except FcdeployError as error:
        return error


def test_mutated_files_are_read_whole_or_refused(tmp_path) -> None:
    good, chance = to_bytes(calibration()), random.Random(0)
    path, refused = tmp_path / "a.calib", 0
    for _ in range(1500):
        data = good
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            if len(data) > 20 and struct.unpack("<Q", data[:8])[0] + 8 < len(data):
                data = mutated(data, chance)
        back = outcome(written(path, data))
        if isinstance(back, FcdeployError):
            refused += 1
            assert "\n" not in back.message
            assert back.hint == HINT
        else:  # a flipped bit of a count is still a count: what was read is at least whole
            assert same(read(written(path, to_bytes(back))), back)
    assert refused > 700


def test_records_of_wrong_numbers_are_not_hidden() -> None:
    """Totals are Python integers, and broken elements are counted by their exponent."""
    h = Histogram(np.array([0x3F80, 0x7F80, 0xFF81], np.uint16), np.array([2**61, 3, 4], np.int64), 1.0, 1.0)
    assert (h.total, h.nonfinite) == (2**61 + 7, 7)
    m = Moments(np.array([[[6, 1 << 51], [9, 0]]], np.int64), 2)
    assert (m.mean().tolist(), m.mean_square().tolist()) == ([3.25], [4.5])
