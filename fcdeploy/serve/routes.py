"""What each address answers. Names resolve only through the models that the engine has loaded."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

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
from fcdeploy.serve.http_answer import BINARY, JSON, PLAIN, Answer, format_head, make_error_answer, make_json_answer
from fcdeploy.serve.http_request import RequestHead, Route
from fcdeploy.serve.model_metadata import EXTENSIONS, describe_model, make_triton_config
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.request import Wanted
from fcdeploy.serve.served_models import ServedModel
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.tensors import decode, encode, pack
from fcdeploy.serve.unpack import DEFLATE, WINDOW, inflate

PAGE = Path(__file__).with_name("page.html").read_bytes()
PAGE_FIELDS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
     "connect-src 'self'; img-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)  # fmt: skip
SMALL = 1024  # bytes of an answer that compressing would not make faster
LARGE = 64 << 10  # bytes of outputs that are compressed in a thread: zlib takes 0.1 s for a megabyte
SHAPES = 16  # of outputs that are remembered for a request; most have one
TEXT = 5  # times the bytes of outputs that they and their numbers in JSON take
Send = Callable[[Answer], None]


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
        answer = _answer_directly(state, head.route)
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
            made = make_json_answer(
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


def _answer_metrics(state: ServerState) -> Answer:
    page = state.metrics.format_page(waiting=state.engine.requests, ready=state.ready)
    return Answer(200, [page], format_head(200, "text/plain; version=0.0.4; charset=utf-8"))


def _list_names(state: ServerState) -> Answer:
    return make_json_answer({"models": sorted({model.name for model in state.engine.models.list_models()})})


def _list_versions(state: ServerState) -> Answer:
    models = state.engine.models.list_models()
    return make_json_answer([{"name": m.name, "version": m.version, "state": "READY", "reason": ""} for m in models])


def _describe(state: ServerState, model: Model) -> Answer:
    takes = describe_takes(model)  # of which the protocol knows nothing
    return make_json_answer({**describe_model(state.engine, model), **({"takes": takes} if takes else {})})


OF_SERVER: dict[str, Callable[[ServerState], Answer]] = {
    "page": lambda _: Answer(200, [PAGE], format_head(200, "text/html; charset=utf-8", *PAGE_FIELDS)),
    "live": lambda _: make_json_answer({"live": True}),
    "ready": lambda state: _answer_ready({}, state.ready),
    "metrics": _answer_metrics,
    "server": lambda _: make_json_answer({"name": "fcdeploy", "version": __version__, "extensions": EXTENSIONS}),
    "models": _list_names,
    "index": _list_versions,
}
OF_MODEL: dict[str, Callable[[ServerState, Model], Answer]] = {
    "model": _describe,
    "model ready": lambda state, model: _answer_ready({"name": model.name}, state.ready),
    "config": lambda _, model: make_json_answer(make_triton_config(model)),
}
"""What no model has to run for: addresses of `http_request.py` -> their answers."""


def _answer_directly(state: ServerState, route: Route) -> Answer:
    if route.what in OF_SERVER:
        return OF_SERVER[route.what](state)
    return OF_MODEL[route.what](state, state.engine.models.find(route.name, route.version).model)


def _answer_ready(named: dict[str, str], ready: bool) -> Answer:
    return make_json_answer({**named, "ready": ready}, 200 if ready else 503)
