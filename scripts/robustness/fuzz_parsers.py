"""Parsers of light files and requests, called in this process on bytes; those that reach a new line are mutated further.

A corpus begins with good files.  Each input is made of one of its members; where a run goes from a line to another as none
did before, the input joins it: what lies behind several checks is reached step by step.  A parser may refuse, in a
sentence, and do nothing else.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

import fcdeploy
from fcdeploy.bundles.read import open_bundle
from fcdeploy.errors import FcdeployError
from fcdeploy.files import read_json
from fcdeploy.graph.light_reader import read_outline
from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.records import calibration, manifest, plan
from fcdeploy.samples.kinds import open_source
from fcdeploy.serve.http_request import ChunkedBody, HeadParser
from fcdeploy.serve.models import load_model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.repository import find_models
from fcdeploy.serve.tensors import decode
from fcdeploy.serve.unpack import inflate
from scripts.robustness.fuzz_models import ODD, TEXTS, mutate_bytes

OURS = str(Path(fcdeploy.__file__).parent)
SECONDS, MEMORY = 5.0, 256 << 10  # of one input; kilobytes
LAST = 8  # members of a corpus that are taken as often as all: what they reached is new
LARGEST = 1 << 16  # bytes of a member of a corpus
Parse = Callable[[bytes], object]
Arc = tuple[CodeType, int, int]
"""A function, a line of it, and the one that ran before."""


@dataclass
class Corpus:
    """A parser, the inputs that reached something new, and all that was reached."""

    parse: Parse
    members: list[bytes]
    ours: str = OURS
    reached: set[Arc] = field(default_factory=set)

    def try_next(self, draw: random.Random) -> tuple[bytes, str]:
        """An input, and what is wrong with how it was dealt with."""
        chosen = draw.choice(self.members[-LAST:] if draw.random() < 0.5 else self.members)
        data = mutate(chosen, draw.choice(self.members), draw)[:LARGEST]
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        fault, arcs = "", set[Arc]()
        with trace_lines(self.ours, arcs):
            try:
                self.parse(data)
            except (FcdeployError, RefusedError) as refusal:
                fault = "a refusal of several lines" if "\n" in str(refusal) else ""
            except Exception as error:
                fault = f"{type(error).__name__}: {str(error)[:150]}"
        if time.monotonic() - begun > SECONDS:
            fault = fault or f"more than {SECONDS:g} s"
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MEMORY:
            fault = fault or f"more than {MEMORY >> 10} MB"
        if arcs - self.reached and not fault:
            self.members.append(data)
        self.reached |= arcs
        return data, fault


@contextmanager
def trace_lines(ours: str, arcs: set[Arc]) -> Iterator[None]:
    """Add what runs in files below `ours` to `arcs`."""
    last: dict[FrameType, int] = {}

    def enter(frame: FrameType, _: str, __: Any) -> Any:
        return step if frame.f_code.co_filename.startswith(ours) else None

    def step(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            arcs.add((frame.f_code, frame.f_lineno, last.get(frame, 0)))
            last[frame] = frame.f_lineno
        elif event == "return":
            last.pop(frame, None)
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def mutate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """A value of JSON changed; the beginning of one and the end of another; a byte changed or put in; or more of that."""
    what = draw.random()
    if what < 0.4 and (changed := _mutate_json(data, draw)) is not None:
        return changed
    if what < 0.5 and data and other:
        return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
    if what < 0.8:
        at = draw.randint(0, len(data))
        return data[:at] + bytes([draw.randrange(256)]) + data[at + draw.randint(0, 1) :]
    return mutate_bytes(data, draw)


def _mutate_json(data: bytes, draw: random.Random) -> bytes | None:
    """One value replaced, or its key; None where there is no JSON at the start, or in a line behind it."""
    begin = data.find(b"{")
    try:
        value, length = json.JSONDecoder().raw_decode(data[begin:].decode("latin-1"))
    except (ValueError, RecursionError):
        return None
    places: list[tuple[Any, Any]] = []
    left = [value]
    while left:
        owner = left.pop()
        keys = owner if isinstance(owner, dict) else range(len(owner)) if isinstance(owner, list) else ()
        places += [(owner, key) for key in keys]
        left += [owner[key] for key in keys]
    if not places:
        return None
    owner, key = draw.choice(places)
    other, at = draw.choice(places)
    new = draw.choice([None, True, 1.5, 1e39, float("nan"), [], [[]], {}, "", *ODD, *TEXTS, other[at]])
    owner[key] = json.loads(json.dumps(new))
    text = json.dumps(value).encode()
    size = len(data[begin:].decode("latin-1")[:length].encode("latin-1"))
    head = len(text).to_bytes(8, "little") if begin == 8 else data[:begin]  # safetensors says how long it is
    return head + text + data[begin + size :]


def make_corpora(folder: Path, name: str) -> dict[str, Corpus]:
    """A corpus for each parser, of the files of one network in a folder; inputs are written to a file where one is wanted."""
    aside = folder / "parsed"
    aside.mkdir(exist_ok=True)
    model_file = folder / f"{name}.onnx"
    specs = input_specs(read_model(model_file))
    served = load_model(find_models(model_file)[0])

    def in_file(suffix: str, parse: Callable[[Path], object]) -> Parse:
        def write_and_parse(data: bytes) -> object:
            file = aside / f"input{suffix}"
            file.write_bytes(data)
            return parse(file)

        return write_and_parse

    def read_samples(file: Path) -> object:
        return list(islice(open_source(file, specs), 3))

    def read(*suffixes: str) -> list[bytes]:
        return [(folder / f"{name}{suffix}").read_bytes() for suffix in suffixes]

    (stored,) = read(".npz")
    array = np.load(folder / f"{name}.npz")[specs[0].name]
    table = "\n".join(",".join(map(str, row)) for row in array.reshape(len(array), -1)[:3]).encode()
    return {
        "outline": Corpus(read_outline, read(".onnx", ".int8.onnx")),
        "calibration": Corpus(lambda data: calibration.from_bytes(data, "c"), read(".calib")),
        "plan": Corpus(in_file(".json", lambda file: plan.from_json(read_json(file, "plan", ""), "p")), read(".plan.json")),
        "bundle": Corpus(in_file(".zip", lambda file: open_bundle(file).read("model.onnx")), read(".zip")),
        "manifest": Corpus(
            in_file(".json", lambda file: manifest.from_json(read_json(file, "manifest", ""), "m")),
            [zipfile.ZipFile(folder / f"{name}.zip").read(manifest.MANIFEST)],
        ),
        "npz": Corpus(in_file(".npz", read_samples), [stored]),
        "csv": Corpus(in_file(".csv", read_samples), [table, b"a;b\n1;2\n", b'"x ""y""",label\r\n1,a\r\n']),
        "head": Corpus(HeadParser().read, HEADS),
        "body": Corpus(lambda data: decode(served, data, None), make_bodies(specs[0].name, array[:1])),
        "chunks": Corpus(ChunkedBody().feed, [b"3\r\nabc\r\n0\r\n\r\n", b"1;a=b\r\nx\r\n0\r\nTrailer: a\r\n\r\n"]),
        "gzip": Corpus(lambda data: inflate(data, "gzip", 1 << 20), GZIPPED),
    }  # fmt: skip


