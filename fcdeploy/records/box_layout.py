"""Where a detector's answers hold its boxes, as a plain value: recorded in a bundle, so that a server can tell them.

Its JSON comes from files that someone else may have written, so `from_json` checks every key.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.records.json_keys import check_keys, is_number

MOST_CLASSES = 100_000  # of one anchor, of which the background may be the last
LATER: dict[str, Any] = {"class_count": None, "first_class": 0}  # keys that older files do not have
FORMS = ("corners", "corners, y first", "centre and size")
HEADS = ("", "anchors last", "anchors first", "anchors first, classes only", "anchors apart")
"""A suppression has left the boxes that count; or every anchor answers, (n, 4 + classes, anchors) as Ultralytics' YOLOv8 and
later have it, or (n, anchors, 5 + classes) with a share of being an object in front of the classes, as YOLOv5, v7 and YOLOX, or
without it, as RT-DETR, or boxes (n, anchors, 4) and scores (n, anchors, classes) in two outputs, as single-shot detectors."""


@dataclass(frozen=True)
class BoxLayout:
    """Which outputs hold boxes, scores and classes, or in which columns of `boxes` they are; of every anchor `boxes` alone, but
    for anchors apart, where `scores` is an output and `classes` the column of the background, which is no class, if there is one.

    `sample` is the column that says of which sample a row is.  `least` is the score that counts, `overlap` from where on the
    weaker of two boxes of a class is left out (None: it was in the graph).  `shares`: of the input's sides, not pixels.
    `class_count` is how many columns of an anchor are classes, where masks or points follow them; `first_class` is the number of
    the first class, which has the first name.
    """

    boxes: str
    scores: str | int | None = None
    classes: str | int | None = None
    sample: int | None = None
    least: float | None = None
    form: str = "corners"
    shares: bool = False
    head: str = ""
    overlap: float | None = None
    class_count: int | None = None
    first_class: int = 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that are read."""
        return tuple(name for name in (self.boxes, self.scores, self.classes) if isinstance(name, str))

    def describe(self) -> str:
        """One line, for reports."""
        which = f", {self.head}" if self.head else ""
        least = "" if self.least is None else f", shown from a score of {self.least:g}"
        overlap = "" if self.overlap is None else f", of those that overlap by {self.overlap:g} the best"
        unit = "shares of the input" if self.shares else "pixels"
        counted = f", classes counted from {self.first_class}" if self.first_class else ""
        return f"boxes in {self.boxes!r}{which}: {self.form} in {unit}{least}{overlap}{counted}"


def to_json(value: BoxLayout) -> dict[str, Any]:
    """The fields by name; `from_json` reads them back."""
    return asdict(value)


def from_json(data: Any, source: str, hint: str) -> BoxLayout:
    """Raises FcdeployError that names the key."""
    check_keys(data, set(BoxLayout.__dataclass_fields__), source, hint, optional=LATER.keys())
    data = {**LATER, **data}
    places = all(data[key] is None or type(data[key]) in (str, int) for key in ("scores", "classes"))
    most = {"scores": 8, "classes": MOST_CLASSES if data["head"] == "anchors apart" else 8, "sample": 8}
    columns = all(0 <= data[key] < end for key, end in most.items() if type(data[key]) is int)
    numbers = all(data[key] is None or _is_share(data[key]) for key in ("least", "overlap"))
    fits = {
        "boxes": isinstance(data["boxes"], str), "scores": places and columns, "least": numbers,
        "classes": data["head"] != "anchors apart" or (isinstance(data["scores"], str) and type(data["classes"]) is not str),
        "sample": data["sample"] is None or type(data["sample"]) is int, "shares": type(data["shares"]) is bool,
        "form": data["form"] in FORMS, "head": data["head"] in HEADS,
        "class_count": data["class_count"] is None or (type(data["class_count"]) is int and data["class_count"] > 0),
        "first_class": type(data["first_class"]) is int and data["first_class"] in (0, 1),
    }  # fmt: skip
    for key, fit in fits.items():
        if not fit:
            raise FcdeployError(f"{source}: {key!r} is {str(data[key])[:60]!r}, which says nothing of boxes", hint)
    return BoxLayout(**data)


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1
