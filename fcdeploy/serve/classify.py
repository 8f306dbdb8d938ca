"""`POST v1/models/NAME:classify`: pictures or rows of a table in, classes by name out; of a detector's bundle, boxes.

The body is a picture (image/jpeg, image/png, image/webp), several as multipart/form-data, rows as text/csv with a header, or
JSON rows by column: {"rows": [{"age": 31, ...}]}.  Decoding and resizing take longer than a small network, so they happen in
a thread, after the number of pictures has been found to fit the model's batch and the memory, and after the header of each has
said that it is no larger than it may be.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import simdjson

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.evaluate.boxes.read import MOST_BOXES
from fcdeploy.preprocessing.apply import read_picture
from fcdeploy.preprocessing.placement import MOST_PIXELS, ImageSize, count_pixels
from fcdeploy.preprocessing.tables import TableLayout, arrange_columns, convert_row, find_separator, stack_rows
from fcdeploy.records.signature import TensorSpec, is_shape_alike
from fcdeploy.serve.boxes import describe_boxes
from fcdeploy.serve.freed_memory import trim_heap
from fcdeploy.serve.meaning import Probabilities
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError, explain_json_error

SOME_PIXELS, PIXELS_A_BYTE = 1 << 20, 512
"""What a header may claim: a megapixel, and for each byte of the file as many as pictures of one colour come to."""
MOST_SAMPLES = 1024  # in a request
TOP, MOST_TOP = 5, 1000
FORMATS = ("JPEG", "PNG", "WEBP")  # decoders that are let near what anyone may send
BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
TAKES = "image/jpeg, image/png, image/webp, multipart/form-data, text/csv or application/json"


@dataclass(frozen=True)
class SamplesRead:
    """The model's inputs of one or more samples, and of each picture the size it had."""

    feeds: Arrays
    sizes: tuple[ImageSize, ...] = ()


def read_top(model: Model, target: str) -> int:
    """How many classes, or boxes, a request wants: `?top=3`. Raises RefusedError."""
    usual = TOP if model.format.boxes is None else MOST_BOXES
    given = parse_qs(target.partition("?")[2]).get("top", [str(usual)])[-1]
    if not given.isdecimal() or len(given) > len(str(MOST_TOP)) or not 1 <= int(given) <= MOST_TOP:
        raise RefusedError(400, f"top is {given[:40]!r}, expected a number from 1 to {MOST_TOP}")
    return int(given)


def check_classify(model: Model, kind: str, size: int, most_text: int) -> None:
    """Raise RefusedError unless the model's format says how such a body becomes its inputs; one of text has a limit."""
    what = kind.partition(";")[0].strip().lower()
    pictures = what.startswith("image/") or what == "multipart/form-data"
    if not pictures and what not in ("text/csv", "application/json"):
        raise RefusedError(415, f"Content-Type is {kind[:60]!r}, expected {TAKES}")
    if not pictures and size > most_text:
        raise RefusedError(413, f"{size} bytes of rows, expected at most {most_text}: send fewer in a request")
    if pictures and model.format.preprocessing is None:
        raise RefusedError(
            400,
            f"model {model.name!r} does not say how pictures become its inputs: fcdeploy calibrate --preprocess, or bundle",
        )
    if pictures and len(model.inputs) != 1:
        raise RefusedError(400, f"model {model.name!r} has {len(model.inputs)} inputs, expected one to feed a picture")


def describe_takes(model: Model) -> list[str]:
    """What the address classify takes for this model."""
    pictures = ["pictures"] if model.format.preprocessing is not None and len(model.inputs) == 1 else []
    return pictures + (["rows"] if model.format.columns else [])


def read_samples(model: Model, body: bytes, kind: str, most_bytes: int) -> SamplesRead:
    """What the body holds, as the model reads it: inputs of `most_bytes`, or one run's. Raises RefusedError."""
    what = kind.partition(";")[0].strip().lower()
    if what == "multipart/form-data":
        pictures = list(split_multipart(body, kind))
    elif what.startswith("image/"):
        pictures = [body]
    else:
        specs = list(model.inputs.values())
        rows = list(_read_csv(model, body) if what == "text/csv" else _read_json(model, body))
        if not rows:
            raise RefusedError(400, "the body holds no rows, expected at least one")
        return SamplesRead(_check_batch(model, stack_rows(rows, specs)))
    (spec,) = model.inputs.values()
    how, left, arrays, sizes = model.format.preprocessing, MOST_PIXELS, list[Array](), list[ImageSize]()
    assert how is not None
    _check_pictures(spec, len(pictures), spec.shape[1:] or [None], most_bytes)
    for at, picture in enumerate(pictures):
        try:
            most = min(left, SOME_PIXELS + PIXELS_A_BYTE * len(picture))
            array, size = read_picture(picture, how, spec, most_pixels=most, formats=FORMATS)
        except FcdeployError as error:  # Pillow is not there
            raise RefusedError(400, error.message) from None
        except ValueError as error:  # behind as many pixels as its header claims
            trim_heap()
            place = f"picture {at} of {len(pictures)}" if len(pictures) > 1 else "the picture"
            raise RefusedError(400, f"{place} {_explain(error)}") from None
        if at == 0:  # of an input with free axes the first picture says how large it is
            _check_pictures(spec, len(pictures), array.shape, most_bytes)
        left -= count_pixels(how, size)
        arrays.append(array)
        sizes.append(size)
    if len({array.shape for array in arrays}) > 1:
        raise RefusedError(400, "the pictures become inputs of different shapes, expected one a request")
    if MOST_PIXELS - left > SOME_PIXELS:
        trim_heap()
    feeds = _check_batch(model, {spec.name: np.stack(arrays).astype(spec.dtype, copy=False)})
    return SamplesRead(feeds, tuple(sizes))


