"""Pictures and rows in, classes out: a real server on a bundle that says how they become inputs, beside the same here."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from colour_models import make_colour_classifier
from networks import Net
from onnx import helper
from PIL import Image
from servers import Server, serving

from fcdeploy import cli
from fcdeploy.commands.bundle import bundle
from fcdeploy.commands.calibrate import calibrate
from fcdeploy.commands.quantize import quantize
from fcdeploy.graph.light_reader import Node, Outline
from fcdeploy.preprocessing.apply import read_picture
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records.data_format import KEY, DataFormat, to_metadata
from fcdeploy.records.signature import TensorSpec
from fcdeploy.runtime.session import Session
from fcdeploy.serve.classify import _rank, describe_answers, read_samples
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.http_answer import Answer
from fcdeploy.serve.http_request import RequestHead, find_route
from fcdeploy.serve.meaning import find_probabilities
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.models import Model, load_model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.repository import find_models
from fcdeploy.serve.routes import answer_request
from fcdeploy.serve.server_state import ServerState

NAMES = ("aubergine", "banana", "cherry", "date", "elder", "fig")
SPEC = TensorSpec("x", np.dtype(np.float32), (None, 3, 24, 24))


def make_picture(seed: int, colours: np.ndarray, kind: str = "JPEG") -> bytes:
    random = np.random.default_rng(seed)
    height, width = (int(n) for n in random.integers(20, 90, 2))
    pixels = 255 * colours[seed % len(colours)] + random.normal(0, 20, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of photos of six colours, and a model of a table with its format in its metadata."""
    home = tmp_path_factory.mktemp("photos")
    colours = make_colour_classifier(home / "m.onnx", 3, "normal")
    for at, name in enumerate(NAMES):
        (home / "train" / name).mkdir(parents=True)
        for k in range(4):
            (home / "train" / name / f"{k}.jpg").write_bytes(make_picture(at + 6 * k, colours))
    calibrate(home / "m.onnx", data=home / "train", output=home / "c.calib", preprocess="torchvision-imagenet")
    quantize(
        home / "m.onnx", calibration=home / "c.calib", output=home / "fruit.int8.onnx", floor="none", effort="fast"
    )
    (home / "models").mkdir()
    bundle(home / "fruit.int8.onnx", output=home / "models" / "fruit.fcd")

    net = Net(0)
    model = net.output(net.dense(net.input("features", 3), 3, 2)).model()
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, to_metadata(DataFormat(None, ("no", "yes"), ("age", "height", "weight"), "ill"))
    (home / "models" / "table.onnx").write_bytes(model.SerializeToString())
    filling = helper.make_node(
        "Imputer", ["features"], ["whole"], domain="ai.onnx.ml", imputed_value_floats=[7.0], replaced_value_float=np.nan
    )
    model.graph.node[0].input[0] = "whole"
    model.graph.node.insert(0, filling)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    (home / "models" / "filled.onnx").write_bytes(model.SerializeToString())
    np.save(home / "colours.npy", colours)
    return home


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder / "models") as server:
        yield server


@pytest.fixture(scope="module")
def colours(folder: Path) -> np.ndarray:
    return np.load(folder / "colours.npy")


@pytest.mark.parametrize(
    ("path", "kind", "coding"),
    [
        ("/v1/models/fruit:classify", "image/jpeg", ""),
        ("/v1/models/table:classify", "text/csv", ""),
        ("/v2/models/table/infer", "application/json", "gzip"),
    ],
)
def test_what_was_refused_is_given_back_at_once(
    folder: Path, colours: np.ndarray, path: str, kind: str, coding: str
) -> None:
    """An error that holds itself keeps what was decoded of its body until Python looks for cycles, which is seldom."""
    cut = make_picture(0, colours)[:-200]
    head = RequestHead(
        "POST", path, find_route("POST", path), len(cut), False, True, False, None, coding, "", False, kind
    )
    answers = list[Answer]()

    async def live() -> int:
        engine = BatchingEngine(folder / "models")
        await engine.start()
        left = []
        for _ in range(2):  # the first imports decoders
            gc.collect()
            for _ in range(5):
                answer_request(ServerState(engine, Metrics()), head, cut, 0.0, answers.append)
                while engine.requests:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0)
            left.append(gc.collect())
        await engine.stop()
        return left[-1]

    gc.disable()
    try:
        assert asyncio.run(live()) == 0
    finally:
        gc.enable()
    assert [answer.status for answer in answers] == [400] * 10


