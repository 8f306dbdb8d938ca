"""One process that serves: sockets, signals, the clockwork. `fcdeploy.serve.workers` starts several."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.serve.engine import Engine
from fcdeploy.serve.http_connection import Connection
from fcdeploy.serve.http_request import HeadParser
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.routes import ServerState
from fcdeploy.serve.settings import Settings

Stop = Callable[[float], Coroutine[Any, Any, None]]
"""Take no more calls, and finish those under way, for so many seconds at most."""

TICK = 0.25  # seconds between looks at slow clients
BACKLOG = 1024
YOUNG = 5_000  # objects between two looks for cycles, which no request leaves behind


def read_token(path: Path) -> bytes:
    """The first line of a file that only its owner should read."""
    try:
        token = path.read_bytes().split(b"\n", 1)[0].strip()
    except OSError as error:
        raise FcdeployError(f"cannot read the token {str(path)!r}: {error.strerror}", "--token-file FILE") from error
    if not token or not token.isascii():
        raise FcdeployError(f"{str(path)!r} holds no token, expected a line of text", f"openssl rand -hex 32 > {path}")
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
    engine: Engine,
    sock: socket.socket,
    settings: Settings,
    *,
    metrics: Metrics,
    token: bytes | None = None,
    context: ssl.SSLContext | None = None,
    on_ready: Callable[[], None] = lambda: None,
    also: Callable[[ServerState], Awaitable[Stop]] | None = None,
) -> None:
    """Answer until SIGTERM, SIGINT or the end of the process that started this worker; then finish what is under way.

    That takes `settings.drain` seconds at most.  Looks for changed models every `settings.poll` seconds, never with 0.
    `also` starts another protocol on the same engine.
    """
    loop = asyncio.get_running_loop()
    stop = _listen_for_end(loop)
    await engine.start()

    log = write_log if settings.access_log else None
    state = ServerState(engine, metrics, settings.limits.body, settings.max_queue_bytes, log)
    head_parser, connections = HeadParser(token), set[Connection]()

    def accept() -> Connection:
        return Connection(state, head_parser, settings.limits, connections)

    server = await loop.create_server(accept, sock=sock, backlog=BACKLOG, ssl=context)
    tasks = [asyncio.create_task(_sweep(state, connections))]
    if settings.poll:
        tasks.append(asyncio.create_task(_watch(engine, settings.poll)))
    stop_other = None if also is None else await also(state)
    gc.freeze()  # what was loaded stays
    gc.set_threshold(YOUNG)
    on_ready()
    await stop.wait()

    # draining: answer what has arrived, in the sockets' backlog too, and then close
    state.draining = True
    stopping = None if stop_other is None else asyncio.create_task(stop_other(settings.drain))
    end = loop.time() + settings.drain
    await _accept_waiting(loop, sock, accept, context)
    server.close()
    while connections and loop.time() < end:
        await asyncio.sleep(0.01)
    for connection in list(connections):
        connection.end()
    for task in tasks:
        task.cancel()
    if stopping is not None:
        await stopping
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(engine.stop(), max(0.1, end - loop.time()))


def _listen_for_end(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Set by SIGTERM, by SIGINT, and in a worker by the end of the process that watches it: nobody starts it again then."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watcher = multiprocessing.parent_process()
    if watcher is not None:

        def stop_orphan() -> None:
            loop.remove_reader(watcher.sentinel)
            stop.set()

        loop.add_reader(watcher.sentinel, stop_orphan)
    return stop


async def _accept_waiting(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    accept: Callable[[], Connection],
    context: ssl.SSLContext | None,
) -> None:
    """Take those who have connected and wait in the backlog: closing the socket would reset them."""
    own = sock.dup()
    with own:
        while True:
            try:
                waiting, _ = own.accept()
            except OSError:
                return
            waiting.setblocking(False)
            await loop.connect_accepted_socket(accept, waiting, ssl=context)


async def _sweep(state: ServerState, connections: set[Connection]) -> None:
    ticks = 0
    while True:
        await asyncio.sleep(TICK)
        now = time.perf_counter()
        for connection in list(connections):
            connection.sweep(now, draining=state.draining)
        ticks += 1
        if ticks % 4 == 0:
            state.metrics.publish(waiting=state.engine.requests, ready=state.engine.ready and not state.draining)


async def _watch(engine: Engine, poll: float) -> None:
    while True:
        await asyncio.sleep(poll)
        await engine.refresh()


def write_log(line: dict[str, Any]) -> None:
    """A line of the access log on stdout."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def run(main: Any) -> None:
    """On uvloop: half the cost per request of asyncio's own loop."""
    import uvloop

    uvloop.run(main)
