"""Records with something odd in a field: every reader says in a sentence what is wrong, or takes what means the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import Net, random_data

from fcdeploy.commands.bundle import bundle
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records import (
    calibration,
    checkpoint,
    costs,
    data_format,
    fingerprints,
    manifest,
    origin,
    plan,
    preprocessing,
)
from fcdeploy.records.box_layout import AnchorHead, Columns, Detections, Grid, Level
from fcdeploy.records.box_layout_json import to_json
from fcdeploy.records.costs import Choice, Costs, Rates, TimeTrial
from fcdeploy.records.exchange import onnxruntime_json
from fcdeploy.records.exchange.formats import read_ranges
from fcdeploy.records.sample_layout import SampleLayout

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 70, 10**400, float("inf"), float("nan"), "", "odd", "-1", [], [None], {}, {"odd": 1}, [[[]]],
)  # fmt: skip
Read = Callable[[Any], object]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Read]]:
    """Name -> a sound document, and what reads one."""
    folder = tmp_path_factory.mktemp("records")
    net = Net()
    maps = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 8, name="c"))
    net.output(net.dense(net.op("Flatten", maps), 8 * 36, 4, name="d"))
    net.save(folder / "m.onnx")
    np.savez(folder / "data.npz", **random_data(0, 12, x=(3, 6, 6)))
    calibrate(folder / "m.onnx", data=folder / "data.npz", output=folder / "m.calib")
    quantize(folder / "m.onnx", calibration=folder / "m.calib", output=folder / "q.onnx", costs="none", floor="none",
             save_plan=folder / "plan.json")  # fmt: skip
    bundle(folder / "q.onnx", output=folder / "b.fcd", calibration=folder / "m.calib")
    content = (folder / "m.calib").read_bytes()
    size = int.from_bytes(content[:8], "little")
    outer = json.loads(content[8 : 8 + size])

    def read_calibration(header: Any) -> object:
        said = {**outer, "__metadata__": {"fcdeploy": json.dumps(header)}}
        text = json.dumps(said).encode()
        text += b" " * (-len(text) % 8)
        return calibration.from_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :], "c.calib")

    def read_checkpoint(header: Any) -> object:
        path = folder / "progress"
        path.write_bytes(b"".join([checkpoint.MAGIC, json.dumps(header).encode(), b"\n", rest]))
        return checkpoint.read_checkpoint(path, {"model": "m"})

    trial = TimeTrial(Choice(("a",), ("b",)), 0.5, 0.4, 0.6, 30.0)
    timed = Costs("m", "here", Rates(1.0, 1.0, 1.0, 1.0), {"a": (1.0, 2.0)}, ("a",), (trial,), (trial,), 31.0)
    recorded = (calibration.read(folder / "m.calib"),)
    state = checkpoint.Checkpoint({"model": "m"}, {"a": 1}, (0, 1), ((3, "x", "bad"),), (7,), recorded)
    whole = checkpoint.checkpoint_bytes(state)[len(checkpoint.MAGIC) :]
    line, _, rest = whole.partition(b"\n")
    said = json.loads((folder / "b.fcd" / "manifest.json").read_text())
    pictures = read_preprocessing("torchvision-imagenet", input_specs(read_model(folder / "m.onnx"))[0])
    boxes = {"boxes": to_json(Detections("y", 4, 5, 6, 0.25))}
    level = Level(Columns("y", "anchors first", 0, 4), Columns("y", "anchors first", 4), grids=(Grid(8, 8, 8),))
    anchors = {"boxes": to_json(AnchorHead((level,), "offsets", 0.5))}
    how = {"preprocess": preprocessing.to_json(pictures), "statistics": said["statistics"]}
    made = {"float": "f", "data": "d", "target": "x86-avx2"}
    return {
        "plan": (json.loads((folder / "plan.json").read_text()), lambda data: plan.from_json(data, "plan")),
        "costs": (json.loads(costs.to_text(timed)), lambda data: costs.from_text(json.dumps(data), "costs")),
        "manifest": (said, lambda data: manifest.from_json(data, "manifest")),
        "calibration": (json.loads(outer["__metadata__"]["fcdeploy"]), read_calibration),
        "progress": (json.loads(line), read_checkpoint),
        "origin": (made, lambda data: origin.read({origin.KEY: json.dumps(data)}, "m")),
        "fingerprints": (
            json.loads(fingerprints.to_text(np.arange(9, dtype=np.uint64) << np.uint64(40), 1 << 20)),
            lambda data: fingerprints.from_text(json.dumps(data), "m"),
        ),
        "layout": (
            json.loads(SampleLayout({"x": 1}, "why", {"x": "y"}).to_text()),
            lambda data: SampleLayout.from_text(json.dumps(data)),
        ),
        "format": (
            {**data_format.to_json(data_format.UNSAID), "classes": ["a"], "columns": ["b"], "label": "l", **boxes, **how},
            lambda data: data_format.from_json(data, "format", "hint"),
        ),
        "anchors": (
            json.loads(json.dumps(data_format.to_json(data_format.UNSAID) | anchors)),
            lambda data: data_format.from_json(data, "format", "hint"),
        ),
        "ranges": (
            json.loads(onnxruntime_json.write_json({"x": (-1.0, 2.0)})),
            lambda data: read_file(folder / "ranges.json", data),
        ),
    }  # fmt: skip


def read_file(path: Path, data: Any) -> object:
    path.write_text(json.dumps(data))
    return read_ranges(path)


def list_places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from list_places(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value[:2]):
            yield from list_places(inner, (*path, at))


NAMES = (
    "anchors", "calibration", "costs", "fingerprints", "format", "layout", "manifest", "origin", "plan", "progress", "ranges",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_field_may_be_odd(name: str, records: dict[str, tuple[Any, Read]]) -> None:
    """Another value, a key that is missing, a key more: nothing but an FcdeployError, of one line."""
    document, read = records[name]
    read(document)
    edits: list[Callable[[Any, Any], None]] = [
        *(lambda inner, key, value=value: inner.__setitem__(key, copy.deepcopy(value)) for value in ODD),
        lambda inner, key: inner.__delitem__(key),
        lambda inner, _: inner.__setitem__("odd", 1) if isinstance(inner, dict) else inner.append("odd"),
    ]
    tried = [*ODD, *(change(document, path, edit) for path in list_places(document) if path for edit in edits)]
    lines: list[str] = []
    for odd in tried:
        try:
            read(odd)
        except FcdeployError as error:
            lines.append(error.message)
    assert not [line for line in lines if "\n" in line]
    assert lines or name in ("layout", "origin")  # which are of another tool where they cannot be read


def change(value: Any, path: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    edit(inner, path[-1])
    return changed