def classify(server: Server, model: str, body: bytes, kind: str, query: str = "") -> Any:
    return server.ask("POST", f"/v1/models/{model}:classify{query}", body, Content_Type=kind)


@pytest.mark.parametrize(
    ("end", "scores", "shares"),
    [
        ("Softmax", [0.75, 0.245], [0.75, 0.245]),  # in bytes they sum up to nearly 1
        ("Gemm", [0.75, 0.25], [0.622, 0.378]),
        ("Gemm", [0.0, -1.0], [0.731, 0.269]),
        ("Sigmoid", [0.75, 0.25], None),
        ("Div", [0.75, 0.25], [0.75, 0.25]),
        ("Div", [0.95, 0.9], None),
        ("Div", [2.0, 2.0], [0.5, 0.5]),
        ("", [0.95, 0.9], None),
    ],
)
def test_the_graph_s_end_says_which_scores_are_probabilities(
    end: str, scores: list[float], shares: list[float] | None
) -> None:
    """Whatever one sample's numbers are, for all have the same form; only where the end tells nothing an answer does."""
    nodes = (Node(end, "", "", ("a", "b"), ("c",)), Node("DequantizeLinear", "", "", ("c", "s"), ("y",)))
    kind = find_probabilities(Outline(nodes, {}, {}, {}, 17), "y", np.array([scores]) if end == "Div" else None)
    found = _rank(np.array(scores), ("cat", "dog"), 2, kind)
    assert [row["score"] for row in found] == scores
    assert [row["probability"] for row in found if "probability" in row] == pytest.approx(shares or [], abs=1e-3)


def test_numbers_without_names_are_no_logits() -> None:
    """Three lengths that a dense layer estimates have no probabilities."""
    for names in ((), ("width",)):
        rows = _rank(np.array([3.0, 1.0, 2.0]), names, 3, "softmax")
        assert [(row["class"], row["score"]) for row in rows] == [(0, 3.0), (2, 2.0), (1, 1.0)]
        assert not any("probability" in row for row in rows)


def test_an_answer_that_is_not_one_row_a_sample() -> None:
    """Anchors without an axis of samples are no classes of a sample each."""
    spec = {"y": TensorSpec("y", np.dtype(np.float32), (None, 6))}
    model = Model("m", "1", None, {}, spec, 1, "", False, 0.0, 0.0)  # type: ignore[arg-type]
    rows = np.arange(18, dtype=np.float32).reshape(3, 6)
    assert describe_answers(model, [rows], 1, 5) == [{"values": {"y": rows.tolist()}}]
    with pytest.raises(RefusedError, match=r"'y' of shape \[3, 6\] has no row for each of 2 samples"):
        describe_answers(model, [rows], 2, 5)


def test_served_classes_are_those_of_the_same_picture_here(server: Server, folder: Path, colours: np.ndarray) -> None:
    how, session = read_preprocessing("torchvision-imagenet", SPEC), Session(folder / "fruit.int8.onnx")
    right = 0
    for seed in range(40):
        kind = "JPEG" if seed % 3 else "PNG"
        picture = make_picture(100 + seed, colours, kind)
        (scores,) = session.run({"x": read_picture(picture, how, SPEC)[0][None]})
        reply = classify(server, "fruit", picture, f"image/{kind.lower()}")
        assert reply.status == 200
        (found,) = reply.json["predictions"]
        wanted = np.argsort(-scores[0], kind="stable")[:5]
        assert [row["class"] for row in found["classes"]] == wanted.tolist()
        assert [row["name"] for row in found["classes"]] == [NAMES[at] for at in wanted]
        np.testing.assert_allclose([row["score"] for row in found["classes"]], scores[0][wanted], rtol=1e-6)
        shares = np.exp(scores[0].astype(np.float64)) / np.exp(scores[0].astype(np.float64)).sum()
        np.testing.assert_allclose([row["probability"] for row in found["classes"]], shares[wanted], rtol=1e-6)
        right += int(wanted[0]) == (100 + seed) % 6
    assert right >= 36


