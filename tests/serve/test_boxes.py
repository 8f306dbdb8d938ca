"""Boxes of detectors: read from answers, suppressed, and told in pixels of the picture, against brute force and pixels."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from servers import Server, serving

from fcdeploy.arithmetic.set_metrics import suppress_boxes
from fcdeploy.bundles.read import open_bundle
from fcdeploy.commands.bundle import bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.boxes import read
from fcdeploy.evaluate.boxes.find_detections import describe_chosen, find_detections
from fcdeploy.evaluate.boxes.find_pairs import find_pair
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.boxes.served import find_served_boxes
from fcdeploy.evaluate.output_ends import OutputEnd
from fcdeploy.preprocessing.apply import read_picture
from fcdeploy.preprocessing.placement import ImageSize, map_to_input
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records import box_layout_json, manifest
from fcdeploy.records.box_layout import AnchorHead, BoxLayout, Columns, Detections, Grid, Layout, Level
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.signature import TensorSpec
from fcdeploy.serve.boxes import describe_boxes
from fcdeploy.serve.classify import describe_answers
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.http_answer import Answer
from fcdeploy.serve.http_request import RequestHead, find_route
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.routes import answer_request
from fcdeploy.serve.server_state import ServerState

SIDE = 64  # of the detector's input: 8 x 8 + 4 x 4 + 2 x 2 places
PLACES = 84
GRID = np.concatenate([
    np.stack(np.meshgrid(np.arange(at / 2, SIDE, at), np.arange(at / 2, SIDE, at)), axis=-1).reshape(-1, 2) for at in (8, 16, 32)
])  # fmt: skip
"""Places of anchors, x before y, row by row."""


def earlier(head: str, boxes: str = "o", **other: Any) -> BoxLayout:
    """As bundles of earlier versions say it."""
    usual = {"scores": None, "classes": None, "sample": None, "form": "centre and size", "shares": False, "least": 0.25}
    return box_layout_json.from_json({**usual, "boxes": boxes, "head": head, "overlap": 0.4, **other}, "b", "h")


def table(layout: Layout, start: int, overlap: float, **other: Any) -> AnchorHead:
    """Boxes and scores that begin at a column of one output, `classes` of them."""
    stop = None if (classes := other.pop("classes", None)) is None else start + classes
    objectness = Columns("o", layout, 4, 5) if start == 5 else None
    rest = other.pop("rest", None)
    level = Level(Columns("o", layout, 0, 4), Columns("o", layout, start, stop), objectness, rest=rest)
    return AnchorHead((level,), **{"coding": "centre and size", **other}, overlap=overlap, shown_from=SHOWN)


SHOWN = (0.25, 0.3, 0.4, 0.5, 0.6)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def draw_anchors(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sizes (84, 4), and scores (84, classes), of which a few are high."""
    random = np.random.default_rng(seed)
    boxes = np.concatenate([GRID + random.uniform(-3, 3, (PLACES, 2)), random.uniform(6, 20, (PLACES, 2))], axis=1)
    scores = random.uniform(0, 0.2, (PLACES, classes))
    scores[random.integers(0, PLACES, 30), random.integers(0, classes, 30)] = random.uniform(0.3, 1, 30)
    return boxes.astype(np.float32), scores.astype(np.float32)


def expect(boxes: np.ndarray, scores: np.ndarray, most: float) -> list[tuple[int, int]]:
    """Anchor and class of what is left: one after the other, compared with all that are kept."""
    kept: list[tuple[int, int]] = []
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    for at in sorted(range(len(boxes)), key=lambda at: -scores[at].max()):
        kind = int(scores[at].argmax())
        free = all(kind != other or overlap(corners[at], corners[i]) <= most for i, other in kept)
        if scores[at].max() >= 0.25 and free:
            kept.append((at, kind))
    return kept


