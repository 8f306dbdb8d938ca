"""MNIST's and CIFAR-10's own files against bytes packed by hand, and readers written for onnxruntime."""

from __future__ import annotations

import gzip
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import Sample

RNG = np.random.default_rng(0)


def spec(*shape: int | None, dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec("x", np.dtype(dtype), shape)


GRAY, COLOUR = spec(None, 1, 5, 4), spec(None, 3, 32, 32)


def samples(data: Any, wanted: TensorSpec, **options: Any) -> list[Sample]:
    how = DataFormat(options.pop("preprocess", None))
    return list(open_source(data, [wanted], format=how, **options))


# --- MNIST


def mnist(folder: Path, count: int = 6, *, stem: str = "train-", dot: str = "-", packed: bool = False) -> Any:
    """Files as MNIST's page describes them; the pictures (count, 5, 4) and labels that are in them."""
    folder.mkdir(exist_ok=True)
    pixels = RNG.integers(0, 256, (count, 5, 4), dtype=np.uint8)
    labels = RNG.integers(0, 10, count, dtype=np.uint8)
    files = {
        f"{stem}images{dot}idx3-ubyte": struct.pack(">IIII", 0x803, count, 5, 4) + pixels.tobytes(),
        f"{stem}labels{dot}idx1-ubyte": struct.pack(">II", 0x801, count) + labels.tobytes(),
    }
    for name, data in files.items():
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return pixels, labels


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_mnist(tmp_path: Path, packed: bool, dot: str) -> None:
    pixels, labels = mnist(tmp_path, packed=packed, dot=dot)
    file = tmp_path / f"train-images{dot}idx3-ubyte{'.gz' * packed}"
    for data in (file, tmp_path):
        source = open_source(data, [GRAY])
        assert (source.name, source.count, source.labelled) == (file.name, 6, True)
        for _ in range(2):
            for sample, picture, label in zip(source, pixels, labels, strict=True):
                np.testing.assert_array_equal(sample.inputs["x"], (picture / np.float32(255))[None])
                assert sample.labels["label"] == label
                assert sample.labels["label"].dtype == np.int64
        assert sample.name == f"{file.name}, sample 5"
    picked = [s.name for i in range(4) for s in open_source(file, [GRAY]).shard(i, 4)]
    assert sorted(picked) == [f"{file.name}, sample {i}" for i in range(6)]


def test_a_gzipped_name_is_no_proof(tmp_path: Path) -> None:
    """What a file is, its first bytes say: unpacked under the old name, and packed under a plain one."""
    pixels, _ = mnist(tmp_path)
    plain = tmp_path / "train-images-idx3-ubyte"
    (tmp_path / "a.gz").write_bytes(plain.read_bytes())
    (tmp_path / "b").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("a.gz", "b"):
        found = samples(tmp_path / name, GRAY)
        np.testing.assert_allclose(np.stack([s.inputs["x"][0] for s in found]), pixels / 255, atol=1e-7)
        assert not found[0].labels


@pytest.mark.parametrize(
    ("shape", "dtype", "wanted"),
    [
        ((None, 20), np.float32, lambda p: p.reshape(20) / 255),
        ((None, None), np.float32, lambda p: p.reshape(20) / 255),
        ((None, 5, 4), np.float32, lambda p: p / 255),
        ((None, 5, 4, 1), np.uint8, lambda p: p[:, :, None]),
        ((None, 1, None, None), np.float32, lambda p: p[None] / 255),
        ((None, None, None, None), np.float32, lambda p: p[None] / 255),
        ((), np.float32, lambda p: p[None] / 255),
        ((None, 3, 5, 4), np.float32, lambda p: np.stack([p] * 3) / 255),
        (
            (None, 1, 8, 8),
            np.float32,
            lambda p: np.asarray(Image.fromarray(p).resize((8, 8), Image.Resampling.BILINEAR))[None] / 255,
        ),
    ],
)
def test_mnist_follows_the_input(tmp_path: Path, shape: Any, dtype: Any, wanted: Any) -> None:
    pixels, _ = mnist(tmp_path)
    for sample, picture in zip(samples(tmp_path, spec(*shape, dtype=dtype)), pixels, strict=True):
        assert sample.inputs["x"].dtype == dtype
        np.testing.assert_allclose(sample.inputs["x"], wanted(picture), atol=1e-6)


def test_mnist_preprocessed(tmp_path: Path) -> None:
    pixels, _ = mnist(tmp_path / "m")
    how = tmp_path / "p.toml"
    how.write_text("scale = 0.5\nmean = 0.1307\nstd = 0.3081\n")
    for wanted in (GRAY, spec(None, 20)):
        first = samples(tmp_path / "m", wanted, preprocess=how)[0].inputs["x"]
        np.testing.assert_allclose(first.reshape(5, 4), (pixels[0] * 0.5 - 0.1307) / 0.3081, rtol=1e-5)
    how.write_text('size = 3\nresize = "crop"\nshorter_side = 2\n')
    with fails("input 'x': a picture is 2 x 2 after scaling, too small to cut 3 x 3 out"):
        samples(tmp_path / "m", spec(None, 1, None, None), preprocess=how)


def test_mnist_needs_no_pillow_at_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert len(samples(tmp_path, GRAY)) == 6
    with fails("reading images needs Pillow"):
        samples(tmp_path, spec(None, 1, 8, 8))


def test_the_training_pictures_of_a_folder(tmp_path: Path) -> None:
    mnist(tmp_path, 3, stem="t10k-")
    assert len(samples(tmp_path, GRAY)) == 3  # the only ones
    mnist(tmp_path, 6)
    assert len(samples(tmp_path, GRAY)) == 6
    assert len(samples(tmp_path / "t10k-images-idx3-ubyte", GRAY)) == 3
    mnist(tmp_path, 6, stem="emnist-train-")
    with fails("holds 3 files of pictures: 'emnist-train-images-idx3-ubyte'", "--data"):
        samples(tmp_path, GRAY)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-3], "declares 6 x 5 x 4 bytes after its header, 136 in all, but has 133"),
        (lambda d: d + b"x", "declares 6 x 5 x 4 bytes after its header, 136 in all, but has 137"),
        (lambda d: d[:4] + b"\xff" * 12 + d[16:], "declares 4294967295 x 4294967295 x 4294967295 bytes after"),
        (lambda d: d[:10], "'train-images-idx3-ubyte' ends within its header"),
        (lambda d: b"\0\0\x0d\x03" + d[4:], "begins with 00 00 0d 03"),
        (lambda d: b"\0\0\x08\x01" + d[4:], "begins with 00 00 08 01"),
    ],
)
def test_mnist_damaged(tmp_path: Path, packed: bool, change: Any, message: str) -> None:
    mnist(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    data = change(file.read_bytes())
    file.write_bytes(gzip.compress(data) if packed else data)
    if packed and "136" in message:  # how long it is only reading tells; what is there too much is never read
        message = "'train-images-idx3-ubyte' ends before the samples it declares" if len(data) < 136 else ""
    if message:
        with fails(message):
            samples(file, GRAY)
    else:
        assert len(samples(file, GRAY)) == 6


def test_mnist_whose_files_disagree(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 5) + bytes(5))
    with fails("'train-images-idx3-ubyte' has 6 samples and 'train-labels-idx1-ubyte' has 5"):
        samples(tmp_path, GRAY)
    with fails(
        "begins with 00 00 08 01, expected 00 00 08 03: pictures", "give the file of pictures, train-images-idx3-ubyte"
    ):
        samples(tmp_path / "train-labels-idx1-ubyte", GRAY)
    with fails("input 'x': sample 0 has shape (20,), the model wants (21,)"):
        mnist(tmp_path)
        samples(tmp_path, spec(None, 21))
    with fails("pictures feed one input, the model has 2"):
        open_source(tmp_path, [GRAY, TensorSpec("y", np.dtype("f4"), (None, 2))])


