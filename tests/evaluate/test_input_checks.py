"""Mistakes that raise no error: ten variants of each are warned of, and none of ten right readings is.

The pictures are pieces of the two photos that scikit-learn carries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from colour_models import MEAN as MEANS
from colour_models import STD as DEVIATIONS
from colour_models import make_colour_classifier
from PIL import Image
from sklearn.datasets import load_sample_images

from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.evaluate.input_checks import take_few, warn_of_inputs
from fcdeploy.evaluate.misread_inputs import warn_of_readings
from fcdeploy.graph.model import read_model
from fcdeploy.records.data_format import DataFormat, InputStatistics
from fcdeploy.records.report import format_next
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import Source

MEAN, STD = MEANS[:, None, None], DEVIATIONS[:, None, None]
SPEC = TensorSpec("x", np.dtype(np.float32), (None, 3, 24, 24))
VARIANTS = range(10)


@cache
def photos() -> list[np.ndarray]:
    return list(load_sample_images().images)


def pieces(seed: int, count: int = 40, size: int = 24) -> np.ndarray:
    """Bytes, (count, 3, size, size): pieces of both photos, each shrunk from a random size."""
    random = np.random.default_rng(seed)
    found = []
    for at in range(count):
        photo = photos()[at % 2]
        side = int(random.integers(size, 200))
        top, left = (int(random.integers(0, length - side)) for length in photo.shape[:2])
        piece = Image.fromarray(photo[top : top + side, left : left + side]).resize((size, size))
        found.append(np.asarray(piece).transpose(2, 0, 1))
    return np.stack(found)


def unit(seed: int) -> np.ndarray:
    return pieces(seed).astype(np.float32) / 255


def full(seed: int) -> np.ndarray:
    """As `unit`, with black and white in it."""
    x = unit(seed)
    x[0, :, 0, :2] = 0, 1
    return x


def normal(seed: int) -> np.ndarray:
    return (unit(seed) - MEAN) / STD


def warm(seed: int) -> np.ndarray:
    """As `unit`, in the tint of ImageNet's means: both photos are neutral on average, and neutral pictures are the same
    reversed."""
    return unit(seed) * (MEAN / MEAN[0])


def statistics(x: np.ndarray) -> InputStatistics:
    return InputStatistics("x", float(x.min()), float(x.max()), tuple(x.mean((0, 2, 3)).tolist()))


def warnings_of(folder: Path, x: np.ndarray, before: np.ndarray | None) -> list[str]:
    np.savez(folder / "data.npz", x=np.ascontiguousarray(x, np.float32))
    recorded = () if before is None else (statistics(before),)
    return inputs_of(open_source(folder / "data.npz", [SPEC]), recorded)


def inputs_of(source: Source, recorded: Sequence[InputStatistics] = ()) -> list[str]:
    return warn_of_inputs(source, take_few(source), recorded)


def readings_of(model: Path, source: Source) -> list[str]:
    return warn_of_readings(model, read_model(model), source, take_few(source))


TRAPS: dict[str, tuple[Callable[[int], np.ndarray], Callable[[int], np.ndarray] | None, str]] = {
    "bytes for 0 to 1": (lambda seed: pieces(seed), unit, "pixels as they are stored (uint8)"),
    "bytes for normalized": (lambda seed: pieces(seed), normal, "pixels as they are stored (uint8)"),
    "0 to 1 for bytes": (unit, pieces, "about 255 times as small"),
    "not divided": (lambda seed: unit(seed) * 254.9, unit, "about 255 times as large"),
    "divided twice": (lambda seed: unit(seed) / 255, unit, "about 255 times as small"),
    "not normalized": (unit, normal, "pixel / 255 without the mean and standard deviation"),
    "normalized": (normal, unit, "a mean and a standard deviation were taken off"),
    "bytes for bytes less a mean": (pieces, lambda seed: pieces(seed) - 120.0, "which were less a mean before"),
    "divided twice, then normalized": (
        lambda seed: (unit(seed) / 255 - MEAN) / STD,
        normal,
        "times as narrow: pixels were divided by 255 twice",
    ),
    "normalized for bytes": (normal, pieces, "times as narrow: pixels were scaled or normalized"),
    "from -1 to 1 for normalized": (
        lambda seed: full(seed) * 2 - 1,
        lambda seed: (full(seed) - MEAN) / STD,
        "numbers from -1 to 1, and were normalized with ImageNet's mean",
    ),
    "from -1 to 1 for another mean and deviation": (
        lambda seed: full(seed) * 2 - 1,
        lambda seed: (full(seed) - 0.45) / 0.25,
        "numbers from -1 to 1, and were others before",
    ),
    "resized bytes, and nothing known": (lambda seed: full(seed) * 254.9, None, "numbers from 0 to 254.9, as pixels"),
    "bytes, and nothing known": (lambda seed: pieces(seed), None, "whole numbers from 0 to 255"),
    "reshaped": (
        lambda seed: normal(seed).transpose(0, 2, 3, 1).reshape(-1, 3, 24, 24),
        normal,
        "pixels of three channels each (NHWC)",
    ),
    "equal": (lambda seed: np.repeat(normal(seed)[:1], 40, axis=0), normal, "40 samples of data.npz are all equal"),
    "reversed": (lambda seed: warm(seed)[:, ::-1], warm, "reversed (BGR for RGB)"),
    "reversed, then normalized": (
        lambda seed: (warm(seed)[:, ::-1] - MEAN) / STD,
        lambda seed: (warm(seed) - MEAN) / STD,
        "reversed (BGR for RGB)",
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_ten_variants_of_each_mistake_are_warned_of(name: str, tmp_path: Path) -> None:
    make, before, cause = TRAPS[name]
    for seed in VARIANTS:
        found = warnings_of(tmp_path, make(seed), None if before is None else before(100 + seed))
        assert any(cause in warning for warning in found), (seed, found)


def test_other_numbers_are_not_called_reversed_channels(tmp_path: Path) -> None:
    for seed in VARIANTS:
        for make in (
            lambda seed: full(seed) * 2 - 1,
            lambda seed: (unit(seed) / 255 - MEAN) / STD,
            TRAPS["reshaped"][0],
        ):
            found = warnings_of(tmp_path, make(seed), (full(100 + seed) - MEAN) / STD)
            assert found and not any("BGR" in warning for warning in found)


def test_bytes_in_grey_are_pixels_too_and_an_input_of_bytes_wants_them(tmp_path: Path) -> None:
    grey = pieces(0)[:, :1]
    np.savez(tmp_path / "grey.npz", x=grey.astype(np.float32))
    (warning,) = inputs_of(
        open_source(tmp_path / "grey.npz", [TensorSpec("x", np.dtype(np.float32), (None, 1, 24, 24))])
    )
    assert "as pixels are stored" in warning
    np.savez(tmp_path / "bytes.npz", x=pieces(0))
    assert (
        inputs_of(open_source(tmp_path / "bytes.npz", [TensorSpec("x", np.dtype(np.uint8), (None, 3, 24, 24))])) == []
    )


def test_nothing_is_warned_of_where_nothing_is_wrong(tmp_path: Path) -> None:
    for seed in VARIANTS:
        for make in (pieces, unit, full, normal, warm):
            assert warnings_of(tmp_path, make(seed), make(100 + seed)) == []
        for make in (unit, normal):
            assert warnings_of(tmp_path, make(seed), None) == []


def save_pictures(folder: Path, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir(parents=True)
    for at, (height, width) in enumerate(sizes):
        Image.fromarray(photos()[at % 2][:height, :width]).save(folder / f"{at}.png")


def test_stretching_that_nobody_asked_for(tmp_path: Path) -> None:
    for seed in VARIANTS:
        width, height = (int(n) for n in np.random.default_rng(seed).integers([60, 20], [90, 50]))
        save_pictures(tmp_path / str(seed), [(height, width), (24, 24), (width, height)])
        (warning,) = inputs_of(open_source(tmp_path / str(seed), [SPEC]))
        assert warning.startswith("2 of 3 pictures were stretched to other proportions, by up to ")
        assert f"{width / height:.2f}" in warning
        assert warning.endswith("--preprocess scale-0-1 says that it is meant")
        for how in ("torchvision-imagenet", "yolo-letterbox", "scale-0-1"):
            assert inputs_of(open_source(tmp_path / str(seed), [SPEC], format=DataFormat(how))) == []
    (tmp_path / "p.toml").write_text('resize = "stretch"')
    assert inputs_of(open_source(tmp_path / "0", [SPEC], format=DataFormat(tmp_path / "p.toml"))) == []
    (tmp_path / "n.toml").write_text("mean = 0.5")
    (warning,) = inputs_of(open_source(tmp_path / "0", [SPEC], format=DataFormat(tmp_path / "n.toml")))
    assert warning.endswith('resize = "stretch" in its settings says that it is meant')
    save_pictures(tmp_path / "square", [(40, 40), (24, 24)])
    assert inputs_of(open_source(tmp_path / "square", [SPEC])) == []


def test_the_first_of_a_folder_that_is_sorted_by_class(tmp_path: Path) -> None:
    for name in ("ape", "cat", "dog"):
        save_pictures(tmp_path / "all" / name, [(24, 24)] * 4)
    for limit in range(1, 13):
        found = inputs_of(open_source(tmp_path / "all", [SPEC], limit=limit))
        classes = -(-limit // 4)
        said = f"the first {limit} pictures of all are of {classes} of its 3 classes: --samples {limit} --seed 1 draws"
        assert any(said in warning for warning in found) == (classes < 3)
        drawn = inputs_of(open_source(tmp_path / "all", [SPEC], limit=limit, seed=1))
        assert not any("classes" in warning for warning in drawn)
    assert not any("classes" in warning for warning in inputs_of(open_source(tmp_path / "all", [SPEC])))


READINGS = {
    "bytes": (lambda x: x, "times 255: pixels were divided by 255, and the model wants them as stored"),
    "normal": (lambda x: x, "--preprocess torchvision-imagenet"),
    "unit": (lambda x: x * 255, "divided by 255: pixels were not divided by 255"),
    "reversed": (lambda x: x, "with channels reversed: the pictures are BGR"),
}


@pytest.mark.parametrize("reads", READINGS)
def test_a_reading_with_which_the_model_is_right_is_named(reads: str, tmp_path: Path) -> None:
    change, cause = READINGS[reads]
    for seed in VARIANTS:
        random = np.random.default_rng(seed)
        colours = make_colour_classifier(tmp_path / "m.onnx", seed, reads)
        labels = random.integers(0, 6, 60)
        x = colours[labels][:, :, None, None] + random.normal(0, 0.01, (60, 3, 24, 24))
        np.savez(tmp_path / "d.npz", x=change(x).astype(np.float32), label=labels)
        source = open_source(tmp_path / "d.npz", [SPEC])
        (warning,) = readings_of(tmp_path / "m.onnx", source)
        assert warning.startswith("on 48 samples the float model is right in ")
        assert f"in 100 % with its input {cause}" in warning.replace(
            "less ImageNet's mean, over its standard deviation: ", ""
        )

        right = {"bytes": x * 255, "normal": (x - MEAN) / STD, "unit": x, "reversed": x[:, ::-1]}[reads]
        np.savez(tmp_path / "d.npz", x=right.astype(np.float32), label=labels)
        source = open_source(tmp_path / "d.npz", [SPEC])
        assert readings_of(tmp_path / "m.onnx", source) == []


@pytest.mark.parametrize(
    ("shift", "said"), [(1, "labels one lower: labels count from 1"), (-1, "labels one higher: the model")]
)
def test_labels_that_are_one_off_are_named(shift: int, said: str, tmp_path: Path) -> None:
    for seed in VARIANTS:
        random = np.random.default_rng(seed)
        colours = make_colour_classifier(tmp_path / "m.onnx", seed, "unit")
        labels = random.integers(0, 6, 60)
        x = colours[labels][:, :, None, None] + random.normal(0, 0.01, (60, 3, 24, 24))
        np.savez(tmp_path / "d.npz", x=x.astype(np.float32), label=(labels + shift) % 6)
        (warning,) = readings_of(tmp_path / "m.onnx", open_source(tmp_path / "d.npz", [SPEC]))
        assert f"in 100 % with its {said}" in warning


def test_a_model_near_chance_is_named(tmp_path: Path) -> None:
    for seed in VARIANTS:
        make_colour_classifier(tmp_path / "m.onnx", seed, "unit")
        random = np.random.default_rng(seed)
        np.savez(
            tmp_path / "d.npz",
            x=random.uniform(size=(60, 3, 24, 24)).astype(np.float32),
            label=random.integers(0, 6, 60),
        )
        found = readings_of(tmp_path / "m.onnx", open_source(tmp_path / "d.npz", [SPEC]))
        assert "little more than the 16.7 % of chance: do labels and preprocessing fit it?" in found[0]


def test_photos_go_the_whole_line_and_the_commands_say_what_is_odd(tmp_path: Path) -> None:
    """Said once at calibrate: quantize and validate read photos the same way, and warn of arrays that are not so."""
    colours = make_colour_classifier(tmp_path / "m.onnx", 3, "normal")
    random = np.random.default_rng(0)
    for part in ("train", "eval"):
        for name, colour in zip("fbacde" if part == "train" else "bcdef", colours, strict=False):
            (tmp_path / part / name).mkdir(parents=True)
            for at in range(4):
                pixels = np.clip(255 * colour + random.normal(0, 3, (24, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{at}.png")
    made = calibrate(
        tmp_path / "m.onnx", data=tmp_path / "train", output=tmp_path / "c.calib", preprocess="torchvision-imagenet"
    )
    assert made.lines[0].startswith(
        "preprocessing torchvision-imagenet: RGB, shorter side to 27, centre 24 x 24 cut out"
    )
    assert "6 classes: a, b, c, d, e, ... f" in made.lines
    assert any("right in" in warning for warning in made.warnings)  # classes are sorted by name, colours are not

    plain = calibrate(tmp_path / "m.onnx", data=tmp_path / "train", output=tmp_path / "p.calib")
    assert any("24 of 24 pictures were stretched" in warning for warning in plain.warnings)
    int8 = tmp_path / "m.int8.onnx"
    quantize(
        tmp_path / "m.onnx", calibration=tmp_path / "c.calib", output=int8, floor="none", costs="none", effort="fast"
    )
    report = validate(int8, against=tmp_path / "m.onnx", data=tmp_path / "eval")
    labels = [row for row, counts in enumerate(report.values["confusion"]["float"]) if sum(counts)]
    assert labels == [1, 2, 3, 4, 5]  # the folder of class a is not there, and the others keep their numbers

    assert report.tables[-1].columns == ("", *"abcdef")

    np.savez(tmp_path / "raw.npz", x=pieces(0).astype(np.float32))
    raw = validate(int8, against=tmp_path / "m.onnx", data=tmp_path / "raw.npz")
    assert "of the elements lie outside: whole numbers up to 255" in raw.warnings[0]


def test_the_next_command_can_be_pasted() -> None:
    line = format_next("quantize", Path("my model.onnx"), "--int8 -o", Path("it's.onnx"))
    assert line == "next: fcdeploy quantize 'my model.onnx' --int8 -o 'it'\"'\"'s.onnx'"
