"""A preprocessing carried out: pixels or a Pillow image to the array that a model reads."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.preprocessing.opencv import resize_linear
from fcdeploy.records.preprocessing import Preprocessing, PreprocessingStep
from fcdeploy.records.signature import TensorSpec

Pixels = Array
"""(height, width, channels), uint8."""

DEEP = ("I", "F")  # first letters of Pillow's modes with more than 8 bits, which it would clip without a word


class ImageSize(NamedTuple):
    """Of a picture, in pixels."""

    height: int
    width: int


def import_pillow() -> Any:
    """The module PIL.Image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise FcdeployError(
            "reading images needs Pillow, which is not installed", "pip install 'fcdeploy[images]'"
        ) from error
    return Image


def read_picture(
    picture: Path | bytes,
    how: Preprocessing,
    spec: TensorSpec,
    *,
    most_pixels: int | None = None,
    formats: Sequence[str] | None = None,
) -> tuple[Array, int]:
    """Decode a file, or what one holds, and preprocess it: one sample, without a leading axis, and the pixels it had.

    `most_pixels` is looked at in the header, before anything is decoded; `formats` are Pillow's names of those that may be.
    Raises ValueError for a picture that cannot be read, that is larger, or too small for what is to be cut out.
    """
    source = picture if isinstance(picture, Path) else io.BytesIO(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large pictures and odd metadata; that it decodes is what counts
            with import_pillow().open(source, formats=formats) as opened:
                pixels = opened.width * opened.height
                if most_pixels is not None and pixels > most_pixels:
                    raise ValueError(f"has {opened.width} x {opened.height} pixels, {most_pixels:,} at most")
                if opened.mode.startswith(DEEP):
                    raise ValueError(f"has {opened.mode} pixels, expected 8 bits a channel")
                return _preprocess(opened, how, spec), pixels
    except FcdeployError:
        raise
    except Exception as error:  # a damaged picture raises whatever its decoder likes
        raise ValueError(str(error) or type(error).__name__) from error


def preprocess_pixels(pixels: Pixels, how: Preprocessing, spec: TensorSpec) -> Array:
    """The same from pixels that are decoded. Pillow is needed only to change their size or colours."""
    if pixels.shape[2] != how.channels or not _are_of_size(pixels, how.steps):
        picture = import_pillow().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        try:
            return _preprocess(picture, how, spec)
        except ValueError as error:
            raise FcdeployError(f"input {spec.name!r}: a picture {error}", "change shorter_side, or size") from error
    return _to_array(pixels, how, spec)


def _are_of_size(pixels: Pixels, steps: Iterable[PreprocessingStep]) -> bool:
    """Whether all steps leave pictures of this size as they are."""
    same = ("resize", "resize_cover", "letterbox", "center_crop")
    return all(step.kind in same and step.size == pixels.shape[:2] for step in steps)


def _preprocess(picture: Any, how: Preprocessing, spec: TensorSpec) -> Array:
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # a palette with transparency goes no other way without objection
    steps = how.steps
    if steps and steps[0].kind == "turn":
        from PIL import ImageOps

        picture, steps = ImageOps.exif_transpose(picture), steps[1:]
    picture = picture.convert("L" if how.colour == "gray" else "RGB")
    for step in steps:
        picture = ACTIONS[step.kind](picture, step)
    pixels = np.asarray(picture)
    return _to_array(pixels[:, :, None] if pixels.ndim == 2 else pixels, how, spec)


def _to_array(pixels: Pixels, how: Preprocessing, spec: TensorSpec) -> Array:
    """(channels, height, width), (height, width, channels), one row, or without channels, as the input has axes."""
    if how.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    planes = pixels.transpose(2, 0, 1)
    if spec.dtype.kind not in "iu":
        levels = _compute_levels(how)
        planes = np.stack([levels[at % len(levels)][plane] for at, plane in enumerate(planes)])
    if how.canvas:
        height, width = how.canvas
        room = ((0, 0), (0, max(0, height - planes.shape[1])), (0, max(0, width - planes.shape[2])))
        planes = np.pad(planes, room)
    array = np.ascontiguousarray(planes if how.layout == "NCHW" else planes.transpose(1, 2, 0))
    if len(spec.shape) == 2:
        return array.reshape(-1)
    return array.reshape(planes.shape[1:]) if len(spec.shape) == 3 else array


@lru_cache(16)
def _compute_levels(how: Preprocessing) -> Array:
    """What each of 256 pixel values becomes in each channel, (1 or channels, 256), float32: the formula's own rounding."""
    with np.errstate(over="ignore"):
        levels = np.arange(256, dtype=np.float32) / np.float32(how.divisor) * np.float32(how.scale)
        mean, std = np.asarray(how.mean, np.float32)[:, None], np.asarray(how.std, np.float32)[:, None]
        return np.asarray((levels - mean) / std, np.float32)


def _resize_to(picture: Any, size: ImageSize, method: str) -> Any:
    if (picture.height, picture.width) == size:
        return picture
    image = import_pillow()
    if method == "opencv":
        pixels = np.asarray(picture)
        resized = resize_linear(pixels[:, :, None] if pixels.ndim == 2 else pixels, *size)
        return image.fromarray(resized[:, :, 0] if pixels.ndim == 2 else resized)
    return picture.resize((size.width, size.height), image.Resampling[method.upper()])


def _resize(picture: Any, step: PreprocessingStep) -> Any:
    return _resize_to(picture, ImageSize(*step.size), step.method)


def _resize_shorter(picture: Any, step: PreprocessingStep) -> Any:
    """torchvision's Resize with one number: the longer side is truncated, not rounded."""
    shorter, longer = sorted((picture.height, picture.width))
    short, long = step.size[0], int(step.size[0] * longer / shorter)
    if len(step.size) == 2 and long > step.size[1]:
        short, long = int(step.size[1] * short / long), step.size[1]
    size = ImageSize(long, short) if picture.height > picture.width else ImageSize(short, long)
    return _resize_to(picture, ImageSize(max(size.height, 1), max(size.width, 1)), step.method)


def _resize_cover(picture: Any, step: PreprocessingStep) -> Any:
    factor = max(step.size[0] / picture.height, step.size[1] / picture.width)
    size = ImageSize(max(round(picture.height * factor), 1), max(round(picture.width * factor), 1))
    return _resize_to(picture, size, step.method)


def _resize_longest_of(picture: Any, step: PreprocessingStep) -> Any:
    """PaddleOCR's DetResizeForTest with limit_type 'max'."""
    most, multiple = step.size
    longest = max(picture.height, picture.width)
    ratio = most / longest if longest > most else 1.0
    height, width = (
        max(int(round(int(side * ratio) / multiple) * multiple), multiple) for side in (picture.height, picture.width)
    )
    return _resize_to(picture, ImageSize(height, width), step.method)


def _resize_height(picture: Any, step: PreprocessingStep) -> Any:
    """PaddleOCR's RecResizeImg: a line of text, as wide as its height asks for, up to a width."""
    width = min(math.ceil(step.size[0] * (picture.width / float(picture.height))), step.size[1])
    return _resize_to(picture, ImageSize(step.size[0], max(width, 1)), step.method)


def _letterbox(picture: Any, step: PreprocessingStep) -> Any:
    """Ultralytics' LetterBox(auto=False), whose borders are rounded from halves minus and plus 0.1."""
    height, width = step.size
    ratio = min(height / picture.height, width / picture.width)
    size = ImageSize(max(round(picture.height * ratio), 1), max(round(picture.width * ratio), 1))
    left, top = (round((whole - part) / 2 - 0.1) for whole, part in ((width, size.width), (height, size.height)))
    return _paste(_resize_to(picture, size, step.method), ImageSize(height, width), left, top, step.fill or 0)


def _center_crop(picture: Any, step: PreprocessingStep) -> Any:
    """torchvision's CenterCrop: halves are rounded to even, and a picture that is too small gets a border."""
    height, width = step.size
    if picture.height < height or picture.width < width:
        if step.fill is None:
            raise ValueError(
                f"is {picture.height} x {picture.width} after scaling, too small to cut {height} x {width} out"
            )
        size = ImageSize(max(height, picture.height), max(width, picture.width))
        picture = _paste(
            picture, size, (size.width - picture.width) // 2, (size.height - picture.height) // 2, step.fill
        )
    top, left = round((picture.height - height) / 2), round((picture.width - width) / 2)
    return picture.crop((left, top, left + width, top + height))


def _pad(picture: Any, step: PreprocessingStep) -> Any:
    left, top, right, bottom = step.size
    size = ImageSize(picture.height + top + bottom, picture.width + left + right)
    return _paste(picture, size, left, top, step.fill or 0)


def _paste(picture: Any, size: ImageSize, left: int, top: int, fill: int) -> Any:
    image = import_pillow()
    whole = image.new(picture.mode, (size.width, size.height), fill if picture.mode == "L" else (fill,) * 3)
    whole.paste(picture, (left, top))
    return whole


ACTIONS: dict[str, Callable[[Any, PreprocessingStep], Any]] = {
    "turn": lambda picture, _: picture,  # first in a list, where the picture still has its metadata
    "resize": _resize,
    "resize_shorter": _resize_shorter,
    "resize_cover": _resize_cover,
    "resize_longest_of": _resize_longest_of,
    "resize_height": _resize_height,
    "letterbox": _letterbox,
    "center_crop": _center_crop,
    "pad": _pad,
    "gray": lambda picture, _: picture.convert("L"),
}
