"""The models that are served: loaded when the server begins, and again when their files change, beside what runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.serve.batching import InferenceRequest, Queue
from fcdeploy.serve.models import Model
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.repository import ModelFile, Stamp, find_models, hash_content, take_stamp
from fcdeploy.wording import quote_path

PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds until a file that could not be loaded is tried again
LOOKS = 2  # at a file, until it is taken to be whole


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


class Observer:
    """What the engine tells of itself; by default nobody listens."""

    def on_run(self, model: Model, batch: Sequence[InferenceRequest], seconds: float) -> None: ...
    def on_run_at_once(self, model: Model, rows: int, seconds: float) -> None: ...
    def on_rejection(self, model: Model) -> None: ...
    def on_load(self, model: Model) -> None: ...
    def on_load_failure(self, name: str, version: str) -> None: ...


class ServedModels:
    """What lies at `source`, by name and version.

    `load` makes the model of a file, in a thread, and `make_queue` what stands in front of it; `say` gets a line about every load
    and reload, `observer` the figures.
    """

    def __init__(
        self,
        source: Path,
        load: Callable[[ModelFile], Model],
        make_queue: Callable[[Model], Queue],
        say: Callable[[str], None],
        observer: Observer,
    ) -> None:
        self.source = source
        self._load_model, self._make_queue = load, make_queue
        self._say, self._observer = say, observer
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._served: dict[tuple[str, str], ServedModel] = {}
        self._newest: dict[str, str] = {}
        self._failed: dict[ModelFile, LoadFailure] = {}
        self._pending: dict[ModelFile, Stamp] = {}
        self._said: dict[str, None] = {}  # the last failures, in their order
        self._left_out: dict[Path, str] = {}  # files that cannot be read or named, and what was said of them
        self._failure = ""  # the last one

    async def start(self, required: frozenset[str] | None) -> None:
        """Load everything. Raises FcdeployError when any of it cannot be served.

        With `required` only where these cannot, or nothing can: the rest is left out, as `refresh` does it.
        """
        self._loop = asyncio.get_running_loop()
        if required is None:
            for place in find_models(self.source):
                self._put(await self._in_thread(self._load, place))
            return
        for _ in range(LOOKS):
            await self.refresh()
        missing = {name: self._explain_missing(name) for name in sorted(required - set(self._newest))}
        failed = {name: said for name, said in missing.items() if said}  # the others were taken away
        if not self._served or failed:
            name, said = next(iter(failed.items()), ("", self._failure or "nothing is there"))
            what = f"model {name!r} cannot be loaded" if name else "no model can be loaded"
            raise FcdeployError(f"{what}: {said}", f"ls {quote_path(self.source)}")

    def close(self) -> None:
        """Load nothing any more."""
        self._loader.shutdown(wait=False, cancel_futures=True)

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

    async def refresh(self) -> None:
        """Look at the files: load what changed beside what runs, swap it in when it works, keep the old when it fails.

        A file is loaded when two looks in a row see the same, so that it is whole.
        """
        broken: dict[Path, Exception] = {}
        try:
            found = await self._in_thread(self._look, broken)
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
        """What is there now."""
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
            if old and await self._in_thread(hash_content, place) == old.content:
                self._served[place.name, place.version] = ServedModel(place, old.model, old.queue, now, old.content)
                return
            self._put(await self._in_thread(self._load, place))
        except Exception as error:  # of a library too: one model that cannot be loaded stops no other
            pause = min(2 * failed.pause, LONGEST_PAUSE) if failed and failed.stamp == now else PAUSE
            before = failed.said if failed and failed.stamp == now else ""
            self._observer.on_load_failure(place.name, place.version)
            kept = "keeping the one that runs" if old else "not served"
            self._failure = f"model {place.name!r} version {place.version}: {kept}: {error}"
            self._failed[place] = LoadFailure(now, self._failure, pause, time.monotonic() + pause)
            if self._failure != before:
                self._say(self._failure)

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Not on the loop, since a disk or a network may take its time."""
        return await self._loop.run_in_executor(self._loader, work, *arguments)

    def _load(self, place: ModelFile) -> ServedModel:
        before = take_stamp(place)
        hashed = hash_content(place)
        model = self._load_model(place)
        if take_stamp(place) != before:
            raise FcdeployError(f"model {str(place.path)!r} changed while it was loaded", "replace files by renaming")
        return ServedModel(place, model, self._make_queue(model), before, hashed)

    def _put(self, served: ServedModel) -> None:
        model = served.model
        again = (model.name, model.version) in self._served
        self._served[model.name, model.version] = served
        self._failed.pop(served.place, None)
        self._pending.pop(served.place, None)
        self._find_newest()
        self._observer.on_load(model)
        verb = "loaded again" if again else "loaded"
        self._say(
            f"model {model.name!r} version {model.version} {verb} in {model.load_seconds:.2f} s, "
            f"{1000 * model.sample_seconds:.3f} ms a sample, {model.company}"
        )

    def _find_newest(self) -> None:
        self._newest = {name: self.list_versions(name)[-1] for name, _ in self._served}


def _stem(name: str) -> str:
    """Of a file or folder, what its model is called."""
    return Path(name).stem
