"""Several processes on one address (SO_REUSEPORT), and the one that watches them: it serves nothing itself.

A worker that dies is started again, no sooner than a second after its last start; signals are passed on.  One that cannot
begin ends all; once all have begun the others serve on, and it is tried again, each time after twice the pause.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fcdeploy.atomic_files import temporary_folder
from fcdeploy.errors import FcdeployError
from fcdeploy.records.report import Report
from fcdeploy.runtime.interpreters import SAFE_PATH
from fcdeploy.serve.settings import Settings, Worker

Say = Callable[[str], None]
PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)
PAUSE = 1.0  # seconds between two starts of a worker
LONGEST_PAUSE = 60.0
LOOK = 0.2
TRIES = 3  # of a worker that dies before it has begun, and does not say why


@dataclass
class Child:
    """A worker: its process, the pipe that its report comes through, and when it was started.

    `tries` is how many in a row before it died and had not begun.
    """

    process: Any
    pipe: Connection
    started: float
    tries: int = 0
    ready: bool = False

    @property
    def alive(self) -> bool:
        return self.process.exitcode is None

    @property
    def pause(self) -> float:
        """Seconds from its start to that of the next."""
        return min(PAUSE * (1 << self.tries), LONGEST_PAUSE)


def serve_forever(settings: Settings, *, say: Say, on_ready: Callable[[Report], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, in this process or in `settings.workers` others.

    `on_ready` gets what is served, and where.  Raises FcdeployError when it cannot begin.
    """
    if settings.engine == "native" and settings.threads > 1:
        raise FcdeployError(
            f"--threads {settings.threads} is for onnxruntime: native code computes on one", "--workers N"
        )
    if settings.workers == 1:
        from fcdeploy.serve.run import serve_one

        serve_one(settings, say=say, on_ready=on_ready)
        say("stopped")
        return
    if not hasattr(socket, "SO_REUSEPORT"):
        raise FcdeployError("--workers: this system has no SO_REUSEPORT", "leave --workers out")
    host = settings.host
    with (
        temporary_folder() as share,
        reserve_port(host, settings.port) as port,
        reserve_port(host, settings.grpc_port) as grpc_port,
    ):
        _supervise(replace(settings, port=port or 0, grpc_port=grpc_port), share, say, on_ready)
    say("stopped")


@contextmanager
def reserve_port(host: str, port: int | None) -> Iterator[int | None]:
    """Hold an address without listening, so that port 0 is one port for all workers; without a port there is nothing."""
    from fcdeploy.serve.sockets import bind_socket

    if port is None:
        yield None
        return
    if port:
        bind_socket(host, port).close()  # a sharing socket would be given a port that another server shares, too
    with bind_socket(host, port, shared=True) as held:
        yield int(held.getsockname()[1])


def _supervise(settings: Settings, share: Path, say: Say, on_ready: Callable[[Report], None]) -> None:
    stopping: list[int] = []

    def stop(number: int, _: object) -> None:
        if number == signal.SIGINT and stopping:
            for child in children.values():
                child.process.kill()
            os._exit(130)
        stopping.append(number)

    def reload(_: int, __: object) -> None:
        ask_to_reload(children.values())

    children: dict[int, Child] = {}
    for number, handle in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        signal.signal(number, handle)

    children |= {index: _start(settings, Worker(index, share), say) for index in range(settings.workers)}
    try:
        _watch(settings, share, children, stopping, say, on_ready)
    finally:
        for child in children.values():
            if child.alive:
                child.process.terminate()
        for child in children.values():
            child.process.join(settings.drain + 5)
            if child.alive:
                child.process.kill()


def ask_to_reload(children: Iterable[Child]) -> None:
    """Send SIGHUP to those that serve; the others would end of it, and load anyway."""
    for child in children:
        if child.process.pid is not None and child.alive and child.ready:
            with suppress(ProcessLookupError):  # ended and taken away while this very signal came
                os.kill(child.process.pid, signal.SIGHUP)


