"""How a picture becomes a model's input, as a plain value: recorded in calibrations, int8 models and bundles.

Its JSON comes from files that someone else may have written, so `from_json` checks every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.records.json_keys import check_keys, is_number

COLOURS = ("RGB", "BGR", "gray")
LAYOUTS = ("NCHW", "NHWC")
METHODS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "opencv")
"""How pixels are resampled: Pillow's filters, or OpenCV's INTER_LINEAR."""

STEPS: Mapping[str, tuple[int, ...]] = {
    "turn": (0,),  # as the picture's EXIF says
    "resize": (2,),  # height, width
    "resize_shorter": (1, 2),  # the shorter side; at most for the longer side
    "resize_cover": (2,),  # the least that covers height and width
    "resize_longest_of": (2,),  # at most for the longer side; both sides become multiples of the second number
    "resize_height": (2,),  # height; at most for the width
    "letterbox": (2,),  # height, width: scaled to fit, the rest filled on both sides
    "center_crop": (2,),  # height, width
    "pad": (4,),  # left, top, right, bottom
    "gray": (0,),
}
"""What is done to pixels -> how many numbers say how far."""

LARGEST = 1 << 16  # of a side in pixels, which is as far as JPEG goes


@dataclass(frozen=True)
class PreprocessingStep:
    """One change of the pixels. `fill` is the level of what is added; None where nothing may be added."""

    kind: str
    size: tuple[int, ...] = ()
    method: str = "bilinear"
    fill: int | None = None


@dataclass(frozen=True)
class Preprocessing:
    """A picture is decoded to `colour`, goes through `steps`, and becomes (pixel / divisor * scale - mean) / std.

    `mean` and `std` hold one number, or one a channel; all in float32, in that order.  Integer inputs take pixels as they
    are.  `canvas` (height, width) is filled up with zeros to the right and below, behind all that.  `name` is what the
    user called it, `note` what is not as in the original, `assumed` which of "resize" and "numbers" nobody has said.
    """

    name: str
    colour: str
    steps: tuple[PreprocessingStep, ...]
    layout: str
    divisor: float = 255.0
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    canvas: tuple[int, int] | None = None
    note: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return 1 if self.colour == "gray" or any(step.kind == "gray" for step in self.steps) else 3

    def describe(self) -> str:
        """One line: what is done, in order."""
        steps = [_describe_step(step) for step in self.steps]
        numbers = "as stored"
        if (self.divisor, self.scale, self.mean, self.std) != (1.0, 1.0, (0.0,), (1.0,)):
            level = f"pixel / {self.divisor:g}" if self.divisor != 1 else "pixel"
            level += f" * {self.scale:g}" if self.scale != 1 else ""
            mean, std = (" ".join(f"{n:g}" for n in numbers) for numbers in (self.mean, self.std))
            numbers = level if (mean, std) == ("0", "1") else f"({level} - [{mean}]) / [{std}]"
        canvas = [f"filled up to {self.canvas[0]} x {self.canvas[1]} with zeros"] if self.canvas else []
        return ", ".join([f"{self.name}: {self.colour}", *steps, numbers, *canvas, self.layout])


def _describe_step(step: PreprocessingStep) -> str:
    size = " x ".join(map(str, step.size))
    by = "" if step.method == "bilinear" or not step.kind.startswith(("resize", "letterbox")) else f" ({step.method})"
    words = {
        "turn": "turned by EXIF", "gray": "made gray", "resize": f"stretched to {size}",
        "resize_shorter": f"shorter side to {step.size[0] if step.size else 0}", "resize_cover": f"scaled to cover {size}",
        "letterbox": f"letterboxed to {size}", "center_crop": f"centre {size} cut out", "pad": f"padded by {size}",
    }  # fmt: skip
    if step.kind == "resize_longest_of":
        return f"longer side at most {step.size[0]}, both multiples of {step.size[1]}{by}"
    if step.kind == "resize_height":
        return f"height {step.size[0]}, width at most {step.size[1]}{by}"
    return words[step.kind] + by


def to_json(value: Preprocessing) -> dict[str, Any]:
    """Lists and numbers only; `from_json` reads it back."""
    return asdict(value)


def from_json(data: Any, source: str, hint: str) -> Preprocessing:
    """Read what `to_json` made; `source` is what to call it in an error. Raises FcdeployError that names the key."""
    keys = set(Preprocessing.__dataclass_fields__)
    check_keys(data, keys, source, hint)
    checks = {
        "name": isinstance(data["name"], str), "note": isinstance(data["note"], str),
        "colour": data["colour"] in COLOURS, "layout": data["layout"] in LAYOUTS,
        "divisor": _is_positive(data["divisor"]), "scale": _is_positive(data["scale"]),
        "mean": _are_numbers(data["mean"]), "std": _are_numbers(data["std"]) and all(map(_is_positive, data["std"])),
        "canvas": data["canvas"] is None or _are_lengths(data["canvas"], (2,)),
        "assumed": isinstance(data["assumed"], list | tuple) and set(map(str, data["assumed"])) <= {"resize", "numbers"},
        "steps": isinstance(data["steps"], list | tuple) and len(data["steps"]) <= 64,
    }  # fmt: skip
    for key, fits in checks.items():
        if not fits:
            raise FcdeployError(f"{source}: {key!r} is {str(data[key])[:60]!r}, which is none", hint)
    steps = tuple(_step_from_json(row, f"{source}: step {at}", hint) for at, row in enumerate(data["steps"]))
    canvas = None if data["canvas"] is None else (int(data["canvas"][0]), int(data["canvas"][1]))
    numbers = {key: tuple(float(n) for n in data[key]) for key in ("mean", "std")}
    value = Preprocessing(
        data["name"][:200], data["colour"], steps, data["layout"], float(data["divisor"]), float(data["scale"]),
        numbers["mean"], numbers["std"], canvas, data["note"][:500],
        tuple(data["assumed"]),
    )  # fmt: skip
    if any(len(row) not in (1, value.channels) for row in numbers.values()):
        raise FcdeployError(f"{source}: 'mean' or 'std' does not fit {value.channels} channels", hint)
    return value


def _step_from_json(row: Any, where: str, hint: str) -> PreprocessingStep:
    check_keys(row, set(PreprocessingStep.__dataclass_fields__), where, hint)
    if row["kind"] not in STEPS:
        raise FcdeployError(f"{where} is {str(row['kind'])[:60]!r}, expected one of {', '.join(STEPS)}", hint)
    lengths = STEPS[row["kind"]]
    least = 0 if row["kind"] == "pad" else 1
    if not _are_lengths(row["size"], lengths, least):
        raise FcdeployError(f"{where} has size {str(row['size'])[:60]!r}, expected pixels", hint)
    fill = row["fill"]
    if row["method"] not in METHODS or not (fill is None or (type(fill) is int and 0 <= fill <= 255)):
        raise FcdeployError(f"{where} has a method or fill that is none", hint)
    return PreprocessingStep(row["kind"], tuple(row["size"]), row["method"], fill)


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _are_numbers(values: Any) -> bool:
    fits = isinstance(values, list | tuple) and len(values) in (1, 3)
    return fits and all(map(is_number, values))


def _are_lengths(values: Any, counts: tuple[int, ...], least: int = 1) -> bool:
    fits = isinstance(values, list | tuple) and len(values) in counts
    return fits and all(type(n) is int and least <= n <= LARGEST for n in values)
