"""`FILE.py:NAME`: the steps of a torchvision Compose, read as settings where each is one that is known.

The file is read, not run, where NAME is assigned a Compose of literals, or is a function that only returns one; else it is
imported, as `fcdeploy export FILE.py:FUNCTION` imports the user's own file, and the object's attributes are read.  Either way
a step becomes its class's name and its arguments; torchvision itself is not needed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.preprocessing.settings import IMAGENET, check_channels, guess_layout, read_declared_size
from fcdeploy.records.preprocessing import METHODS, Preprocessing, PreprocessingStep
from fcdeploy.records.signature import TensorSpec
from fcdeploy.user_code import load_function, user_code

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "Resize": ("size", "interpolation", "max_size", "antialias"),
    "CenterCrop": ("size",),
    "Pad": ("padding", "fill", "padding_mode"),
    "Grayscale": ("num_output_channels",),
    "RGB": (),
    "ToTensor": (),
    "MaybeToTensor": (),
    "PILToTensor": (),
    "MaybePILToTensor": (),
    "ToImage": (),
    "ToPureTensor": (),
    "ToDtype": ("dtype", "scale"),
    "ConvertImageDtype": ("dtype",),
    "Normalize": ("mean", "std", "inplace"),
    "ImageClassification": ("crop_size", "resize_size", "mean", "std", "interpolation", "antialias"),
    "Compose": ("transforms",),
    "Sequential": (),
}
"""The steps that are known, and the order of their arguments."""

V2 = "v2.ConvertImageDtype"
TO_TENSOR = {"ToTensor", "MaybeToTensor"}  # and divided by 255
AS_TENSOR = {"PILToTensor", "MaybePILToTensor", "ToImage"}  # bytes still
PLAIN = {"RGB", "ToPureTensor"}
RESAMPLED_BY_TORCH = (
    "the original resizes tensors, which torch rounds otherwise than Pillow does here: up to one level of 255 apart; "
    "Resize before ToImage is the same to the bit"
)


@dataclass(frozen=True)
class StepCall:
    """A step: its class's name and its arguments by name."""

    name: str
    arguments: Mapping[str, Any]


@dataclass
class _Reading:
    """What the steps so far come to. `stage` is "picture", then "bytes" (a tensor of them), then "floats"."""

    source: str
    stage: str = "picture"
    steps: list[PreprocessingStep] = field(default_factory=list)
    divisor: float = 1.0
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    normalized: bool = False
    note: str = ""


def read_transform(reference: str, spec: TensorSpec) -> Preprocessing:
    """The preprocessing of `FILE.py:NAME`. Raises FcdeployError that names the first step that is not known."""
    calls = _read_statically(reference)
    if calls is None:
        calls = _read_object(_load_transform(reference), reference)
    reading = _Reading(f"transform {reference!r}")
    for call in calls:
        _add(reading, call)
    layout = "NCHW" if len(spec.shape) == 3 else guess_layout(spec.shape)
    made = Preprocessing(
        reference, "RGB", tuple(reading.steps), layout, divisor=reading.divisor, scale=reading.scale,
        mean=reading.mean, std=reading.std, note=reading.note,
    )  # fmt: skip
    channels, _ = read_declared_size(spec, layout)
    if channels == 1 and made.channels == 3:
        raise _refuse(reading, f"makes three channels, and input {spec.name!r} wants 1", "transforms.Grayscale() first")
    check_channels(made.channels, "gray" if made.channels == 1 else "RGB", channels, spec, reference)
    if any(len(row) not in (1, made.channels) for row in (made.mean, made.std)):
        raise _refuse(
            reading, f"normalizes {len(made.mean)} channels of {made.channels}", "Normalize(mean=[...], std=[...])"
        )
    return made


# from the text


def _read_statically(reference: str) -> list[StepCall] | None:
    """The steps as they stand in the file; None where only running it would tell."""
    file, _, name = reference.rpartition(":")
    try:
        tree = ast.parse(Path(file).read_text())
    except (OSError, SyntaxError, ValueError):
        return None  # importing says what is wrong
    known: dict[str, Any] = {}
    found: ast.expr | None = None
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            target = node.targets[0].id
            if target == name:
                found = node.value
            known[target] = node.value
        if isinstance(node, ast.FunctionDef) and node.name == name:
            body = [line for line in node.body if not _is_docstring(line)]
            takes_nothing = not (node.args.args or node.args.posonlyargs or node.args.kwonlyargs or node.decorator_list)
            only = body[0] if len(body) == 1 else None
            found = only.value if takes_nothing and isinstance(only, ast.Return) else None
    try:
        return None if found is None else list(_flatten(found, known))
    except _NotLiteralError:
        return None


