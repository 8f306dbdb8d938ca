"""A preprocessing in settings, `--preprocess FILE.toml`; presets are rows of the same keys.

preset = "timm"            # a row to begin with; what stands beside it changes it
size = [224, 224]          # height and width, or one number; by default what the model's input declares
resize = "crop"            # "stretch"; "crop": scale the shorter side, then cut the centre out; "letterbox": scale to fit,
                           # and fill; "longest": both sides a multiple of 32; "height": a line of text, zeros behind it
shorter_side = 256         # with "crop": what the shorter side is scaled to; by default just enough for the cut
crop_share = 0.875         # with "crop", instead: the cut's share of the shorter side
longest_side = 960         # with "longest": what the longer side is scaled to where it is longer
interpolation = "bilinear" # "nearest", "bicubic", "box", "hamming", "lanczos": Pillow's; "opencv": INTER_LINEAR
fill = 114                 # with "letterbox", and with "crop" of pictures that are too small: the level of the border
exif = true                # turn pictures as their EXIF says; by default as they are stored
colour = "RGB"             # or "BGR", "gray"; by default RGB for three channels, gray for one
layout = "NCHW"            # or "NHWC"; by default what the model's input declares
scale = 0.00392156862745   # value = (pixel * scale - mean) / std; without it (pixel / 255 - mean) / std
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError, suggest_name
from fcdeploy.records.json_keys import is_number
from fcdeploy.records.preprocessing import COLOURS, LARGEST, LAYOUTS, METHODS, Preprocessing, PreprocessingStep
from fcdeploy.records.signature import TensorSpec, format_shape

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET: dict[str, Any] = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
PRESETS: Mapping[str, dict[str, Any]] = {
    "torchvision-imagenet": {"resize": "crop", "crop_share": 224 / 256, "fill": 0, **IMAGENET},
    "timm": {"resize": "crop", "crop_share": 0.875, "interpolation": "bicubic", "fill": 0, **IMAGENET},
    "yolo-letterbox": {"resize": "letterbox", "interpolation": "opencv", "fill": 114, "exif": True, "mean": 0.0},
    "paddle-ocr-det": {
        "resize": "longest", "longest_side": 960, "interpolation": "opencv", "colour": "BGR", "exif": True,
        "scale": 1 / 255, **IMAGENET,
    },
    "paddle-ocr-rec": {
        "resize": "height", "interpolation": "opencv", "colour": "BGR", "exif": True, "mean": 0.5, "std": 0.5,
    },
    "scale-0-1": {"resize": "stretch", "mean": 0.0},
}  # fmt: skip
"""What each original does, as settings: torchvision's ImageClassification, timm's create_transform with its defaults,
Ultralytics' LetterBox, PaddleOCR's detection and recognition, and pixel / 255."""

SIZES = {
    "torchvision-imagenet": (224, 224),
    "timm": (224, 224),
    "yolo-letterbox": (640, 640),
    "paddle-ocr-rec": (48, 320),
}
"""Height and width where neither the model's input nor the settings say."""

LINE = 64  # pixels: a text recognizer's input is lower, a detector's is higher
MULTIPLE = 32  # of a detector's sides
RESIZE = ("stretch", "crop", "letterbox", "longest", "height")
KEYS = (
    "size", "resize", "shorter_side", "crop_share", "longest_side", "interpolation", "fill", "exif", "colour", "layout",
    "scale", "mean", "std", "preset",
)  # fmt: skip


