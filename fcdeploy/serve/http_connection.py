"""HTTP/1.1 on a connection: keep-alive, pipelining, limits on what a client may send and how slowly.

Requests that arrived together are queued together, so they share a run; answers leave in the order of requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import Any

from fcdeploy.serve.at_once import answer_at_once
from fcdeploy.serve.http_answer import Answer, PendingAnswer, encode_answer, make_error_answer, make_log_entry
from fcdeploy.serve.http_request import END, ChunkedBody, HeadParser, RequestHead
from fcdeploy.serve.limits import Limits
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.routes import answer_request
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.tensors import LARGE

PIPELINED = 64  # requests of one connection that may wait for answers
IN_A_TURN = 4  # requests of one connection that are begun in a turn of the loop: then it is the turn of others
LINGER = 2.0  # seconds in which a refused client may still send; closing at once could destroy the answer on its way


class Connection(asyncio.Protocol):
    """One client. `state` is what all connections share."""

    def __init__(
        self, state: ServerState, head_parser: HeadParser, limits: Limits, connections: set[Connection]
    ) -> None:
        self._state, self._head_parser, self._limits = state, head_parser, limits
        self._connections = connections
        self._transport: Any = None
        self._partial_head = b""  # of a head that is not whole yet
        self._last_request: tuple[bytes, RequestHead, int] | None = (
            None  # the head before, as it came and as read; the request's length
        )
        self._head: RequestHead | None = None  # whose body is coming in
        self._body = bytearray()
        self._chunks: ChunkedBody | None = None
        self._unread = b""  # requests that have come and whose turn it is not yet
        self._paused = self._planned = False  # nothing is read from the client; it will be in the next turn
        self._eof = False  # the client's end came behind what is unread
        self._pending: deque[PendingAnswer] = deque()
        self._leaving: list[bytes | memoryview] = []  # answers that wait for those of this turn that come behind them
        self._request_started = 0.0  # the first byte of a request that is not whole; 0 between requests
        self._idle_since = time.perf_counter()  # when the last answer left
        self._blocked_since = 0.0  # since when the client does not read
        self._closing_since = 0.0  # since when nothing more is read
        self._asked = False  # a request has come
        self._ended = False  # the client's end came: close behind the answers, which say the same as without it
        self._buffered = 0  # bytes of the body that count among those of the server
        self._unsent = 0  # those of answers that were sent and not taken
        self._waiting = 0  # those of answers that wait for others before them

    # what the loop calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if transport.get_extra_info("sslcontext") is None:
            transport.set_write_buffer_limits(high=0)  # so that uvloop sends at once, and not at the end of a turn
        self._connections.add(self)
        if len(self._connections) > self._limits.connections:
            self._refuse(RefusedError(503, "too many connections, expected fewer", retry_after=1))

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._connections.discard(self)
        self._count_buffered(-self._buffered)
        self._count_waiting(-self._waiting)
        self._count_unsent(0)
        self._closing_since = self._closing_since or 1.0
        self._pending.clear()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._closing_since:
            return
        try:
            if self._unread:
                self._put_off(self._unread + data)
            elif self._head is None:
                if self._last_request is not None and not self._partial_head:
                    text, head, length = self._last_request
                    if len(data) == length and data.startswith(text):
                        self._start_again(head, data, len(text))
                        return
                if self._partial_head:
                    data, self._partial_head = self._partial_head + data, b""
                self._read_requests(data)
            else:
                self._read_body(data)
        except RefusedError as refusal:
            self._refuse(refusal)

    def eof_received(self) -> bool:
        """The client sends no more; what it sent is answered first."""
        if self._request_started and not self._closing_since:
            self._refuse(RefusedError(400, "the request ended early, expected more of it"))
        elif self._unread:
            self._eof = True
        elif self._pending:
            self._ended = True
            self._closing_since = time.perf_counter()
        return bool(self._pending or self._unread)

    def pause_writing(self) -> None:
        self._blocked_since = time.perf_counter()
        self._pause()

    def resume_writing(self) -> None:
        self._blocked_since = 0.0
        self._count_unsent(0)
        if self._transport is not None:
            self._plan_reading()

    # what the server calls

    def sweep(self, now: float, *, draining: bool) -> None:
        """Once in a while: end what takes too long."""
        limits = self._limits
        if self._transport is None:
            return
        if self._closing_since and not self._pending:
            if now - self._closing_since > LINGER:
                self._transport.abort()
        elif self._blocked_since and now - self._blocked_since > limits.read_seconds:
            self._transport.abort()
        elif self._request_started and now - self._request_started > limits.read_seconds:
            self._refuse(
                RefusedError(408, f"the request was not whole after {limits.read_seconds:g} s, expected it faster")
            )
        elif (
            not self._request_started
            and not self._pending
            and now - self._idle_since > (1.0 if draining else self._patience())
        ):
            self._transport.close()

    def _patience(self) -> float:
        """Seconds that may pass without a request: fewer until the first one has come."""
        limits = self._limits
        return limits.idle_seconds if self._asked else min(limits.idle_seconds, limits.read_seconds)

    def end(self) -> None:
        """Close, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    # reading

    def _read_requests(self, data: bytes) -> None:
        at = begun = 0
        while not self._closing_since:
            if (begun == IN_A_TURN or self._is_behind()) and at < len(data):
                self._put_off(data[at:])
                return
            while data.startswith(b"\r\n", at):  # an empty line in front of a request is let pass (RFC 9112, 2.2)
                at += 2
            end = data.find(END, at)
            if end < 0:
                if len(data) - at > self._limits.head:
                    raise RefusedError(431, f"the head of the request is longer than {self._limits.head} bytes")
                self._partial_head = data[at:] if at else data
                self._request_started = (self._request_started or time.perf_counter()) if self._partial_head else 0.0
                return
            if end + 4 - at > self._limits.head:
                raise RefusedError(431, f"the head of the request is longer than {self._limits.head} bytes")
            text = data[at : end + 4]
            head = self._head_parser.read(text)
            at = end + 4
            if head.length > self._limits.body:
                raise RefusedError(413, f"a body of {head.length} bytes, expected at most {self._limits.body}")
            if not head.chunked and len(data) - at >= head.length:
                body = data[at : at + head.length]
                at += head.length
                self._request_started = 0.0
                self._last_request = text, head, len(text) + head.length
                self._start_request(head, body)
                begun += 1
            else:
                self._head, self._body = head, bytearray()
                self._chunks = ChunkedBody() if head.chunked else None
                self._request_started = self._request_started or time.perf_counter()
                if head.expects and not self._pending and at == len(data):
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._read_body(data[at:])
                return

    def _read_body(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        self._count_buffered(len(data))
        if self._state.full():
            raise RefusedError(503, "too many bytes of requests are under way, expected fewer", retry_after=1)
        if self._chunks is not None:
            rest = self._chunks.feed(data)
            self._body = self._chunks.body
            if len(self._body) > self._limits.body:
                raise RefusedError(413, f"a body of more than {self._limits.body} bytes, expected at most that")
        else:
            missing = head.length - len(self._body)
            self._body += data[:missing]
            rest = data[missing:] if len(data) >= missing else None
        if rest is None:
            return
        body, self._body, self._head, self._chunks = self._body, bytearray(), None, None
        self._count_buffered(-self._buffered)
        self._request_started = 0.0
        self._start_request(head, body)
        if rest and not self._closing_since:
            self._put_off(rest)

    def _is_behind(self) -> bool:
        """The client has to take answers before more requests are begun."""
        return bool(self._blocked_since) or len(self._pending) > PIPELINED

    def _put_off(self, rest: bytes) -> None:
        """Leave these requests for the next turn of the loop, or until answers have left; nothing more is read till then."""
        self._count_buffered(len(rest) - self._buffered)
        if self._state.full():
            raise RefusedError(503, "too many bytes of requests are under way, expected fewer", retry_after=1)
        self._unread = rest
        self._pause()
        self._plan_reading()

    def _pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def _plan_reading(self) -> None:
        if self._paused and not self._planned and not self._is_behind():
            self._planned = True
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        """Begin what was put off, and read more when nothing of it is left."""
        self._planned = False
        if self._transport is None or self._is_behind():
            return
        data, self._unread, self._paused = self._unread, b"", False
        if data:
            self._count_buffered(-self._buffered)
            try:
                self._read_requests(data)
            except RefusedError as refusal:
                self._refuse(refusal)
        if self._transport is None or self._paused:
            return
        self._transport.resume_reading()
        if self._eof and not self._closing_since and not self.eof_received():
            self._transport.close()

    def _count_buffered(self, size: int) -> None:
        self._buffered += size
        self._state.held += size

    def _count_waiting(self, size: int) -> None:
        self._waiting += size
        self._state.held += size

    def _count_unsent(self, size: int) -> None:
        self._state.held += size - self._unsent
        self._unsent = size

    # answering

    def _start_request(self, head: RequestHead, body: bytes | bytearray) -> None:
        self._asked = True
        pending_answer = PendingAnswer(head, last=not head.keep_alive)
        self._pending.append(pending_answer)
        if pending_answer.last:
            self._closing_since = pending_answer.begun
        answer_request(self._state, head, body, pending_answer.begun, partial(self._complete, pending_answer))
        if len(self._pending) > PIPELINED and self._transport is not None:
            self._pause()

    def _start_again(self, head: RequestHead, data: bytes, start: int) -> None:
        """A request whose head is that of the last one, and whose body begins at `start`, alone in what came."""
        answer = None if self._pending or self._ended else answer_at_once(self._state, head, data, start)
        if answer is None:
            self._start_request(head, data[start:])
            return
        self._transport.write(answer)
        if self._blocked_since:
            self._count_unsent(self._transport.get_write_buffer_size())
        self._idle_since = time.perf_counter()

    def _refuse(self, refusal: RefusedError) -> None:
        """Answer what cannot be read further, after all that came before it."""
        self._request_started, self._partial_head, self._head, self._chunks = 0.0, b"", None, None
        self._unread, self._body = b"", bytearray()  # memory is given back now, not when the connection ends
        self._count_buffered(-self._buffered)
        pending_answer = PendingAnswer(None, last=True)
        self._closing_since = pending_answer.begun
        self._pending.append(pending_answer)
        self._state.metrics.count(("", ""), refusal.status)
        self._complete(pending_answer, make_error_answer(refusal))

    def _complete(self, pending_answer: PendingAnswer, answer: Answer) -> None:
        """Put an answer in its place, and send all whose turn it is."""
        if self._transport is None:
            return
        state, pending, planned = self._state, self._pending, bool(self._leaving)
        if state.draining and pending and pending[-1] is pending_answer and not self._unread:
            pending_answer.last = True
        pending_answer.answer = encode_answer(answer, pending_answer)
        if pending and pending[0] is not pending_answer:  # it waits behind others
            pending_answer.size = sum(map(len, pending_answer.answer))
            self._count_waiting(pending_answer.size)
        if state.log is not None:
            state.log(make_log_entry(pending_answer, answer, self._transport))
        while pending and (encoded := pending[0].answer) is not None:
            first = pending.popleft()
            if first.size:
                self._count_waiting(-first.size)
            if first.last:
                pending.clear()
                self._ended = True
            self._leaving += encoded
        if not pending:
            self._send()
        elif self._leaving and not planned:
            asyncio.get_running_loop().call_soon(self._send)
        if self._ended and not pending:
            self._hang_up()
            return
        self._idle_since = time.perf_counter()
        if len(pending) <= PIPELINED // 2:
            self._plan_reading()

    def _send(self) -> None:
        """What has its turn, in one piece."""
        leaving, self._leaving = self._leaving, []
        if not leaving or self._transport is None:
            return
        if len(leaving) == 1:
            self._transport.write(leaving[0])
        elif any(len(part) > LARGE for part in leaving):
            self._transport.writelines(leaving)
        else:
            self._transport.write(b"".join(leaving))
        if self._blocked_since:
            self._count_unsent(self._transport.get_write_buffer_size())

    def _hang_up(self) -> None:
        """The last answer is on its way: read on for a while, so that closing does not destroy it."""
        self._closing_since = time.perf_counter()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