@pytest.mark.parametrize("head", box_layout_json.EARLIER)
@pytest.mark.parametrize("seed", range(5))
def test_every_anchor_s_best_class_without_those_that_a_better_one_overlaps(head: str, seed: int) -> None:
    boxes, scores = draw_anchors(seed, 3)
    rows = np.concatenate([boxes, scores], axis=1).T
    if head == "anchors first":
        share = np.linspace(0.5, 1, PLACES, dtype=np.float32)[:, None]
        rows, scores = np.concatenate([boxes, share, scores], axis=1), scores * share
    layout = earlier(head, **({"scores": "s", "classes": 0} if head == "anchors apart" else {}))
    outputs = {"o": (rows.T if head == "anchors first, classes only" else rows)[None]}
    if head == "anchors apart":  # and the first class is none
        outputs = {"o": boxes[None], "s": np.concatenate([1 - scores[:, :1], scores], axis=1)[None]}
    (found,) = read_boxes(layout, outputs, 1, (SIDE, SIDE))
    wanted = expect(boxes, scores, 0.4)
    assert 3 < len(wanted) < 30
    assert found.classes.tolist() == [kind for _, kind in wanted]
    np.testing.assert_allclose(found.scores, [scores[at, kind] for at, kind in wanted], rtol=1e-6)
    np.testing.assert_allclose(
        (found.boxes[:, :2] + found.boxes[:, 2:]) / 2, boxes[[at for at, _ in wanted], :2], rtol=1e-5
    )


def test_no_more_boxes_than_asked_for() -> None:
    boxes = np.array([[0, 0, 2, 2], [10, 0, 12, 2], [0, 0, 2, 2], [20, 0, 22, 2]], float)
    assert suppress_boxes(boxes, np.array([0, 0, 1, 0]), 0.5, 9).tolist() == [0, 1, 2, 3]
    assert suppress_boxes(boxes, np.zeros(4), 0.5, 9).tolist() == [0, 1, 3]
    assert suppress_boxes(boxes, np.zeros(4), 0.5, 2).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["torchvision-imagenet", "timm", "yolo-letterbox", "paddle-ocr-det", "scale-0-1"])
@pytest.mark.parametrize("size", [(211, 160), (97, 300), (150, 150)])
def test_a_place_in_the_picture_is_where_its_pixels_go(name: str, size: tuple[int, int]) -> None:
    """A bright block, found again by the mean place of its pixels in what the model reads."""
    spec = TensorSpec("x", np.dtype(np.float32), (None, 3, 128, 128))
    how = read_preprocessing(name, spec)
    height, width = size
    top, left = height // 2 - 12, width // 2 - 8  # 24 x 16 pixels near the middle, which no crop takes away
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + 24, left : left + 16] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    array, read = read_picture(file.getvalue(), how, spec)
    assert read == size
    light = array.sum(axis=0) - np.median(array.sum(axis=0))
    light[light < 0.5 * light.max()] = 0
    rows, columns = np.indices(light.shape)
    where, whole = map_to_input(how, read)
    assert whole == light.shape
    for places, scale, shift, centre in (
        (columns, where.scale_x, where.shift_x, left + 8), (rows, where.scale_y, where.shift_y, top + 12),
    ):  # fmt: skip
        assert (light * (places + 0.5)).sum() / light.sum() == pytest.approx(centre * scale + shift, abs=0.75)


