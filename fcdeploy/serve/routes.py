"""What each address answers. Names resolve only through the models that the engine has loaded."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import orjson

from fcdeploy import __version__
from fcdeploy.arrays import Array
from fcdeploy.preprocessing.placement import ImageSize
from fcdeploy.serve.batching import InferenceRequest
from fcdeploy.serve.classify import (
    SamplesRead,
    check_classify,
    describe_answers,
    describe_takes,
    read_samples,
    read_top,
)
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.http_request import END, RequestHead
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.request import Wanted
from fcdeploy.serve.served_models import ServedModel
from fcdeploy.serve.tensors import decode, describe, encode, pack
from fcdeploy.serve.unpack import DEFLATE, WINDOW, inflate

PAGE = Path(__file__).with_name("page.html").read_bytes()
PAGE_FIELDS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
     "connect-src 'self'; img-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)  # fmt: skip
SMALL = 1024  # bytes of an answer that compressing would not make faster
LARGE = 64 << 10  # bytes of outputs that are compressed in a thread: zlib takes 0.1 s for a megabyte
EXTENSIONS = ("binary_tensor_data", "model_repository")
SHAPES = 16  # of outputs that are remembered for a request; most have one
TEXT = 5  # times the bytes of outputs that they and their numbers in JSON take
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


def format_head(status: int, kind: str, *fields: tuple[str, object]) -> bytes:
    """How an answer begins, but for its length and what becomes of the connection."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"Content-Type: {kind}", *(f"{n}: {v}" for n, v in fields)]
    return "".join(f"{line}\r\n" for line in lines).encode()


JSON, BINARY = "application/json", "application/octet-stream"
PLAIN = {status: format_head(status, JSON) for status in REASONS}


@dataclass(slots=True)
class Answer:
    """A response: how it begins and the parts of its body; `notes` go to the access log.

    `whole` is a `lead` with the length and the end of the head, and with what the body begins with.
    """

    status: int
    parts: Sequence[bytes | memoryview]
    lead: bytes
    whole: bytes | None = None
    notes: dict[str, Any] | None = None

    def split(self) -> tuple[dict[str, str], list[bytes | memoryview]]:
        """The fields of the head and the parts of the body, of either form."""
        lead, parts = self.lead, list(self.parts)
        if self.whole is not None:
            lead, _, first = self.whole.partition(END)
            parts = [first, *parts]
        return dict(line.split(": ", 1) for line in lead.decode().splitlines()[1:]), parts


Send = Callable[[Answer], None]


@dataclass(eq=False)
class ServerState:
    """What all connections share.

    `held` is the bytes of bodies that are coming in and of answers that clients have not read; with those of requests
    that wait or run, and of their answers, they are at most `max_held`.
    """

    engine: BatchingEngine
    metrics: Metrics
    max_body: int = 32 << 20
    max_json: int = 6 << 20
    max_held: int = 1 << 26
    log: Callable[[dict[str, Any]], None] | None = None
    draining: bool = False

    @property
    def held(self) -> int:
        return self.engine.held

    @held.setter
    def held(self, size: int) -> None:
        self.engine.held = size

    def full(self) -> bool:
        return self.held + self.engine.bytes > self.max_held


@dataclass(slots=True, eq=False)
class ModelRequest:
    """A request that a model must run for: what all share, the model, the head, when it arrived, and where its answer goes."""

    state: ServerState
    served: ServedModel
    head: RequestHead
    begun: float
    send: Send

    def answer(self, made: Answer | RefusedError) -> None:
        """Send what was made of it, once."""
        result = make_error_answer(made) if isinstance(made, RefusedError) else made
        self.send(result)
        self.state.metrics.count(self.served.model.key, result.status)

    def answer_with(self, make: Callable[[], Answer]) -> None:
        """Make and send it. Whatever goes wrong meanwhile is the answer: a request without one would hang."""
        made: Answer | RefusedError
        try:
            made = make()
        except Exception as error:
            made = _as_refusal(error)
        self.answer(made)


def answer_request(state: ServerState, head: RequestHead, body: bytes | bytearray, begun: float, send: Send) -> None:
    """Answer a request, now or, when a model must run for it, later on the loop. Raises nothing."""
    key = ("", "")
    try:
        if head.route.what in ASK:
            served = state.engine.models.find(head.route.name, head.route.version)
            key = served.model.key
            request = ModelRequest(state, served, head, begun, send)
            if not head.coding:
                ASK[head.route.what](request, body)
                return
            unpack = partial(inflate, body, head.coding, state.max_body)
            then = partial(_ask_unpacked, request)
            state.engine.prepare(served, len(body), unpack, then, becomes=min(state.max_body, DEFLATE * len(body)))
            return
        answer = _answer_directly(state, head)
    except Exception as error:  # a mistake of ours must not take the connection, or the server, with it
        answer = make_error_answer(_as_refusal(error))
    state.metrics.count(key, answer.status)
    send(answer)


