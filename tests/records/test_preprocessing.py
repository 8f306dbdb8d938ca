"""Pictures to inputs, against the originals' own formulas in torch, Pillow and plain integers; and the record's JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcdeploy.preprocessing.apply import preprocess_pixels, read_picture
from fcdeploy.preprocessing.opencv import resize_linear
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.preprocessing.settings import PRESETS
from fcdeploy.records.data_format import DataFormat, choose_format, from_json, from_metadata, to_json, to_metadata
from fcdeploy.records.preprocessing import Preprocessing, PreprocessingStep
from fcdeploy.records.signature import TensorSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def spec(*shape: int | None, dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec("x", np.dtype(dtype), shape)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def read(file: bytes, how: Preprocessing, wants: TensorSpec) -> np.ndarray:
    return read_picture(file, how, wants)[0]


def to_tensor(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """ToTensor and Normalize of torchvision, in torch."""
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).to(torch.float32).div(255)
    x.sub_(torch.tensor(mean, dtype=torch.float32)[:, None, None])
    return x.div_(torch.tensor(std, dtype=torch.float32)[:, None, None]).numpy()


def crop_as_torchvision(pixels: np.ndarray, shorter: int, size: int, method: Image.Resampling) -> np.ndarray:
    """Resize(shorter) and CenterCrop(size): the longer side truncated, halves rounded to even."""
    height, width = pixels.shape[:2]
    long = int(shorter * max(height, width) / min(height, width))
    new = (shorter, long) if height <= width else (long, shorter)
    scaled = np.asarray(Image.fromarray(pixels).resize(new[::-1], method)) if new != (height, width) else pixels
    top, left = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
    return scaled[top : top + size, left : left + size]


@settings(max_examples=30)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 9))
def test_imagenet_presets_are_torchvision_s_and_timm_s(height: int, width: int, seed: int) -> None:
    pixels = picture(height, width, seed)
    for name, method in (
        ("torchvision-imagenet", Image.Resampling.BILINEAR),
        ("timm", Image.Resampling.BICUBIC),
    ):
        how = read_preprocessing(name, spec(None, 3, 28, 28))
        wanted = to_tensor(crop_as_torchvision(pixels, 32, 28, method), MEAN, STD)
        np.testing.assert_array_equal(read(encode(pixels), how, spec(None, 3, 28, 28)), wanted)


def resize_by_loops(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """INTER_LINEAR pixel by pixel, in Python's integers, as OpenCV's resize has it for bytes."""
    rows, columns, channels = pixels.shape
    out = np.zeros((height, width, channels), np.uint8)

    def tap(at: int, size: int, new: int) -> tuple[int, np.float32]:
        place = np.float32((at + 0.5) * (1.0 / (new / size)) - 0.5)
        first = int(np.floor(place))
        return first, np.float32(place - np.float32(first))

    for y in range(height):
        top, down = tap(y, rows, height)
        upper, lower = max(min(top, rows - 1), 0), max(min(top + 1, rows - 1), 0)
        c, d = (int(np.rint(weight * np.float32(2048))) for weight in (np.float32(1) - down, down))
        for x in range(width):
            first, part = tap(x, columns, width)
            if first < 0 or first >= columns - 1:
                first, part = max(min(first, columns - 1), 0), np.float32(0)
            second = min(first + 1, columns - 1)
            a, b = (int(np.rint(weight * np.float32(2048))) for weight in (np.float32(1) - part, part))
            for k in range(channels):
                above, below = (
                    int(pixels[row, first, k]) * a + int(pixels[row, second, k]) * b for row in (upper, lower)
                )
                out[y, x, k] = (((c * (above >> 4)) >> 16) + ((d * (below >> 4)) >> 16) + 2) >> 2
    return out


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_opencv_s_resize(rows: int, columns: int, height: int, width: int) -> None:
    pixels = picture(rows, columns, rows * 100 + columns)
    if (rows, columns) not in ((height, width), (2 * height, 2 * width)):
        np.testing.assert_array_equal(
            resize_linear(pixels, height, width), resize_by_loops(pixels, height, width), strict=True
        )


def test_opencv_s_resize_by_half_is_the_mean_of_four() -> None:
    pixels = picture(8, 6)
    sums = pixels.astype(int).reshape(4, 2, 3, 2, 3).sum((1, 3))
    np.testing.assert_array_equal(resize_linear(pixels, 4, 3), (sums + 2) // 4)
    assert resize_linear(pixels, 8, 6) is pixels


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 33), (64, 64), (7, 200)])
def test_yolo_letterbox(height: int, width: int) -> None:
    """Ultralytics' LetterBox: scaled to fit by OpenCV, borders of 114 that differ by at most one, divided by 255."""
    pixels = picture(height, width)
    ratio = min(64 / height, 64 / width)
    new = (round(height * ratio), round(width * ratio))
    scaled = resize_linear(pixels, *new)
    wanted = np.full((64, 64, 3), 114, np.uint8)
    top, left = round((64 - new[0]) / 2 - 0.1), round((64 - new[1]) / 2 - 0.1)
    wanted[top : top + new[0], left : left + new[1]] = scaled
    how = read_preprocessing("yolo-letterbox", spec(1, 3, 64, 64))
    found = read(encode(pixels), how, spec(1, 3, 64, 64))
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_paddle_ocr() -> None:
    pixels = picture(30, 100)
    line = spec(None, 3, 48, 320)
    found = read(encode(pixels), read_preprocessing("paddle-ocr", line), line)
    scaled = resize_linear(pixels, 48, 160)[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(found[:, :, :160], (scaled / np.float32(255) - np.float32(0.5)) / np.float32(0.5))
    assert not found[:, :, 160:].any()

    pages = spec(None, 3, None, None)
    found = read(encode(pixels), read_preprocessing("paddle-ocr", pages), pages)
    scaled = resize_linear(pixels, 32, 96)[:, :, ::-1].astype(np.float32)
    wanted = (scaled * np.float32(1 / 255) - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1))
    assert read(encode(picture(400, 3000)), read_preprocessing("paddle-ocr-det", pages), pages).shape == (
        3,
        128,
        960,
    )


