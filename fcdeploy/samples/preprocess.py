"""Image preprocessing, described in a small TOML file, every key optional (`--preprocess FILE`).

size = [224, 224]          # height and width, or one number; by default what the model's input declares
resize = "crop"            # "stretch" (default), or "crop": scale the shorter side, then cut the centre out
shorter_side = 256         # with "crop": what the shorter side is scaled to; by default just enough for the cut
interpolation = "bilinear" # or "nearest", "bicubic"
colour = "RGB"             # or "BGR", "gray"; by default RGB for three channels, gray for one
layout = "NCHW"            # or "NHWC"; by default what the model's input declares
scale = 0.00392156862745   # value = (pixel * scale - mean) / std; by default 1/255, and 1 for integer inputs
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import checks

Pixels = Array
"""(height, width, channels), uint8."""


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes an array; `mean` and `std` hold one number, or one for each channel."""

    size: tuple[int, int]
    resize: str
    shorter_side: int | None
    interpolation: str
    colour: str
    layout: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_preprocess(path: Path | None, spec: TensorSpec, *, stored: tuple[int, int, int] | None = None) -> Preprocess:
    """Read and check the file; what it leaves open comes from the model's input.

    `stored` is (height, width, channels) where all pictures are of one size: it stands in for what the input does not
    say, and an input of one row of features takes the picture laid out flat.
    """
    if stored and len(spec.shape) in (0, 2):
        spec = replace(spec, shape=(None, stored[2], *stored[:2]))
    return _complete(_read_toml(path), spec, str(path or "preprocess.toml"), stored)


def preprocess_pixels(pixels: Pixels, how: Preprocess, spec: TensorSpec) -> Array:
    """Convert a stored image to the model's input. Pillow is needed only to change its size or its colours."""
    if pixels.shape != (*how.size, count_channels(how)) or how.shorter_side:
        picture = import_pillow().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        try:
            pixels = fit_picture(picture, how)
        except ValueError as error:
            raise FcdeployError(f"input {spec.name!r}: a picture {error}", "change shorter_side, or size") from error
    array = normalize_pixels(pixels, how, spec)
    return array.reshape(-1) if len(spec.shape) == 2 else array


def fit_picture(picture: Any, how: Preprocess) -> Pixels:
    """Convert a Pillow image to the configured colours and size. Raises ValueError where it is too small to crop."""
    pixels = np.asarray(_resize(picture.convert("L" if how.colour == "gray" else "RGB"), how))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def normalize_pixels(pixels: Pixels, how: Preprocess, spec: TensorSpec) -> Array:
    """(channels, height, width), (height, width, channels), or without channels where the input has no axis for them."""
    if how.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    if spec.dtype.kind not in "iu":
        mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
        pixels = (pixels * np.float32(how.scale) - mean) / std
    array = np.ascontiguousarray(pixels.transpose(2, 0, 1) if how.layout == "NCHW" else pixels)
    return array[0] if len(spec.shape) == 3 else array


def count_channels(how: Preprocess) -> int:
    """The number of channels."""
    return 1 if how.colour == "gray" else 3


def import_pillow() -> Any:
    """The module PIL.Image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise FcdeployError(
            "reading images needs Pillow, which is not installed", "pip install 'fcdeploy[images]'"
        ) from error
    return Image


def _resize(picture: Any, how: Preprocess) -> Any:
    """Stretch to the size, or scale the shorter side and cut the centre out."""
    height, width = how.size
    method = import_pillow().Resampling[how.interpolation.upper()]
    if how.resize == "stretch":
        return picture.resize((width, height), method)
    factor = max(height / picture.height, width / picture.width)
    if how.shorter_side:
        factor = how.shorter_side / min(picture.height, picture.width)
    scaled_width, scaled_height = (max(round(side * factor), 1) for side in picture.size)
    if scaled_width < width or scaled_height < height:
        raise ValueError(f"is {scaled_height} x {scaled_width} after scaling, too small to cut {height} x {width} out")
    left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
    return picture.resize((scaled_width, scaled_height), method).crop((left, top, left + width, top + height))


def _read_toml(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FcdeployError(f"--preprocess {str(path)!r} cannot be read: {error}", "give a TOML file") from error


def _complete(given: dict[str, Any], spec: TensorSpec, name: str, stored: tuple[int, int, int] | None) -> Preprocess:
    """Fill what the file leaves open from the model's input, and check every value."""
    _check_keys(given, spec, name)
    layout = "NCHW"
    if len(spec.shape) != 3:
        layout = _check_choice(given, "layout", ("NCHW", "NHWC"), _guess_layout(spec.shape), name)
    channels, size = _read_declared_size(spec, layout, name)
    if stored:
        size = (size[0] or stored[0], size[1] or stored[1])
    colour = _choose_colour(given, channels, stored, spec, name)
    bands = 1 if colour == "gray" else 3
    how = Preprocess(
        size=_check_size(given.get("size", size), spec, name),
        resize=_check_choice(given, "resize", ("stretch", "crop"), "stretch", name),
        shorter_side=given.get("shorter_side"),
        interpolation=_check_choice(given, "interpolation", ("bilinear", "nearest", "bicubic"), "bilinear", name),
        colour=colour,
        layout=layout,
        scale=_check_numbers(given.get("scale", 1 / 255), "scale", 1, name)[0],
        mean=_check_numbers(given.get("mean", 0.0), "mean", bands, name),
        std=_check_numbers(given.get("std", 1.0), "std", bands, name),
    )

    # what no value says alone
    if 0 in how.std:
        raise FcdeployError(f"{name}: 'std' is 0, expected a positive number", "std = 1.0 leaves values as they are")
    if how.shorter_side is not None and (how.resize != "crop" or not _is_positive(how.shorter_side)):
        raise FcdeployError(
            f"{name}: 'shorter_side' is {how.shorter_side!r} with resize = {how.resize!r}, expected pixels with 'crop'",
            'resize = "crop"',
        )
    return how