def _ask_unpacked(request: ModelRequest, body: bytearray | RefusedError) -> None:
    """What `answer_request` does with a body that came compressed: a kilobyte may be a megabyte, so a thread unpacks it."""
    if isinstance(body, RefusedError):
        request.answer(body)
        return
    try:
        ASK[request.head.route.what](request, body)
    except Exception as error:
        request.answer(_as_refusal(error))


def _as_refusal(error: Exception) -> RefusedError:
    return error if isinstance(error, RefusedError) else RefusedError(500, f"internal {type(error).__name__}: {error}")


def make_error_answer(refusal: RefusedError) -> Answer:
    start = PLAIN[refusal.status]
    if refusal.retry_after:
        start = format_head(refusal.status, JSON, ("Retry-After", refusal.retry_after))
    if refusal.status == 401:
        start = format_head(401, JSON, ("WWW-Authenticate", "Bearer"))
    return Answer(refusal.status, [orjson.dumps({"error": refusal.message})], start)


def _infer(request: ModelRequest, body: bytes | bytearray) -> None:
    state, served, head = request.state, request.served, request.head
    model = served.model
    text = len(body) if head.header_length is None else min(head.header_length, len(body))
    if text > state.max_json:
        raise RefusedError(413, f"{text} bytes of JSON, expected at most {state.max_json}: send binary tensors")
    feeds, wanted = decode(model, body, head.header_length, partial(state.engine.check_room, served))

    def done(ran: InferenceRequest, result: list[Array] | RefusedError) -> None:
        if isinstance(result, RefusedError):
            request.answer(result)
            return
        make = partial(_answer_infer, request, wanted, ran, result)
        if head.accepts and (size := sum(array.nbytes for array in result)) > LARGE:
            state.engine.call_in_thread(size, make, request.answer)
        else:
            request.answer_with(make)

    copies = 1 if wanted.binary else TEXT
    state.engine.submit(served, feeds, done, timeout=wanted.timeout, arrived=request.begun, copies=copies)


def _answer_infer(request: ModelRequest, wanted: Wanted, ran: InferenceRequest, outputs: list[Array]) -> Answer:
    model = request.served.model
    made = make_answer(model, outputs, wanted, request.head.accepts)
    if request.state.log is not None:
        made.notes = _make_log_notes(model, ran)
    return made


def _classify(request: ModelRequest, body: bytes | bytearray) -> None:
    """Pictures or rows are read in a thread, run as any inputs are, and answered by the names of classes.

    Finding out which boxes overlap takes longer than the loop may be held, so that is done in a thread too.
    """
    state, served, head = request.state, request.served, request.head
    model = served.model
    top = read_top(model, head.path)
    check_classify(model, head.kind, len(body), state.max_json)

    def done(ran: InferenceRequest, result: list[Array] | RefusedError, sizes: Sequence[ImageSize]) -> None:
        if isinstance(result, RefusedError):
            request.answer(result)
            return
        outputs = result

        def describe() -> Answer:
            rows = describe_answers(model, outputs, ran.rows, top, sizes)
            seconds = {"run": ran.compute_seconds, "total": time.perf_counter() - request.begun}
            made = _answer_json(
                {"model_name": model.name, "model_version": model.version, "predictions": rows, "seconds": seconds}
            )
            made.notes = _make_log_notes(model, ran) if state.log is not None else None
            return made

        if model.format.boxes is not None:
            state.engine.call_in_thread(sum(array.nbytes for array in outputs), describe, request.answer)
            return
        request.answer_with(describe)

    def run(read: SamplesRead | RefusedError) -> None:
        if isinstance(read, RefusedError):
            request.answer(read)
            return
        try:
            state.engine.submit(served, read.feeds, partial(done, sizes=read.sizes), arrived=request.begun)
        except Exception as error:
            request.answer(_as_refusal(error))

    state.engine.prepare(served, len(body), lambda: read_samples(model, bytes(body), head.kind, state.max_held), run)


ASK = {"infer": _infer, "classify": _classify}
"""Routes that run a model."""


def _make_log_notes(model: Model, request: InferenceRequest) -> dict[str, Any]:
    return {
        "model": model.name,
        "version": model.version,
        "samples": request.rows,
        "batch": request.batch,
        "queue_seconds": round(request.queue_seconds, 6),
        "compute_seconds": round(request.compute_seconds, 6),
    }


