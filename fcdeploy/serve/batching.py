"""Natural batching: all requests that arrive together become one run. No timer, so nobody waits.

Together is in one turn of the loop, and in the next ones as long as each brings more; a request behind a silence is run
at once.  While a run takes its time, more requests arrive, and they are the next batch: the busier the server, the larger
its batches.  Runs under 2 ms are done on the loop itself, longer ones in threads, as many at a time as there are cores.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from math import inf
from typing import Any

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError, NoMemoryError
from fcdeploy.serve.models import INLINE_SECONDS, PIECE, Model
from fcdeploy.serve.refusal import RefusedError

SAME_TURN = (
    0.00001  # seconds since the last run within which a request came in its turn of the loop, from another connection
)
SILENCE = 0.001  # seconds since the last run behind which a request is not expected to have company

Done = Callable[["InferenceRequest", "list[Array] | RefusedError"], None]


class InferenceRequest:
    """Inputs on their way to a model. `done` is called once, on the loop, with all outputs or with why there are none.

    `rows` is the number of samples; inputs that do not agree on it run `alone`.  `counted` are the bytes that it and its
    answer take of what may be under way.
    """

    __slots__ = (
        "alone", "arrived", "batch", "bytes", "compute_seconds", "counted", "deadline", "done", "feeds", "queue_seconds", "rows",
    )  # fmt: skip

    def __init__(self, feeds: Mapping[str, Array], done: Done, arrived: float = 0.0) -> None:
        size, rows = 0, -1
        self.alone = False
        for array in feeds.values():
            size += array.nbytes
            shape = array.shape
            length = shape[0] if shape else 0
            if length != rows:
                self.alone = self.alone or rows >= 0
                rows = max(rows, length)
        self.feeds = feeds
        self.bytes = self.counted = size
        self.rows = rows if rows > 0 else 1
        self.done: Done | None = done
        self.deadline = inf
        self.arrived = arrived or time.perf_counter()
        self.queue_seconds = self.compute_seconds = 0.0
        self.batch = 0

    def finish(self, result: list[Array] | RefusedError) -> None:
        if self.done is not None:
            done, self.done = self.done, None
            done(self, result)


class Queue:
    """The requests that wait for one model. Lives on the loop; only `_compute` runs elsewhere.

    `on_run` is told which requests have left, and the seconds of their run, 0 where there was none.
    """

    def __init__(
        self,
        model: Model,
        loop: asyncio.AbstractEventLoop,
        threads: Executor,
        *,
        slots: int = 1,
        delay: float = 0.0,
        on_run: Callable[[Model, list[InferenceRequest], float], None] = lambda *_: None,
    ) -> None:
        self.model = model
        self._loop = loop
        self._threads = threads
        self._slots = slots
        self._delay = delay
        self._on_run = on_run
        self._waiting: deque[InferenceRequest] = deque()
        self._running = 0
        self._planned = False
        self._delayed: asyncio.TimerHandle | None = None
        self._last = 0.0  # when the last run was over
        self._direct_rows = 0 if delay else model.direct_rows
        self._last_alone = True  # the last run was of one request
        self._growth = 0.0  # bytes of outputs for each of inputs, in the last run
        self._largest = 0  # bytes of outputs of one request so far

    def estimate_answer(self, request: InferenceRequest) -> int:
        """Bytes of outputs to expect: what their shapes say, else what earlier requests came to."""
        known = self.model.sample_bytes
        return known * request.rows if known else min(int(self._growth * request.bytes), 2 * self._largest)

    def put(self, request: InferenceRequest) -> None:
        if (
            request.rows <= self._direct_rows
            and self._last_alone
            and request.arrived - self._last > SAME_TURN
            and not self._waiting
            and not self._running
        ):
            self._run_directly(request)
            return
        self._waiting.append(request)
        if self._delayed is not None and len(self._waiting) >= self.model.largest:
            self._delayed.cancel()
            self._delayed = None
            self._loop.call_soon(self._run_next)
        if self._planned or self._running >= self._slots:
            return
        if not self._delay and request.arrived - self._last > SILENCE:
            self._run_next()
        else:
            self._schedule()

    def run_at_once(self, feeds: Mapping[str, Array], rows: int) -> tuple[list[Array], float] | None:
        """The outputs for inputs that were checked, and the seconds of the run, where `rows` samples need no queue.

        None where it does, and where it fails: what is put into the queue is told why.  `on_run` hears nothing of it.
        """
        if rows > self._direct_rows or self._waiting or self._running:
            return None
        begun = time.perf_counter()
        try:
            outputs = self.model.run(feeds)
        except Exception:
            return None
        self._last = time.perf_counter()
        return outputs, self._last - begun

    def _run_directly(self, request: InferenceRequest) -> None:
        """At once: company would not make it cheaper."""
        now = time.perf_counter()
        if now > request.deadline:
            self._on_run(self.model, [request], 0.0)
            self._tell(request, self._explain_wait(request, now))
            return
        request.queue_seconds = now - request.arrived
        self._finish([request], request.rows, *_compute(self.model, [request]))

    def _schedule(self) -> None:
        """Run when nothing more arrives; where there is a `delay`, once a batch is full, at the latest so many seconds later."""
        self._planned = True
        if self._delay and len(self._waiting) < self.model.largest:
            self._delayed = self._loop.call_later(self._delay, self._run_next)
        else:
            self._loop.call_soon(self._look_again, 0)

    def _look_again(self, seen: int) -> None:
        """Look at the sockets again as long as that brings requests and more fit: it takes microseconds."""
        waiting = len(self._waiting)
        if seen < waiting < self.model.largest:
            self._loop.call_soon(self._look_again, waiting)
        else:
            self._run_next()

    def _run_next(self) -> None:
        """One run; what still waits is left for the next turn, so that answers leave in between."""
        self._planned, self._delayed = False, None
        if self._running >= self._slots:
            return
        batch, rows = self._take()
        if batch:
            if 0 < rows * self.model.sample_seconds <= INLINE_SECONDS:
                self._finish(batch, rows, *_compute(self.model, batch))
            else:
                self._running += 1
                future = self._loop.run_in_executor(self._threads, _compute, self.model, batch)
                future.add_done_callback(lambda done: self._complete(batch, rows, done))
        if self._waiting and not self._planned and self._running < self._slots:
            self._schedule()

    def _take(self) -> tuple[list[InferenceRequest], int]:
        """The next requests that fit in a run, in their order, and their samples.

        Those too late are told so, those given up are dropped.
        """
        batch: list[InferenceRequest] = []
        rows, now = 0, time.perf_counter()
        while self._waiting:
            request = self._waiting[0]
            if request.done is None:
                self._waiting.popleft()
                self._on_run(self.model, [request], 0.0)
                continue

            if now > request.deadline:
                self._waiting.popleft()
                self._on_run(self.model, [request], 0.0)
                self._tell(request, self._explain_wait(request, now))
                continue

            if batch and (request.alone or batch[0].alone or rows + request.rows > self.model.largest):
                break
            self._waiting.popleft()
            request.queue_seconds = now - request.arrived
            batch.append(request)
            rows += request.rows
        return batch, rows

    def _explain_wait(self, request: InferenceRequest, now: float) -> RefusedError:
        waited = f"waited {now - request.arrived:.3f} s for its turn, longer than it had"
        return RefusedError(504, f"model {self.model.name!r}: the request {waited}")

    def _complete(
        self, batch: list[InferenceRequest], rows: int, done: asyncio.Future[tuple[list[Any], float]]
    ) -> None:
        self._running -= 1
        if not done.cancelled():
            self._finish(batch, rows, *done.result())
        if self._waiting and not self._planned:
            self._schedule()

    def _finish(
        self, batch: list[InferenceRequest], rows: int, results: list[list[Array] | RefusedError], seconds: float
    ) -> None:
        try:
            for request, result in zip(batch, results, strict=True):
                request.compute_seconds = seconds
                request.batch = rows
                if request.bytes > PIECE:  # the answer need not wait beside large inputs
                    request.feeds = {}
                if not self.model.sample_bytes and not isinstance(result, RefusedError):
                    size = sum(array.nbytes for array in result)
                    self._growth, self._largest = size / max(request.bytes, 1), max(size, self._largest)
                self._tell(request, result)
        finally:  # counting takes its time, which no answer waits for
            self._on_run(self.model, batch, seconds)
            self._last_alone = len(batch) == 1
            self._last = time.perf_counter()

    def _tell(self, request: InferenceRequest, result: list[Array] | RefusedError) -> None:
        """Give a request its result; one that cannot take it keeps none from the others."""
        try:
            request.finish(result)
        except Exception as error:
            what = f"model {self.model.name!r}: an answer could not be given"
            self._loop.call_exception_handler({"message": what, "exception": error})


def _compute(model: Model, batch: list[InferenceRequest]) -> tuple[list[list[Array] | RefusedError], float]:
    """Each request's outputs, and the seconds it took. A run that fails is repeated request by request."""
    begun = time.perf_counter()
    if len(batch) == 1 or not model.session.batches_pay:
        results = [_run_alone(model, request) for request in batch]
    else:
        try:
            feeds = [request.feeds for request in batch]
            together = model.run({name: np.concatenate([f[name] for f in feeds]) for name in model.inputs})
            results, start = [], 0
            for request in batch:
                stop = start + request.rows
                results.append([output[start:stop] for output in together])
                start = stop
        except Exception:  # whatever it is, only those whose fault it is shall suffer
            results = [_run_alone(model, request) for request in batch]
    return results, time.perf_counter() - begun


def _explain_lengths(feeds: Mapping[str, Array]) -> str:
    """That inputs hold unequal numbers of samples, as states beside a batch may; empty where they do not."""
    counts = {name: len(array) for name, array in feeds.items() if array.ndim}
    if len(set(counts.values())) < 2:
        return ""
    several = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
    return f"it does not run on inputs of unequal numbers of samples along the leading axis: {several}"


def _run_alone(model: Model, request: InferenceRequest) -> list[Array] | RefusedError:
    try:
        if request.bytes > PIECE and not request.alone:
            return model.run_in_pieces(request.feeds, request.rows, request.bytes)
        if request.bytes > PIECE:  # smaller ones lie at multiples of their numbers' size since they were read
            return model.run({name: np.require(array, requirements="A") for name, array in request.feeds.items()})
        return model.run(request.feeds)
    except FcdeployError as error:  # shapes were checked before: what is left are values, and lengths of free axes
        full = isinstance(error, NoMemoryError)
        why = error.message if full else _explain_lengths(request.feeds) or error.message
        return RefusedError(503 if full else 400, f"model {model.name!r}: {why}", retry_after=int(full))
    except Exception as defect:  # a request without an answer would hang
        return RefusedError(500, f"internal {type(defect).__name__}: {defect}")
