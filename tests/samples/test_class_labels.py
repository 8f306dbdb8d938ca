"""Labels that are words are the numbers of classes, in every kind of data; against the same samples labelled by numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fails
from networks import Net
from sample_files import Table
from small_models import CLASSES, outputs, samples

import fcdeploy
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.records import calibration as calibrations
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples.class_labels import MOST_CLASSES, collect_classes
from fcdeploy.samples.kinds import open_source

SPEC = TensorSpec("x", np.dtype(np.float32), (None, 4))
WORDS = np.array(["owl", "cat", "a long name", "cat", "bee", "owl"])
SORTED = ("a long name", "bee", "cat", "owl")


def write(kind: str, folder: Path, words: Any) -> Path | str:
    """The samples with these labels, as data of a kind."""
    x = np.arange(4 * len(words), dtype=np.float32).reshape(len(words), 4)
    if kind == "npz":
        np.savez(folder / "d.npz", x=x, label=words)
    elif kind == "npy":
        (folder / "d").mkdir()
        np.save(folder / "d" / "x.npy", x)
        np.save(folder / "d" / "label.npy", words)
        return folder / "d"
    elif kind == "a file each":
        (folder / "d").mkdir()
        for at, row in enumerate(x):
            np.save(folder / "d" / f"{at}.npy", row)
        np.save(folder / "d" / "label.npy", words)
        return folder / "d"
    elif kind == "csv":
        rows = [[*map(str, row), str(word)] for row, word in zip(x.tolist(), words, strict=True)]
        (folder / "d.csv").write_text("\n".join(map(",".join, [[*"abcd", "kind"], *rows])))
        return folder / "d.csv"
    elif kind == "function":
        (folder / "d.py").write_text(
            "import numpy as np\n"
            f"WORDS = {list(map(str, words))}\n"
            "def rows():\n"
            "    for at, word in enumerate(WORDS):\n"
            "        yield {'x': np.arange(4 * at, 4 * at + 4, dtype=np.float32), 'label': word}\n"
        )
        return f"{folder / 'd.py'}:rows"
    return folder / "d.npz"


KINDS = ("npz", "npy", "a file each", "csv", "function")


def read(kind: str, folder: Path, words: Any, classes: tuple[str, ...] = ()) -> tuple[list[int], tuple[str, ...]]:
    """The numbers that labels become, and the classes that are known from then on."""
    format = DataFormat(classes=classes, label="kind" if kind == "csv" else "label")
    source = open_source(write(kind, folder, words), [SPEC], format=format)
    found = list(source)
    assert [sample.inputs["x"][0] for sample in found] == [4.0 * at for at in range(len(words))]
    assert all(sample.labels["label"].dtype == np.int64 for sample in found)
    return [int(sample.labels["label"]) for sample in found], source.format.classes


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_classes_in_their_order(kind: str, tmp_path: Path) -> None:
    assert read(kind, tmp_path, WORDS) == ([SORTED.index(word) for word in WORDS], SORTED)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_looked_up_among_known_classes(kind: str, tmp_path: Path) -> None:
    known = ("owl", "yak", "a long name", "cat", "bee")
    assert read(kind, tmp_path, WORDS, known) == ([known.index(word) for word in WORDS], known)


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_that_is_no_class_is_named(kind: str, tmp_path: Path) -> None:
    with fails("is 'a long name', expected one of the 3 classes: 'bee', 'cat', 'owl'"):
        read(kind, tmp_path, WORDS, ("bee", "cat", "owl"))
    other = tmp_path / "other"
    other.mkdir()
    with fails("is 'cta', expected one of the 3 classes", "cat"):
        read(kind, other, np.array(["owl", "cta"]), ("bee", "cat", "owl"))


@pytest.mark.parametrize("kind", KINDS)
def test_numerals_are_numbers_unless_classes_are_called_so(kind: str, tmp_path: Path) -> None:
    assert read(kind, tmp_path, np.array(["3", "0", "12"])) == ([3, 0, 12], ())
    named = tmp_path / "named"
    named.mkdir()
    assert read(kind, named, np.array(["12", "3"]), ("12", "3")) == ([0, 1], ("12", "3"))


def test_several_words_a_sample(tmp_path: Path) -> None:
    words = np.array([["in", "out"], ["out", "up"]])
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 4), np.float32), label=words)
    found = [sample.labels["label"].tolist() for sample in open_source(tmp_path / "d.npz", [SPEC])]
    assert found == [[0, 1], [1, 2]]


def test_texts_that_are_no_classes() -> None:
    with fails(f"d has more than {MOST_CLASSES} different words for labels"):
        collect_classes(map("w{}".format, range(MOST_CLASSES + 1)), "d")
    assert collect_classes([], "d") == ()


def test_the_whole_line_by_names(nets: dict[str, Path], save_npz: Callable[..., Path], tmp_path: Path) -> None:
    """Classes that are recorded at calibration name the labels of evaluation; the figures are those of numbers."""
    names = [f"{'zyxwvutsrqponml'[at]}{at}" for at in range(CLASSES)]  # backwards, were they sorted
    (tmp_path / "names.txt").write_text("\n".join(names))
    x = samples(60, 3, 8, 8, seed=3)
    label = np.where(np.arange(60) % 3, outputs(nets["residual"], x).argmax(1), np.arange(60) % CLASSES)
    data = save_npz(x=samples(24, 3, 8, 8, seed=2))
    calibrate(nets["residual"], data=data, classes=tmp_path / "names.txt", output=tmp_path / "c.calib")
    assert calibrations.read(tmp_path / "c.calib").format.classes == tuple(names)
    options = {"costs": "none", "floor": "none", "effort": "fast"}
    quantize(nets["residual"], calibration=tmp_path / "c.calib", output=tmp_path / "q.onnx", **options)  # type: ignore[arg-type]
    np.savez(tmp_path / "numbers.npz", x=x, label=label)
    np.savez(tmp_path / "words.npz", x=x, label=np.array(names)[label])
    by_number, by_word = (
        validate(tmp_path / "q.onnx", against=nets["residual"], data=tmp_path / f"{kind}.npz").values
        for kind in ("numbers", "words")
    )
    assert by_number["metric"] == by_word["metric"] == "top1"
    assert (by_word["float"], by_word["int8"]) == (by_number["float"], by_number["int8"])
    assert by_number["float"] > 0.6
    assert by_word["confusion"] == by_number["confusion"]


def test_arrays_and_frames_in_memory(tmp_path: Path) -> None:
    net = Net(7)
    net.output(net.dense(net.op("Relu", net.dense(net.input("x", 4), 4, 16)), 16, 4)).save(tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    x, evaluated = (random.normal(size=(40, 4)).astype(np.float32) for _ in range(2))
    fcdeploy.quantize(tmp_path / "m.onnx", data=x, output=tmp_path / "q.onnx", costs="none", floor="none")
    label = random.integers(0, 4, 40)
    words = np.array(SORTED)[label]
    shapes = [
        {"x": evaluated, "label": label},
        {"x": evaluated, "label": words},
        {"x": evaluated, "label": words.astype(object)},
        [{"x": row, "label": str(word)} for row, word in zip(evaluated, words, strict=True)],
        Table([*"abcd", "label"], np.column_stack([evaluated.astype(object), words.astype(object)])),
    ]
    figures = {
        fcdeploy.validate(tmp_path / "q.onnx", against=tmp_path / "m.onnx", data=data).values["float"]
        for data in shapes
    }
    assert len(figures) == 1