def make_answer(model: Model, outputs: list[Array], wanted: Wanted, accepts: str = "") -> Answer:
    """The outputs that are wanted; of a client's binary answers, all but the tensors is the same every time."""
    remembered = wanted.binary and not accepts and not model.has_texts
    if remembered:
        if len(outputs) == 1 == len(wanted.outputs):
            parts, shapes = [pack(outputs[0])], outputs[0].shape
        else:
            tensors = [outputs[index] for index, _ in wanted.outputs]
            parts = [pack(array) for array in tensors]
            shapes = tuple([array.shape for array in tensors])
        if (whole := wanted.heads.get(shapes)) is not None:
            return Answer(200, parts, b"", whole)
    parts, header_length = encode(model, outputs, wanted)
    answer = _compress(parts, header_length, accepts)
    if remembered and len(wanted.heads) < SHAPES:
        length = sum(map(len, parts))
        wanted.heads[shapes] = b"%bContent-Length: %d\r\n\r\n%b" % (answer.lead, length, bytes(parts[0]))
    return answer


def _compress(parts: list[bytes | memoryview], header_length: int | None, accepts: str) -> Answer:
    """The parts of an answer behind what says what they are, compressed where the client takes it."""
    if not accepts or sum(map(len, parts)) <= SMALL:
        return Answer(200, parts, PLAIN[200] if header_length is None else _format_binary_head(header_length))
    fields: tuple[tuple[str, object], ...] = (("Content-Encoding", accepts), ("Vary", "Accept-Encoding"))
    if header_length is not None:
        fields = (("Inference-Header-Content-Length", header_length), *fields)
    packer = zlib.compressobj(1, zlib.DEFLATED, WINDOW[accepts])
    parts = [b"".join([*map(packer.compress, parts), packer.flush()])]
    return Answer(200, parts, format_head(200, JSON if header_length is None else BINARY, *fields))


@lru_cache(256)
def _format_binary_head(header_length: int) -> bytes:
    return format_head(200, BINARY, ("Inference-Header-Content-Length", header_length))


def _answer_directly(state: ServerState, head: RequestHead) -> Answer:
    """Everything but infer."""
    what, engine = head.route.what, state.engine
    ready = engine.ready and not state.draining
    if what == "live":
        return _answer_json({"live": True})
    if what == "ready":
        return _answer_ready(ready)
    if what == "metrics":
        page = state.metrics.format_page(waiting=engine.requests, ready=ready)
        return Answer(200, [page], format_head(200, "text/plain; version=0.0.4; charset=utf-8"))
    if what == "page":
        return Answer(200, [PAGE], format_head(200, "text/html; charset=utf-8", *PAGE_FIELDS))
    if what == "server":
        return _answer_json({"name": "fcdeploy", "version": __version__, "extensions": EXTENSIONS})
    if what == "models":
        return _answer_json({"models": sorted({model.name for model in engine.models.list_models()})})
    if what == "index":
        return _answer_json(
            [
                {"name": m.name, "version": m.version, "state": "READY", "reason": ""}
                for m in engine.models.list_models()
            ]
        )
    model = engine.models.find(head.route.name, head.route.version).model
    if what == "model ready":
        return _answer_ready(ready, model)
    return _answer_json(describe_model(engine, model) if what == "model" else _make_triton_config(model))


def describe_model(engine: BatchingEngine, model: Model) -> dict[str, Any]:
    """Names, datatypes and shapes, as the file has them."""
    return {
        "name": model.name,
        "versions": engine.models.list_versions(model.name),
        "platform": "onnxruntime_onnx",
        "inputs": [describe(model, spec) for spec in model.inputs.values()],
        "outputs": [describe(model, spec) for spec in model.outputs.values()],
        **({"takes": takes} if (takes := describe_takes(model)) else {}),
    }


def _make_triton_config(model: Model) -> dict[str, Any]:
    """What Triton's clients ask for beside the metadata; max_batch_size 0: shapes hold the batch axis."""

    def ends(specs: Sequence[Any]) -> list[dict[str, Any]]:
        tensors = [describe(model, spec) for spec in specs]
        types = [t["datatype"].replace("BYTES", "STRING") for t in tensors]  # as model_config.proto calls it
        return [
            {"name": t["name"], "data_type": f"TYPE_{dtype}", "dims": t["shape"]}
            for t, dtype in zip(tensors, types, strict=True)
        ]

    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": ends(list(model.inputs.values())),
        "output": ends(list(model.outputs.values())),
    }


def _answer_ready(ready: bool, model: Model | None = None) -> Answer:
    named = {"name": model.name} if model else {}
    status = 200 if ready else 503
    return Answer(status, [orjson.dumps({**named, "ready": ready})], PLAIN[status])


def _answer_json(value: Any) -> Answer:
    return Answer(200, [orjson.dumps(value)], PLAIN[200])