class _NotLiteralError(Exception):
    """Something in the text that is no literal and no step."""


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _flatten(node: ast.expr, known: Mapping[str, Any], depth: int = 0) -> Sequence[StepCall]:
    if isinstance(node, ast.Name) and node.id in known and depth < 8:
        return _flatten(known[node.id], known, depth + 1)
    name = _read_name(node.func) if isinstance(node, ast.Call) else ""
    if not isinstance(node, ast.Call) or name not in ARGUMENTS or name == "ConvertImageDtype":  # which has two versions
        raise _NotLiteralError
    if name in ("Compose", "Sequential"):
        steps = node.args if name == "Sequential" else _list_composed(node)
        return [call for step in steps for call in _flatten(step, known, depth + 1)]
    if len(node.args) > len(ARGUMENTS[name]) or any(keyword.arg is None for keyword in node.keywords):
        raise _NotLiteralError
    arguments = dict(zip(ARGUMENTS[name], node.args, strict=False)) | {str(k.arg): k.value for k in node.keywords}
    return [StepCall(name, {key: _read_literal(value, known) for key, value in arguments.items()})]


def _list_composed(node: ast.Call) -> Sequence[ast.expr]:
    """The steps of Compose([...]) or Compose(transforms=[...])."""
    rows = node.args or [keyword.value for keyword in node.keywords]
    if len(rows) != 1 or not isinstance(rows[0], ast.List | ast.Tuple):
        raise _NotLiteralError
    return rows[0].elts