@given(st.binary(max_size=40), st.integers(0, 2), st.booleans())
def test_no_bytes_raise_anything_else(tmp_path_factory: Any, tail: bytes, magic: int, packed: bool) -> None:
    file = tmp_path_factory.mktemp("m") / "train-images-idx3-ubyte"
    data = (b"\0\0\x08\x03", b"\0\0\x08\x03\0\0\0\1", b"")[magic] + tail
    file.write_bytes(gzip.compress(data)[: 18 + len(tail)] if packed else data)
    with suppress(FcdeployError):
        assert samples(file, spec())


# --- CIFAR-10


def cifar(path: Path, count: int = 4, first_label: int = 0) -> tuple[np.ndarray, list[int]]:
    pixels = RNG.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = [(first_label + i) % 10 for i in range(count)]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        b"".join(struct.pack("B", label) + picture.tobytes() for label, picture in zip(labels, pixels, strict=True))
    )
    return pixels, labels


def test_cifar_file(tmp_path: Path) -> None:
    pixels, labels = cifar(tmp_path / "some.bin")
    source = open_source(tmp_path / "some.bin", [COLOUR])
    assert (source.name, source.count, source.labelled) == ("some.bin", 4, True)
    for sample, picture, label in zip(source, pixels, labels, strict=True):
        np.testing.assert_array_equal(sample.inputs["x"], picture / np.float32(255))
        assert sample.labels["label"] == label
    (tmp_path / "p.toml").write_text("scale = 1\nmean = [1, 2, 3]\nstd = [4, 5, 6]\n")
    mean, std = (np.array(v).reshape(3, 1, 1) for v in ([1, 2, 3], [4, 5, 6]))
    found = samples(tmp_path / "some.bin", COLOUR, preprocess=tmp_path / "p.toml")[1].inputs["x"]
    np.testing.assert_allclose(found, (pixels[1] - mean) / std, rtol=1e-6)


