"""How raw data become a model's inputs, and what its classes are called: said once, and recorded from then on.

It goes with the calibration, the int8 model's metadata and the bundle, so that pictures are read there as they were here.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.files import read_small_file
from fcdeploy.records import box_layout_fit, box_layout_json
from fcdeploy.records import preprocessing as preprocessings
from fcdeploy.records.box_layout import BoxLayout
from fcdeploy.records.json_keys import check_keys, is_number
from fcdeploy.records.preprocessing import Preprocessing
from fcdeploy.records.signature import TensorSpec

KEY = "fcdeploy.format"  # of a model's metadata
KEYS = {"preprocess", "classes", "columns", "label", "statistics", "boxes"}
MOST_INPUTS = 1 << 12
MOST_TEXT = 1 << 20  # characters, of names of classes in another tool's metadata
MOST_NAMES = 1 << 17  # of classes, or of columns


@dataclass(frozen=True)
class InputStatistics:
    """What an input looked like over all samples: its ends, and of coloured pictures the mean of each channel."""

    name: str
    low: float
    high: float
    means: tuple[float, ...] = ()


@dataclass(frozen=True)
class DataFormat:
    """`preprocess` turns pictures into inputs: a recorded value, or what `--preprocess` names.

    `classes` are the names of the classes, in the order of their numbers; `columns` those of a table, as the model's
    input has them in its rows; `label` is the table's column of labels.  `statistics` are those of the samples that were
    calibrated on.  `boxes` is where a detector's answers have them.
    """

    preprocess: Preprocessing | Path | str | None = None
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    label: str = "label"
    statistics: tuple[InputStatistics, ...] = ()
    boxes: BoxLayout | None = None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The value, once a source was opened or a record read."""
        return self.preprocess if isinstance(self.preprocess, Preprocessing) else None

    def __bool__(self) -> bool:
        return self != UNSAID

    def on_top_of(self, recorded: DataFormat) -> DataFormat:
        """What is said here, and what was recorded for the rest."""
        return replace(
            self,
            preprocess=recorded.preprocess if self.preprocess is None else self.preprocess,
            classes=self.classes or recorded.classes,
            columns=self.columns or recorded.columns,
            statistics=self.statistics or recorded.statistics,
            label=recorded.label if self.label == UNSAID.label else self.label,
            boxes=self.boxes or recorded.boxes,
        )

    def describe(self) -> tuple[str, ...]:
        """A line for each thing that is known."""
        lines = []
        if self.preprocessing:
            lines.append(f"preprocessing {self.preprocessing.describe()}")
            lines += [self.preprocessing.note] if self.preprocessing.note else []
        for what, names in (("classes", self.classes), ("columns", self.columns)):
            if names:
                shown = ", ".join(names[:5]) + (f", ... {names[-1]}" if len(names) > 5 else "")
                lines.append(f"{len(names)} {what}: {shown}")
        return (*lines, *([self.boxes.describe()] if self.boxes else []))


UNSAID = DataFormat()


def describe_difference(one: DataFormat, other: DataFormat) -> str:
    """The first thing that two formats do not have in common, with the value of both; empty where they are equal."""
    if one.preprocess != other.preprocess:
        said = ["none", "none"]
        for at, how in enumerate((one.preprocessing, other.preprocessing)):
            if how is not None:
                said[at] = how.describe() + (f" ({' and '.join(how.assumed)} assumed)" if how.assumed else "")
        return f"preprocessing is {said[0]!r} in one and {said[1]!r} in the other"
    for what, names, others in (("classes", one.classes, other.classes), ("columns", one.columns, other.columns)):
        if len(names) != len(others):
            return f"one has {len(names)} {what} and the other {len(others)}"
        for at, (name, same) in enumerate(zip(names, others, strict=True)):
            if name != same:
                return f"of the {what} number {at} is {name[:60]!r} in one and {same[:60]!r} in the other"
    if one.label != other.label:
        return f"the column of labels is {one.label[:60]!r} in one and {other.label[:60]!r} in the other"
    if one.boxes != other.boxes:
        return f"boxes are read as {one.boxes} in one and as {other.boxes} in the other"
    return "" if one == other else "the statistics of their inputs differ"


def to_json(value: DataFormat) -> dict[str, Any]:
    """What a file keeps of it: recorded values only."""
    made = value.preprocessing
    return {
        "preprocess": None if made is None else preprocessings.to_json(made),
        "classes": list(value.classes),
        "columns": list(value.columns),
        "label": value.label,
        "statistics": [asdict(row) for row in value.statistics],
        **({"boxes": box_layout_json.to_json(value.boxes)} if value.boxes else {}),
    }