def _check_pictures(spec: TensorSpec, count: int, shape: Sequence[int | None], most_bytes: int) -> None:
    """Raise RefusedError where so many pictures, each of which becomes this shape, are no batch, or too large a one.

    A small file may become a large input. What one run takes is never too large.
    """
    batch = spec.shape[0] if spec.shape else None
    if batch is not None and count != batch:
        raise RefusedError(400, f"{count} pictures, expected {batch}: input {spec.name!r} has shape {list(spec.shape)}")
    each = spec.dtype.itemsize * max(1, prod(n or 1 for n in shape))
    most = max(batch or 1, most_bytes // each)
    if count > most and None not in shape:
        raise RefusedError(
            413, f"{count} pictures become {count * each} bytes of inputs, expected at most {most} in a request"
        )


def _explain(error: ValueError) -> str:
    text = " ".join(str(error).split())[:160]
    return text if text.startswith(("has ", "is ")) else f"cannot be read: {re.sub(r' <_io.*?>', '', text)}"


def _check_batch(model: Model, feeds: Arrays) -> Arrays:
    """Whether the model takes so many samples, of these shapes."""
    for spec in model.inputs.values():
        shape = feeds[spec.name].shape
        if spec.shape and not is_shape_alike(spec.shape, shape):
            raise RefusedError(
                400, f"{shape[0]} samples make input {spec.name!r} of shape {list(shape)}, expected {list(spec.shape)}"
            )
    return feeds


def split_multipart(body: bytes, kind: str) -> Iterator[bytes]:
    """The content of each file of a form (RFC 7578); other fields are passed over. Raises RefusedError."""
    match = BOUNDARY.search(kind)
    if match is None:
        raise RefusedError(400, "multipart/form-data without a boundary, expected boundary=... in Content-Type")
    mark = b"--" + (match[1] or match[2]).encode("latin-1")
    parts = (b"\r\n" + body if body.startswith(mark) else body).split(b"\r\n" + mark, MOST_SAMPLES)
    if len(parts) > MOST_SAMPLES:
        raise RefusedError(400, f"the form has more than {MOST_SAMPLES} parts, expected at most that")
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise RefusedError(400, "the form does not end with its boundary, expected the whole of it")
    files = 0
    for part in parts[1:-1]:
        head, empty, content = part.partition(b"\r\n\r\n")
        if empty and (b"filename" in head.lower() or b"content-type: image/" in head.lower()):
            files += 1
            yield content
    if not files:
        raise RefusedError(400, "the form holds no file, expected pictures: curl -F file=@cat.jpg")


def _read_csv(model: Model, body: bytes) -> Iterator[Mapping[str, Array]]:
    try:
        text = body.decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text), delimiter=find_separator(text.partition("\n")[0]), strict=True)
        header = next(lines, [])
        layout = _arrange(model, header)
        for at, cells in enumerate(row for row in lines if row):
            _check_count(at)
            yield _convert(model, layout, cells, at)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedError(400, f"the body is no CSV in UTF-8: {str(error)[:100]}") from None
    except FcdeployError as error:
        raise RefusedError(400, error.message[:400]) from None


def _read_json(model: Model, body: bytes) -> Iterator[Mapping[str, Array]]:
    try:
        data = simdjson.Parser().parse(body)
    except (ValueError, RuntimeError) as error:
        raise RefusedError(400, f"the body {explain_json_error(error)}, expected JSON rows") from None
    rows = data.get("rows") if isinstance(data, simdjson.Object) else data
    if not isinstance(rows, simdjson.Array):
        raise RefusedError(400, 'the body is no list of rows, expected {"rows": [{"column": 1, ...}]}')
    _check_count(len(rows) - 1)
    layouts: dict[tuple[str, ...], TableLayout] = {}
    try:
        for at, row in enumerate(rows):
            if not isinstance(row, simdjson.Object):
                raise RefusedError(400, 'the body is no list of rows, expected {"rows": [{"column": 1, ...}]}')
            names = tuple(row)
            layout = layouts.get(names) or _arrange(model, names)
            layouts[names] = layout
            yield _convert(model, layout, [_check_cell(row[name]) for name in names], at)
    except FcdeployError as error:
        raise RefusedError(400, error.message[:400]) from None