def test_a_model_that_fills_missing_numbers_in_takes_them(server: Server) -> None:
    whole = classify(server, "filled", b"age,height,weight\n1,7,2", "text/csv").json["predictions"]
    for cell in (b"nan", b""):
        assert classify(server, "filled", b"age,height,weight\n1,%s,2" % cell, "text/csv").json["predictions"] == whole
    row = b'{"rows": [{"age": 1, "height": null, "weight": 2}]}'
    assert classify(server, "filled", row, "application/json").json["predictions"] == whole


def test_several_pictures_in_a_form(server: Server, colours: np.ndarray) -> None:
    files = [make_picture(seed, colours) for seed in (1, 4, 5)]
    parts = [
        b'--sep\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + file
        for file in files
    ]
    parts.insert(1, b'--sep\r\nContent-Disposition: form-data; name="comment"\r\n\r\nhello')
    body = b"\r\n".join([*parts, b"--sep--\r\n"])
    reply = classify(server, "fruit", body, 'multipart/form-data; boundary="sep"', "?top=1")
    alone = [classify(server, "fruit", file, "image/jpeg", "?top=1").json["predictions"][0] for file in files]
    assert reply.json["predictions"] == alone
    assert all(len(row["classes"]) == 1 for row in alone)


def test_rows_by_the_names_of_columns(server: Server, folder: Path) -> None:
    rows = [{"weight": 80.5, "age": 31, "height": 1.8}, {"age": 50, "height": 1.6, "weight": 50, "ill": 1}]
    (scores,) = Session(folder / "models" / "table.onnx").run(
        {"features": np.array([[31, 1.8, 80.5], [50, 1.6, 50]], np.float32)}
    )
    reply = classify(server, "table", json.dumps({"rows": rows}).encode(), "application/json")
    assert [row["classes"][0]["name"] for row in reply.json["predictions"]] == [
        ("no", "yes")[at] for at in scores.argmax(1)
    ]
    text = io.StringIO()
    known = [["height", "label", "weight", "age"], [1.8, "yes", 80.5, 31], [1.6, "no", 50, 50]]  # the label is not read
    csv.writer(text).writerows(known)
    same = classify(server, "table", text.getvalue().encode(), "text/csv; charset=utf-8")
    assert same.json["predictions"] == reply.json["predictions"]
    for separator in (";", "\t"):  # as files may have it, too
        other = text.getvalue().replace(",", separator).encode()
        assert classify(server, "table", other, "text/csv").json["predictions"] == reply.json["predictions"]


LARGE = io.BytesIO()
Image.new("L", (8000, 8000)).save(LARGE, "PNG")
LONG = io.BytesIO()
Image.new("L", (1, 400_000)).save(LONG, "PNG")


