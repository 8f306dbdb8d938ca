"""A preprocessing carried out: pixels or a Pillow image to the array that a model reads."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.installed import say_install
from fcdeploy.preprocessing.opencv import resize_linear
from fcdeploy.preprocessing.placement import ImageSize, place
from fcdeploy.records.preprocessing import Preprocessing, PreprocessingStep
from fcdeploy.records.signature import TensorSpec

Pixels = Array
"""(height, width, channels), uint8."""

DEEP = ("I", "F")  # first letters of Pillow's modes with more than 8 bits, which it would clip without a word


def import_pillow() -> Any:
    """The module PIL.Image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise FcdeployError("reading images needs Pillow, which is not installed", say_install("images")) from error
    return Image


def read_picture(
    picture: Path | bytes,
    how: Preprocessing,
    spec: TensorSpec,
    *,
    most_pixels: int | None = None,
    formats: Sequence[str] | None = None,
) -> tuple[Array, ImageSize]:
    """Decode a file, or what one holds, and preprocess it: one sample, without a leading axis, and the size it had, turned.

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
                return _preprocess(opened, how, spec)
    except FcdeployError:
        raise
    except Exception as error:  # a damaged picture raises whatever its decoder likes
        raise ValueError(str(error) or type(error).__name__) from error


def preprocess_pixels(pixels: Pixels, how: Preprocessing, spec: TensorSpec) -> Array:
    """The same from pixels that are decoded. Pillow is needed only to change their size or colours."""
    if pixels.shape[2] != how.channels or not _are_of_size(pixels, how.steps):
        picture = import_pillow().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        try:
            return _preprocess(picture, how, spec)[0]
        except ValueError as error:
            raise FcdeployError(f"input {spec.name!r}: a picture {error}", "change shorter_side, or size") from error
    return _to_array(pixels, how, spec)


def _are_of_size(pixels: Pixels, steps: Iterable[PreprocessingStep]) -> bool:
    """Whether all steps leave pictures of this size as they are."""
    same = ("resize", "resize_cover", "letterbox", "center_crop")
    return all(step.kind in same and step.size == pixels.shape[:2] for step in steps)


def _preprocess(picture: Any, how: Preprocessing, spec: TensorSpec) -> tuple[Array, ImageSize]:
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # a palette with transparency goes no other way without objection
    steps = how.steps
    if steps and steps[0].kind == "turn":
        from PIL import ImageOps

        picture, steps = ImageOps.exif_transpose(picture), steps[1:]
    picture = picture.convert("L" if how.colour == "gray" else "RGB")
    size = ImageSize(picture.height, picture.width)
    for step in steps:
        picture = picture.convert("L") if step.kind == "gray" else _carry_out(step, picture)
    pixels = np.asarray(picture)
    return _to_array(pixels[:, :, None] if pixels.ndim == 2 else pixels, how, spec), size


def _carry_out(step: PreprocessingStep, picture: Any) -> Any:
    """Scale, then lay onto what is free or cut out."""
    scaled, left, top, whole = place(ImageSize(picture.height, picture.width), step)
    picture = _resize_to(picture, scaled, step.method)
    if (left, top, whole) == (0, 0, scaled):
        return picture
    if left <= 0 and top <= 0 and whole.width - left <= scaled.width and whole.height - top <= scaled.height:
        return picture.crop((-left, -top, whole.width - left, whole.height - top))
    fill = step.fill or 0
    canvas = import_pillow().new(picture.mode, whole[::-1], fill if picture.mode == "L" else (fill,) * 3)
    canvas.paste(picture, (left, top))
    return canvas


def _to_array(pixels: Pixels, how: Preprocessing, spec: TensorSpec) -> Array:
    """(channels, height, width), (height, width, channels), one row, or without channels, as the input has axes."""
    if how.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    planes = pixels.transpose(2, 0, 1)
    if spec.dtype.kind not in "iu":
        levels = compute_levels(how)
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
def compute_levels(how: Preprocessing) -> Array:
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
