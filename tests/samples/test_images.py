"""Folders of images, against Pillow's own reader; what they are called, and how they become an input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fails
from PIL import Image
from sample_files import RNG, samples, spec

from fcdeploy.samples.kinds import open_source

# --- images


def picture(path: Path, height: int = 8, width: int = 8, mode: str = "RGB") -> np.ndarray[Any, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = RNG.integers(0, 256, (height, width, *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def toml(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


def test_images_in_class_folders(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    cat, dog, bee = (picture(root / name) for name in ("cat/a.png", "dog/b.png", "bee/c.png"))
    source = open_source(root, [spec("x", None, 3, 8, 8)])
    assert (source.count, source.labelled, source.name) == (3, True, "pictures")
    for sample, pixels, label, name in zip(source, (bee, cat, dog), range(3), ("bee/c", "cat/a", "dog/b"), strict=True):
        np.testing.assert_allclose(sample.inputs["x"], pixels.transpose(2, 0, 1) / 255, atol=1e-6)
        assert sample.labels["label"] == label
        assert sample.name == f"pictures, sample {label} ({name}.png)"


def test_images_preprocessed(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "i" / "a.png", 20, 30)
    how = toml(
        tmp_path,
        'size = [8, 6]\nresize = "crop"\nshorter_side = 10\nlayout = "NHWC"\ncolour = "BGR"\n'
        "scale = 0.5\nmean = [1.0, 2.0, 3.0]\nstd = [4.0, 5.0, 6.0]\n",
    )
    (sample,) = samples(tmp_path / "i", spec("x", None, None, None, 3), preprocess=how)
    scaled = np.asarray(Image.fromarray(pixels).resize((15, 10), Image.Resampling.BILINEAR))
    wanted = (scaled[1:9, 4:10, ::-1] * 0.5 - [1.0, 2.0, 3.0]) / [4.0, 5.0, 6.0]
    np.testing.assert_allclose(sample.inputs["x"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "text", "wanted"),
    [
        ((None, 1, 4, 4), np.float32, "", (1, 4, 4)),
        ((None, 4, 4), np.float32, "", (4, 4)),
        ((None, 4, 4, 3), np.uint8, "", (4, 4, 3)),
        ((None, 3, 4, 4), np.uint8, 'resize = "crop"', (3, 4, 4)),
        ((None, None, None, None), np.float32, 'size = 5\ncolour = "gray"\ninterpolation = "nearest"', (1, 5, 5)),
    ],
)
def test_images_follow_the_input(tmp_path: Path, shape: Any, dtype: Any, text: str, wanted: tuple[int, ...]) -> None:
    for mode in ("L", "RGB", "RGBA"):
        picture(tmp_path / "i" / f"{mode}.png", 6, 9, mode)
    got = samples(tmp_path / "i", spec("x", *shape, dtype=dtype), preprocess=toml(tmp_path, text))
    assert [sample.inputs["x"].shape for sample in got] == [wanted] * 3
    assert all(sample.inputs["x"].dtype == dtype and not sample.labels for sample in got)


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        ((None, 3, 8, 8), "sise = 8", "p.toml: unknown key 'sise', expected one of size, resize"),
        ((None, 3, 8, 8), "size = [8]", "'size' is [8], expected height and width in pixels"),
        ((None, 3, 8, 8), "size = 0", "'size' is 0, expected height and width in pixels"),
        ((None, 3, 8, 8), 'layout = "HWC"', "'layout' is 'HWC', expected one of NCHW, NHWC"),
        ((None, 3, 8, 8), "mean = [1, 2]", "'mean' is [1, 2], expected a number or 3 of them"),
        ((None, 1, 8, 8), 'preset = "timm"', "'mean' is [0.485, 0.456, 0.406], for 3 channels, and input 'x' takes 1"),
        ((None, 3, 8, 8), "std = 0", "'std' is 0, expected a positive number"),
        ((None, 3, 8, 8), "shorter_side = 9", "'shorter_side' is 9 with resize = 'stretch', expected pixels with"),
        ((None, 3, 8, 8), 'colour = "gray"', "'colour' is 'gray', 1 channels, and input 'x' wants 3"),
        ((None, 3, 8, 8), "size = 9", "input 'x': sample 0 (a.png) has shape (3, 9, 9), the model wants (3, 8, 8)"),
        ((None, 3, 8, 8), "size = [", "p.toml' cannot be read"),
        ((None, 3, 8, 8), 'resize = "crop"\nshorter_side = 4', "is 4 x 4 after scaling, too small to cut 8 x 8 out"),
        ((None, 3, None, None), "", "input 'x' takes images of any size ((?, 3, ?, ?)), and"),
        ((None, 784), "", "input 'x' has shape (?, 784), expected four axes to feed images"),
    ],
)
def test_images_preprocessing_mistakes(tmp_path: Path, shape: Any, text: str, message: str) -> None:
    picture(tmp_path / "i" / "a.png")
    with fails(message):
        samples(tmp_path / "i", spec("x", *shape), preprocess=toml(tmp_path, text))


def test_images_integer_inputs_take_no_fractions(tmp_path: Path) -> None:
    picture(tmp_path / "i" / "a.png")
    with fails("'mean' makes fractions, and input 'x' wants uint8"):
        samples(tmp_path / "i", spec("x", None, 3, 8, 8, dtype=np.uint8), preprocess=toml(tmp_path, "mean = 0.5"))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "i"
    picture(root / "a.png")
    (root / "b.png").write_bytes((root / "a.png").read_bytes()[:40])
    with fails(f"image '{root / 'b.png'}' cannot be read"):
        samples(root, spec("x", None, 3, 8, 8))
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(root / "b.png")
    with fails("b.png' cannot be read: has I;16 pixels, expected 8 bits a channel"):
        samples(root, spec("x", None, 3, 8, 8))


def test_images_of_no_clear_class(tmp_path: Path) -> None:
    with fails(
        f"folder '{tmp_path}' is no data of a kind that can be read", "MNIST idx files, CIFAR-10 binary batches"
    ):
        samples(tmp_path)
    picture(tmp_path / "a" / "a.png")
    (tmp_path / "b").mkdir()
    with fails("class folder 'b' in"):
        samples(tmp_path, spec("x", None, 3, 8, 8))
    picture(tmp_path / "a.png")
    with fails("holds images and also sub-folders of images: 'a'"):
        samples(tmp_path, spec("x", None, 3, 8, 8))


def test_images_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with fails("reading images needs Pillow, which is not installed", "pip install 'fcdeploy[images]'"):
        samples(tmp_path, spec("x", None, 3, 8, 8))