def test_pictures_are_turned_only_where_the_original_turns_them() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned right
    file = encode(picture(8, 16), "PNG", exif=exif)
    wide = read(file, read_preprocessing("scale-0-1", spec(None, 3, 8, 16)), spec(None, 3, 8, 16))
    how = replace(read_preprocessing("scale-0-1", spec(None, 3, 16, 8)), steps=(PreprocessingStep("turn"),))
    np.testing.assert_array_equal(read(file, how, spec(None, 3, 16, 8)), np.rot90(wide, -1, (1, 2)))


COMPOSE = """
from torchvision import transforms
from torchvision.transforms import v2, InterpolationMode
import torch
import nothing_like_this  # so it is read, not run
MEAN = [0.485, 0.456, 0.406]
tail = [transforms.ToTensor()]
plain = transforms.Compose([transforms.Resize(32, InterpolationMode.BICUBIC), transforms.CenterCrop(28),
    transforms.ToTensor(), transforms.Normalize(MEAN, [0.229, 0.224, 0.225])])
gray = v2.Compose([v2.Resize((8, 10), antialias=True), v2.Grayscale(), v2.PILToTensor(),
    v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=[0.5], std=[0.25])])
padded = transforms.Compose([transforms.Resize(20, max_size=24), transforms.CenterCrop((28, 26)),
    transforms.Pad(1, fill=9), transforms.ToTensor()])
late = v2.Compose([v2.ToImage(), v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)])
def transform():
    "What validation uses."
    return transforms.Compose([plain])
floats = transforms.Compose([transforms.ToTensor(), transforms.Resize(8)])
twice = transforms.Compose([transforms.Normalize([0.5], [0.5])])
"""