def _read_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _read_literal(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """A literal, a name that stands for one, or the last word of InterpolationMode.BICUBIC and torch.float32."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name) and isinstance(known.get(node.id), ast.expr):
        node = known[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _NotLiteralError from None


# from the object


def _load_transform(reference: str) -> Any:
    """The object, or what a function without arguments returns."""
    value, _ = load_function(reference)
    if _get_class_name(value) not in ARGUMENTS and hasattr(value, "__code__"):
        with user_code(f"transform {reference!r} fails"):
            return value()
    return value


def _get_class_name(value: Any) -> str:
    return type(value).__name__


def _read_object(value: Any, reference: str) -> list[StepCall]:
    name = _get_class_name(value)
    if name == "Compose":
        return [call for step in value.transforms for call in _read_object(step, reference)]
    if name == "Sequential":
        return [call for step in value for call in _read_object(step, reference)]
    arguments = {key: getattr(value, key) for key in ARGUMENTS.get(name, ()) if hasattr(value, key)}
    return [StepCall(V2 if name == "ConvertImageDtype" and ".v2" in type(value).__module__ else name, arguments)]


# what steps mean


def _add(reading: _Reading, call: StepCall) -> None:
    """One more step of a known kind. Raises FcdeployError for others, and for orders that are not understood."""
    name, given = call.name, call.arguments
    if name in PLAIN:
        return
    if name == "ImageClassification":
        for part in (
            StepCall("Resize", {"size": given.get("resize_size", 256), "interpolation": given.get("interpolation", "bilinear")}),
            StepCall("CenterCrop", {"size": given["crop_size"]}),
            StepCall("ToTensor", {}),
            StepCall("Normalize", {key: given.get(key, usual) for key, usual in IMAGENET.items()}),
        ):  # fmt: skip
            _add(reading, part)
    elif name in TO_TENSOR | AS_TENSOR:
        if name in TO_TENSOR and reading.stage != "floats":
            reading.divisor = 255.0
        reading.stage = "floats" if name in TO_TENSOR or reading.stage == "floats" else "bytes"
    elif name in ("ToDtype", "ConvertImageDtype", V2):
        _add_conversion(reading, name, given)
    elif name == "Normalize":
        if reading.stage != "floats" or reading.normalized:
            raise _refuse(reading, "normalizes what is no tensor of floats yet", "ToTensor() before Normalize, once")
        reading.normalized = True
        reading.mean, reading.std = (_read_numbers(reading, given[key]) for key in ("mean", "std"))
    elif name in ("Resize", "CenterCrop", "Pad", "Grayscale"):
        reading.steps.append(_read_step(reading, name, given))
    else:
        random = (
            "a random step is for training; " if name.startswith(("Random", "AutoAugment", "TrivialAugment")) else ""
        )
        raise _refuse(
            reading, f"has the step {name!r}, which is not known", f"{random}known are {', '.join(ARGUMENTS)}"
        )


def _add_conversion(reading: _Reading, name: str, given: Mapping[str, Any]) -> None:
    dtype = str(given.get("dtype", "float32")).rpartition(".")[2]
    if dtype == "uint8" and reading.stage != "floats":
        return
    if dtype != "float32":
        raise _refuse(reading, f"converts to {dtype}", "float32")
    if reading.stage != "floats" and name == "ConvertImageDtype":
        reading.divisor = 255.0
    elif reading.stage != "floats" and given.get("scale", name == V2):
        reading.scale = 1 / 255  # version 2 multiplies, which rounds otherwise
    reading.stage = "floats"


def _read_step(reading: _Reading, name: str, given: Mapping[str, Any]) -> PreprocessingStep:
    if reading.normalized and name == "Pad":
        raise _refuse(reading, "pads behind Normalize", "Pad before Normalize")
    if name == "Grayscale":
        if given.get("num_output_channels", 1) != 1 or reading.stage != "picture":
            raise _refuse(
                reading, "makes pictures gray in three channels, or after they are tensors", "Grayscale() first"
            )
        return PreprocessingStep("gray")
    if name == "Pad":
        if given.get("padding_mode", "constant") != "constant" or type(given.get("fill", 0)) is not int:
            raise _refuse(reading, "pads with more than one level", "Pad(padding, fill=0)")
        row = _read_lengths(reading, given["padding"])
        row = row * 4 if len(row) == 1 else row * 2 if len(row) == 2 else row
        return PreprocessingStep("pad", row, fill=int(given.get("fill", 0)))
    size = _read_lengths(reading, given["size"])
    if name == "CenterCrop":
        if reading.normalized:  # a border behind it would be zeros, not black
            return PreprocessingStep("center_crop", size * 2 if len(size) == 1 else size)
        return PreprocessingStep("center_crop", size * 2 if len(size) == 1 else size, fill=0)
    if reading.stage == "floats":
        raise _refuse(
            reading, "resizes a tensor of floats", "Resize before ToTensor: Pillow resizes then, here as there"
        )
    if reading.stage == "bytes":
        reading.note = RESAMPLED_BY_TORCH
    if len(size) == 2:
        return PreprocessingStep("resize", size, _read_method(reading, given.get("interpolation", "bilinear")))
    longest = given.get("max_size")
    size = (*size, longest) if isinstance(longest, int) else size
    return PreprocessingStep("resize_shorter", size, _read_method(reading, given.get("interpolation", "bilinear")))


def _read_method(reading: _Reading, value: Any) -> str:
    """InterpolationMode.BILINEAR, its name or value, or Pillow's number."""
    numbers = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
    text = numbers.get(value) if isinstance(value, int) else str(getattr(value, "value", value))
    method = (text or "").lower().removesuffix("_exact").removesuffix("-exact")
    if method not in METHODS:
        raise _refuse(reading, f"resizes by {value!r}", f"one of {', '.join(METHODS[:-1])}")
    return method


def _read_lengths(reading: _Reading, value: Any) -> tuple[int, ...]:
    row = (value,) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    if len(row) not in (1, 2, 4) or any(type(n) is not int or n < 0 for n in row):
        raise _refuse(reading, f"has the size {value!r}", "one or two whole numbers of pixels")
    return row


def _read_numbers(reading: _Reading, value: Any) -> tuple[float, ...]:
    row = value.tolist() if hasattr(value, "tolist") else value
    row = [row] if isinstance(row, int | float) else list(row)
    if not row or any(type(n) not in (int, float) for n in row):
        raise _refuse(reading, f"normalizes by {value!r}", "a number for each channel")
    return tuple(float(n) for n in row)


def _refuse(reading: _Reading, what: str, hint: str) -> FcdeployError:
    return FcdeployError(f"{reading.source} {what}", hint)
