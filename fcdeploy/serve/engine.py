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
from fcdeploy.serve.repository import ModelFile, Stamp, find_models, hash_content, take_stamp

Made = TypeVar("Made")
SPARE = (
    1 << 20
)  # bytes under way beside which a request of any size may run: else small ones would keep a large one out for ever
PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds until a file that could not be loaded is tried again
LOOKS = 2  # at a file, until it is taken to be whole
MADE = 1 << 25  # bytes that are made of bodies at once, before they count as inputs


@dataclass(frozen=True, eq=False)
class Making:
    """Work on `size` bytes of a request in a thread, which may become `becomes`; `then` is told what came of it."""

    size: int
    becomes: int
    make: Callable[[], Any]
    then: Callable[[Any], None]


@dataclass(frozen=True)
class LoadFailure:
    """What a file looked like that could not be loaded, what was said of it, and when it is tried again.

    Whether it was the file or the system is not always known, so that each is tried again, after twice the pause.
    """

    stamp: Stamp
    said: str
    pause: float
    again: float


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with the queue in front of it, and what its files looked like when it was loaded."""

    place: ModelFile
    model: Model
    queue: Queue
    stamp: Stamp
    content: str


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
        self.source = source
        self.threads = threads
        self.runs_on = runs_on
        self.at_once = max(1, count_usable_cores() // (threads * workers))
        self.ready = False
        self._required = required
        self._limits = limits or QueueLimits()
        self._say = say
        self._observer = observer or Observer()
        self._served: dict[tuple[str, str], ServedModel] = {}
        self._newest: dict[str, str] = {}
        self._failed: dict[ModelFile, LoadFailure] = {}
        self._pending: dict[ModelFile, Stamp] = {}
        self._said: dict[str, None] = {}  # the last failures, in their order
        self._left_out: dict[Path, str] = {}  # files that cannot be read or named, and what was said of them
        self._failure = ""  # the last one
        self.requests = self.bytes = 0
        self.held = 0  # bytes that connections hold: bodies that come in, and answers that were not taken
        self._unmade: deque[Making] = deque()
        self._making = self._becoming = 0

    async def start(self) -> None:
        """Load, warm up and try everything. Raises FcdeployError when any of it cannot be served.

        With `required` only where these cannot, or nothing can: the rest is left out, as `refresh` does it.
        """
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(self.at_once, thread_name_prefix="run")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        if self._required is None:
            for place in find_models(self.source):
                self._put(await self._loop.run_in_executor(self._loader, self._load, place))
        else:
            for _ in range(LOOKS):
                await self.refresh()
            missing = {name: self._explain_missing(name) for name in sorted(self._required - set(self._newest))}
            failed = {name: said for name, said in missing.items() if said}  # the others were taken away
            if not self._served or failed:
                name, said = next(iter(failed.items()), ("", self._failure or "nothing is there"))
                what = f"model {name!r} cannot be loaded" if name else "no model can be loaded"
                raise FcdeployError(f"{what}: {said}", f"ls {self.source}")
        self.ready = True

    async def stop(self) -> None:
        """Wait for every request that was accepted."""
        self.ready = False
        while self.requests:
            await asyncio.sleep(0.005)
        for pool in (self._pool, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)

    def find(self, name: str, version: str = "") -> ServedModel:
        """The newest version unless one is given. Raises RefusedError 404."""
        served = self._served.get((name, version or self._newest.get(name, "")))
        if served is None:
            if name not in self._newest:
                known = ", ".join(sorted(self._newest)) or "none"
                raise RefusedError(404, f"model {name[:100]!r} is unknown, expected one of: {known}")
            raise RefusedError(
                404,
                f"model {name!r} has no version {version[:100]!r}, expected one of: {', '.join(self.list_versions(name))}",
            )
        return served

    def list_versions(self, name: str) -> list[str]:
        """Oldest first."""
        return sorted((version for known, version in self._served if known == name), key=int)

    def list_models(self) -> list[Model]:
        """All versions, sorted by name and number."""
        keys = sorted(self._served, key=lambda key: (key[0], int(key[1])))
        return [self._served[key].model for key in keys]

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
        served = self.find(name, version)
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

    def _release(self, model: Model, batch: Sequence[InferenceRequest], seconds: float) -> None:
        """These requests have left their queue; without seconds they were never run."""
        self.requests -= len(batch)
        for request in batch:
            self.bytes -= request.counted
        if seconds:
            self._observer.on_run(model, batch, seconds)

    async def refresh(self) -> None:
        """Look at the files: load what changed beside what runs, swap it in when it works, keep the old when it fails.

        A file is loaded when two looks in a row see the same, so that it is whole.
        """
        broken: dict[Path, Exception] = {}
        try:
            found = await self._loop.run_in_executor(self._loader, self._look, broken)
        except Exception as error:  # whatever it is: what is loaded serves on, and the next look is another chance
            self._say_once("keeping what is loaded", error)
            return
        self._left_out = {}
        for path, reason in broken.items():
            self._say_once(f"{str(path)!r} is left out", str(reason).removeprefix(f"model {str(path)!r}: "))
            self._left_out[path] = self._failure
        for place, stamp in found:
            await self._refresh(place, stamp)
        places = {place for place, _ in found}
        for remembered in (self._failed, self._pending):  # of files that are gone
            for place in [place for place in remembered if place not in places]:
                del remembered[place]
        here = {(place.name, place.version) for place in places}
        gone = [
            key
            for key, served in self._served.items()
            if key not in here and not broken.keys() & {served.place.path, *served.place.path.parents}
        ]
        for key in gone:
            self._say(f"model {key[0]!r} version {key[1]} is gone")
            del self._served[key]
        self._find_newest()

    def _explain_missing(self, name: str) -> str:
        """What was said of a model that lies there and cannot be loaded; "" where it is gone."""
        said = [failure.said for place, failure in self._failed.items() if place.name == name]
        return next(iter(said + [said for path, said in self._left_out.items() if name in map(_stem, path.parts)]), "")

    def _say_once(self, what: str, error: Exception | str) -> None:
        """A failure that lasts is logged when it comes, not at every look."""
        text = self._failure = f"{what}: {error}"
        if text not in self._said:
            self._said = dict.fromkeys([*list(self._said)[-100:], text])
            self._observer.on_load_failure("", "")
            self._say(text)

    def _look(self, broken: dict[Path, Exception]) -> list[tuple[ModelFile, Stamp]]:
        """What is there now; not on the loop, since a disk or a network may take its time."""
        return [(place, take_stamp(place)) for place in find_models(self.source, broken)]

    async def _refresh(self, place: ModelFile, now: Stamp) -> None:
        old = self._served.get((place.name, place.version))
        failed = self._failed.get(place)
        if (old and old.stamp == now) or (failed and failed.stamp == now and time.monotonic() < failed.again):
            return
        if self._pending.get(place) != now:
            self._pending[place] = now
            return
        try:
            if old and await self._loop.run_in_executor(self._loader, hash_content, place) == old.content:
                self._served[place.name, place.version] = ServedModel(place, old.model, old.queue, now, old.content)
                return
            self._put(await self._loop.run_in_executor(self._loader, self._load, place))
        except Exception as error:  # of a library too: one model that cannot be loaded stops no other
            pause = min(2 * failed.pause, LONGEST_PAUSE) if failed and failed.stamp == now else PAUSE
            before = failed.said if failed and failed.stamp == now else ""
            self._observer.on_load_failure(place.name, place.version)
            kept = "keeping the one that runs" if old else "not served"
            self._failure = f"model {place.name!r} version {place.version}: {kept}: {error}"
            self._failed[place] = LoadFailure(now, self._failure, pause, time.monotonic() + pause)
            if self._failure != before:
                self._say(self._failure)

    def _load(self, place: ModelFile) -> ServedModel:
        before = take_stamp(place)
        hashed = hash_content(place)
        model = load_model(place, threads=self.threads, engine=self.runs_on, max_batch=self._limits.max_batch)
        if take_stamp(place) != before:
            raise FcdeployError(f"model {str(place.path)!r} changed while it was loaded", "replace files by renaming")
        queue = Queue(
            model, self._loop, self._pool, slots=self.at_once, delay=self._limits.max_delay, on_run=self._release
        )
        return ServedModel(place, model, queue, before, hashed)

    def _put(self, served: ServedModel) -> None:
        model = served.model
        again = (model.name, model.version) in self._served
        self._served[model.name, model.version] = served
        self._failed.pop(served.place, None)
        self._pending.pop(served.place, None)
        self._find_newest()
        self._observer.on_load(model)
        share = f"up to {model.largest} samples a run" if model.largest > 1 else f"one request a run: {model.alone}"
        verb = "loaded again" if again else "loaded"
        self._say(
            f"model {model.name!r} version {model.version} {verb} in {model.load_seconds:.2f} s, "
            f"{1000 * model.sample_seconds:.3f} ms a sample, {share}"
        )

    def _find_newest(self) -> None:
        self._newest = {name: self.list_versions(name)[-1] for name, _ in self._served}


class Observer:
    """What the engine tells of itself; by default nobody listens."""

    def on_run(self, model: Model, batch: Sequence[InferenceRequest], seconds: float) -> None: ...
    def on_rejection(self, model: Model) -> None: ...
    def on_load(self, model: Model) -> None: ...
    def on_load_failure(self, name: str, version: str) -> None: ...


def explain_unknown_output(model: Model, name: object) -> str:
    return f"output {str(name)[:100]!r} is unknown, expected {quote_names(model.outputs)}"


def _stem(name: str) -> str:
    """Of a file or folder, what its model is called."""
    return Path(name).stem