def test_cifar_follows_the_input(tmp_path: Path) -> None:
    pixels, _ = cifar(tmp_path / "some.bin")
    for wanted, expected in (
        (spec(None, 32, 32, 3), pixels[0].transpose(1, 2, 0) / 255),
        (spec(None, 3072), pixels[0].reshape(-1) / 255),
        (spec(None, 3, 32, 32, dtype=np.uint8), pixels[0]),
    ):
        np.testing.assert_allclose(samples(tmp_path / "some.bin", wanted)[0].inputs["x"], expected, atol=1e-6)


def test_cifar_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    cifar(folder / "test_batch.bin", 2)
    assert len(samples(folder, COLOUR)) == 2
    first, _ = cifar(folder / "data_batch_1.bin", 3, 2)
    second, _ = cifar(folder / "data_batch_2.bin", 2, 7)
    (folder / "batches.meta.txt").write_text("airplane\n")
    source = open_source(folder, [COLOUR])
    assert source.count == 5
    found = list(source)
    np.testing.assert_allclose(
        np.stack([s.inputs["x"] for s in found]), np.concatenate([first, second]) / 255, atol=1e-6
    )
    assert [int(s.labels["label"]) for s in found] == [2, 3, 4, 7, 8]
    assert found[3].name == "cifar-10-batches-bin, sample 3 (data_batch_2.bin)"
    parts = [s for i in range(3) for s in source.shard(i, 3)]
    assert sorted(s.name for s in parts) == [s.name for s in found]
    assert len(samples(folder / "test_batch.bin", COLOUR)) == 2


def test_cifar_damaged(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1.bin"
    cifar(file, 3)
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with fails("'data_batch_1.bin' has 9218 bytes, expected whole records of 3073"):
        samples(file, COLOUR)
    file.write_bytes(data[:3073] + b"\x0a" + data[3074:])
    with fails("data_batch_1.bin: sample 1 has label 10, expected 0 to 9"):
        samples(file, COLOUR)
    file.write_bytes(data)
    source = open_source(file, [COLOUR])
    file.write_bytes(data[:4000])
    with fails("data_batch_1.bin, sample 1, ends before the samples it declares"):
        list(source)
    (tmp_path / "other.bin").write_bytes(b"\x0b" + data[1:])  # whole records, but the first is of no class
    with fails("other.bin' is no data of a kind that can be read"):
        samples(tmp_path / "other.bin", COLOUR)


# --- readers written for onnxruntime


READER = """
import numpy as np
from onnxruntime.quantization import CalibrationDataReader

SIZES = (4, 1, 3)

class Reader(CalibrationDataReader):
    def __init__(self):
        self.rewind()

    def rewind(self):
        at = np.cumsum([0, *SIZES])
        self.batches = iter([{"x": np.arange(a, b).reshape(-1, 1)} for a, b in zip(at, at[1:])])

    def get_next(self):
        return next(self.batches, None)

ONE = Reader()

class Once:
    get_next = Reader().get_next

def new():
    return Reader()

def same():
    return ONE
"""


@pytest.mark.parametrize("name", ["Reader", "new", "same"])
def test_a_reader_is_split_into_samples(tmp_path: Path, name: str) -> None:
    (tmp_path / "r.py").write_text(READER)
    source = open_source(f"{tmp_path / 'r.py'}:{name}", [spec(None, 1)])
    assert (source.count, source.labelled) == (None, False)
    for _ in range(2):
        found = list(source)
        assert [float(s.inputs["x"][0]) for s in found] == list(range(8))
    assert found[4].name == f"r.py:{name}, sample 4 (row 0 of batch 1)"
    assert [float(s.inputs["x"][0]) for s in source.shard(1, 3)] == [1, 4, 7]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_next(self): return np.zeros(3)", "get_next() gives a ndarray, expected a dict of input name"),
        ("def get_next(self): return {}", "get_next() gives a dict, expected a dict of input name"),
        ("def get_next(self): return None", "r.py:R holds no samples"),
        ("def get_next(self): 1 / 0", "r.py:R fails: ZeroDivisionError"),
        ("def get_next(self): return {'x': 3}", "the arrays of batch 0 differ along their leading axis: 'x' ()"),
        (
            "def get_next(self): return {'x': np.zeros((2, 1)), 'y': np.zeros(3)}",
            "the arrays of batch 0 differ along their leading axis: 'x' (2, 1), 'y' (3,)",
        ),
        ("def get_next(self): return {'x': np.zeros((1, 2))}", "input 'x': sample 0 (row 0 of batch 0) has shape (2,)"),
        ("def __init__(self, path): pass\n    def get_next(self): pass", "r.py:R fails: TypeError: "),
    ],
)
def test_reader_mistakes(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "r.py").write_text(f"import numpy as np\nclass R:\n    {body}\n")
    with fails(message):
        samples(f"{tmp_path / 'r.py'}:R", spec(None, 1))


def test_a_reader_that_cannot_be_rewound(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(READER.replace("def rewind", "def wind").replace("self.rewind", "self.wind"))
    with fails("r.py:same gives the same reader twice, which is used up and has no rewind()", "make a new reader"):
        samples(f"{tmp_path / 'r.py'}:same", spec(None, 1))