def _watch(
    settings: Settings, share: Path, children: dict[int, Child], stopping: Sequence[int], say: Say,
    on_ready: Callable[[Report], None],
) -> None:  # fmt: skip
    """Until a signal stops them. Raises FcdeployError where one cannot begin before all have begun once."""
    announced: Report | None = None
    while not stopping:
        _wait(children.values())
        for index, child in list(children.items()):
            report = _read_report(child)
            if isinstance(report, FcdeployError):
                if not announced:
                    raise report
                say(f"worker {index} cannot begin: {report}")
            elif report is not None and not announced and all(c.ready for c in children.values()):
                announced = report
                on_ready(report)
            if child.alive or stopping:
                continue
            if not announced and child.tries + 1 == TRIES and not child.ready:
                raise FcdeployError(
                    f"worker {index} ended with {child.process.exitcode} before it could begin, {TRIES} times in a row",
                    "--workers 1 shows where",
                )
            if time.monotonic() - child.started >= child.pause:
                say(f"worker {index} ended with {child.process.exitcode}, starting another one")
                required = None if announced is None else _list_required(announced, children.values())
                worker = Worker(index, share, required)
                children[index] = _start_again(settings, worker, say, child)


def _list_required(announced: Report, children: Iterable[Child]) -> frozenset[str]:
    """Names that one must serve beside others that do; alone it serves what it can."""
    others = any(child.alive and child.ready for child in children)
    return frozenset(model["name"] for model in announced.values["models"] if others)


def _start_again(settings: Settings, worker: Worker, say: Say, dead: Child) -> Child:
    """In the place of one that has ended; where the system starts no process, after a longer pause."""
    tries = 0 if dead.ready else dead.tries + 1
    try:
        return _start(settings, worker, say, tries)
    except OSError as error:
        say(f"worker {worker.index} cannot be started: {error.strerror}")
        return replace(dead, started=time.monotonic(), tries=tries, ready=False)


def _wait(children: Iterable[Child]) -> None:
    """Until one that lives says something or ends, or for a moment: one that is dead would say so again and again."""
    living = [child for child in children if child.alive]
    if not living:
        time.sleep(LOOK)
        return
    with suppress(OSError):  # no descriptors left: the next look is soon
        wait([child.process.sentinel for child in living] + [child.pipe for child in living], LOOK)


def _start(settings: Settings, worker: Worker, say: Say, tries: int = 0) -> Child:
    context = multiprocessing.get_context("spawn")  # a fork would copy threads and locks of libraries half way
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_worker, args=(settings, worker, say, theirs), name=f"worker {worker.index}")
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"  # spawn starts an interpreter with -c, and gives it the environment of this process
    try:
        process.start()
    finally:
        os.environ.pop(SAFE_PATH)
        if before is not None:
            os.environ[SAFE_PATH] = before
    theirs.close()
    return Child(process, ours, time.monotonic(), tries)


def end_with_parent() -> None:
    """Ask the system to end this process when the one that started it is gone, whatever this one is at (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGTERM)


def _read_report(child: Child) -> Report | FcdeployError | None:
    """What a worker says when it is ready, or why it could not begin."""
    try:
        if not child.pipe.poll():
            return None
        message = child.pipe.recv()
    except (EOFError, OSError):
        return None
    if isinstance(message, tuple):
        return FcdeployError(*message)
    child.ready = True
    return Report("serve", message)


def _run_worker(settings: Settings, worker: Worker, say: Say, tell: Connection) -> None:
    """The worker's process. The first one speaks for all of what they load."""
    from fcdeploy.serve.run import serve_one

    def quiet(_: str) -> None: ...

    end_with_parent()
    try:
        serve_one(
            settings,
            worker=worker,
            say=quiet if worker.index else say,
            on_ready=lambda report: tell.send(report.values),
        )
    except FcdeployError as error:
        tell.send((error.message, error.hint))
    except OSError as error:
        tell.send((f"a worker cannot begin: {error}", "ulimit -n shows how many files it may open"))
