"""Layouts of boxes as JSON: it comes from files that someone else may have written, so `from_json` checks every key."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, get_args

from fcdeploy.errors import FcdeployError
from fcdeploy.records.box_layout import (
    BOX,
    FORMS,
    AnchorHead,
    BoxLayout,
    Coding,
    Columns,
    Detections,
    Grid,
    Layout,
    Left,
    Level,
)
from fcdeploy.records.json_keys import check_keys, is_number

MOST_COLUMNS = 1 << 20  # of one anchor
MOST_MAPS = 64
MOST_STRIDE = 1 << 16


def to_json(value: BoxLayout) -> dict[str, Any]:
    """The fields by name; `from_json` reads them back."""
    return asdict(value)


def from_json(data: Any, source: str, hint: str) -> BoxLayout:
    """Raises FcdeployError that names the key."""
    if isinstance(data, dict) and "levels" in data:
        return _read_head(data, source, hint)
    return _read_chosen(data, source, hint)


def _read_chosen(data: Any, source: str, hint: str) -> BoxLayout:
    """Of what the graph has chosen; and of one table of anchors, or two, as earlier versions wrote it."""
    later = {"first_class": 0, "head": "", "overlap": None, "class_count": None}
    check_keys(data, {field.name for field in fields(Detections)} | later.keys(), source, hint, optional=later.keys())
    row = {**later, **data}
    apart = row["head"] == "anchors apart"
    most = {"scores": 8, "classes": MOST_COLUMNS if apart else 8, "sample": 8}
    columns = all(0 <= row[key] < end for key, end in most.items() if type(row[key]) is int)
    fits = {
        "boxes": isinstance(row["boxes"], str), "least": row["least"] is None or _is_share(row["least"]),
        "scores": columns and all(row[key] is None or type(row[key]) in (str, int) for key in ("scores", "classes")),
        "sample": row["sample"] is None or type(row["sample"]) is int, "shares": type(row["shares"]) is bool,
        "form": row["form"] in FORMS, "overlap": row["overlap"] is None or _is_share(row["overlap"]),
        "head": row["head"] in ("", *EARLIER) and (not apart or isinstance(row["scores"], str)),
        "class_count": row["class_count"] is None or (type(row["class_count"]) is int and row["class_count"] > 0),
        "first_class": type(row["first_class"]) is int and row["first_class"] in (0, 1),
    }  # fmt: skip
    _refuse_unfit(fits, row, source, hint)
    if row["head"]:
        return _convert_earlier(row)
    return Detections(**{field.name: row[field.name] for field in fields(Detections)})


EARLIER: dict[str, tuple[Layout, int]] = {
    "anchors last": ("anchors last", BOX),
    "anchors first": ("anchors first", BOX + 1),
    "anchors first, classes only": ("anchors first", BOX),
    "anchors apart": ("anchors first", 0),
}
"""Heads as bundles of earlier versions name them: how they are laid out, and where the scores of classes begin."""


def _convert_earlier(row: dict[str, Any]) -> AnchorHead:
    layout, start = EARLIER[row["head"]]
    stop = None if row["class_count"] is None else start + row["class_count"]
    name = row["boxes"]
    level = Level(
        Columns(name, layout, 0, BOX),
        Columns(row["scores"] if start == 0 else name, layout, start, stop),
        Columns(name, layout, BOX, start) if start > BOX else None,
    )
    background = row["classes"] if start == 0 and type(row["classes"]) is int else None
    overlap = 1.0 if row["overlap"] is None else row["overlap"]
    shown = (row["least"] or 0.0,)
    return AnchorHead((level,), row["form"], overlap, background, shown_from=shown, shares=row["shares"])


def _read_head(data: dict[str, Any], source: str, hint: str) -> AnchorHead:
    check_keys(data, {field.name for field in fields(AnchorHead)}, source, hint)
    shown, background = data["shown_from"], data["background"]
    fits = {
        "levels": isinstance(data["levels"], list | tuple) and 0 < len(data["levels"]) <= MOST_MAPS,
        "coding": data["coding"] in get_args(Coding), "overlap": _is_share(data["overlap"]),
        "background": background is None or _is_count(background, MOST_COLUMNS), "left": data["left"] in get_args(Left),
        "shown_from": isinstance(shown, list | tuple) and 0 < len(shown) <= MOST_MAPS and all(map(_is_share, shown)),
        "shares": type(data["shares"]) is bool, "guessed": type(data["guessed"]) is bool,
    }  # fmt: skip
    _refuse_unfit(fits, data, source, hint)
    levels = tuple(_read_level(row, f"{source}: levels", hint) for row in data["levels"])
    return AnchorHead(**{**data, "levels": levels, "shown_from": tuple(shown)})


def _read_level(row: Any, source: str, hint: str) -> Level:
    check_keys(row, {field.name for field in fields(Level)}, source, hint)
    rows = row["grids"]
    fits = {"grids": isinstance(rows, list | tuple) and len(rows) <= MOST_MAPS}
    fits |= {key: row[key] is not None for key in ("boxes", "scores")}
    _refuse_unfit(fits, row, source, hint)
    parts = {
        key: None if row[key] is None else _read_columns(row[key], f"{source}: {key}", hint)
        for key in ("boxes", "scores", "objectness", "rest")
    }
    return Level(**parts, grids=tuple(_read_grid(grid, f"{source}: grids", hint) for grid in rows))  # type: ignore[arg-type]


def _read_columns(row: Any, source: str, hint: str) -> Columns:
    check_keys(row, {field.name for field in fields(Columns)}, source, hint)
    start, stop = row["start"], row["stop"]
    fits = {
        "output": isinstance(row["output"], str), "layout": row["layout"] in get_args(Layout),
        "start": _is_count(start, MOST_COLUMNS), "anchors": _is_count(row["anchors"], MOST_MAPS) and row["anchors"] > 0,
        "stop": stop is None or (_is_count(stop, MOST_COLUMNS) and _is_count(start, stop)),
    }  # fmt: skip
    _refuse_unfit(fits, row, source, hint)
    return Columns(**row)


def _read_grid(row: Any, source: str, hint: str) -> Grid:
    check_keys(row, {field.name for field in fields(Grid)}, source, hint)
    _refuse_unfit({key: _is_count(value, MOST_STRIDE) and value > 0 for key, value in row.items()}, row, source, hint)
    return Grid(**row)


def _refuse_unfit(fits: dict[str, bool], row: dict[str, Any], source: str, hint: str) -> None:
    for key, fit in fits.items():
        if not fit:
            raise FcdeployError(f"{source}: {key!r} is {str(row[key])[:60]!r}, which says nothing of boxes", hint)


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_count(value: Any, end: int) -> bool:
    return type(value) is int and 0 <= value < end
