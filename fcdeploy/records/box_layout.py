"""Where a detector's answers hold its boxes, as a plain value: found once, recorded in the int8 model and in a bundle.

A graph chooses boxes itself, behind a suppression (`Detections`), or every anchor answers (`AnchorHead`):

| coding | numbers of a box | as written by |
|---|---|---|
| corners; corners, y first; centre and size | as they say, in pixels or shares of the picture | YOLOv5 and later, SSD decoded |
| offsets | of the centre to its place, and logarithms of the sides, in strides | YOLOX |
| logits; shares | the same as shares of the way and of the sides, before a Sigmoid or behind it | YOLOv5 before decoding |
| distances | from the place to the four sides, in strides | FCOS, SCRFD |
| bins | logits of distances, as many for each side | GFL, PicoDet, YOLOv8 before decoding |
| priors | offsets to a prior box, in tenths of its sides, and logarithms of the sides, in fifths | SSD, RetinaFace |
| deltas | the same in sides, and logarithms as they are | RetinaNet, EfficientDet |
| cells | logits of the way across its place, and logarithms of a prior box's sides | YOLOv2 |
| pixels | of the centre to its place, and the sides, in pixels | BlazeFace and MediaPipe's others |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Layout = Literal["anchors first", "anchors last", "map", "map, channels last", "maps of anchors"]
Form = Literal["corners", "corners, y first", "centre and size"]
Coding = Literal[
    "corners", "corners, y first", "centre and size", "offsets", "logits", "shares", "distances", "bins", "priors", "deltas",
    "cells", "pixels",
]  # fmt: skip
Left = Literal["", "sigmoid", "softmax"]
FORMS: tuple[Form, ...] = get_args(Form)  # of boxes that are decoded
ASSUMED = (
    "logits",
    "shares",
    "priors",
    "deltas",
    "cells",
)  # codings by prior boxes, whose sizes no output tells
BOX = 4  # numbers of a box
SHOWN_FROM = (
    0.25,
    0.3,
    0.4,
    0.5,
    0.6,
)  # scores: what Ultralytics and YOLOX show, SSD counts, and who wants to be surer


@dataclass(frozen=True)
class Grid:
    """Rows and columns of a map, pixels from one to the next, and anchors at each place."""

    rows: int
    columns: int
    stride: int
    anchors: int = 1

    @property
    def count(self) -> int:
        """All anchors of the map."""
        return self.rows * self.columns * self.anchors


@dataclass(frozen=True)
class Columns:
    """Numbers `start` to before `stop` of each anchor in an output, laid out in one of several ways, `anchors` at a place.

    "map" is (n, anchors * numbers, rows, columns), "maps of anchors" (n, anchors, rows, columns, numbers).
    """

    output: str
    layout: Layout
    start: int = 0
    stop: int | None = None
    anchors: int = 1


@dataclass(frozen=True)
class Level:
    """Anchors of one map, or of all maps: where their boxes, scores and shares of being an object are; `grids` if known.

    `rest` are numbers behind the scores: points of a body, shares of masks.
    """

    boxes: Columns
    scores: Columns
    objectness: Columns | None = None
    grids: tuple[Grid, ...] = ()
    rest: Columns | None = None


@dataclass(frozen=True)
class AnchorHead:
    """Which numbers of which outputs are boxes and scores, how boxes are coded, and what becomes of those that overlap.

    `background` is a class of none, `left` what scores have still to go through.  Boxes are compared where they are shown from
    several scores, and served from the first of them.  `shares`: of the input's sides, not pixels.  `guessed`: that one
    number says whether an object is there, and the others which, or that none does, was told by numbers alone.
    """

    levels: tuple[Level, ...]
    coding: Coding
    overlap: float
    background: int | None = None
    left: Left = ""
    shown_from: tuple[float, ...] = SHOWN_FROM
    shares: bool = False
    guessed: bool = False

    kind = "boxes of anchors"

    @property
    def boxes(self) -> str:
        """The output that stands for all of them."""
        return self.levels[0].boxes.output

    @property
    def parts(self) -> tuple[Columns, ...]:
        """All numbers that make boxes."""
        parts = (part for level in self.levels for part in (level.boxes, level.scores, level.objectness))
        return tuple(part for part in parts if part is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that are read as boxes."""
        return tuple(dict.fromkeys(part.output for part in self.parts))

    @property
    def why_not_served(self) -> str:
        """Why boxes are compared and cannot be told to anyone; "" where they can."""
        if self.coding in ASSUMED:
            return f"{self.boxes!r} has offsets to prior boxes, whose sizes are in code behind the network"
        return "whether a share of being an object is in front of the classes is a guess" if self.guessed else ""

    def describe(self) -> str:
        """One line, for reports."""
        first = self.levels[0]
        where = f"{self.boxes!r}, {first.boxes.layout}"
        if len(self.levels) > 1:
            where = f"{len(self.levels)} maps, the first {where}"
        elif first.scores.output != self.boxes:
            where += f", scores in {first.scores.output!r}"
        shown = f"shown from a score of {self.shown_from[0]:g}"
        why = f"; not served: {self.why_not_served}" if self.why_not_served else ""
        best = f", of those that overlap by {self.overlap:g} the best" if self.overlap < 1 else ""
        return f"boxes in {where}: {self.coding}{_say_unit(self.coding, shares=self.shares)}, {shown}{best}{why}"


@dataclass(frozen=True)
class Detections:
    """Which outputs hold boxes, scores and classes, or in which columns of `boxes` they are; `least` is the score that counts.

    `sample` is the column that says of which sample a row is.  `shares`: of the input's sides, not pixels.  `first_class` is the
    number of the first class, which has the first name.
    """

    boxes: str
    scores: str | int | None = None
    classes: str | int | None = None
    sample: int | None = None
    least: float | None = None
    form: Form = "corners"
    shares: bool = False
    first_class: int = 0

    kind = "boxes found"
    why_not_served = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that are read as boxes."""
        return tuple(name for name in (self.boxes, self.scores, self.classes) if isinstance(name, str))

    def describe(self) -> str:
        """One line, for reports."""
        least = "" if self.least is None else f", shown from a score of {self.least:g}"
        counted = f", classes counted from {self.first_class}" if self.first_class else ""
        unit = _say_unit(self.form, shares=self.shares)
        return f"boxes in {self.boxes!r}: {self.form}{unit}{least}{counted}"


BoxLayout = AnchorHead | Detections


def _say_unit(coding: Coding, *, shares: bool) -> str:
    if coding not in FORMS:
        return ""
    return " in shares of the input" if shares else " in pixels"