HEADS = [
    b"POST /v2/models/m/versions/1/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nInference-Header-Content-Length: 2\r\n"
    b"Content-Encoding: gzip\r\nAccept-Encoding: gzip;q=0.5, *\r\nExpect: 100-continue\r\n\r\n",
    b"GET /v1/models/m:classify?a=b HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
]
GZIPPED = [bytes.fromhex("1f8b08000000000002034b4c4a0600c241243503000000")]


def make_bodies(name: str, array: np.ndarray[Any, Any]) -> list[bytes]:
    """Requests of one sample in JSON: numbers in rows, in one list, and with outputs asked for."""
    tensor = {"name": name, "shape": list(array.shape), "datatype": "FP32", "data": array.tolist()}
    flat = {**tensor, "data": array.reshape(-1).tolist()}
    outputs = {"id": "a", "outputs": [{"name": "scores", "parameters": {"classification": 1}}]}
    return [json.dumps(body).encode() for body in ({"inputs": [tensor]}, {"inputs": [flat], **outputs})]


def make_parser_tries(folder: Path, name: str, keep: Path | None) -> Callable[[int, int], list[str]]:
    """A function that tries input N of a seed, of each parser in turn. Inputs follow from all before them."""
    corpora = make_corpora(folder, name)
    names: Sequence[str] = list(corpora)

    def attempt(number: int, seed: int) -> list[str]:
        parser = names[number % len(names)]
        data, fault = corpora[parser].try_next(random.Random(f"{seed} {parser} {number}"))
        if fault and keep:
            (keep / f"{parser}-{seed}-{number}").write_bytes(data)
        return [f"{parser}, {fault}: {data[:200]!r}"] if fault else []

    return attempt