def save_detector(path: Path, boxes: np.ndarray, scores: np.ndarray) -> None:
    """The same boxes for every picture, as YOLOv8 has them; scores fall with its light."""
    rows = np.concatenate([boxes, scores], axis=1).T[None]
    weights = np.where(np.arange(rows.shape[1]) < 4, 0, 0.1).astype(np.float32)[None, :, None]
    constants = {
        "rows": rows,
        "weights": weights,
        "zero": np.float32(0),
        "one": np.float32(1),
        "shape": np.array([-1, 1, 1]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["light"], keepdims=0, axes=[1, 2, 3]),
        helper.make_node("Clip", ["light", "zero", "one"], ["share"]),
        helper.make_node("Reshape", ["share", "shape"], ["share3"]),
        helper.make_node("Mul", ["share3", "weights"], ["loss"]),
        helper.make_node("Sub", ["one", "loss"], ["factor"]),
        helper.make_node("Mul", ["rows", "factor"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes, "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, rows.shape[1], PLACES])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"task": "detect", "names": "{0: 'left', 1: 'right'}"})
    onnx.save(model, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("detector")
    boxes, scores = draw_anchors(3, 2)
    save_detector(home / "eyes.onnx", boxes, scores)
    (home / "models").mkdir()
    report = bundle(home / "eyes.onnx", output=home / "models" / "eyes.fcd", preprocess="yolo-letterbox")
    assert any("boxes in 'output0', anchors last: centre and size in pixels" in line for line in report.lines)
    return home


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder / "models") as server:
        yield server


def test_a_served_detector_answers_with_boxes_in_the_picture(server: Server) -> None:
    boxes, scores = draw_anchors(3, 2)
    file = io.BytesIO()
    Image.new("RGB", (200, 100)).save(file, "PNG")  # scaled by 0.32, and 16 gray rows above and below
    light = (64 * 32 * 114 / 255) / (64 * 64)
    wanted = expect(boxes, scores * np.float32(1 - 0.1 * light), 0.7)
    reply = server.ask("POST", "/v1/models/eyes:classify", file.getvalue(), Content_Type="image/png")
    (found,) = reply.json["predictions"]
    assert (found["width"], found["height"]) == (200, 100)
    assert [one["name"] for one in found["boxes"]] == [("left", "right")[kind] for _, kind in wanted]
    for one, (at, kind) in zip(found["boxes"], wanted, strict=True):
        assert one["score"] == pytest.approx(scores[at, kind] * (1 - 0.1 * light), abs=1e-5)
        x, y, width, height = boxes[at].astype(float)
        corners = np.array([x - width / 2, y - height / 2 - 16, x + width / 2, y + height / 2 - 16]) / 0.32
        np.testing.assert_allclose(one["box"], np.clip(corners, 0, [200, 100, 200, 100]), atol=0.02)
    few = server.ask("POST", "/v1/models/eyes:classify?top=2", file.getvalue(), Content_Type="image/png")
    assert few.json["predictions"][0]["boxes"] == found["boxes"][:2]


def test_boxes_are_found_beside_the_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suppression of many candidates takes a good part of a second, during which nobody else would be answered."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    threads, answers = list[str](), list[Answer]()

    def suppress(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        if len(threads) == 2:
            raise ValueError("what no one foresaw")
        return suppress_boxes(*given)

    async def live() -> None:
        engine = BatchingEngine(folder / "models")
        await engine.start()
        route = find_route("POST", "/v1/models/eyes:classify")
        head = RequestHead("POST", "/", route, 0, False, True, False, None, "", "", False, "image/png")
        for _ in range(2):
            answer_request(ServerState(engine, Metrics()), head, file.getvalue(), 0.0, answers.append)
            while engine.requests:
                await asyncio.sleep(0.005)
        await engine.stop()
        assert (engine.requests, engine.bytes) == (0, 0)

    monkeypatch.setattr(read, "suppress_boxes", suppress)
    asyncio.run(live())
    assert [answer.status for answer in answers] == [200, 500]
    assert all(name.startswith("run") for name in threads)


def test_no_more_candidates_than_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = list[int]()

    def suppress(boxes: np.ndarray, *given: Any) -> Any:
        counts.append(len(boxes))
        return suppress_boxes(boxes, *given)

    monkeypatch.setattr(read, "suppress_boxes", suppress)
    rows = np.zeros((1, 5, 8400), np.float32)
    rows[0, :4], rows[0, 4] = [[8], [8], [4], [4]], np.linspace(0.3, 0.9, 8400)
    (found,) = read_boxes(table("anchors last", 4, 0.5), {"o": rows}, 1, None)
    assert counts == [1000]
    assert found.scores == pytest.approx([0.9])


def test_tensorflow_s_boxes_are_shares_with_y_first() -> None:
    outputs = {
        "detection_boxes": np.array([[[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]]]),
        "detection_scores": np.array([[0.9, 0.0]]),
        "detection_classes": np.array([[1.0, 0.0]]),
    }
    layout = Detections(
        "detection_boxes", "detection_scores", "detection_classes", least=0.25, form="corners, y first", shares=True
    )
    how = read_preprocessing("scale-0-1", TensorSpec("x", np.dtype(np.float32), (None, 3, 32, 32)))
    (found,) = describe_boxes(layout, how, outputs, [ImageSize(200, 100)], ("cat", "dog"), 5)
    assert found["boxes"] == [{"class": 1, "name": "dog", "score": 0.9, "box": [50.0, 50.0, 100.0, 150.0]}]


NOTHING: dict[str, OutputEnd] = {}  # a graph that tells nothing
PICTURE = {"x": np.zeros((1, 3, SIDE, SIDE), np.float32)}


def draw_heads() -> dict[str, tuple[dict[str, np.ndarray], tuple[str, ...], BoxLayout | str]]:
    """Answers of heads of two classes, the names that are known, and the layout or the reason why there is none."""
    boxes, scores = draw_anchors(0, 2)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    share = scores.max(axis=1, keepdims=True)
    random = np.random.default_rng(2)
    thrice, angle, logits = (
        np.tile(boxes, (3, 1)),
        random.uniform(0.2, 0.9, (PLACES, 1)),
        np.log(scores / (1.01 - scores)),
    )
    masks, prototypes = random.normal(size=(PLACES, 8)), random.normal(size=(1, 8, 16, 16))
    points, offsets = random.uniform(0, SIDE, (PLACES, 6)), random.normal(size=(PLACES, 4))
    two = ("a", "b")

    def rows(*columns: np.ndarray) -> np.ndarray:
        return np.concatenate(columns, axis=1)[None].astype(np.float32)

    eight = rows(boxes, scores).transpose(0, 2, 1)
    objects = rows(boxes, share, scores / share)
    turned = rows(boxes, scores, angle).transpose(0, 2, 1)
    pair = Level(Columns("o", "anchors first"), Columns("s", "anchors first"))
    apart = AnchorHead((pair,), "corners, y first", 0.45)
    return {
        "YOLOv8": ({"o": eight}, (), table("anchors last", 4, 0.7, classes=2)),
        "YOLOv8, corners": (
            {"o": rows(corners, scores).transpose(0, 2, 1)}, (),
            table("anchors last", 4, 0.7, classes=2, coding="corners"),
        ),
        "YOLOv8, masks": (
            {"o": rows(boxes, scores, masks).transpose(0, 2, 1), "p": prototypes}, (),
            table("anchors last", 4, 0.7, classes=2, rest=Columns("o", "anchors last", 6)),
        ),
        "YOLOv8, points": (
            {"o": rows(boxes, scores, points).transpose(0, 2, 1)}, two,
            table("anchors last", 4, 0.7, classes=2, rest=Columns("o", "anchors last", 6)),
        ),
        "YOLOv8, turned": ({"o": turned}, two, "'o' has 3 columns behind the box for 2 classes"),
        "YOLOv8, turned, without names": ({"o": turned}, (), "'o' has a column that is high at most anchors"),
        "YOLOv8, logits": ({"o": rows(boxes, logits).transpose(0, 2, 1)}, (), "put a Sigmoid behind them"),
        "YOLOv8, transposed": ({"o": rows(boxes, scores)}, two, table("anchors first", 4, 0.7, classes=2)),
        "YOLOX": ({"o": objects}, two, table("anchors first", 5, 0.45, classes=2)),
        "YOLOX, without names": ({"o": objects}, (), "7 columns are 3 classes, or 2 behind a share of being an object"),
        "YOLOX, offsets": ({"o": rows(offsets, share, scores / share)}, two, "do not follow the grid of anchors"),
        "YOLOv6": ({"o": rows(boxes, np.ones((PLACES, 1)), scores)}, (), table("anchors first", 5, 0.45, classes=2)),
        "YOLOv5": (
            {"o": rows(thrice, np.tile(share, (3, 1)), np.tile(scores, (3, 1)))}, (),
            table("anchors first", 5, 0.45, classes=2),
        ),
        "YOLOv5, no samples": (
            {"o": rows(thrice, np.tile(share, (3, 1)), np.tile(scores, (3, 1)))[0]}, (), "'o' has no axis of samples"
        ),
        "RT-DETR": (
            {"o": rows(boxes[:70] / SIDE, scores[:70])}, two, table("anchors first", 4, 1.0, shares=True)
        ),
        "pair, y first": ({"o": rows(corners[:, [1, 0, 3, 2]]), "s": rows(scores)}, (), apart),
        "YOLOv4": (
            {"o": rows(corners)[:, :, None], "s": rows(scores)}, (), replace(apart, coding="corners")
        ),
        "pair, offsets": ({"o": rows(offsets), "s": rows(scores)}, (), "no other output scores of its rows"),
        "maps": (
            {str(n): np.zeros((1, 21, n, n), np.float32) for n in (8, 4, 2)}, (), "maps of a head that is not decoded"
        ),
        "other anchors": (
            {"o": rows(boxes, scores)[:, :-1].transpose(0, 2, 1)}, two, "'o' has 6 columns, as boxes of 2 classes have, but no"
        ),
        "classes": ({"o": scores[:1]}, (), ""),
    }  # fmt: skip


@pytest.mark.parametrize("case", draw_heads())
def test_heads_are_told_by_their_answers(case: str) -> None:
    outputs, names, wanted = draw_heads()[case]
    found = find_served_boxes(NOTHING, "NCHW", [(PICTURE, outputs)], names)
    if not isinstance(wanted, str) or not wanted:
        assert found == wanted
    else:
        assert isinstance(found, str)
        assert wanted in found


@pytest.mark.parametrize("side", [28, 32, 64, 224])
@pytest.mark.parametrize("count", [1, 4, 16, 21, 64, 80])
def test_rows_of_a_classifier_are_no_anchors(count: int, side: int) -> None:
    """However many pictures a run has, as many as the maps of a detector have places, too."""
    pictures, scores = np.zeros((count, 1, side, side), np.float32), np.ones((count, 10), np.float32)
    assert find_served_boxes(NOTHING, "NCHW", [({"x": pictures}, {"o": scores})], ("a",) * 10) == ""


@pytest.mark.parametrize("strides", [(8, 16), (4, 8), (4, 8, 16), (16, 32, 64), (8, 16, 32, 64), (4, 8, 16, 32, 64)])
def test_heads_of_any_maps_that_follow_each_other(strides: tuple[int, ...]) -> None:
    picture, random = np.zeros((1, 3, 128, 192), np.float32), np.random.default_rng(0)
    grids = [np.mgrid[0 : 128 // s, 0 : 192 // s][::-1].reshape(2, -1) * s + s / 2 for s in strides]
    centres = np.concatenate(grids, axis=1)
    sizes, scores = random.uniform(8, 40, centres.shape), random.uniform(0, 0.2, (3, centres.shape[1]))
    head = np.concatenate([centres, sizes, scores])[None].astype(np.float32)
    found = find_served_boxes(NOTHING, "NCHW", [({"x": picture}, {"o": head})])
    assert found == table("anchors last", 4, 0.7, classes=3)


@pytest.mark.parametrize("names", [(), ("a", "b", "c"), ("background", "a", "b", "c")])
@pytest.mark.parametrize("suffix", ["", ":0"])
def test_tensorflow_s_four_outputs(suffix: str, names: tuple[str, ...]) -> None:
    """As its object detection API names them, or as tf2onnx numbers them: how many there are is a float."""
    boxes = np.zeros((1, 20, 4), np.float32)
    boxes[0, :2] = [[0.1, 0.2, 0.6, 0.4], [0.3, 0.1, 0.5, 0.7]]
    rest = {"detection_anchor_indices": [4, 9], "detection_classes": [3, 1], "detection_scores": [0.9, 0.5]}
    padded = {name + suffix: np.pad(np.float32([row]), ((0, 0), (0, 18))) for name, row in rest.items()}
    four = {
        "detection_multiclass_scores" + suffix: np.full((1, 20, 4), 0.25, np.float32), "detection_boxes" + suffix: boxes,
        **padded, "num_detections" + suffix: np.float32([2]),
    }  # fmt: skip
    found = find_detections(four, list(four))
    assert found is not None
    layout = describe_chosen(found, four, 1, names)
    assert layout == Detections(
        "detection_boxes" + suffix, "detection_scores" + suffix, "detection_classes" + suffix, least=0.25,
        form="corners, y first", shares=True, first_class=int(len(names) < 4),
    )  # fmt: skip
    numbered = dict(
        zip("abcd", [four["detection_boxes" + suffix], *list(padded.values())[1:], np.float32([2])], strict=True)
    )
    found = find_detections(numbered, list(numbered))
    assert found is not None
    layout = describe_chosen(found, numbered, 1, names)
    assert layout is not None
    assert (layout.form, layout.first_class) == ("corners, y first", int(len(names) == 3))


def test_boxes_that_the_graph_chose_need_one_to_be_seen() -> None:
    """Of zeros alone it could not be said whether they are pixels."""
    outputs = {
        "num_dets": np.array([[2]], np.int32), "det_boxes": np.zeros((1, 9, 4), np.float32),
        "det_scores": np.full((1, 9), -1, np.float32), "det_classes": np.full((1, 9), -1, np.int32),
    }  # fmt: skip
    found = find_detections(outputs, list(outputs))
    assert found is not None
    assert describe_chosen(found, outputs, 1) is None
    ends = {name: OutputEnd("other", selected=True) for name in outputs}
    none = find_served_boxes(ends, "NCHW", [(PICTURE, outputs)])
    assert isinstance(none, str)
    assert none.startswith("no box was found in the golden samples")
    outputs["det_boxes"][0, :2], outputs["det_boxes"][0, 2:] = [[1, 2, 30, 40], [9, 3, 50, 60]], [1, 2, 30, 40]
    outputs["det_scores"][0, :2], outputs["det_classes"][0, :2] = [0.1, 0.2], [1, 0]
    seen = find_served_boxes(ends, "NCHW", [(PICTURE, outputs)])
    assert seen == Detections("det_boxes", "det_scores", "det_classes", least=0.25)


def draw_pair(classes: int, background: int, side: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Corners (1, 200, 4) in an input of this side, and shares of classes, most of which say that nothing is there."""
    random = np.random.default_rng(seed)
    start = random.uniform(0, 0.7, (200, 2))
    boxes = side * np.concatenate([start, start + random.uniform(0.05, 0.3, (200, 2))], axis=1)
    scores = random.uniform(0, 0.1, (200, classes))
    scores[:, background] = 1
    scores[::10, (background + 1) % classes] = 4
    return boxes[None].astype(np.float32), (scores / scores.sum(axis=1, keepdims=True))[None].astype(np.float32)


@pytest.mark.parametrize("boxes_first", [False, True])
@pytest.mark.parametrize("background", [0, 3])
@pytest.mark.parametrize("form", ["corners", "centre and size"])
@pytest.mark.parametrize("side", [1.0, 64.0])
def test_boxes_beside_scores_of_four_classes(boxes_first: bool, background: int, form: str, side: float) -> None:
    """The order of outputs says nothing, and neither does a width of 4; the background is what most anchors see."""
    boxes, scores = draw_pair(4, background, side)
    if form == "centre and size":
        boxes = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=2)
    outputs = {"b": boxes, "s": scores} if boxes_first else {"s": scores, "b": boxes}
    found = find_pair(outputs, 64, 64)
    assert found is not None
    assert (found.boxes, found.scores, found.background) == ("b", "s", background)
    assert (found.form, found.shares) == (form, side == 1)


def test_a_background_in_a_late_column_is_read_back_and_one_that_is_no_column_refused(folder: Path) -> None:
    found = find_served_boxes(NOTHING, "NCHW", [(PICTURE, dict(zip("bs", draw_pair(91, 90, 1.0), strict=True)))])
    assert isinstance(found, AnchorHead)
    assert found.background == 90
    assert box_layout_json.from_json(box_layout_json.to_json(found), "b", "h") == found
    said = json.loads((folder / "models" / "eyes.fcd" / "manifest.json").read_text())
    level = Level(Columns("output0", "anchors first", 0, 4), Columns("output0", "anchors first"))
    said["boxes"] = box_layout_json.to_json(replace(found, levels=(level,)))
    with pytest.raises(FcdeployError, match="names class 90 of 84 in output 'output0' as the background"):
        manifest.from_json(said, "b")


def test_what_may_be_no_boxes_has_no_layout() -> None:
    boxes, scores = draw_pair(4, 0, 1.0)
    random = np.random.default_rng(1)
    for offsets in (random.normal(size=boxes.shape), 0.1 * random.normal(size=boxes.shape), 3 * boxes - 1, 100 * boxes):
        assert find_pair({"b": offsets.astype(np.float32), "s": scores}, 64, 64) is None
    assert find_pair({"b": np.full_like(boxes, np.nan), "s": scores}, 64, 64) is None
    shares = random.uniform(0.01, 1, (2, *boxes.shape)).astype(np.float32)  # neither sums up to 1, nor are they corners
    assert find_pair({"b": shares[0], "s": shares[1]}, 64, 64) is None
    even = np.roll(np.eye(4, dtype=np.float32), 1, axis=1)[np.arange(200) % 4][None]  # no class that most anchors have
    assert find_pair({"b": boxes, "s": even}, 64, 64) is None


def test_a_bundle_keeps_the_layout_and_a_damaged_one_is_refused(folder: Path) -> None:
    layout = open_bundle(folder / "models" / "eyes.fcd").manifest.format.boxes
    assert layout is not None
    row = box_layout_json.to_json(layout)
    assert box_layout_json.from_json(row, "b", "h") == layout
    (level,) = row["levels"]
    wrong: list[tuple[str, Any]] = [
        ("coding", "round"), ("overlap", 2), ("levels", []), ("levels", 3), ("background", -1), ("shown_from", []),
        ("shown_from", ["a"]), ("left", None), ("guessed", 1),
    ]  # fmt: skip
    wrong += [("levels", [{**level, "boxes": {**level["boxes"], key: value}}]) for key, value in (
        ("output", 3), ("layout", "round"), ("start", -1), ("stop", 0), ("anchors", 0), ("anchors", 1e9),
    )]  # fmt: skip
    grid = {"rows": 8, "columns": 8, "stride": 8, "anchors": 1}
    wrong += [("levels", [{**level, "grids": [{**grid, key: 0}]}]) for key in grid]
    for key, value in wrong:
        with pytest.raises(FcdeployError, match="says nothing of boxes"):
            box_layout_json.from_json({**row, key: value}, "b", "h")
    assert box_layout_json.from_json({**row, "levels": [{**level, "grids": [grid]}]}, "b", "h") != layout


def test_earlier_layouts_that_are_damaged_are_refused() -> None:
    chosen = Detections("y", 4, 5, 6, 0.25)
    assert box_layout_json.from_json(box_layout_json.to_json(chosen), "b", "h") == chosen
    for key, value in (
        ("boxes", 3), ("form", "round"), ("head", None), ("least", 2), ("scores", [1]), ("sample", "a"),
        ("head", "anchors apart"),
    ):  # fmt: skip
        with pytest.raises(FcdeployError, match="says nothing of boxes"):
            earlier(**{"head": "anchors last", key: value})


def test_a_manifest_names_outputs_and_numbers_that_the_model_has(folder: Path) -> None:
    said = json.loads((folder / "models" / "eyes.fcd" / "manifest.json").read_text())
    boxes = said["boxes"]["levels"][0]["boxes"]
    boxes["start"], boxes["stop"] = 3, 6
    with pytest.raises(FcdeployError, match="reads 3 numbers of a box in output 'output0', expected 4"):
        manifest.from_json(said, "b")
    boxes["output"] = "output1"
    with pytest.raises(FcdeployError, match="it names the output 'output1', which the model has not"):
        manifest.from_json(said, "b")


def test_answers_whose_boxes_cannot_be_read_are_refused() -> None:
    """Not as a failure of the server: 735 anchors are no maps of strides 8, 16 and 32 in a picture of 96 x 96."""
    grids = tuple(Grid(96 // stride, 96 // stride, stride) for stride in (8, 16, 32))
    whole, scores = Columns("o", "anchors first", 0, 4), Columns("o", "anchors first", 4)
    head = AnchorHead((Level(whole, scores, grids=grids),), "offsets", 0.45)
    how = read_preprocessing("yolo-letterbox", TensorSpec("x", np.dtype(np.float32), (None, 3, 96, 96)))
    model: Any = SimpleNamespace(outputs=("o",), format=DataFormat(how, boxes=head))
    size = ImageSize(120, 80)
    (found,) = describe_answers(model, [np.zeros((1, 189, 5), np.float32)], 1, 5, [size])
    assert found == {"boxes": [], "width": 80, "height": 120}
    with pytest.raises(RefusedError, match="output 'o' has 735 anchors") as refused:
        describe_answers(model, [np.zeros((1, 735, 5), np.float32)], 1, 5, [size])
    assert refused.value.status == 400
