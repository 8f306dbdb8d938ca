"""What each address answers. Names resolve only through the models that the engine has loaded."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fcdeploy import __version__
from fcdeploy.serve.batching import Array, Request
from fcdeploy.serve.engine import Engine
from fcdeploy.serve.heads import Head
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.tensors import decode, describe, encode

SMALL = 1024  # bytes of an answer that compressing would not make faster
EXTENSIONS = ("binary_tensor_data", "model_repository")
WINDOW = {"gzip": 31, "deflate": 15}  # zlib's name for the two


@dataclass(frozen=True)
class Answer:
    """A response. `plain` is 200 with JSON and nothing special; `notes` go to the access log."""

    status: int
    parts: Sequence[bytes]
    kind: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()
    plain: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


Send = Callable[[Answer], None]


@dataclass(eq=False)
class Site:
    """What all connections share. `held` is the bytes of bodies that are coming in, at most `max_held`."""

    engine: Engine
    metrics: Metrics
    max_body: int = 64 << 20
    max_held: int = 1 << 28
    log: Callable[[dict[str, Any]], None] | None = None
    draining: bool = False
    held: int = 0

    def full(self) -> bool:
        return self.held > self.max_held

    def count(self, name: str, version: str, code: int) -> None:
        self.metrics.count(name, version, code)


def begin(site: Site, head: Head, body: bytes | bytearray, begun: float, send: Send) -> None:
    """Answer a request, now or, when a model must run for it, later on the loop. Raises nothing."""
    model: Model | None = None
    try:
        if head.coding:
            body = inflate(body, head.coding, site.max_body)
        if head.route.what != "infer":
            answer = _simple(site, head)
        else:
            if site.draining and not site.engine.models():
                raise RefusedError(503, "the server is stopping, expected another one", retry_after=1)
            model = site.engine.find(head.route.name, head.route.version).model
            _infer(site, head, body, begun, send)
            return
    except RefusedError as refusal:
        answer = error_answer(refusal)
    except Exception as defect:  # a mistake of ours must not take the connection, or the server, with it
        answer = error_answer(RefusedError(500, f"internal {type(defect).__name__}: {defect}"))
    site.count(model.name if model else "", model.version if model else "", answer.status)
    send(answer)


def error_answer(refusal: RefusedError) -> Answer:
    fields: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after:
        fields = (("Retry-After", str(refusal.retry_after)),)
    if refusal.status == 401:
        fields = (("WWW-Authenticate", "Bearer"),)
    return Answer(refusal.status, [orjson.dumps({"error": refusal.message})], fields=fields)


def inflate(body: bytes | bytearray, coding: str, limit: int) -> bytes:
    """Raises RefusedError for a body that is not so compressed (400), or that is larger than `limit` (413)."""
    unpacker = zlib.decompressobj(WINDOW[coding])
    try:
        found = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise RefusedError(400, f"the body is not {coding}, expected what Content-Encoding says") from None
    if len(found) > limit:
        raise RefusedError(413, f"a body of more than {limit} bytes behind its {coding}, expected at most that")
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError(400, f"the body is not whole {coding}, expected its end")
    return found


def _infer(site: Site, head: Head, body: bytes | bytearray, begun: float, send: Send) -> None:
    served = site.engine.find(head.route.name, head.route.version)
    model = served.model
    feeds, wanted = decode(model, body, head.header_length)

    def done(request: Request, result: list[Array] | RefusedError) -> None:
        notes: dict[str, Any] = {}
        if isinstance(result, RefusedError):
            answer = error_answer(result)
        else:
            parts, header_length = encode(model, result, wanted)
            if site.log is not None:
                notes = _notes(model, request)
            answer = _packed(parts, header_length, head.accepts, notes)
        site.count(model.name, model.version, answer.status)
        send(answer)

    timeout = None if wanted.timeout is None else wanted.timeout - (time.perf_counter() - begun)
    site.engine.submit(served, feeds, done, timeout=timeout)


def _notes(model: Model, request: Request) -> dict[str, Any]:
    return {
        "model": model.name,
        "version": model.version,
        "samples": request.rows,
        "batch": request.batch,
        "queue_seconds": round(request.queue_seconds, 6),
        "compute_seconds": round(request.compute_seconds, 6),
    }


def _packed(parts: list[bytes], header_length: int | None, accepts: str, notes: dict[str, Any]) -> Answer:
    """The parts of an answer with the fields that say what they are, compressed where the client takes it."""
    fields: tuple[tuple[str, str], ...] = ()
    kind = "application/json"
    if header_length is not None:
        fields, kind = (("Inference-Header-Content-Length", str(header_length)),), "application/octet-stream"
    if accepts and sum(map(len, parts)) > SMALL:
        packer = zlib.compressobj(1, zlib.DEFLATED, WINDOW[accepts])
        parts = [b"".join([*map(packer.compress, parts), packer.flush()])]
        fields = (*fields, ("Content-Encoding", accepts), ("Vary", "Accept-Encoding"))
    return Answer(200, parts, kind, fields, plain=not fields, notes=notes)


def _simple(site: Site, head: Head) -> Answer:
    """Everything but infer."""
    what, engine = head.route.what, site.engine
    ready = engine.ready and not site.draining
    if what == "live":
        return _json({"live": True})
    if what == "ready":
        return _ready(ready)
    if what == "metrics":
        page = site.metrics.text(waiting=engine.requests, ready=ready)
        return Answer(200, [page], "text/plain; version=0.0.4; charset=utf-8")
    if what == "server":
        return _json({"name": "fcdeploy", "version": __version__, "extensions": EXTENSIONS})
    if what == "models":
        return _json({"models": sorted({model.name for model in engine.models()})})
    if what == "index":
        return _json([{"name": m.name, "version": m.version, "state": "READY", "reason": ""} for m in engine.models()])
    model = engine.find(head.route.name, head.route.version).model
    if what == "model ready":
        return _ready(ready, model)
    return _json(metadata(engine, model) if what == "model" else _config(model))


def metadata(engine: Engine, model: Model) -> dict[str, Any]:
    """Names, datatypes and shapes, as the file has them."""
    return {
        "name": model.name,
        "versions": engine.versions(model.name),
        "platform": "onnxruntime_onnx",
        "inputs": [describe(spec) for spec in model.inputs.values()],
        "outputs": [describe(spec) for spec in model.outputs.values()],
    }


def _config(model: Model) -> dict[str, Any]:
    """What Triton's clients ask for beside the metadata; max_batch_size 0: shapes hold the batch axis."""

    def ends(specs: Sequence[Any]) -> list[dict[str, Any]]:
        found = [describe(spec) for spec in specs]
        return [{"name": d["name"], "data_type": f"TYPE_{d['datatype']}", "dims": d["shape"]} for d in found]

    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": ends(list(model.inputs.values())),
        "output": ends(list(model.outputs.values())),
    }


def _ready(ready: bool, model: Model | None = None) -> Answer:
    named = {"name": model.name} if model else {}
    return _json({**named, "ready": ready}) if ready else Answer(503, [orjson.dumps({**named, "ready": False})])


def _json(value: Any) -> Answer:
    return Answer(200, [orjson.dumps(value)], plain=True)