def _convert(model: Model, layout: TableLayout, cells: Sequence[Any], at: int) -> Arrays:
    """A row's inputs. Raises RefusedError where a number is NaN that nothing in the model fills in."""
    arrays = convert_row(layout, cells, f"row {at}")
    for spec, places, _ in layout.inputs:
        if spec.dtype.kind != "f" or spec.missing:
            continue
        unknown = np.flatnonzero(np.isnan(arrays[spec.name]))
        if unknown.size:
            raise RefusedError(
                400,
                f"row {at}, column {layout.columns[places[unknown[0]]]!r} is NaN, which model {model.name!r} does not fill in",
            )
    return arrays


def _check_cell(value: Any) -> Any:
    """Lists and objects in cells are not read: they would take many times their text."""
    return "a list or object" if isinstance(value, simdjson.Array | simdjson.Object) else value


def _arrange(model: Model, names: Sequence[str]) -> TableLayout:
    """Where inputs are; a column of labels, which the table may have from calibrating, is not read. Others are refused."""
    specs, known = list(model.inputs.values()), model.format.columns
    layout = arrange_columns(names, specs, "the table", known=known, label=model.format.label)
    labels = {at for _, at in layout.labels}
    unknown = [name for at, name in enumerate(names) if name not in known and name != "label" and at not in labels]
    if known and unknown:
        raise RefusedError(400, f"column {unknown[0][:60]!r} is unknown, expected {quote_names(known)}: leave it out")
    return replace(layout, labels=())


def _check_count(at: int) -> None:
    if at >= MOST_SAMPLES:
        raise RefusedError(400, f"more than {MOST_SAMPLES} rows, expected at most that in a request")


def describe_answers(
    model: Model, outputs: Sequence[Array], count: int, top: int, sizes: Sequence[ImageSize] = ()
) -> list[dict[str, Any]]:
    """Of each of `count` samples its likeliest classes by number, name and probability; of what has no classes its numbers.

    Of pictures of these `sizes`, where the bundle says where boxes are, the boxes. Raises RefusedError where the answers to
    several samples cannot be told apart, or boxes not be read in pictures of their size.
    """
    named = dict(zip(model.outputs, outputs, strict=True))
    layout, how = model.format.boxes, model.format.preprocessing
    if layout is not None and how is not None and sizes:
        try:
            return describe_boxes(layout, how, named, sizes, model.format.classes, top)
        except FcdeployError as error:  # maps that the head does not have in pictures of this size
            raise RefusedError(400, error.message) from None
    apart = {name: array.ndim > 0 and len(array) == count for name, array in named.items()}
    scores = next(
        (name for name, a in named.items() if apart[name] and a.dtype.kind == "f" and _count_classes(a) > 1), None
    )
    if scores is not None:
        flat = named[scores].reshape(count, -1).astype(np.float64)
        return [{"classes": _rank(row, model.format.classes, top, model.probabilities[scores])} for row in flat]
    if count > 1 and not all(apart.values()):
        other = next(name for name, fits in apart.items() if not fits)
        raise RefusedError(
            400,
            f"output {other!r} of shape {list(named[other].shape)} has no row for each of {count} samples: send one",
        )
    return [
        {"values": {name: (array[at, ...] if apart[name] else array).tolist() for name, array in named.items()}}
        for at in range(count)
    ]


def _count_classes(array: Array) -> int:
    """Of one row of scores a sample; 1 for boxes, maps and sequences."""
    long = [n for n in array.shape[1:] if n != 1]
    return long[0] if len(long) == 1 else 1


def _rank(scores: Array, names: Sequence[str], top: int, probabilities: Probabilities) -> list[dict[str, Any]]:
    """The best classes, equal ones in the order of their numbers, with probabilities where the model says what these are.

    Of sigmoids each is the probability of its own class, and softmax would be false; so it would of three lengths that a dense
    layer estimates: numbers are logits where there is a name for each of them.
    """
    logits = probabilities == "softmax" and len(names) == len(scores)
    shares = scores if probabilities == "scores" else _softmax(scores) if logits else None
    best = np.argsort(-scores, kind="stable")[:top]
    return [
        {
            "class": int(at),
            **({"name": names[at]} if at < len(names) else {}),
            "score": float(scores[at]),
            **({"probability": float(shares[at])} if shares is not None else {}),
        }
        for at in best
    ]


def _softmax(scores: Array) -> Array:
    with np.errstate(all="ignore"):
        raised = np.exp(scores - scores.max())
        return np.asarray(raised / raised.sum())
