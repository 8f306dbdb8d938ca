"""Heads whose every anchor answers: drawn objects written in each head's own way are found again; what is no head is none."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Net

from fcdeploy.bundles.read import open_bundle
from fcdeploy.commands.bundle import bundle
from fcdeploy.commands.inspect import inspect
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.boxes.compare import compare_boxes, measure_boxes, say_compared
from fcdeploy.evaluate.boxes.find_heads import find_boxes
from fcdeploy.evaluate.boxes.grids import find_picture_size
from fcdeploy.evaluate.boxes.read import read_boxes
from fcdeploy.evaluate.boxes.served import find_served_boxes
from fcdeploy.evaluate.output_ends import OutputEnd, Part, find_ends
from fcdeploy.graph.model import read_model
from fcdeploy.records.box_layout import SHOWN_FROM, AnchorHead, Columns, Level
from fcdeploy.records.box_layout_json import from_json, to_json
from fcdeploy.records.data_format import KEY, from_metadata

Array = np.ndarray[Any, Any]
HEIGHT, WIDTH = 160, 224
SIZE = HEIGHT, WIDTH
CLASSES = 3
Found = tuple[dict[str, Array], dict[str, OutputEnd]]
OTHER = OutputEnd("other")


@dataclass
class Scene:
    """What each anchor is to say, corners in pixels and scores of classes, and the objects in each of two pictures."""

    boxes: list[Array]  # of each stride (2, rows, columns, anchors, 4)
    scores: list[Array]
    strides: tuple[int, ...]
    objects: list[list[tuple[Array, int, float]]]

    def rows(self, level: int | None = None) -> tuple[Array, Array]:
        """(2, anchors, 4) and (2, anchors, classes), those of a place side by side."""
        at = range(len(self.strides)) if level is None else [level]
        return (
            np.concatenate([self.boxes[i].reshape(2, -1, 4) for i in at], axis=1),
            np.concatenate([self.scores[i].reshape(2, -1, CLASSES) for i in at], axis=1),
        )

    def places(self, level: int | None = None) -> tuple[Array, Array]:
        """Centres in pixels (anchors, 2), and strides (anchors, 1)."""
        centres, strides = [], []
        for i in range(len(self.strides)) if level is None else [level]:
            _, rows, columns, anchors, _ = self.boxes[i].shape
            for y in range(rows):
                for x in range(columns):
                    centres += [((x + 0.5) * self.strides[i], (y + 0.5) * self.strides[i])] * anchors
                    strides += [self.strides[i]] * anchors
        return np.array(centres), np.array(strides, float)[:, None]


def draw_scene(seed: int, anchors: int | tuple[int, ...] = 1, strides: tuple[int, ...] = (8, 16, 32)) -> Scene:
    random = np.random.default_rng(seed)
    boxes, scores = list[Array](), list[Array]()
    objects: list[list[tuple[Array, int, float]]] = [[], []]
    several = anchors if isinstance(anchors, tuple) else (anchors,) * len(strides)
    for stride, count in zip(strides, several, strict=True):
        rows, columns = HEIGHT // stride, WIDTH // stride
        y, x = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
        centres = np.stack([x, y], -1)[None, :, :, None] * stride + random.uniform(-2, 2, (2, rows, columns, count, 2))
        half = stride * random.uniform(0.8, 1.6, (2, rows, columns, count, 2))
        boxes.append(np.concatenate([centres - half, centres + half], axis=-1))
        scores.append(random.uniform(0.001, 0.03, (2, rows, columns, count, CLASSES)))
    cells = [(c, r) for c in range(4) for r in range(3)]  # of 56 x 53 pixels: no two objects overlap
    for picture in range(2):
        for cell in random.permutation(len(cells))[:5]:
            column, row = cells[cell]
            centre = np.array([column * 56 + 28, row * 53 + 27]) + random.uniform(-3, 3, 2)
            half = random.uniform(12, 22, 2)
            box, kind, score = (
                np.concatenate([centre - half, centre + half]),
                int(random.integers(CLASSES)),
                random.uniform(0.65, 0.95),
            )
            objects[picture].append((box, kind, float(score)))
            level = int(random.integers(min(2, len(strides))))
            stride = strides[level]
            at_x, at_y = int(centre[0] // stride), int(centre[1] // stride)
            for r, c in ((at_y, at_x), (at_y, min(at_x + 1, WIDTH // stride - 1))):
                boxes[level][picture, r, c, :] = box + random.uniform(-1, 1, 4)
                scores[level][picture, r, c, :, kind] = score * 0.9
            boxes[level][picture, at_y, at_x, 0] = box
            scores[level][picture, at_y, at_x, 0, kind] = score
    return Scene(boxes, scores, strides, objects)


def centred(corners: Array) -> Array:
    return np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], axis=-1)


def logit(share: Array) -> Array:
    return np.asarray(np.log(share / (1 - share)))


def with_objectness(scores: Array) -> Array:
    there = scores.max(axis=-1, keepdims=True)
    return np.concatenate([there, scores / there], axis=-1)


def maps_first(scene: Scene, level: int, numbers: Array) -> Array:
    """(2, anchors, numbers) as a map (2, anchors of a place * numbers, rows, columns)."""
    _, rows, columns, anchors, _ = scene.boxes[level].shape
    each = numbers.reshape(2, rows, columns, anchors, -1)
    return each.transpose(0, 3, 4, 1, 2).reshape(2, -1, rows, columns)


def in_bins(distances: Array, bins: int) -> Array:
    """Logits of bins (..., 4 * bins) whose expectation is the distances (..., 4)."""
    at = np.arange(bins)
    middle = np.clip(distances, 0.01, bins - 1.01)[..., None]
    for _ in range(60):  # of a bell around the distance, which the ends of the bins cut
        shares = np.exp(-((at - middle) ** 2))
        shares /= shares.sum(axis=-1, keepdims=True)
        middle = middle + 0.5 * (
            np.clip(distances, 0.01, bins - 1.01)[..., None] - (shares * at).sum(axis=-1, keepdims=True)
        )
    return (-((at - middle) ** 2)).reshape(*distances.shape[:-1], -1)


def distances(scene: Scene, level: int) -> Array:
    corners, (centres, strides) = scene.rows(level)[0], scene.places(level)
    return np.concatenate([centres - corners[..., :2], corners[..., 2:] - centres], axis=-1) / strides


def offsets(scene: Scene, level: int | None = None) -> Array:
    boxes, (centres, strides) = centred(scene.rows(level)[0]), scene.places(level)
    return np.concatenate(
        [boxes[..., :2] / strides - (centres / strides - 0.5), np.log(boxes[..., 2:] / strides)], axis=-1
    )


def before_sigmoid(scene: Scene, level: int) -> Array:
    """YOLOv5's t of (2 sigmoid(t) - 0.5 + place) stride and (2 sigmoid(t))^2 anchor, and all scores."""
    boxes, scores = scene.rows(level)
    (centres, strides), box = scene.places(level), centred(boxes)
    anchors = scene.boxes[level].shape[3]
    sides = np.tile(np.geomspace(2, 4, anchors), len(strides) // anchors)[:, None] * strides
    shares = np.concatenate([(box[..., :2] - centres) / strides / 2 + 0.5, np.sqrt(box[..., 2:] / sides) / 2], axis=-1)
    there = np.minimum(scores.max(axis=-1, keepdims=True) / 0.5, 0.999)  # where nothing is, no class is sure either
    kinds = np.clip(scores / there, 1e-3, 0.999)
    return np.concatenate([logit(np.clip(shares, 1e-3, 1 - 1e-3)), logit(there), logit(kinds)], axis=-1)


def softmax_of(scores: Array) -> Array:
    """Shares of a background in front of them, which add up to 1."""
    whole = np.maximum(scores.sum(axis=-1, keepdims=True), 1.0)
    return np.concatenate([1 - scores.sum(axis=-1, keepdims=True) / whole, scores / whole], axis=-1)


def parts(axis: int, *stops: int) -> OutputEnd:
    """Four numbers of a box, then shares up to each stop."""
    shares = [Part(a, b, "sigmoid") for a, b in zip((4, *stops), stops, strict=False)]
    return OutputEnd("parts", axis, parts=(Part(0, 4, "other"), *shares))


def yolo8(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed)
    boxes, scores = scene.rows()
    rows = np.concatenate([centred(boxes), scores], axis=-1)
    return scene, ({"o": rows.transpose(0, 2, 1)}, {"o": OutputEnd("parts", 1, parts=parts(1, 7).parts)})


def yolo8_values_alone(seed: int) -> tuple[Scene, Found]:
    scene, (outputs, _) = yolo8(seed)
    return scene, (outputs, {})


def yolo8_turned_round(seed: int) -> tuple[Scene, Found]:
    scene, (outputs, _) = yolo8(seed)
    return scene, ({"o": outputs["o"].transpose(0, 2, 1)}, {"o": parts(2, 7)})


def yolo8_masks(seed: int) -> tuple[Scene, Found]:
    scene, (outputs, _) = yolo8(seed)
    masks = np.random.default_rng(seed).normal(size=(2, 8, outputs["o"].shape[2]))
    protos = np.random.default_rng(seed).normal(size=(2, 8, 40, 56))
    return scene, ({"o": np.concatenate([outputs["o"], masks], axis=1), "p": protos}, {})


def yolo5(seed: int) -> tuple[Scene, Found]:
    """Three anchors a place, one behind another."""
    scene = draw_scene(seed, anchors=3)
    levels = []
    for level in range(3):
        boxes, scores = scene.rows(level)
        rows = np.concatenate([centred(boxes), with_objectness(scores)], axis=-1)
        levels.append(rows.reshape(2, -1, 3, 8).transpose(0, 2, 1, 3).reshape(2, -1, 8))
    return scene, ({"o": np.concatenate(levels, axis=1)}, {"o": parts(2, 8)})


def yolox(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed)
    rows = np.concatenate([offsets(scene), with_objectness(scene.rows()[1])], axis=-1)
    return scene, ({"o": rows}, {"o": parts(2, 5, 8)})


def yolox_decoded(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed)
    boxes, scores = scene.rows()
    return scene, ({"o": np.concatenate([centred(boxes), with_objectness(scores)], axis=-1)}, {"o": parts(2, 5, 8)})


def ssd(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=2)
    boxes, scores = scene.rows()
    outputs = {"scores": softmax_of(scores), "boxes": boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT]}
    return scene, (outputs, {"scores": OutputEnd("softmax", 2), "boxes": OutputEnd("other")})


