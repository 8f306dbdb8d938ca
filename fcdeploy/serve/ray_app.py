"""The same engine under Ray Serve, for more than one machine: `serve run fcdeploy.serve.ray_app:app source=model.fcd`.

Every replica holds every model and answers the Open Inference Protocol at the same addresses as `fcdeploy serve`; Ray
spreads requests over replicas and machines, starts and replaces them.  Requests that reach a replica together share a run
there as they do in one process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.http_answer import Answer, make_error_answer
from fcdeploy.serve.http_request import HeadParser
from fcdeploy.serve.limits import QueueLimits
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.routes import answer_request
from fcdeploy.serve.server_state import ServerState

DEFAULTS = {"replicas": 1, "threads": 1, "max_batch": 0, "max_body": 64 << 20, "max_requests": 256}
"""Option -> its value; all are whole numbers. `max_batch` 0 is what runs in 2 ms."""
LEAST = {"max_batch": 0}

PASSED = ("content-type", "inference-header-content-length", "content-encoding", "accept-encoding")
"""Fields of a request that say how its body, or the answer's, is to be read."""


def app(args: Mapping[str, Any]) -> serve.Application:
    """A Ray Serve application that serves `source`: a model, a bundle or a folder, on every machine at the same path.

    `replicas` is how many there are, each with `threads` CPUs; `max_batch`, `max_body` and `max_requests` (of one replica)
    are those of `fcdeploy serve`.  Raises FcdeployError for an unknown option or a value that is none.
    """
    options = dict(DEFAULTS)
    for name, value in args.items():
        if name == "source":
            continue
        if name not in DEFAULTS:
            raise FcdeployError(f"option {name!r} is unknown, expected source, {', '.join(DEFAULTS)}", f"{name}=...")
        least = LEAST.get(name, 1)
        if not (str(value).isascii() and str(value).isdecimal() and int(value) >= least):
            said = f"{name} is {str(value)[:40]!r}, expected a whole number of {least} or more"
            raise FcdeployError(said, f"{name}={DEFAULTS[name]}")
        options[name] = int(value)
    if "source" not in args:
        raise FcdeployError("there is no source, expected a model, a bundle or a folder", "source=model.onnx")

    source = str(Path(str(args["source"])).resolve())
    deployment = serve.deployment(
        Replica,
        name="fcdeploy",
        num_replicas=options["replicas"],
        ray_actor_options={"num_cpus": options["threads"]},
        max_ongoing_requests=options["max_requests"],
        user_config={**options, "source": source},
    )
    return deployment.bind()


class Replica:
    """One process of the deployment. Ray calls `reconfigure` before the first request, and with every new configuration."""

    def __init__(self) -> None:
        self._state: ServerState | None = None
        self._head_parser = HeadParser()

    async def reconfigure(self, options: Mapping[str, Any]) -> None:
        """Load the models beside those that run, then take their place. Raises FcdeployError when they cannot be served."""
        engine = BatchingEngine(
            Path(options["source"]),
            threads=options["threads"],
            limits=QueueLimits(max_batch=options["max_batch"] or None, max_requests=options["max_requests"]),
        )
        await engine.start()
        old, self._state = self._state, ServerState(engine, Metrics(), options["max_body"])
        if old is not None:
            await old.engine.stop()

    async def infer(self, model: str, inputs: Mapping[str, Array], version: str = "") -> Arrays:
        """For other deployments, by a handle: all outputs by name. Raises ValueError, which names the mistake."""
        assert self._state is not None
        try:
            return await self._state.engine.infer(model, inputs, version=version)
        except RefusedError as refusal:
            raise ValueError(refusal.message) from None

    async def __call__(self, request: Request) -> Response:
        """Any address of the protocol, over HTTP."""
        assert self._state is not None
        begun = time.perf_counter()
        try:
            head = self._head_parser.read(build_head(request))
            body = await _read_body(request, self._state.max_body)
        except RefusedError as refusal:
            return _make_response(make_error_answer(refusal))
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def send(answer: Answer) -> None:
            if not answered.done():  # the client may have gone
                answered.set_result(answer)

        answer_request(self._state, head, body, begun, send)
        return _make_response(await answered)


def build_head(request: Request) -> bytes:
    """What the request's head comes to here: its address, and the fields that say how its body is to be read."""
    raw, query = request.scope.get("raw_path") or request.url.path.encode(), request.scope.get("query_string", b"")
    target = (raw.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")
    lines = [f"{request.method} {target} HTTP/1.1", "host: ray"]
    lines += [f"{name}: {request.headers[name]}" for name in PASSED if name in request.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read_body(request: Request, limit: int) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > limit:
            raise RefusedError(413, f"a body of more than {limit} bytes, expected at most that")
    return bytes(content)


def _make_response(answer: Answer) -> Response:
    fields, parts = answer.split()
    return Response(b"".join(parts), answer.status, fields)