@pytest.mark.parametrize(
    ("model", "body", "kind", "status", "message"),
    [
        ("fruit", b"no picture", "image/jpeg", 400, "the picture cannot be read: cannot identify image file"),
        ("fruit", LARGE.getvalue(), "image/png", 400, "the picture has 8000 x 8000 pixels, "),
        ("fruit", LONG.getvalue(), "image/png", 400, "pixels when it is scaled, 33,554,432 at most"),
        ("fruit", b"", "image/tiff", 400, "cannot be read"),
        ("fruit", b"x", "text/plain", 415, "Content-Type is 'text/plain', expected image/jpeg"),
        ("fruit", b"x", "multipart/form-data", 400, "without a boundary"),
        ("fruit", b"x", "multipart/form-data; boundary=a", 400, "does not end with its boundary"),
        ("fruit", b"--a\r\n\r\nx\r\n--a--", "multipart/form-data; boundary=a", 400, "the form holds no file"),
        ("table", b"x", "image/jpeg", 400, "'table' does not say how pictures become its inputs"),
        ("table", b"[{}", "application/json", 400, "the body is not JSON, expected JSON rows"),
        ("table", b"[1]", "application/json", 400, "the body is no list of rows"),
        ("table", b"[]", "application/json", 400, "the body holds no rows"),
        ("table", b'[{"age": 1, "height": 2, "wight": 3}]', "application/json", 400, "column 'weight' is missing"),
        (
            "table",
            b'[{"age": 1, "height": 2, "weight": 3, "id": 7}]',
            "application/json",
            400,
            "column 'id' is unknown, expected 'age', 'height', 'weight': leave it out",
        ),
        ("table", b'[{"a": 1, "b": 2, "c": 3}]', "application/json", 400, "column 'a' is unknown"),
        ("table", b"1,2,3\n4,5,6", "text/csv", 400, "column '1' is unknown, expected 'age', 'height', 'weight'"),
        (
            "table",
            b'[{"age": [], "height": 2, "weight": 3}]',
            "application/json",
            400,
            "column 'age' is 'a list or object'",
        ),
        ("table", b"[" + b"{}," * 1024 + b"{}]", "application/json", 400, "more than 1024 rows"),
        (
            "table",
            b"[" + b"[]," * (1 << 21) + b"1]",
            "application/json",
            413,
            "6291459 bytes of rows, expected at most 6291456",
        ),
        ("fruit", b"\r\n--a" * 2000, "multipart/form-data; boundary=a", 400, "the form has more than 1024 parts"),
        ("table", b'[{"age": "x", "height": 2, "weight": 3}]', "application/json", 400, "row 0, column 'age' is 'x'"),
        ("table", b"age,height,weight\n1,2", "text/csv", 400, "row 0 has 2 cells, the header has 3"),
        (
            "table",
            b"age,height,weight\n1,2,3\n1,nan,2",
            "text/csv",
            400,
            "row 1, column 'height' is NaN, which model 'table' does not fill in",
        ),
        ("table", b"age,height,weight\n1,,2", "text/csv", 400, "row 0, column 'height' is '', expected a number"),
        ("table", b"age,age\n1,2", "text/csv", 400, "column 'age' is there twice"),
        ("table", b"\xff", "text/csv", 400, "no CSV in UTF-8"),
        ("nothing", b"x", "image/jpeg", 404, "model 'nothing' is unknown"),
    ],
)
def test_mistakes_are_answered(server: Server, model: str, body: bytes, kind: str, status: int, message: str) -> None:
    reply = classify(server, model, body, kind)
    assert reply.status == status
    assert message in reply.error


def make_form(*files: bytes) -> bytes:
    head = b'--a\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--a--"


def test_the_number_of_pictures_is_looked_at_before_they_are_decoded(folder: Path, colours: np.ndarray) -> None:
    """None of these is a picture, which nobody noticed; of an input with free axes the first must be one."""
    places = find_models(folder / "models")
    model = load_model(next(place for place in places if place.name == "fruit"))
    each, form = 4 * 3 * 24 * 24, "multipart/form-data; boundary=a"
    good = make_picture(0, colours)
    assert len(read_samples(model, make_form(good, good), form, 2 * each).sizes) == 2
    assert len(read_samples(model, good, "image/jpeg", 1).sizes) == 1
    free = replace(model, inputs={"x": replace(SPEC, shape=(None, 3, None, None))})
    unknown = replace(model, inputs={"x": replace(SPEC, shape=())})
    for it, files in ((model, [b"x"] * 3), (free, [good, b"x", b"x"]), (unknown, [good, b"x", b"x"])):
        with pytest.raises(
            RefusedError, match=f"3 pictures become {3 * each} bytes of inputs, expected at most 2"
        ) as caught:
            read_samples(it, make_form(*files), form, 3 * each - 1)
        assert caught.value.status == 413
    fixed = replace(model, inputs={"x": replace(SPEC, shape=(2, 3, 24, 24))})
    with pytest.raises(RefusedError, match="3 pictures, expected 2: input 'x' has shape"):
        read_samples(fixed, make_form(b"x", b"x", b"x"), form, each)
    assert len(read_samples(fixed, make_form(good, good), form, each).sizes) == 2  # a run's own batch


