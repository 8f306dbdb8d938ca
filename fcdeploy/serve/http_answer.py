"""Answers: how they begin, their parts, their place in the order of answers, their bytes, and what the access log has of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fcdeploy.serve.http_request import END, RequestHead
from fcdeploy.serve.refusal import RefusedError
from fcdeploy.serve.tensors import LARGE

LOGGED = 500  # letters of an address in the access log
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


def format_head(status: int, kind: str, *fields: tuple[str, object]) -> bytes:
    """How an answer begins, but for its length and what becomes of the connection."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"Content-Type: {kind}", *(f"{n}: {v}" for n, v in fields)]
    return "".join(f"{line}\r\n" for line in lines).encode()


JSON, BINARY = "application/json", "application/octet-stream"
PLAIN = {status: format_head(status, JSON) for status in REASONS}


@dataclass(slots=True)
class Answer:
    """A response: how it begins and the parts of its body; `notes` go to the access log.

    `whole` is a `lead` with the length and the end of the head, and with what the body begins with.
    """

    status: int
    parts: Sequence[bytes | memoryview]
    lead: bytes
    whole: bytes | None = None
    notes: dict[str, Any] | None = None

    def split(self) -> tuple[dict[str, str], list[bytes | memoryview]]:
        """The fields of the head and the parts of the body, of either form."""
        lead, parts = self.lead, list(self.parts)
        if self.whole is not None:
            lead, _, first = self.whole.partition(END)
            parts = [first, *parts]
        return dict(line.split(": ", 1) for line in lead.decode().splitlines()[1:]), parts


def make_json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(status, [orjson.dumps(value)], PLAIN[status])


def make_error_answer(refusal: RefusedError) -> Answer:
    start = PLAIN[refusal.status]
    if refusal.retry_after:
        start = format_head(refusal.status, JSON, ("Retry-After", refusal.retry_after))
    if refusal.status == 401:
        start = format_head(401, JSON, ("WWW-Authenticate", "Bearer"))
    return Answer(refusal.status, [orjson.dumps({"error": refusal.message})], start)


class PendingAnswer:
    """The place of a request's answer in the order of answers; with the `last` the connection ends."""

    __slots__ = ("answer", "begun", "head", "last", "size")

    def __init__(self, head: RequestHead | None, *, last: bool) -> None:
        self.head = head
        self.last = last
        self.begun = time.perf_counter()
        self.answer: list[bytes | memoryview] | None = None
        self.size = 0  # bytes of it, while it waits for its turn


def encode_answer(answer: Answer, pending_answer: PendingAnswer) -> list[bytes | memoryview]:
    """The answer as it goes over the wire: in one piece, but for large tensors, which are sent from where they lie."""
    head, parts = pending_answer.head, answer.parts
    if answer.whole is not None:
        lead = answer.whole
        if not pending_answer.last and head is not None and not head.old and len(parts) == 1 and len(parts[0]) <= LARGE:
            return [lead + parts[0]]
        if pending_answer.last:
            lead = lead.replace(END, b"\r\nConnection: close" + END, 1)
        elif head is not None and head.old:
            lead = lead.replace(END, b"\r\nConnection: keep-alive" + END, 1)
    else:
        lead = answer.lead + b"Content-Length: %d" % sum(map(len, parts))
        if pending_answer.last:
            lead += b"\r\nConnection: close"
        elif head is not None and head.old:
            lead += b"\r\nConnection: keep-alive"
        lead += END
        if head is not None and head.method == "HEAD":
            parts = ()
    if any(len(part) > LARGE for part in parts):
        return [lead, *parts]
    return [b"".join((lead, *parts))]


def make_log_entry(pending_answer: PendingAnswer, answer: Answer, transport: Any) -> dict[str, Any]:
    """What the access log has of a request."""
    peer = transport.get_extra_info("peername")
    head = pending_answer.head
    return {
        "time": round(time.time(), 6),
        "client": peer[0] if isinstance(peer, tuple) else "",
        "method": head.method if head else "",
        "path": head.path[:LOGGED] if head else "",
        "status": answer.status,
        "bytes": sum(map(len, answer.split()[1])),
        "seconds": round(time.perf_counter() - pending_answer.begun, 6),
        **(answer.notes or {}),
    }
