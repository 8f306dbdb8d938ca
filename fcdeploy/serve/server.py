"""One process that serves: sockets, signals, the clockwork. `fcdeploy.serve.workers` starts several."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.freed_memory import return_large_blocks
from fcdeploy.serve.http_connection import Connection
from fcdeploy.serve.http_request import HeadParser
from fcdeploy.serve.listener import Listener
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.settings import Settings
from fcdeploy.wording import quote_path

Stop = Callable[[float], Coroutine[Any, Any, None]]
"""Take no more calls, and finish those under way, for so many seconds at most."""

TICK = 0.25  # seconds between looks at slow clients
SWITCH = (
    0.0005  # seconds until a thread that loads a model lets the loop go on; Python's 5 ms come several times an answer
)
YOUNG = 5_000  # objects between two looks for cycles, which no request leaves behind


def read_token(path: Path) -> bytes:
    """The first line of a file that only its owner should read."""
    try:
        token = path.read_bytes().split(b"\n", 1)[0].strip()
    except OSError as error:
        raise FcdeployError(f"cannot read the token {str(path)!r}: {error.strerror}", "--token-file FILE") from error
    if not token or not token.isascii():
        raise FcdeployError(
            f"{str(path)!r} holds no token, expected a line of text", f"openssl rand -hex 32 > {quote_path(path)}"
        )
    return token


def make_tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate chain and key, both PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise FcdeployError(
            f"cannot use the certificate {str(cert)!r} with the key {str(key)!r}: {error.strerror or error}",
            "give PEM files that belong together: --tls-cert, --tls-key",
        ) from error
    return context


async def serve(
    state: ServerState,
    sock: socket.socket,
    settings: Settings,
    *,
    token: bytes | None = None,
    context: ssl.SSLContext | None = None,
    on_ready: Callable[[], None] = lambda: None,
    also: Callable[[ServerState], Awaitable[Stop]] | None = None,
) -> None:
    """Answer until SIGTERM, SIGINT or the end of the process that started this worker; then finish what is under way.

    That takes `settings.drain` seconds at most.  Looks for changed models every `settings.poll` seconds, never with 0.
    `also` starts another protocol on the same engine.
    """
    loop, engine = asyncio.get_running_loop(), state.engine
    return_large_blocks()
    sys.setswitchinterval(SWITCH)
    stop, reload = _listen_for_end(loop), _listen_for_reload(loop)
    if not await _finish_first(engine.start(), stop):
        leave(0)  # nothing has been promised to anybody, and a load cannot be interrupted

    head_parser, connections = HeadParser(token), set[Connection]()

    def accept() -> Connection:
        return Connection(state, head_parser, settings.limits, connections)

    listener = Listener(loop, sock, accept, settings.limits, connections, context)
    tasks = [asyncio.create_task(_sweep(state, connections)), asyncio.create_task(watch(engine, settings.poll, reload))]
    stop_other = None if also is None else await also(state)
    gc.freeze()  # what was loaded stays
    gc.set_threshold(YOUNG)
    on_ready()
    await stop.wait()

    # draining: answer what has arrived, in the sockets' backlog too, and then close
    state.draining = True
    stopping = None if stop_other is None else asyncio.create_task(stop_other(settings.drain))
    end = loop.time() + settings.drain
    await listener.drain()
    while connections and loop.time() < end:
        await asyncio.sleep(0.01)
    for connection in list(connections):
        connection.end()
    for task in tasks:
        task.cancel()
    if stopping is not None:
        await stopping
    try:
        await asyncio.wait_for(engine.stop(), max(0.1, end - loop.time()))
    except TimeoutError:
        leave(0)  # a run cannot be interrupted, and whoever sent the signal was told how long this may take


def leave(code: int) -> None:
    """End this process now, whatever its threads are at."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


async def _finish_first(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Whether the work was done before the signal to stop came. Raises what the work raises."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
        return True
    return False


def _listen_for_reload(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Set by SIGHUP: look for changed models now."""
    reload = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    return reload


def _listen_for_end(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Set by SIGTERM, by SIGINT, and in a worker by the end of the process that watches it: nobody starts it again then.

    A second SIGINT ends the process at once.
    """
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: leave(130) if stop.is_set() else stop.set())
    watcher = multiprocessing.parent_process()
    if watcher is not None:

        def stop_orphan() -> None:
            loop.remove_reader(watcher.sentinel)
            stop.set()

        loop.add_reader(watcher.sentinel, stop_orphan)
    return stop


async def _sweep(state: ServerState, connections: set[Connection]) -> None:
    ticks = 0
    while True:
        await asyncio.sleep(TICK)
        now = time.perf_counter()
        for connection in list(connections):
            connection.sweep(now, draining=state.draining)
        ticks += 1
        if ticks % 4 == 0:
            with contextlib.suppress(OSError):  # a full disk: the other workers see older figures
                state.metrics.publish(waiting=state.engine.requests, ready=state.engine.ready and not state.draining)


async def watch(engine: BatchingEngine, poll: float, reload: asyncio.Event) -> None:
    """Look for changed models every `poll` seconds, never with 0, and when asked: then twice, see `refresh`."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reload.wait(), poll or None)
        if reload.is_set():
            reload.clear()
            await engine.models.refresh()
            await asyncio.sleep(TICK)
        await engine.models.refresh()


def run(main: Any) -> None:
    """On uvloop: half the cost per request of asyncio's own loop."""
    import uvloop

    uvloop.run(main)