def yolo4(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=3)
    boxes, scores = scene.rows()
    return scene, ({"boxes": (boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT])[:, :, None], "confs": scores}, {})


def retinaface(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=2)
    boxes, scores = scene.rows()
    centres, strides = scene.places()
    sides = np.tile([[2.0], [4.0]], (len(strides) // 2, 1)) * strides
    box = centred(boxes)
    located = np.concatenate([(box[..., :2] - centres) / (0.1 * sides), np.log(box[..., 2:] / sides) / 0.2], axis=-1)
    points = np.random.default_rng(seed).normal(size=(2, len(strides), 10))
    ends = {"loc": OTHER, "conf": OutputEnd("softmax", 2), "points": OTHER}
    return scene, ({"loc": located, "conf": softmax_of(scores), "points": points}, ends)


def ssd_offsets(seed: int) -> tuple[Scene, Found]:
    """The same with other numbers of anchors at the places of each map, which the graph tells."""
    several = (3, 2, 1)
    scene = draw_scene(seed, anchors=several)
    maps, located = [], []
    for level, count in enumerate(several):
        _, rows, columns, _, _ = scene.boxes[level].shape
        maps.append((4 * count, rows, columns))
        (centres, strides), box = scene.places(level), centred(scene.rows(level)[0])
        sides = np.tile(np.geomspace(2, 4, count) if count > 1 else [4.0], rows * columns)[:, None] * strides
        shifts = (box[..., :2] - centres) / (0.1 * sides)
        located.append(np.concatenate([shifts, np.log(box[..., 2:] / sides) / 0.2], axis=-1))
    ends = {"loc": OutputEnd("other", maps=tuple(maps)), "conf": OutputEnd("softmax", 2)}
    return scene, ({"loc": np.concatenate(located, axis=1), "conf": softmax_of(scene.rows()[1])}, ends)


def of_priors(scene: Scene, level: int | None, shift: float, growth: float) -> Array:
    """Offsets to prior boxes of two to four strides, in shares of their sides and logarithms of these."""
    located = []
    for at in range(len(scene.strides)) if level is None else [level]:
        (centres, strides), box = scene.places(at), centred(scene.rows(at)[0])
        anchors = scene.boxes[at].shape[3]
        sides = np.tile(np.geomspace(2, 4, anchors), len(strides) // anchors)[:, None] * strides
        moved = (box[..., :2] - centres) / sides / shift
        located.append(np.concatenate([moved, np.log(box[..., 2:] / sides) / growth], axis=-1))
    return np.concatenate(located, axis=1)


def convolved(scene: Scene, numbers: int) -> OutputEnd:
    """An output put together from the map of each stride."""
    maps = tuple((each.shape[3] * numbers, *each.shape[1:3]) for each in scene.boxes)
    return OutputEnd("other", maps=maps)


def retinanet(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=9)
    outputs = {"box": of_priors(scene, None, 1, 1), "class": logit(scene.rows()[1])}
    return scene, (outputs, {"box": convolved(scene, 4), "class": convolved(scene, CLASSES)})


def retinanet_maps(seed: int) -> tuple[Scene, Found]:
    scene, outputs = draw_scene(seed, anchors=9), {}
    for i in range(3):
        outputs[f"class{i}"] = maps_first(scene, i, logit(scene.rows(i)[1]))
        outputs[f"box{i}"] = maps_first(scene, i, of_priors(scene, i, 1, 1))
    return scene, (outputs, {name: OutputEnd("convolution", 1) for name in outputs})


def ssd_logits(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=(3, 2, 1))
    conf = np.log(np.maximum(softmax_of(scene.rows()[1]), 1e-6)) + np.random.default_rng(seed).normal(size=(2, 1, 1))
    ends = {"loc": convolved(scene, 4), "conf": convolved(scene, CLASSES + 1)}
    return scene, ({"conf": conf, "loc": of_priors(scene, None, 0.1, 0.2)}, ends)


def blazeface(seed: int) -> tuple[Scene, Found]:
    """Two anchors at each place of the first map and six of the second; a face and six points in its box."""
    scene = draw_scene(seed, anchors=(2, 6), strides=(8, 16))
    corners, centres = scene.rows()[0], scene.places()[0]
    shares = np.random.default_rng(seed).uniform(0, 1, (*corners.shape[:2], 6, 2))
    points = corners[..., None, :2] + shares * (corners[..., None, 2:] - corners[..., None, :2]) - centres[:, None]
    box = centred(corners) - np.concatenate([centres, np.zeros_like(centres)], axis=-1)
    numbers = np.concatenate([box, points.reshape(*box.shape[:2], -1)], axis=-1)
    scene.objects = [[(each, 0, score) for each, _, score in objects] for objects in scene.objects]
    return scene, ({"regressors": numbers, "classifiers": logit(scene.rows()[1].max(axis=-1, keepdims=True))}, {})


def yolo2(seed: int) -> tuple[Scene, Found]:
    """Five anchors at each place of one map, and twenty classes, a Softmax of which is left to do."""
    scene = draw_scene(seed, anchors=5, strides=(32,))
    boxes, scores = scene.rows()
    (centres, strides), box = scene.places(), centred(boxes)
    across = (box[..., :2] - centres) / strides + 0.5
    own = ((across > 0) & (across < 1)).all(axis=-1, keepdims=True)  # where its centre is one anchor has an object
    own &= (np.arange(len(strides)) % 5 == 0)[:, None]
    there = np.where(own, scores.max(axis=-1, keepdims=True), 0.01)
    sides = np.tile(np.geomspace(2, 4, 5), len(strides) // 5)[:, None] * strides
    kinds = 12.0 * (scores.argmax(axis=-1)[..., None] == np.arange(20))
    parts = [logit(np.clip(across, 1e-3, 0.999)), np.log(box[..., 2:] / sides), logit(there), kinds]
    return scene, (
        {"grid": maps_first(scene, 0, np.concatenate(parts, axis=-1))},
        {"grid": OutputEnd("convolution", 1)},
    )


def picodet(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed)
    outputs = {f"scores{i}": scene.rows(i)[1] for i in range(3)}
    outputs |= {f"boxes{i}": in_bins(distances(scene, i), 8) for i in range(3)}
    return scene, (outputs, {})


def yolo8_maps(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed)
    outputs = {}
    for i in range(3):
        numbers = np.concatenate([in_bins(distances(scene, i), 16), logit(scene.rows(i)[1])], axis=-1)
        outputs[f"map{i}"] = maps_first(scene, i, numbers)
    return scene, (outputs, {})


def yolo5_maps(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=3)
    return scene, ({f"map{i}": maps_first(scene, i, before_sigmoid(scene, i)) for i in range(3)}, {})


def yolo5_maps_apart(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=3)
    outputs = {}
    for i in range(3):
        _, rows, columns, anchors, _ = scene.boxes[i].shape
        outputs[f"map{i}"] = before_sigmoid(scene, i).reshape(2, rows, columns, anchors, -1).transpose(0, 3, 1, 2, 4)
    return scene, (outputs, {})


def scrfd(seed: int) -> tuple[Scene, Found]:
    scene = draw_scene(seed, anchors=2)
    random, outputs = np.random.default_rng(seed), {}
    for i in range(3):
        count = scene.rows(i)[0].shape[1]
        outputs[f"scores{i}"] = scene.rows(i)[1]
        outputs[f"boxes{i}"] = np.maximum(distances(scene, i), 0)
        outputs[f"points{i}"] = random.normal(size=(2, count, 10))
    return scene, (outputs, {})


def fcos(seed: int) -> tuple[Scene, Found]:
    scene, outputs = draw_scene(seed), {}
    for i in range(3):
        there = with_objectness(scene.rows(i)[1])
        outputs[f"class{i}"] = maps_first(scene, i, there[..., 1:])
        outputs[f"sides{i}"] = maps_first(scene, i, np.maximum(distances(scene, i), 0))
        outputs[f"centre{i}"] = maps_first(scene, i, there[..., :1])
    return scene, (outputs, {})


def fcos_logits(seed: int) -> tuple[Scene, Found]:
    """The same before a Sigmoid, which the code behind the network does."""
    scene, (outputs, ends) = fcos(seed)
    return scene, (
        {k: a if k.startswith("sides") else logit(np.clip(a, 1e-4, 0.9999)) for k, a in outputs.items()},
        ends,
    )


def yolox_maps(seed: int) -> tuple[Scene, Found]:
    scene, outputs = draw_scene(seed), {}
    for i in range(3):
        numbers = np.concatenate([offsets(scene, i), with_objectness(scene.rows(i)[1])], axis=-1)
        outputs[f"map{i}"] = maps_first(scene, i, numbers)
    return scene, (outputs, {})


def detr(seed: int) -> tuple[Scene, Found]:
    """Queries in no order, each object by one; the last class is that of no object."""
    scene, random = draw_scene(seed), np.random.default_rng(seed)
    boxes, shares = random.uniform(0.2, 0.6, (2, 100, 4)), np.tile([0.01, 0.01, 0.01, 0.97], (2, 100, 1))
    for picture, objects in enumerate(scene.objects):
        for at, (box, kind, score) in zip(random.permutation(100), objects, strict=False):
            boxes[picture, at] = centred(box) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
            shares[picture, at] = (1 - score) / 3
            shares[picture, at, kind] = score
    ends = {"boxes": OutputEnd("sigmoid"), "logits": OutputEnd("dense", 2)}
    return scene, ({"logits": np.log(shares) + random.normal(size=(2, 100, 1)), "boxes": boxes}, ends)


def rt_detr(seed: int) -> tuple[Scene, Found]:
    """The same with a Sigmoid left to do, of each class."""
    scene, (outputs, ends) = detr(seed)
    shares = np.exp(outputs["logits"])
    shares /= shares.sum(axis=2, keepdims=True)
    return scene, ({"logits": logit(shares[..., :3]), "boxes": outputs["boxes"]}, ends)


HEADS: list[tuple[Callable[[int], tuple[Scene, Found]], str]] = [
    (yolo8, "centre and size"), (yolo8_values_alone, "centre and size"), (yolo8_turned_round, "centre and size"),
    (yolo8_masks, "centre and size"), (yolo5, "centre and size"), (yolox, "offsets"), (yolox_decoded, "centre and size"),
    (ssd, "corners"), (yolo4, "corners"), (retinaface, "priors"), (ssd_offsets, "priors"),
    (picodet, "bins"), (yolo8_maps, "bins"),
    (yolo5_maps, "logits"), (yolo5_maps_apart, "logits"), (scrfd, "distances"), (fcos, "distances"),
    (fcos_logits, "distances"), (yolox_maps, "offsets"),
    (retinanet, "deltas"), (retinanet_maps, "deltas"), (ssd_logits, "priors"), (blazeface, "pixels"), (yolo2, "cells"),
    (detr, "centre and size"), (rt_detr, "centre and size"),
]  # fmt: skip


def overlap(one: Array, other: Array) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    both = max(across, 0.0) * max(down, 0.0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, other)]
    return float(both / (sum(areas) - both))


@pytest.mark.parametrize(("write", "coding"), HEADS)
@pytest.mark.parametrize("seed", range(3))
def test_objects_written_as_a_head_writes_them_are_found(
    write: Callable[[int], tuple[Scene, Found]], coding: str, seed: int
) -> None:
    """Each object once, of its class, with its box: by what was drawn, in pixels or in shares of the picture."""
    scene, (outputs, ends) = write(seed)
    outputs = {name: array.astype(np.float32) for name, array in outputs.items()}
    head = find_boxes(outputs, ends, SIZE)
    assert isinstance(head, AnchorHead)
    assert head.coding == coding
    for found, objects in zip(read_boxes(head, outputs, 2, SIZE), scene.objects, strict=True):
        assert sorted(found.classes.tolist()) == sorted(kind for _, kind, _ in objects)
        shares = found.boxes.max() <= 2
        for box, kind, score in objects:
            near = [
                at for at, each in enumerate(found.boxes * ([WIDTH, HEIGHT] * 2 if shares else 1.0))
                if overlap(each, box) > 0.8 and found.classes[at] == kind
            ]  # fmt: skip
            assert len(near) == 1
            assert found.scores[near[0]] == pytest.approx(score, abs=2e-2)


@pytest.mark.parametrize("write", [write for write, _ in HEADS])
def test_what_is_judged_by_boxes_is_served_as_boxes_or_the_reason_is_said(
    write: Callable[[int], tuple[Scene, Found]],
) -> None:
    _, (outputs, ends) = write(3)
    outputs = {name: array.astype(np.float32) for name, array in outputs.items()}
    head = find_boxes(outputs, ends, SIZE)
    assert isinstance(head, AnchorHead)
    pictures = {"x": np.zeros((2, 3, *SIZE), np.float32)}
    for recorded in (None, head):
        served = find_served_boxes(ends, "NCHW", [(pictures, outputs)], recorded=recorded)
        if head.coding in ("priors", "deltas", "logits", "shares", "cells"):
            assert isinstance(served, str)
            assert "prior boxes, whose sizes are in code behind the network" in served
        elif head.guessed:
            assert served == "7 columns are 3 classes, or 2 behind a share of being an object: --classes FILE tells"
            named = find_served_boxes(ends, "NCHW", [(pictures, outputs)], ("a", "b", "c"), recorded)
            assert named == replace(head, guessed=False)
        else:
            assert served == head
    assert from_json(json.loads(json.dumps(to_json(head))), "f", "h") == head


@pytest.mark.parametrize(
    "write", [yolox, picodet, scrfd, fcos, yolo8_maps, yolo5_maps, blazeface, retinanet, detr, yolo8]
)
def test_a_head_that_was_found_is_read_in_pictures_of_other_sizes(
    write: Callable[[int], tuple[Scene, Found]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is not decoded, the places of maps follow from the size: objects are where they were drawn."""
    _, (outputs, ends) = write(0)
    head = find_boxes(outputs, ends, SIZE)
    assert head is not None
    monkeypatch.setattr(sys.modules[__name__], "HEIGHT", 192)
    monkeypatch.setattr(sys.modules[__name__], "WIDTH", 256)
    scene, (outputs, _) = write(2)
    for found, objects in zip(read_boxes(head, outputs, 2, (192, 256)), scene.objects, strict=True):
        shares = np.array([256, 192] * 2) if found.boxes.max() <= 2 else 1.0
        assert len(found.boxes) == len(objects)
        for box, kind, _ in objects:
            near = [overlap(each, box) > 0.8 for each in found.boxes * shares]
            assert sum(near) == 1
            assert found.classes[near.index(True)] == kind


def test_a_picture_that_a_head_s_maps_do_not_fit_is_refused() -> None:
    _, (outputs, ends) = yolox(0)
    head = find_boxes(outputs, ends, SIZE)
    assert head is not None
    with fails("output 'o' has 734 anchors, expected those of strides 8, 16, 32 in pictures of (96, 96)"):
        read_boxes(head, {"o": outputs["o"][:, 1:]}, 2, (96, 96))


@pytest.mark.parametrize("write", [yolox, retinaface, picodet, yolo8_maps, yolo5_maps, scrfd])
def test_what_is_not_decoded_needs_pictures(write: Callable[[int], tuple[Scene, Found]]) -> None:
    _, (outputs, ends) = write(0)
    assert find_boxes(outputs, ends, SIZE) is not None
    assert find_boxes(outputs, ends, None) is None


def count_in_plain_python(head: AnchorHead, f: Array, q: Array, least: float) -> tuple[int, int]:
    """Boxes matched, twice, and all of two answers (anchors, 4 + classes), by greedy suppression and greedy matching."""

    def keep(rows: Array) -> list[tuple[Array, int]]:
        kept: list[tuple[Array, int]] = []
        ranked = sorted(((row[4:].max(), -at) for at, row in enumerate(rows) if row[4:].max() >= least), reverse=True)
        for _, at in ranked:
            row = rows[-at].astype(float)
            box, kind = np.concatenate([row[:2] - row[2:4] / 2, row[:2] + row[2:4] / 2]), int(row[4:].argmax())
            if all(kind != other or overlap(box, each) <= head.overlap for each, other in kept):
                kept.append((box, kind))
        return kept

    one, other = keep(f), keep(q)
    pairs = sorted(
        ((overlap(a[0], b[0]), -i, -j) for i, a in enumerate(one) for j, b in enumerate(other) if a[1] == b[1]),
        reverse=True,
    )
    left, right = set[int](), set[int]()
    for near, i, j in pairs:
        if near >= 0.5 and i not in left and j not in right:
            left.add(i)
            right.add(j)
    return 2 * len(left), len(one) + len(other)


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.9), st.floats(0, 12))
@settings(deadline=None, max_examples=40)
def test_boxes_are_compared_as_plain_python_compares_them(seed: int, threshold: float, moved: float) -> None:
    """Suppressed at each score anew, where the head suppresses once: random boxes that overlap much, two classes."""
    random = np.random.default_rng(seed)
    f = np.concatenate(
        [random.uniform(0, 60, (2, 40, 2)), random.uniform(5, 40, (2, 40, 2)), random.random((2, 40, 2))], -1
    )
    q = np.concatenate(
        [f[..., :4] + random.normal(size=(2, 40, 4)) * moved, f[..., 4:] + random.normal(size=(2, 40, 2)) / 9], -1
    )
    q[..., 2:4] = np.maximum(q[..., 2:4], 1)
    head = AnchorHead(
        (Level(Columns("o", "anchors first", 0, 4), Columns("o", "anchors first", 4)),), "centre and size", threshold
    )
    rows = compare_boxes(head, *(read_boxes(head, {"o": each}, 2, SIZE) for each in (f, q)))
    expected = np.mean([[count_in_plain_python(head, f[i], q[i], t) for i in range(2)] for t in SHOWN_FROM], axis=0)
    np.testing.assert_allclose(rows, expected)


@pytest.mark.parametrize("factor", [1.0, 0.35, 0.25, 0.14, 0.06, 0.001])
def test_where_less_than_a_box_a_picture_is_found_lower_scores_are_shown(factor: float) -> None:
    """Scores are halved up to three times, until two of the objects drawn in two pictures reach the lowest."""
    scene, (outputs, ends) = yolo8(2)
    lower = np.tile(outputs["o"], (4, 1, 1))  # eight pictures; of fewer nothing is said
    lower[:, 4:] *= factor
    scores = [factor * score for objects in scene.objects for _, _, score in objects]
    halved = next((h for h in range(3) if sum(score >= 0.25 / 2**h for score in scores) >= 2), 3)
    head = find_boxes({"o": lower}, ends, SIZE)
    assert isinstance(head, AnchorHead)
    assert head.shown_from == tuple(score / 2**halved for score in SHOWN_FROM)
    assert f"boxes of scores from {0.25 / 2**halved:g} to" in say_compared(head)
    few = find_boxes({"o": lower[:7]}, ends, SIZE)
    assert isinstance(few, AnchorHead)
    assert few.shown_from == SHOWN_FROM


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_numbers_that_an_int8_model_has_lost_are_no_boxes(lost: float) -> None:
    """Of a picture whose boxes or scores are no numbers nothing is found again, without a warning; of the other all."""
    _, (outputs, ends) = yolo8(0)
    head = find_boxes(outputs, ends, SIZE)
    assert isinstance(head, AnchorHead)
    for columns in (slice(0, 4), slice(4, 7)):
        other = outputs["o"].copy()
        other[0, columns] = lost
        (equal, _), (same, count) = compare_boxes(
            head, *(read_boxes(head, each, 2, SIZE) for each in (outputs, {"o": other}))
        )
        assert (equal, same) == (0, count)
        assert measure_boxes(head, outputs, {"o": other}, 2, SIZE)["o"].sqnr_db < 20


def test_numbers_behind_the_scores_are_compared_where_boxes_are() -> None:
    """Shares of masks: of anchors without a box they may be anything."""
    _, (outputs, ends) = yolo8_masks(1)
    head = find_boxes(outputs, ends, SIZE)
    assert isinstance(head, AnchorHead)
    shown = outputs["o"][:, 4:7].max(axis=1) >= SHOWN_FROM[0]
    worse = outputs["o"].copy()
    noise = np.random.default_rng(3).normal(size=worse[:, 7:].shape)
    worse[:, 7:] += np.where(shown[:, None], 0.1, 100) * noise
    measured = measure_boxes(head, outputs, {**outputs, "o": worse}, 2, SIZE)
    rest = measured["o: behind the scores"]
    signal, error = (
        (outputs["o"][:, 7:].transpose(0, 2, 1)[shown] ** 2).sum(),
        0.01 * (noise.transpose(0, 2, 1)[shown] ** 2).sum(),
    )
    assert rest.sqnr_db == pytest.approx(10 * math.log10(signal / error))
    assert measured["o"].noise == 0


def test_noise_is_of_anchors_that_may_become_boxes() -> None:
    """Of the others only those that rank highest count; a box that is off by a tenth of its sides is 20 dB and more."""
    _, (outputs, ends) = yolo8(0)
    head = find_boxes(outputs, ends, SIZE)
    assert isinstance(head, AnchorHead)
    low = outputs["o"][:, 4:].max(axis=1) < 0.02
    other = outputs["o"].copy()
    other[:, :2] += np.where(low[:, None], 50.0, 0.0)
    assert measure_boxes(head, outputs, {"o": other}, 2, SIZE)["o"].noise == 0
    moved = outputs["o"].copy()
    moved[:, 0] += 0.1 * moved[:, 2]
    assert 15 < measure_boxes(head, outputs, {"o": moved}, 2, SIZE)["o"].sqnr_db < 25


PLACES = sum((HEIGHT // s) * (WIDTH // s) for s in (8, 16, 32))


def quiet(random: np.random.Generator, *shape: int) -> Array:
    return np.asarray(random.beta(0.1, 20, shape))


def draw_no_head(kind: str, random: np.random.Generator) -> Found:
    """Answers in shapes of a head, which are something else."""
    several, classes = int(random.choice([1, 2, 3])), int(random.integers(1, 12))
    count = several * PLACES
    pixels = random.uniform(0, 1, (2, count, 4)) * [WIDTH, HEIGHT, 80, 80] + 1
    levels = [(HEIGHT // s, WIDTH // s) for s in (8, 16, 32)]
    if kind == "features":
        return {"o": random.normal(size=(2, count, 5 + classes))}, {}
    if kind == "boxes in no order":
        return {"o": np.concatenate([pixels, quiet(random, 2, count, classes)], -1)}, {}
    if kind == "boxes apart in no order":
        return {"b": pixels, "s": quiet(random, 2, count, classes)}, {}
    if kind == "embeddings beside labels":
        return {"e": random.normal(size=(2, count, 4)), "s": random.dirichlet(np.ones(3), (2, count))}, {}
    if kind == "points of a body":
        return {"o": random.uniform(0, HEIGHT, (2, count, 51))}, {}
    if kind == "a class at each place":
        return {"o": random.dirichlet(np.ones(classes + 5), (2, count))}, {"o": OutputEnd("softmax", 2)}
    if kind == "a pyramid of features":
        return {f"p{i}": random.normal(size=(2, 3 * (5 + classes), *level)) for i, level in enumerate(levels)}, {}
    if kind == "a wide pyramid of features":
        return {f"p{i}": random.normal(size=(2, 64 + classes, *level)) for i, level in enumerate(levels)}, {}
    if kind == "a pyramid behind ReLU":
        return {f"p{i}": np.maximum(random.normal(size=(2, 96, *level)), 0) for i, level in enumerate(levels)}, {}
    if kind == "maps of shares":
        ends = {f"p{i}": OutputEnd("sigmoid") for i in range(3)}
        return {f"p{i}": quiet(random, 2, classes, *level) for i, level in enumerate(levels)}, ends
    if kind == "shares beside features":
        shares = {f"s{i}": quiet(random, 2, classes, *level) for i, level in enumerate(levels)}
        width = int(random.choice([16, 32, 64, 68]))
        return shares | {f"f{i}": random.normal(size=(2, width, *level)) for i, level in enumerate(levels)}, {}
    if kind in ("classes of several sizes", "rare classes of several sizes"):
        count = int(random.choice([21, 27, 33, 80, 150]))
        often = 1 / np.arange(1, count + 1) ** (1.2 if kind == "rare classes of several sizes" else 0)
        outputs = {}
        for i, level in enumerate(levels):
            each = random.choice(count, size=(2, *level), p=often / often.sum())
            logits = (
                8.0 * (each[:, None] == np.arange(count)[:, None, None]) - 5 + random.normal(size=(2, count, *level))
            )
            outputs[f"p{i}"] = logits
        return outputs, {name: OutputEnd("convolution", 1) for name in outputs}
    if kind == "two outputs behind a Softmax":
        outputs = {
            "script": random.dirichlet(np.ones(4), (2, 100)),
            "text": random.dirichlet(0.1 * np.ones(97), (2, 100)),
        }
        return outputs, {name: OutputEnd("softmax", 2) for name in outputs}
    if kind == "two outputs behind a Sigmoid":
        outputs = {"a": random.random((2, 196, 4)), "b": quiet(random, 2, 196, classes)}
        return outputs, {name: OutputEnd("sigmoid") for name in outputs}
    if kind == "a segmentation of several sizes":
        outputs = {}
        for i, level in enumerate(levels[:2]):
            blobs = random.normal(size=(2, 9 + classes, level[0] // 2, level[1] // 2)).repeat(2, 2).repeat(2, 3) * 2
            blobs[:, 0] += 6
            blobs[:, 1] += 4
            shares = np.exp(blobs)
            outputs[f"p{i}"] = shares / shares.sum(axis=1, keepdims=True)
        return outputs, {name: OutputEnd("softmax", 1) for name in outputs}
    if kind == "RetinaNet's maps":  # of nine anchors at a place, which are not told from fewer of more numbers
        outputs = {}
        for i, level in enumerate(levels):
            outputs[f"class{i}"] = random.normal(size=(2, 9 * 80, *level)) / 2 - 4.6
            outputs[f"box{i}"] = random.normal(size=(2, 36, *level)) * 0.3
        return outputs, {}
    if kind == "a map and features of several sizes":
        shares = {f"s{i}": random.random((2, 1, *level)) for i, level in enumerate(levels)}
        return shares | {f"f{i}": random.normal(size=(2, 32, *level)) for i, level in enumerate(levels)}, {}
    assert kind == "a turned box"
    centres = np.concatenate([yolo8(int(random.integers(100)))[1][0]["o"][:, :4]], axis=1)
    angles = random.uniform(0.4, 0.9, (2, 1, centres.shape[2]))
    return {"o": np.concatenate([centres, angles], axis=1)}, {}


NO_HEADS = [
    "features", "boxes in no order", "boxes apart in no order", "embeddings beside labels", "points of a body",
    "a class at each place", "a pyramid of features", "a wide pyramid of features", "a pyramid behind ReLU",
    "maps of shares", "shares beside features", "classes of several sizes", "rare classes of several sizes",
    "two outputs behind a Softmax", "two outputs behind a Sigmoid", "a segmentation of several sizes", "RetinaNet's maps",
    "a map and features of several sizes", "a turned box",
]  # fmt: skip


@pytest.mark.parametrize("kind", NO_HEADS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=15)
def test_shapes_alone_make_no_head(kind: str, seed: int) -> None:
    outputs, ends = draw_no_head(kind, np.random.default_rng(seed))
    outputs = {name: array.astype(np.float32) for name, array in outputs.items()}
    assert find_boxes(outputs, ends, SIZE) is None


def test_maps_that_an_output_is_put_together_from_are_listed() -> None:
    """As SSD writes its offsets: levels with channels last, one behind another; not where other numbers are among them."""
    net = Net(0)
    x = net.input("x", 3, 32, 48)
    levels, maps = [], []
    for stride, anchors in ((8, 3), (16, 2)):
        mean = net.op("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2)
        each = net.op("Transpose", net.conv(mean, 3, 4 * anchors), perm=[0, 2, 3, 1])
        levels.append(net.op("Reshape", each, net.constant([0, -1, 4], np.int64)))
        maps.append((4 * anchors, 32 // stride, 48 // stride))
    offsets = net.op("Concat", *levels, axis=1)
    halved = net.op("Concat", levels[0], net.op("Relu", levels[1]), axis=1)
    ends = find_ends(ir.from_proto(net.output(offsets, halved).model()))
    assert (ends[offsets].maps, ends[halved].maps) == (tuple(maps), ())


def test_pictures_are_told_from_other_inputs() -> None:
    zeros = np.zeros
    assert find_picture_size({"x": zeros((2, 3, 160, 224)), "scale": zeros((2, 2))}) == (160, 224)
    assert find_picture_size({"x": zeros((2, 160, 224, 1))}) == (160, 224)
    assert find_picture_size({"tokens": zeros((2, 640))}) is None
    assert find_picture_size({"x": zeros((2, 64, 8, 8))}) is None
    assert find_picture_size({"x": zeros((2, 3, 8, 8)), "y": zeros((2, 3, 8, 8))}) is None


def detector(folder: Path) -> Path:
    """A network with YOLOX's head: bright squares of 8 and 16 pixels are objects of one of two classes."""
    net = Net(0)
    x = net.input("x", 3, 64, 64)
    levels = []
    for stride in (8, 16):
        mean = net.op("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2)
        body = net.op("Relu", net.conv(mean, 3, 16, (1, 1)))
        box = net.conv(body, 16, 4, (1, 1))
        bright = net.op("Conv", mean, net.constant(np.full((1, 3, 1, 1), 10.0)), net.constant([-17.0]))
        colours = np.zeros((2, 3, 1, 1))
        colours[0, 0], colours[1, 2] = 12.0, 12.0
        kinds = net.op("Conv", mean, net.constant(colours), net.constant([-9.0, -9.0]))
        parts = [net.op("Mul", box, net.constant(0.2)), net.op("Sigmoid", bright), net.op("Sigmoid", kinds)]
        joined = net.op("Concat", *parts, axis=1)
        levels.append(net.op("Reshape", joined, net.constant([0, 7, -1], np.int64)))
    rows = net.op("Transpose", net.op("Concat", *levels, axis=2), perm=[0, 2, 1])
    return net.output(rows).save(folder / "detector.onnx")


def draw_squares(seed: int, count: int, light: float = 1.0) -> Array:
    random = np.random.default_rng(seed)
    x = random.uniform(0, 0.2, (count, 3, 64, 64)).astype(np.float32)
    for picture in x:
        for _ in range(random.integers(1, 4)):
            r, c = (16 * random.integers(0, 4, 2)).tolist()
            side = int(random.choice([8, 16]))
            colour = [1.0, 0.6, 0.3] if random.random() < 0.5 else [0.3, 0.6, 1.0]
            picture[:, r : r + side, c : c + side] = np.array(colour)[:, None, None] + random.uniform(
                -0.1, 0.1, (3, 1, 1)
            )
    return x * np.float32(light)


def test_quantize_judges_by_boxes_and_validate_says_the_same(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    model, out = detector(tmp_path), tmp_path / "int8.onnx"
    report = quantize(model, data=save_npz(x=draw_squares(0, 60)), output=out, target="x86-avx2", costs="none")
    assert any("of boxes found by both" in line for line in report.lines), report.lines
    told = validate(out, against=model, data=save_npz(x=draw_squares(1, 40)))
    assert told.values["metric"] == "boxes"
    assert told.values["int8"] > 0.9
    assert "boxes of scores from 0.25 to 0.6 after suppression" in told.values["why"]
    assert told.values["outputs"][0]["kind"] == "boxes of anchors"
    each = validate(out, against=model, data=save_npz(x=draw_squares(1, 40)), metric="agreement")
    assert "overlap of anchors that score above 0.3 to 0.7" in each.values["why"]


def test_a_file_says_from_which_scores_its_boxes_were_judged(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    """By dim pictures, with less than a box each; others have many, and a float file without a record goes by these."""
    model, out, bright = detector(tmp_path), tmp_path / "int8.onnx", draw_squares(1, 40)
    dim = tmp_path / "dim.npz"
    np.savez(dim, x=draw_squares(0, 60, 0.8))
    quantize(model, data=dim, output=out, target="x86-avx2", costs="none", accept=True)
    recorded = read_recorded(out)
    assert recorded.coding == "offsets"
    lowest = recorded.shown_from[0]
    assert lowest < SHOWN_FROM[0]
    for pictures in (bright, bright[:3], bright[::-1]):
        told = validate(out, against=model, data=save_npz(x=pictures))
        assert f"boxes of scores from {lowest:g} to" in told.values["why"]
    usual = validate(model, against=model, data=save_npz(x=bright))
    assert "boxes of scores from 0.25 to" in usual.values["why"]

    held = quantize(
        model,
        data=dim,
        output=tmp_path / "held.onnx",
        target="x86-avx2",
        costs="none",
        eval=save_npz(x=bright),
        max_drop=50,
    )
    told = validate(tmp_path / "held.onnx", against=model, data=save_npz(x=bright))
    assert held.values["drop"] == pytest.approx(told.values["drop"])  # counted from the same scores
    assert read_recorded(tmp_path / "held.onnx") == recorded

    bundle(out, output=tmp_path / "m.fcd", preprocess="scale-0-1")
    assert open_bundle(tmp_path / "m.fcd").manifest.format.boxes == recorded
    shown = inspect(out)
    assert f"shown from a score of {lowest:g}" in "\n".join(shown.lines)


def read_recorded(file: Path) -> AnchorHead:
    boxes = from_metadata(read_model(file).metadata_props, "int8").boxes
    assert isinstance(boxes, AnchorHead)
    return boxes


def test_a_record_of_boxes_that_the_model_has_not_is_refused(tmp_path: Path, save_npz: Callable[..., Path]) -> None:
    model, out, data = detector(tmp_path), tmp_path / "int8.onnx", save_npz(x=draw_squares(0, 30))
    quantize(model, data=data, output=out, target="x86-avx2", costs="none")
    proto = onnx.load(out)
    (entry,) = (each for each in proto.metadata_props if each.key == KEY)
    said = json.loads(entry.value)
    said["boxes"]["levels"][0]["scores"]["output"] = "gone"
    entry.value = json.dumps(said)
    onnx.save(proto, out)
    for read in (lambda: validate(out, against=model, data=data), lambda: bundle(out, output=tmp_path / "m.fcd")):
        with pytest.raises(FcdeployError, match="it names the output 'gone', which the model has not"):
            read()


def raw_detector(folder: Path, *, joined: bool) -> Path:
    """RetinaNet's head for the same squares: four anchors at a place, of which the first answers, as maps or put together."""
    net = Net(0)
    x = net.input("x", 3, 64, 64)
    tables: dict[str, list[str]] = {"box": [], "class": []}
    for stride in (8, 16):
        mean = net.op("AveragePool", x, kernel_shape=[stride] * 2, strides=[stride] * 2)
        weight, bias = np.full((4, 2, 3, 1, 1), 5.0), np.full((4, 2), -15.5)
        weight[:, 0, 0], weight[:, 1, 2], bias[1:] = 12.0, 12.0, -30.0
        kinds = net.op("Conv", mean, net.constant(weight.reshape(8, 3, 1, 1)), net.constant(bias.reshape(8)))
        box = net.conv(net.op("Mul", mean, net.constant(0.3)), 3, 16, (1, 1))
        for name, each, numbers in (("box", box, 4), ("class", kinds, 2)):
            if joined:
                each = net.op("Transpose", each, perm=[0, 2, 3, 1])
                each = net.op("Reshape", each, net.constant([0, (64 // stride) ** 2 * 4, numbers], np.int64))
            tables[name].append(each)
    ends = (
        [net.op("Concat", *parts, axis=1) for parts in tables.values()]
        if joined
        else [*tables["class"], *tables["box"]]
    )
    return net.output(*ends).save(folder / "raw.onnx")


@pytest.mark.parametrize("joined", [True, False])
def test_logits_of_convolutions_beside_offsets_are_judged_by_boxes(
    joined: bool, tmp_path: Path, save_npz: Callable[..., Path]
) -> None:
    model, out = raw_detector(tmp_path, joined=joined), tmp_path / "int8.onnx"
    report = quantize(
        model, data=save_npz(x=draw_squares(0, 60)), output=out, target="x86-avx2", costs="none", accept=True
    )
    assert any("of boxes found by both" in line for line in report.lines), report.lines
    recorded = read_recorded(out)
    assert (recorded.coding, recorded.left, len(recorded.levels)) == ("deltas", "sigmoid", 1 if joined else 2)
    made = bundle(out, output=tmp_path / "m.fcd", preprocess="scale-0-1")
    assert any("sizes are in code behind the network" in each for each in made.warnings), made.warnings
    told = validate(out, against=model, data=save_npz(x=draw_squares(1, 40)))
    assert told.values["metric"] == "boxes"
    assert told.values["int8"] > 0.8
