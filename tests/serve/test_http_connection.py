"""One connection that is sent more than it may have at a time: what is begun, put off, and answered, turn by turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from servers import wire

from fcdeploy.serve import http_connection
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.http_answer import PLAIN, Answer
from fcdeploy.serve.http_connection import IN_A_TURN, PIPELINED, Connection
from fcdeploy.serve.http_request import HeadParser
from fcdeploy.serve.limits import Limits
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.server_state import ServerState

GET = b"GET / HTTP/1.1\r\n\r\n"
HIGH = 64 << 10  # bytes unsent at which the loop's transports ask for a pause


class Transport:
    """What the connection does with a client who reads nothing until `drain`."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reading = True
        self.unsent = 0
        self.connection: Connection

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.unsent += len(data)
        if self.unsent > HIGH:
            self.connection.pause_writing()

    def drain(self) -> None:
        self.unsent = 0
        self.connection.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str) -> None:
        assert name == "sslcontext"

    def set_write_buffer_limits(self, high: int) -> None:
        """It keeps its own, as one with TLS does."""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.reading = False


def run(test: Callable[[Connection, Transport, ServerState], Any], tmp_path: Any) -> None:
    """The test, on a loop, with a connection and its transport."""

    async def main() -> None:
        metrics = Metrics()
        state = ServerState(BatchingEngine(tmp_path, observer=metrics), metrics)
        connection, transport = Connection(state, HeadParser(), Limits(), set()), Transport()
        transport.connection = connection
        connection.connection_made(transport)
        await test(connection, transport, state)

    asyncio.run(main())


def test_one_turn_begins_a_few_requests_and_a_client_who_does_not_read_gets_no_more(tmp_path: Any) -> None:
    async def test(connection: Connection, transport: Transport, state: ServerState) -> None:
        connection.data_received(GET * 1000)
        assert len(transport.written) == IN_A_TURN
        assert not transport.reading
        for _ in range(100):
            await asyncio.sleep(0)
        assert transport.unsent < HIGH + len(transport.written[0])
        assert 0 < state.held < HIGH + len(transport.written[0]) + 1000 * len(GET)
        while len(transport.written) < 1000:
            if transport.unsent > HIGH:
                transport.drain()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        transport.drain()
        assert (len(transport.written), transport.reading, state.held) == (1000, True, 0)

    run(test, tmp_path)


def test_chunked_requests_in_a_row_are_read_without_end(tmp_path: Any) -> None:
    one = b"POST /v2/repository/index HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

    async def test(connection: Connection, transport: Transport, state: ServerState) -> None:
        connection.data_received(one * 2000)
        while len(transport.written) < 2000:
            await asyncio.sleep(0)
            if transport.unsent > HIGH:
                transport.drain()
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in transport.written)
        assert state.held <= HIGH + len(transport.written[0])

    run(test, tmp_path)


@pytest.mark.parametrize("more", [1, PIPELINED, 3 * PIPELINED])
def test_answers_that_come_all_at_once_let_it_read_on(
    more: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind a slow one leave with it, however many they are."""
    slow: list[Callable[[Answer], None]] = []

    def answer(_: ServerState, head: Any, __: bytes, ___: float, send: Callable[[Answer], None]) -> None:
        slow.append(send) if head.method == "POST" else send(Answer(200, [b"{}"], PLAIN[200]))

    async def test(connection: Connection, transport: Transport, state: ServerState) -> None:
        connection.data_received(wire("/v2/models/m/infer", b"{}") + GET * more)
        for _ in range(more):
            await asyncio.sleep(0)
        assert transport.written == []
        slow[0](Answer(200, [b"slow"], PLAIN[200]))
        for _ in range(more + 2):
            await asyncio.sleep(0)
        written = b"".join(transport.written)
        assert written.index(b"slow") < written.index(b"{}")
        assert (written.count(b"HTTP/1.1 200"), transport.reading, state.held) == (more + 1, True, 0)

    with monkeypatch.context() as patch:
        patch.setattr(http_connection, "answer_request", answer)
        run(test, tmp_path)


def test_answers_whose_turn_comes_at_once_leave_at_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three is ready first, then the first: both leave, and the third is not waited for."""
    asked: list[Callable[[Answer], None]] = []

    async def test(connection: Connection, transport: Transport, _: ServerState) -> None:
        connection.data_received(GET * 3)
        while len(asked) < 3:
            await asyncio.sleep(0)
        for at, body in ((1, b"second"), (0, b"first")):
            asked[at](Answer(200, [body], PLAIN[200]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        written = b"".join(transport.written)
        assert 0 < written.index(b"first") < written.index(b"second")

    with monkeypatch.context() as patch:
        patch.setattr(http_connection, "answer_request", lambda *arguments: asked.append(arguments[-1]))
        run(test, tmp_path)