def test_a_compose_is_read_without_running_its_file(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(COMPOSE)
    pixels = picture(50, 70)

    def compose(name: str, *shape: int) -> np.ndarray:
        how = read_preprocessing(f"{tmp_path / 't.py'}:{name}", spec(None, *shape))
        return read(encode(pixels), how, spec(None, *shape))

    wanted = to_tensor(crop_as_torchvision(pixels, 32, 28, Image.Resampling.BICUBIC), MEAN, STD)
    np.testing.assert_array_equal(compose("plain", 3, 28, 28), wanted)
    np.testing.assert_array_equal(compose("transform", 3, 28, 28), wanted)

    small = np.asarray(Image.fromarray(pixels).resize((10, 8), Image.Resampling.BILINEAR).convert("L"))
    tensor = torch.from_numpy(small.copy()).to(torch.float32).mul(1 / 255).sub(0.5).div(0.25)  # version 2 multiplies
    np.testing.assert_array_equal(compose("gray", 1, 8, 10), tensor[None].numpy())

    scaled = np.asarray(Image.fromarray(pixels).resize((24, 17), Image.Resampling.BILINEAR))  # int(24 * 20 / 28)
    wanted = np.full((30, 28, 3), 9, np.uint8)
    wanted[1:-1, 1:-1] = 0
    wanted[1 + 5 : 1 + 5 + 17, 1 + 1 : 1 + 1 + 24] = scaled
    np.testing.assert_array_equal(compose("padded", 3, 30, 28), to_tensor(wanted, (0.0,) * 3, (1.0,) * 3))
    how = read_preprocessing(f"{tmp_path / 't.py'}:late", spec(None, 3, 8, 8))
    assert "up to one level of 255 apart" in how.note
    assert how.note in DataFormat(how).describe()


@pytest.mark.parametrize(
    ("name", "shape", "message", "hint"),
    [
        ("floats", (3, 8, 8), "resizes a tensor of floats", "Resize before ToTensor"),
        ("twice", (3, 8, 8), "normalizes what is no tensor of floats yet", "ToTensor() before Normalize"),
        ("plain", (1, 28, 28), "makes three channels, and input 'x' wants 1", "Grayscale"),
        ("gray", (3, 8, 10), "1 channels, and input 'x' wants 3", "RGB"),
    ],
)
def test_a_compose_that_is_not_understood(tmp_path: Path, name: str, shape: Any, message: str, hint: str) -> None:
    (tmp_path / "t.py").write_text(COMPOSE)
    with fails(message, hint):
        read_preprocessing(f"{tmp_path / 't.py'}:{name}", spec(None, *shape))


def test_a_compose_that_only_running_tells(tmp_path: Path) -> None:
    """Objects are read by their classes' names and attributes: here such classes stand in a file of their own."""
    (tmp_path / "t.py").write_text(
        "class Compose:\n    def __init__(self, t): self.transforms = t\n    def __call__(self, x): ...\n"
        "class Resize:\n    def __init__(self, n): self.size, self.interpolation, self.max_size = n, 'bicubic', None\n"
        "class CenterCrop:\n    def __init__(self, n): self.size = (n, n)\n"
        "class ToTensor: pass\n"
        "class RandomSolarize: pass\n"
        "def transform(): return Compose([step(n) for step, n in ((Resize, 32), (CenterCrop, 28))] + [ToTensor()])\n"
        "odd = Compose([RandomSolarize()])\n"
    )
    pixels, wants = picture(40, 60), spec(None, 3, 28, 28)
    how = read_preprocessing(f"{tmp_path / 't.py'}:transform", wants)
    wanted = to_tensor(crop_as_torchvision(pixels, 32, 28, Image.Resampling.BICUBIC), (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_array_equal(read(encode(pixels), how, wants), wanted)
    with fails("has the step 'RandomSolarize', which is not known", "a random step is for training; known are Resize"):
        read_preprocessing(f"{tmp_path / 't.py'}:odd", wants)


def test_what_preprocess_may_name(tmp_path: Path) -> None:
    with fails("--preprocess 'imagenet' is no preset (torchvision-imagenet, timm", "FILE.toml"):
        read_preprocessing("imagenet", spec(None, 3, 8, 8))
    (tmp_path / "p.toml").write_text('preset = "timm"\ncrop_share = 0.5\nmean = 0.5\n')
    how = read_preprocessing(tmp_path / "p.toml", spec(None, 3, 8, 8))
    assert (how.steps[0], how.mean, how.std) == (PreprocessingStep("resize_shorter", (16,), "bicubic"), (0.5,), STD)
    for text, message in (
        ('preset = "tim"', "preset 'tim' is unknown"),
        ("exif = true\nfill = 300", "'fill' is 300, expected a level"),
        ('resize = "crop"\ncrop_share = 2', "'crop_share' is 2, expected more than 0"),
        ('resize = "longest"\nlongest_side = 0', "'longest_side' is 0, expected pixels"),
    ):
        (tmp_path / "p.toml").write_text(text)
        with fails(message):
            read_preprocessing(tmp_path / "p.toml", spec(None, 3, *((None, None) if "longest" in text else (8, 8))))
    with fails("preset 'timm' makes fractions, and input 'x' wants uint8"):
        read_preprocessing("timm", spec(None, 3, 8, 8, dtype=np.uint8))
    whole = read_preprocessing("yolo-letterbox", spec(None, 3, 8, 8, dtype=np.uint8))
    assert preprocess_pixels(picture(8, 8), whole, spec(None, 3, 8, 8, dtype=np.uint8)).dtype == np.uint8


def test_what_nobody_said_is_known() -> None:
    assert read_preprocessing(None, spec(None, 3, 8, 8)).assumed == ("resize", "numbers")
    assert read_preprocessing("scale-0-1", spec(None, 3, 8, 8)).assumed == ()  # its row says that it stretches
    assert read_preprocessing("torchvision-imagenet", spec(None, 3, 8, 8)).assumed == ()


@pytest.mark.parametrize("name", PRESETS)
def test_the_record_survives_its_json(name: str) -> None:
    how = read_preprocessing(name, spec(None, 3, 48, 48))
    said = DataFormat(how, ("cat", "dog"), ("a", "b"), "kind")
    assert from_json(json.loads(json.dumps(to_json(said))), "f", "h") == said
    assert from_metadata({"fcdeploy.format": to_metadata(said)}, "m") == said
    assert len(said.describe()) == 3
    assert read_preprocessing(how, spec(None, 3, 48, 48)) is how


GOOD = to_json(DataFormat(Preprocessing("p", "RGB", (PreprocessingStep("resize", (8, 8)),), "NCHW")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "CMYK"}, "'colour' is 'CMYK'"),
        ({"divisor": 0}, "'divisor' is '0'"),
        ({"std": [0.0]}, "'std' is '[0.0]'"),
        ({"mean": [1.0, float("nan"), 2.0]}, "'mean' is"),
        ({"steps": [{"kind": "resize", "size": [8], "method": "bilinear", "fill": None}]}, "step 0 has size '[8]'"),
        ({"steps": [{"kind": "resize", "size": [8, 1 << 20], "method": "bilinear", "fill": None}]}, "has size"),
        ({"steps": [{"kind": "eval", "size": [], "method": "bilinear", "fill": None}]}, "step 0 is 'eval'"),
        ({"steps": [{"kind": "gray", "size": [], "method": "x", "fill": None}]}, "a method or fill that is none"),
        ({"canvas": [1]}, "'canvas' is '[1]'"),
        ({"assumed": ["all"]}, "'assumed' is"),
        ({"colour": "gray", "mean": [0.1, 0.2, 0.3]}, "does not fit 1 channels"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], message: str) -> None:
    with fails(message):
        from_json({**GOOD, "preprocess": {**GOOD["preprocess"], **change}}, "f", "h")
    with fails("metadata 'fcdeploy.format' is no JSON"):
        from_metadata({"fcdeploy.format": "{"}, "m")


def test_what_is_said_goes_before_what_was_recorded(tmp_path: Path) -> None:
    recorded = DataFormat(Preprocessing("p", "RGB", (), "NCHW"), ("cat", "dog"), ("a",), "kind")
    assert choose_format(recorded) == recorded
    (tmp_path / "c.txt").write_text("left\n right \n\n")
    said = choose_format(recorded, preprocess="timm", classes=tmp_path / "c.txt", label="y")
    assert said == DataFormat("timm", ("left", "right"), ("a",), "y")
    for text, message in (("", "holds no name"), ("a\nb\na", "holds 'a' twice")):
        (tmp_path / "c.txt").write_text(text)
        with fails(message):
            choose_format(recorded, classes=tmp_path / "c.txt")
    with fails("cannot be read"):
        choose_format(recorded, classes=tmp_path / "none.txt")


def test_large_pictures_are_refused_before_they_are_decoded() -> None:
    how = read_preprocessing("scale-0-1", spec(None, 3, 8, 8))
    with pytest.raises(ValueError, match="has 3000 x 2000 pixels, 1,000,000 at most"):
        read_picture(encode(np.zeros((2000, 3000), np.uint8)), how, spec(None, 3, 8, 8), most_pixels=1_000_000)
    with pytest.raises(ValueError, match="cannot identify"):
        read_picture(b"no picture", how, spec(None, 3, 8, 8))
