"""Layouts of boxes that someone else may have written: read, or refused in a sentence, whatever they say of whatever outputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.records.box_layout import AnchorHead, BoxLayout, Columns, Detections, Grid, Level
from fcdeploy.records.box_layout_fit import check_outputs
from fcdeploy.records.box_layout_json import from_json, to_json
from fcdeploy.records.signature import TensorSpec

SIZE = (32, 32)
PLACES = (Grid(4, 4, 8), Grid(2, 2, 16))
TWO = (Grid(4, 4, 8, 2),)


def table(layout: Any, coding: Any, numbers: int = 4, objectness: bool = False) -> AnchorHead:
    start = numbers + objectness
    level = Level(
        Columns("a", layout, 0, numbers), Columns("a", layout, start, start + 2),
        Columns("a", layout, numbers, start) if objectness else None, PLACES, Columns("a", layout, start + 2),
    )  # fmt: skip
    return AnchorHead((level,), coding, 0.5)


def maps(layout: Any, coding: Any) -> AnchorHead:
    return AnchorHead((Level(Columns("a", layout, 0, 4, 2), Columns("b", layout, 0, None, 2), None, TWO),), coding, 0.5)


CASES: list[tuple[BoxLayout, dict[str, tuple[int, ...]]]] = [
    (table("anchors first", "centre and size"), {"a": (2, 20, 8)}),
    (table("anchors last", "offsets", objectness=True), {"a": (2, 8, 20)}),
    (table("anchors first", "bins", 32), {"a": (2, 20, 36)}),
    (maps("map", "deltas"), {"a": (2, 8, 4, 4), "b": (2, 6, 4, 4)}),
    (maps("map, channels last", "distances"), {"a": (2, 4, 4, 8), "b": (2, 4, 4, 6)}),
    (maps("maps of anchors", "logits"), {"a": (2, 2, 4, 4, 4), "b": (2, 2, 4, 4, 3)}),
    (
        AnchorHead(
            (Level(Columns("a", "anchors first"), Columns("b", "anchors first"), None, PLACES),), "priors", 0.5, 0, "softmax"
        ),
        {"a": (2, 20, 4), "b": (2, 20, 3)},
    ),
    (Detections("a", "b", "c"), {"a": (2, 20, 4), "b": (2, 20), "c": (2, 20)}),
    (Detections("a", 6, 5, 0), {"a": (20, 7)}),
    (Detections("a", 4, 5, None, 0.25), {"a": (2, 20, 6)}),
]  # fmt: skip


def list_numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all numbers and of what may be one, in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from list_numbers(each, (*path, key))
    if value is None or type(value) in (int, list):
        yield path


@pytest.mark.parametrize("case", range(len(CASES)))
def test_what_fits_is_read(case: int) -> None:
    layout, shapes = CASES[case]
    check_outputs(layout, [TensorSpec(name, np.dtype(np.float32), shape) for name, shape in shapes.items()], "f", "h")
    outputs = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()}
    assert len(read_boxes(layout, outputs, 2, SIZE)) == 2


@pytest.mark.parametrize("case", range(len(CASES)))
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_what_does_not_fit_is_refused_where_it_is_declared_or_read(case: int, data: st.DataObject) -> None:
    """Any number or axis another one, declared or free: nothing but an FcdeployError."""
    layout, shapes = copy.deepcopy(CASES[case])
    document = json.loads(json.dumps(to_json(layout)))
    for _ in range(data.draw(st.integers(0, 2))):
        *above, key = data.draw(st.sampled_from([path for path in list_numbers(document) if path]))
        place = document
        for step in above:
            place = place[step]
        place[key] = [] if isinstance(place[key], list) else data.draw(st.sampled_from([None, 0, 1, 2, 3, 5, 40]))
    name = data.draw(st.sampled_from([*shapes]))
    axis, length = (
        data.draw(st.integers(0, len(shapes[name]) - 1)),
        data.draw(st.sampled_from([None, 1, 3, 4, 5, 8, 20])),
    )
    if length is not None:
        shapes[name] = (*shapes[name][:axis], length, *shapes[name][axis + 1 :])
    if data.draw(st.booleans()) and len(shapes[name]) > 1:
        shapes[name] = shapes[name][:-1]
    free = data.draw(st.booleans())
    specs = [
        TensorSpec(each, np.dtype(np.float32), (None,) * len(shape) if free else shape)
        for each, shape in shapes.items()
    ]
    outputs = {each: np.random.default_rng(0).random(shape, np.float32) for each, shape in shapes.items()}
    with suppress(FcdeployError):
        read = from_json(document, "f", "h")
        check_outputs(read, specs, "f", "h")
        read_boxes(read, outputs, 2, SIZE)


def test_outputs_of_text_are_no_boxes() -> None:
    with pytest.raises(FcdeployError, match="output 'a' holds no numbers"):
        check_outputs(Detections("a", 4, 5), [TensorSpec("a", np.dtype(object), (None, 6))], "f", "h")