def test_addresses_and_queries(server: Server, colours: np.ndarray) -> None:
    picture = make_picture(2, colours)
    assert classify(server, "fruit/versions/1", picture, "image/png").status == 200  # the bytes say what they are
    for path, status in (
        ("/v1/models/fruit/versions/9:classify", 404), ("/v1/models/:classify", 404), ("/v1/models/fruit:run", 404),
        ("/v1/models/fruit:classify?top=0", 400), ("/v1/models/fruit:classify?top=many", 400),
        (f"/v1/models/fruit:classify?top=000001{'9' * 5000}", 400),
    ):  # fmt: skip
        assert server.ask("POST", path, picture, Content_Type="image/jpeg").status == status
    assert server.ask("GET", "/v1/models/fruit:classify").status == 405
    assert server.ask("GET", "/v2/models/fruit").json["takes"] == ["pictures"]
    assert server.ask("GET", "/v2/models/table").json["takes"] == ["rows"]


def test_the_image_and_the_unit_of_the_docs_start_the_server_as_it_is(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    unit = (docs / "fcdeploy.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    (last,) = re.findall(r"^CMD (\[.*\])$", (docs / "Dockerfile").read_text(), re.MULTILINE)
    for program, name, *arguments in (command.split(), json.loads(last)):
        assert Path(program).name == "fcdeploy"
        serve = cli.fcdeploy.get_command(click.Context(cli.fcdeploy), name)
        assert serve
        assert serve.make_context(name, arguments).params["port"] == 8080
    if shutil.which("systemd-analyze"):
        file = tmp_path / "fcdeploy.service"
        file.write_text(unit.replace("/opt/fcdeploy/bin/fcdeploy", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
        assert file.name not in done.stderr, done.stderr


def mutate(good: bytes, seed: int) -> bytes:
    """Some bytes changed, a piece taken out, or the end cut off."""
    random = np.random.default_rng(seed)
    body = bytearray(good)
    at, length = int(random.integers(len(body))), int(random.integers(1, 40))
    if seed % 4 == 0:
        del body[at:]
    elif seed % 4 == 1:
        del body[at : at + length]
    else:
        for place in random.integers(0, len(body) if seed % 4 == 2 else min(len(body), 300), length):
            body[place] = int(random.integers(256))
    return bytes(body)


def test_mutated_pictures_are_answered_or_refused(server: Server, colours: np.ndarray) -> None:
    """No server error, no hang, and the server goes on."""
    good = [make_picture(seed, colours, kind) for seed in range(3) for kind in ("JPEG", "PNG")]
    for at in range(120):
        reply = classify(server, "fruit", mutate(good[at % 6], at), "image/jpeg")
        assert reply.status in (200, 400), reply.body
    assert classify(server, "fruit", good[0], "image/jpeg").status == 200


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    reply = server.ask("GET", "/")
    text = reply.body.decode()
    assert reply.fields["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.fields["content-security-policy"]
    assert "//" not in text.replace("<!doctype html>", "")
    for place in ("v2/models", ":classify"):
        assert place in text


@pytest.mark.parametrize(
    "answer", [np.float32(3), np.zeros((0, 4), np.float32), np.array(["a"], object), np.array([1])]
)
def test_answers_that_are_no_scores_have_no_probabilities(answer: np.ndarray) -> None:
    outline = Outline((Node("Div", "", "", ("a", "b"), ("y",)),), {}, {}, {}, 17)
    assert find_probabilities(outline, "y", np.asarray(answer)) == ""