def from_json(data: Any, source: str, hint: str) -> DataFormat:
    """Read what `to_json` made; missing keys are what nothing was said of. Raises FcdeployError."""
    check_keys(data, KEYS, source, hint, optional=KEYS)
    for key in ("classes", "columns"):
        names = data.get(key, [])
        if not isinstance(names, list) or len(names) > MOST_NAMES or not all(isinstance(name, str) for name in names):
            raise FcdeployError(f"{source}: {key!r} is no list of names", hint)
    label, row = data.get("label", "label"), data.get("preprocess")
    if not isinstance(label, str):
        raise FcdeployError(f"{source}: 'label' is {str(label)[:60]!r}, expected the name of a column", hint)
    made = None if row is None else preprocessings.from_json(row, f"{source}: preprocess", hint)
    rows = data.get("statistics", [])
    if not isinstance(rows, list) or len(rows) > MOST_INPUTS:
        raise FcdeployError(f"{source}: 'statistics' is {str(rows)[:60]!r}, expected a list of rows", hint)
    statistics = tuple(_read_statistics(row, f"{source}: statistics", hint) for row in rows)
    boxes = None if data.get("boxes") is None else box_layout_json.from_json(data["boxes"], f"{source}: boxes", hint)
    return DataFormat(made, tuple(data.get("classes", [])), tuple(data.get("columns", [])), label, statistics, boxes)


def _read_statistics(row: Any, where: str, hint: str) -> InputStatistics:
    check_keys(row, set(InputStatistics.__dataclass_fields__), where, hint)
    lists = isinstance(row["means"], list | tuple)
    numbers = [row["low"], row["high"], *(row["means"] if lists else ())]
    finite = all(map(is_number, numbers))
    if not lists or not finite or not isinstance(row["name"], str) or len(row["means"]) > 3:
        raise FcdeployError(f"{where} has {str(row)[:60]!r}, expected a name and finite numbers", hint)
    return InputStatistics(row["name"], row["low"], row["high"], tuple(row["means"]))


def from_metadata(
    properties: Mapping[str, str], source: str, outputs: Sequence[TensorSpec] | None = None
) -> DataFormat:
    """What a model's metadata says; an empty value where it says nothing. Raises FcdeployError.

    With the model's `outputs` those in which boxes are said to be must be among them.
    """
    text = properties.get(KEY)
    if text is None:
        return UNSAID
    hint = "fcdeploy quantize MODEL --int8 --calibration C -o int8.onnx writes it again"
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FcdeployError(f"{source}: its metadata {KEY!r} is no JSON", hint) from error
    said = from_json(data, f"{source}: metadata {KEY!r}", hint)
    if said.boxes is not None and outputs is not None:
        box_layout_fit.check_outputs(said.boxes, outputs, f"{source}: metadata {KEY!r}", hint)
    return said


def read_ultralytics_names(properties: Mapping[str, str]) -> tuple[str, ...]:
    """The classes that Ultralytics' export writes as "{0: 'person', ...}"; () where there is none."""
    text = properties.get("names", "")
    try:
        named = ast.literal_eval(text) if text.startswith("{") and len(text) <= MOST_TEXT else {}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    in_order = isinstance(named, dict) and list(named) == list(range(len(named)))
    return tuple(map(str, named.values())) if in_order else ()


def to_metadata(value: DataFormat) -> str:
    """The same as text."""
    return json.dumps(to_json(value), separators=(",", ":"), ensure_ascii=False)


def read_classes(path: Path) -> tuple[str, ...]:
    """The names of classes, one a line. Raises FcdeployError."""
    try:
        text = read_small_file(path, "--classes", "a name a line, in UTF-8").decode("utf-8-sig")
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise FcdeployError(f"--classes {str(path)!r} cannot be read: {error}", "a name a line, in UTF-8") from error
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None) if len(names) < 10_000 else None
    if not names or len(names) > MOST_NAMES or twice is not None:
        said = "no name" if not names else f"{twice!r} twice" if twice is not None else f"{len(names)} names"
        raise FcdeployError(
            f"--classes {str(path)!r} holds {said}", "a name a line, in the order of the classes' numbers"
        )
    return names


def choose_format(
    recorded: DataFormat, *, preprocess: Preprocessing | Path | str | None = None, classes: Path | str | None = None,
    label: str | None = None,
) -> DataFormat:  # fmt: skip
    """What the options say, on top of what was recorded."""
    names = () if classes is None else read_classes(Path(classes))
    return DataFormat(preprocess, names, (), label or "label").on_top_of(recorded)
