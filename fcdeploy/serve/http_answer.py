"""An answer on its way: its place in the order of answers, its bytes, and what the access log has of it."""

from __future__ import annotations

import time
from typing import Any

from fcdeploy.serve.http_request import END, RequestHead
from fcdeploy.serve.routes import Answer
from fcdeploy.serve.tensors import LARGE

LOGGED = 500  # letters of an address in the access log


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
