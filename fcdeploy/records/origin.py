"""What an int8 file says it was made from: target, effort, hashes of float model, samples and plan; and how it was judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.records.calibration import Calibration

KEY = "fcdeploy"
DECIDES = "decides"  # a JSON list of outputs
BACKGROUNDS = (
    "backgrounds"  # a JSON object: of each of them the class of positions where nothing is, -1 where all count
)
SHAPES = "shapes"  # a JSON object of lists: of inputs with free lengths, those of a run
REMAKE = "fcdeploy quantize MODEL --int8 --data DATA -o int8.onnx"


@dataclass(frozen=True)
class JudgedBy:
    """By what `quantize` judged: the outputs by whose decisions, the others by their numbers; where boxes are among them.

    `backgrounds` has the class of positions where nothing is for each output that decides, -1 where all positions count.
    """

    decides: tuple[str, ...]
    boxes: BoxLayout | None = None
    backgrounds: Mapping[str, int] = field(default_factory=dict)


def to_text(made: Mapping[str, str]) -> str:
    return json.dumps(made, separators=(",", ":"))


def read(metadata: Mapping[str, str], name: str) -> dict[str, str]:
    """What `quantize` wrote; {} for a model of another tool. Raises FcdeployError where it was edited to something else."""
    text = metadata.get(KEY, "{}")
    try:
        return {key: value for key, value in json.loads(text).items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise FcdeployError(f"model {name!r}: its metadata {KEY!r} is {text[:60]!r}", REMAKE) from error


def read_decides(metadata: Mapping[str, str], name: str) -> frozenset[str] | None:
    """The outputs by whose decisions `quantize` judged a model; None where it did not judge it, or another tool made it."""
    text = read(metadata, name).get(DECIDES)
    if text is None:
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise FcdeployError(
            f"model {name!r}: its metadata {KEY!r} has {DECIDES} {text[:60]!r}, expected a list of outputs", REMAKE
        )
    return frozenset(names)


def read_backgrounds(metadata: Mapping[str, str], name: str) -> dict[str, int]:
    """Of outputs that decide the class of positions where nothing is, -1 where all count; {} where nothing is said."""
    text = read(metadata, name).get(BACKGROUNDS, "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(type(each) is int and each >= -1 for each in found.values()):
        raise FcdeployError(
            f"model {name!r}: its metadata {KEY!r} has {BACKGROUNDS} {text[:60]!r}, expected a class of each output",
            REMAKE,
        )
    return found


def read_shapes(metadata: Mapping[str, str], name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a run on the commonest samples of inputs with free lengths, by name; {} where nothing is said."""
    text = read(metadata, name).get(SHAPES, "{}")
    try:
        shapes = json.loads(text)
    except (ValueError, RecursionError):
        shapes = None
    if not isinstance(shapes, dict) or not all(
        isinstance(shape, list) and all(type(length) is int and length > 0 for length in shape)
        for shape in shapes.values()
    ):
        raise FcdeployError(
            f"model {name!r}: its metadata {KEY!r} has {SHAPES} {text[:60]!r}, expected lengths of inputs", REMAKE
        )
    return {each: tuple(shape) for each, shape in shapes.items()}


def check_calibration(recorded: Calibration, file: Path, made: Mapping[str, str], *, data: bool = True) -> None:
    """Raises FcdeployError for a calibration of another float model than the origin names, or, with `data`, of other samples."""
    same = made.get("float") == recorded.model and (not data or made.get("data") == recorded.data)
    if made and not same:
        raise FcdeployError(f"calibration {str(file)!r} is not the one that the model was made with", REMAKE)