def read_settings(path: Path) -> dict[str, Any]:
    """The keys of a TOML file. Raises FcdeployError."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FcdeployError(f"--preprocess {str(path)!r} cannot be read: {error}", "give a TOML file") from error


def complete_settings(
    given: Mapping[str, Any], spec: TensorSpec, name: str, stored: tuple[int, int, int] | None = None
) -> Preprocessing:
    """Fill what the settings leave open from the model's input, and check every value.

    `name` is what to call the settings; `stored` is (height, width, channels) where all pictures are of one size: it
    stands in for what the input does not say, and an input of one row of features takes the picture laid out flat.
    """
    _check_keys(given, spec, name)
    if stored and len(spec.shape) in (0, 2):
        spec = replace(spec, shape=(None, stored[2], *stored[:2]))
    settings, preset = _apply_preset(given, spec, name)
    layout = "NCHW"
    if len(spec.shape) != 3:
        layout = _check_choice(settings, "layout", LAYOUTS, guess_layout(spec.shape), name)
    channels, size = read_declared_size(spec, layout)
    if stored:
        size = (size[0] or stored[0], size[1] or stored[1])
    colour = _choose_colour(settings, channels, stored, spec, name)
    bands = 1 if colour == "gray" else 3
    integers = spec.dtype.kind in "iu"
    if bands == 1:
        _check_gray_preset(given, settings, spec, name)
    mean = _check_numbers(settings.get("mean", 0.0), "mean", bands, name)
    std = _check_numbers(settings.get("std", 1.0), "std", bands, name)
    (scale,) = _check_numbers(settings.get("scale", 1.0), "scale", 1, name)
    if min(std) <= 0 or scale <= 0:
        key = "scale" if scale <= 0 else "std"
        raise FcdeployError(
            f"{name}: {key!r} is {settings[key]!r}, expected a positive number",
            f"{key} = 1.0 leaves values as they are",
        )
    steps, canvas = _make_steps(settings, size, spec, name, SIZES.get(preset or ""))
    said = {"resize": "resize" in settings, "numbers": integers or bool({"scale", "mean", "std"} & set(settings))}
    return Preprocessing(
        name, colour, steps, layout, 1.0 if integers or "scale" in settings else 255.0, scale, mean, std, canvas,
        assumed=tuple(what for what, known in said.items() if not known),
    )  # fmt: skip


def _check_gray_preset(given: Mapping[str, Any], settings: Mapping[str, Any], spec: TensorSpec, name: str) -> None:
    """Raise FcdeployError where the preset brings numbers for three channels to an input of one."""
    for key in ("mean", "std"):
        if key not in given and isinstance(settings.get(key), list):
            raise FcdeployError(
                f"{name}: the preset's {key!r} is {settings[key]}, for 3 channels, and input {spec.name!r} takes 1",
                "--preprocess scale-0-1 if it was trained on pixel / 255, else FILE.toml with the mean and std of its "
                "training, such as mean = 0.1307 and std = 0.3081",
            )


def _apply_preset(given: Mapping[str, Any], spec: TensorSpec, name: str) -> tuple[dict[str, Any], str | None]:
    """The settings on top of those of their preset; 'paddle-ocr' is the one that the input's height tells."""
    preset = given.get("preset")
    if preset is None:
        return dict(given), None
    if preset == "paddle-ocr":
        height = spec.shape[2] if len(spec.shape) == 4 else None
        preset = "paddle-ocr-rec" if height is not None and height <= LINE else "paddle-ocr-det"
    if preset not in PRESETS:
        raise FcdeployError(
            f"{name}: preset {preset!r} is unknown, expected one of {', '.join(PRESETS)}", 'preset = "timm"'
        )
    row = PRESETS[preset]
    if spec.dtype.kind in "iu" and "mean" in row:
        row = {key: value for key, value in row.items() if key not in ("scale", "mean", "std")}
        if preset not in ("yolo-letterbox", "scale-0-1"):
            raise FcdeployError(
                f"{name}: preset {preset!r} makes fractions, and input {spec.name!r} wants {spec.dtype}",
                "a TOML file with size and resize alone",
            )
    return {**row, **{key: value for key, value in given.items() if key != "preset"}}, preset


def _make_steps(
    settings: Mapping[str, Any],
    declared: tuple[int | None, int | None],
    spec: TensorSpec,
    name: str,
    usual: tuple[int, int] | None,
) -> tuple[tuple[PreprocessingStep, ...], tuple[int, int] | None]:
    """What is done to pixels, and what they are filled up to."""
    resize = _check_choice(settings, "resize", RESIZE, "stretch", name)
    method = _check_choice(settings, "interpolation", METHODS, "bilinear", name)
    fill, first = settings.get("fill"), [PreprocessingStep("turn")] if settings.get("exif") is True else []
    if not (fill is None or (type(fill) is int and 0 <= fill <= 255)):
        raise FcdeployError(f"{name}: 'fill' is {fill!r}, expected a level of 0 to 255", "fill = 114")
    shorter = settings.get("shorter_side")
    if shorter is not None and (resize != "crop" or not _is_positive(shorter)):
        raise FcdeployError(
            f"{name}: 'shorter_side' is {shorter!r} with resize = {resize!r}, expected pixels with 'crop'",
            'resize = "crop"',
        )
    if resize == "longest" and None in declared and "size" not in settings:
        most = settings.get("longest_side", 960)
        if not _is_positive(most):
            raise FcdeployError(f"{name}: 'longest_side' is {most!r}, expected pixels", "longest_side = 960")
        return (*first, PreprocessingStep("resize_longest_of", (most, MULTIPLE), method)), None
    if usual and "size" not in settings:
        declared = (declared[0] or usual[0], declared[1] or usual[1])
    size = _check_size(settings.get("size", declared), spec, name)
    if resize == "height":
        return (*first, PreprocessingStep("resize_height", size, method)), size
    if resize == "letterbox":
        return (*first, PreprocessingStep("letterbox", size, method, 114 if fill is None else fill)), None
    if resize == "crop":
        return (*first, *_make_crop(settings, size, method, fill, name)), None
    return (*first, PreprocessingStep("resize", size, method)), None