def _check_keys(given: dict[str, Any], spec: TensorSpec, name: str) -> None:
    """Keys that there are, and none that makes fractions for an input of integers."""
    known = Preprocess.__annotations__
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            raise FcdeployError(
                f"{name}: unknown key {key!r}, expected one of {', '.join(known)}",
                f"did you mean {close[0]!r}?" if close else f"remove {key!r}",
            )
    changed = [key for key in ("scale", "mean", "std") if key in given]
    if spec.dtype.kind in "iu" and changed:
        raise FcdeployError(
            f"{name}: {changed[0]!r} makes fractions, and input {spec.name!r} wants {spec.dtype}",
            f"remove {changed[0]!r}",
        )


def _choose_colour(
    given: dict[str, Any], channels: int | None, stored: tuple[int, int, int] | None, spec: TensorSpec, name: str
) -> str:
    """The colours asked for, or those of the input's channels, or of the pictures; the input must have as many."""
    gray = (channels or (stored[2] if stored else 3)) == 1
    colour = _check_choice(given, "colour", ("RGB", "BGR", "gray"), "gray" if gray else "RGB", name)
    bands = 1 if colour == "gray" else 3
    if channels not in (None, bands):
        raise FcdeployError(
            f"{name}: 'colour' is {colour!r}, {bands} channels, and input {spec.name!r} wants {channels}",
            f'colour = "{"gray" if channels == 1 else "RGB"}"' if channels in (1, 3) else "give an .npz",
        )
    return colour


def _guess_layout(shape: tuple[int | None, ...]) -> str:
    """Channels last only when the last axis looks like channels and the second does not."""
    return "NHWC" if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"


def _read_declared_size(spec: TensorSpec, layout: str, name: str) -> tuple[int | None, tuple[int | None, int | None]]:
    """Channels, and height and width, as the model's input declares them."""
    shape = spec.shape
    if len(shape) == 3:  # no axis for channels: gray
        return 1, (shape[1], shape[2])
    if len(shape) != 4:
        raise FcdeployError(
            f"input {spec.name!r} has shape {checks.format_shape(shape)}, expected four axes to feed images",
            f"give other data than images ({name} cannot change the number of axes)",
        )
    return (shape[1], (shape[2], shape[3])) if layout == "NCHW" else (shape[3], (shape[1], shape[2]))


def _check_size(value: Any, spec: TensorSpec, name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    if None in pair:
        raise FcdeployError(
            f"input {spec.name!r} takes images of any size ({checks.format_shape(spec.shape)}), and {name} does not say which",
            "--preprocess FILE with the line: size = [224, 224]",
        )
    if len(pair) != 2 or not all(map(_is_positive, pair)):
        raise FcdeployError(f"{name}: 'size' is {value!r}, expected height and width in pixels", "size = [224, 224]")
    return pair


def _check_choice(given: dict[str, Any], key: str, allowed: tuple[str, ...], default: str, name: str) -> str:
    value = given.get(key, default)
    if value not in allowed:
        raise FcdeployError(
            f"{name}: {key!r} is {value!r}, expected one of {', '.join(allowed)}", f'{key} = "{default}"'
        )
    return str(value)


def _check_numbers(value: Any, key: str, depth: int, name: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, depth) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        wanted = "a number" if depth == 1 else f"a number or {depth} of them"
        raise FcdeployError(f"{name}: {key!r} is {value!r}, expected {wanted}", f"{key} = 1.0")
    return tuple(float(v) for v in values)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
