"""The engine: models by name and version, and answers to requests. It knows no protocol; it lives on one event loop.

engine = BatchingEngine(Path("models"))
await engine.start()
outputs = await engine.infer("mlp", {"x": array})      # {"y": array}, or RefusedError with a status
await engine.stop()
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.runtime.cpu import count_usable_cores
from fcdeploy.runtime.feeds import check_feeds
from fcdeploy.serve.batching import Done, InferenceRequest, Queue
from fcdeploy.serve.limits import QueueLimits
from fcdeploy.serve.models import Model, load_model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.repository import ModelFile
from fcdeploy.serve.served_models import Observer, ServedModel, ServedModels

Made = TypeVar("Made")
SPARE = (
    1 << 20
)  # bytes under way beside which a request of any size may run: else small ones would keep a large one out for ever
MADE = 1 << 25  # bytes that are made of bodies at once, before they count as inputs


@dataclass(frozen=True, eq=False)
class Making:
    """Work on `size` bytes of a request in a thread, which may become `becomes`; `then` is told what came of it."""

    size: int
    becomes: int
    make: Callable[[], Any]
    then: Callable[[Any], None]


class BatchingEngine:
    """Serves what lies at `source`.

    `threads` is for each run, `workers` how many processes share the cores, `runs_on` the engine of bundles; `limits`
    says how long batches get and how many requests wait.  `required` names the models without which it does not start,
    all that lie there unless given.  `say` gets a line about every load and reload, `observer` the
    figures (`fcdeploy.serve.metrics`).
    """

    def __init__(
        self,
        source: Path,
        *,
        threads: int = 1,
        workers: int = 1,
        runs_on: str = "onnxruntime",
        limits: QueueLimits | None = None,
        required: frozenset[str] | None = None,
        say: Callable[[str], None] = lambda _: None,
        observer: Observer | None = None,
    ) -> None:
        self.threads = threads
        self.runs_on = runs_on
        self.at_once = max(1, count_usable_cores() // (threads * workers))
        self.ready = False
        self._required = required
        self._limits = limits or QueueLimits()
        self._observer = observer or Observer()
        self.models = ServedModels(source, self._load, self._make_queue, say, self._observer)
        self.requests = self.bytes = 0
        self.held = 0  # bytes that connections hold: bodies that come in, and answers that were not taken
        self._unmade: deque[Making] = deque()
        self._making = self._becoming = 0

    async def start(self) -> None:
        """Load, warm up and try everything. Raises FcdeployError when any of it cannot be served.

        With `required` only where these cannot, or nothing can.
        """
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(self.at_once, thread_name_prefix="run")
        await self.models.start(self._required)
        self.ready = True

    async def stop(self) -> None:
        """Wait for every request that was accepted."""
        self.ready = False
        while self.requests:
            await asyncio.sleep(0.005)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.models.close()

    async def infer(
        self,
        name: str,
        feeds: Mapping[str, Array],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Arrays:
        """The outputs named, all by default. `timeout` is in seconds. Raises RefusedError."""
        served = self.models.find(name, version)
        model = served.model
        try:
            check_feeds(feeds, list(model.inputs.values()))
        except FcdeployError as error:
            raise RefusedError(400, f"model {name!r}: {error.message}") from error
        wanted = list(model.outputs) if outputs is None else list(outputs)
        for output in wanted:
            if output not in model.outputs:
                raise RefusedError(400, explain_unknown_output(model, output))
        future: asyncio.Future[list[Array]] = self._loop.create_future()

        def done(_: InferenceRequest, result: list[Array] | RefusedError) -> None:
            if future.cancelled():
                return
            if isinstance(result, RefusedError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit(
            served,
            {name: np.require(array, requirements=("C", "A")) for name, array in feeds.items()},
            done,
            timeout=timeout,
        )
        computed = dict(zip(model.outputs, await future, strict=True))
        return {name: computed[name] for name in wanted}

    def submit(
        self,
        served: ServedModel,
        feeds: Mapping[str, Array],
        done: Done,
        *,
        timeout: float | None = None,
        arrived: float = 0.0,
        copies: int = 1,
    ) -> InferenceRequest:
        """Queue inputs that were checked. `done` is called on the loop, now or later. Raises RefusedError 503 when it is full.

        `arrived` is when the request came (`time.perf_counter`), now unless given; `timeout` is in seconds from then.
        `copies` is how many times the bytes of its outputs the answer takes.
        """
        request = InferenceRequest(feeds, done, arrived)
        request.counted += copies * served.queue.estimate_answer(request)
        self.check_room(served, request.counted)
        self.requests += 1
        self.bytes += request.counted
        if timeout is None:
            request.deadline = request.arrived + self._limits.seconds
        else:
            request.deadline = request.arrived + timeout
            late = RefusedError(504, f"model {served.model.name!r}: no answer within the {timeout:g} s given")
            timer = self._loop.call_later(max(0.0, request.deadline - time.perf_counter()), request.finish, late)

            def finished(request: InferenceRequest, result: list[Array] | RefusedError) -> None:
                timer.cancel()
                done(request, result)

            request.done = finished
        served.queue.put(request)
        return request

    def prepare(
        self,
        served: ServedModel,
        size: int,
        make: Callable[[], Made],
        then: Callable[[Made | RefusedError], None],
        *,
        becomes: int = 0,
    ) -> None:
        """Make inputs of `size` bytes in a thread, since that takes its time; `becomes` is how many bytes they may be.

        `then` is called on the loop with them, or with why there are none. Raises RefusedError 503 when too many wait already.
        """
        self.check_room(served, max(size, becomes))
        self.call_in_thread(size, make, then, becomes=becomes)

    def call_in_thread(
        self, size: int, make: Callable[[], Made], then: Callable[[Made | RefusedError], None], *, becomes: int = 0
    ) -> None:
        """Work on `size` bytes of a request that was accepted; `then` is called as by `prepare`, with what `make` returned."""
        self.requests += 1
        self.bytes += size
        self._unmade.append(Making(size, becomes, make, then))
        self._make_next()

    def _make_next(self) -> None:
        """As many at once as there are threads, and as fit: what a kilobyte becomes may be megabytes, which wait for the loop."""
        while self._unmade and self._making < self.at_once:
            if self._making and self._becoming + self._unmade[0].becomes > MADE:
                return
            work = self._unmade.popleft()
            self._making += 1
            self._becoming += work.becomes
            future = self._loop.run_in_executor(self._pool, work.make)
            future.add_done_callback(partial(self._finish_making, work))

    def _finish_making(self, work: Making, future: asyncio.Future[Any]) -> None:
        self._making -= 1
        self._becoming -= work.becomes
        self.requests -= 1
        self.bytes -= work.size
        error = future.exception()  # never raised here: this frame, its traceback and what was decoded would be a cycle
        if error is not None and not isinstance(error, RefusedError):  # a request without an answer would hang
            error = RefusedError(500, f"internal {type(error).__name__}: {error}")
        try:
            work.then(future.result() if error is None else error)
        finally:
            self._make_next()

    def check_room(self, served: ServedModel, size: int) -> None:
        """Raise RefusedError 503 where so many bytes more are too many beside all that is under way."""
        most, others = self._limits.max_bytes, self.held + self.bytes
        if self.requests >= self._limits.max_requests or (others > min(SPARE, most // 64) and others + size > most):
            self._observer.on_rejection(served.model)
            what = f"{self.requests} requests with {others} bytes are under way already"
            raise RefusedError(503, f"model {served.model.name!r} is busy: {what}", retry_after=1)

    def _load(self, place: ModelFile) -> Model:
        return load_model(place, threads=self.threads, engine=self.runs_on, max_batch=self._limits.max_batch)

    def _make_queue(self, model: Model) -> Queue:
        return Queue(
            model, self._loop, self._pool, slots=self.at_once, delay=self._limits.max_delay, on_run=self._release
        )

    def _release(self, model: Model, batch: Sequence[InferenceRequest], seconds: float) -> None:
        """These requests have left their queue; without seconds they were never run."""
        self.requests -= len(batch)
        for request in batch:
            self.bytes -= request.counted
        if seconds:
            self._observer.on_run(model, batch, seconds)


def explain_unknown_output(model: Model, name: object) -> str:
    return f"output {str(name)[:100]!r} is unknown, expected {quote_names(model.outputs)}"
