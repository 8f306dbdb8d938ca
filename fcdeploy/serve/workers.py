"""Several processes on one address (SO_REUSEPORT), and the one that watches them: it serves nothing itself.

A worker that dies is started again, no sooner than a second after its last start; signals are passed on; one that cannot
begin ends all.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
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
LOOK = 0.2


@dataclass
class Child:
    """A running worker: its process, the pipe that its report comes through, and when it was started."""

    process: Any
    pipe: Connection
    started: float
    ready: bool = False


def serve_forever(settings: Settings, *, say: Say, on_ready: Callable[[Report], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT, in this process or in `settings.workers` others.

    `on_ready` gets what is served, and where.  Raises FcdeployError when it cannot begin.
    """
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
        for child in children.values():
            if child.process.pid is not None and child.process.exitcode is None:
                os.kill(child.process.pid, signal.SIGHUP)

    children: dict[int, Child] = {}
    for number, handle in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        signal.signal(number, handle)

    children |= {index: _start(settings, index, share, say) for index in range(settings.workers)}
    announced = False
    try:
        while not stopping:
            with suppress(OSError):  # no descriptors left: the next look is soon
                wait([c.process.sentinel for c in children.values()] + [c.pipe for c in children.values()], LOOK)
            for index, child in list(children.items()):
                report = _read_report(child)
                if isinstance(report, FcdeployError):
                    if not announced:
                        raise report
                    say(f"worker {index} cannot begin: {report}")  # the others serve on, and it is tried again
                elif report is not None and not announced and all(c.ready for c in children.values()):
                    announced = True
                    on_ready(report)
                if child.process.exitcode is None or stopping:
                    continue
                if time.monotonic() - child.started >= PAUSE:
                    say(f"worker {index} ended with {child.process.exitcode}, starting another one")
                    children[index] = _start(settings, index, share, say)
    finally:
        for child in children.values():
            if child.process.exitcode is None:
                child.process.terminate()
        for child in children.values():
            child.process.join(settings.drain + 5)
            if child.process.exitcode is None:
                child.process.kill()


def _start(settings: Settings, index: int, share: Path, say: Say) -> Child:
    context = multiprocessing.get_context("spawn")  # a fork would copy threads and locks of libraries half way
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker, args=(settings, Worker(index, share), say, theirs), name=f"worker {index}"
    )
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"  # spawn starts an interpreter with -c, and gives it the environment of this process
    try:
        process.start()
    finally:
        os.environ.pop(SAFE_PATH)
        if before is not None:
            os.environ[SAFE_PATH] = before
    theirs.close()
    return Child(process, ours, time.monotonic())


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