def _make_crop(
    settings: Mapping[str, Any], size: tuple[int, int], method: str, fill: int | None, name: str
) -> tuple[PreprocessingStep, ...]:
    """Scaled to the shorter side that is said, or that follows from the share, or just enough; then the cut."""
    shorter, share = settings.get("shorter_side"), settings.get("crop_share")
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        raise FcdeployError(
            f"{name}: 'crop_share' is {share!r}, expected more than 0 and at most 1", "crop_share = 0.875"
        )
    if shorter is None:
        if share is None:
            return PreprocessingStep("resize_cover", size, method), PreprocessingStep("center_crop", size, fill=fill)
        shorter = math.floor(min(size) / share)  # as timm has it
    return PreprocessingStep("resize_shorter", (shorter,), method), PreprocessingStep("center_crop", size, fill=fill)


def _check_keys(given: Mapping[str, Any], spec: TensorSpec, name: str) -> None:
    """Keys that there are, and none that makes fractions for an input of integers."""
    for key in given:
        if key not in KEYS:
            raise FcdeployError(
                f"{name}: unknown key {key!r}, expected one of {', '.join(KEYS)}",
                suggest_name(key, KEYS, f"remove {key!r}"),
            )
    changed = [key for key in ("scale", "mean", "std") if key in given]
    if spec.dtype.kind in "iu" and changed:
        raise FcdeployError(
            f"{name}: {changed[0]!r} makes fractions, and input {spec.name!r} wants {spec.dtype}",
            f"remove {changed[0]!r}",
        )


def _choose_colour(
    given: Mapping[str, Any], channels: int | None, stored: tuple[int, int, int] | None, spec: TensorSpec, name: str
) -> str:
    """The colours asked for, or those of the input's channels, or of the pictures; the input must have as many."""
    gray = (channels or (stored[2] if stored else 3)) == 1
    colour = _check_choice(given, "colour", COLOURS, "gray" if gray else "RGB", name)
    check_channels(1 if colour == "gray" else 3, colour, channels, spec, name)
    return colour


def check_channels(bands: int, colour: str, channels: int | None, spec: TensorSpec, name: str) -> None:
    """Raise FcdeployError unless the input takes so many channels."""
    if channels not in (None, bands):
        raise FcdeployError(
            f"{name}: 'colour' is {colour!r}, {bands} channels, and input {spec.name!r} wants {channels}",
            f'colour = "{"gray" if channels == 1 else "RGB"}"' if channels in (1, 3) else "give an .npz",
        )


def guess_layout(shape: tuple[int | None, ...]) -> str:
    """Channels last only when the last axis looks like channels and the second does not."""
    return "NHWC" if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"


def read_declared_size(spec: TensorSpec, layout: str) -> tuple[int | None, tuple[int | None, int | None]]:
    """Channels, and height and width, as the model's input declares them."""
    shape = spec.shape
    if len(shape) == 3:  # no axis for channels: gray
        return 1, (shape[1], shape[2])
    if len(shape) != 4:
        raise FcdeployError(
            f"input {spec.name!r} has shape {format_shape(shape)}, expected four axes to feed images",
            "give arrays in place of images: no preprocessing changes the number of axes",
        )
    return (shape[1], (shape[2], shape[3])) if layout == "NCHW" else (shape[3], (shape[1], shape[2]))


def _check_size(value: Any, spec: TensorSpec, name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    if None in pair:
        raise FcdeployError(
            f"input {spec.name!r} takes images of any size ({format_shape(spec.shape)}), and {name} does not say which",
            "--preprocess FILE.toml with the line: size = [224, 224]",
        )
    if len(pair) != 2 or not all(map(_is_positive, pair)):
        raise FcdeployError(f"{name}: 'size' is {value!r}, expected height and width in pixels", "size = [224, 224]")
    return pair


def _check_choice(given: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str, name: str) -> str:
    value = given.get(key, default)
    if value not in allowed:
        raise FcdeployError(
            f"{name}: {key!r} is {value!r}, expected one of {', '.join(allowed)}", f'{key} = "{default}"'
        )
    return str(value)


def _check_numbers(value: Any, key: str, depth: int, name: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, depth) or not all(map(is_number, values)):
        wanted = "a number" if depth == 1 else f"a number or {depth} of them"
        example = 1.0 if depth == 1 else [1.0] * depth
        raise FcdeployError(f"{name}: {key!r} is {value!r}, expected {wanted}", f"{key} = {example}")
    return tuple(float(v) for v in values)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST
