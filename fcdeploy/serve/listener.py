"""Taking connections: no more at a time than the limit, TLS handshakes included, and each of those within its time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sized
from contextlib import suppress

from fcdeploy.serve.http_connection import Connection
from fcdeploy.serve.limits import Limits

BACKLOG = 1024
AT_ONCE = 64  # connections that are taken in one turn of the loop
PAUSE = 0.1  # seconds until the next try when the system has no descriptors left


class Listener:
    """Takes connections from a socket as they come; those beyond the limit are answered or closed at once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        accept: Callable[[], Connection],
        limits: Limits,
        connections: Sized,
        context: ssl.SSLContext | None,
    ) -> None:
        self._loop, self._sock, self._accept, self._context = loop, sock, accept, context
        self._limits, self._connections = limits, connections
        # as many again are told that they are too many; with TLS nothing can be said before the handshake
        self._most = limits.connections if context is not None else 2 * limits.connections
        self._handshakes: set[asyncio.Task[None]] = set()
        sock.listen(BACKLOG)
        loop.add_reader(sock, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                taken, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptors, or a client that is gone: others wait in the backlog
                self._loop.remove_reader(self._sock)
                self._loop.call_later(PAUSE, self._resume)
                return
            if len(self._handshakes) + len(self._connections) >= self._most:
                taken.close()
                continue
            taken.setblocking(False)
            task = self._loop.create_task(self._connect(taken))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._take)

    async def _connect(self, taken: socket.socket) -> None:
        seconds = None if self._context is None else self._limits.read_seconds
        try:
            await self._loop.connect_accepted_socket(
                self._accept, taken, ssl=self._context, ssl_handshake_timeout=seconds
            )
        except (OSError, ssl.SSLError, TimeoutError):  # of the client's making
            taken.close()

    async def drain(self) -> None:
        """Take those who have connected and wait in the backlog: closing the socket would reset them. Then take no more."""
        self._take()
        self._loop.remove_reader(self._sock)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self._handshakes, return_exceptions=True), self._limits.read_seconds)
        self._sock.close()
