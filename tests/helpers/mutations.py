"""Requests with something wrong: seeded changes of a good one, in its bytes or in its JSON, binary bodies included."""

from __future__ import annotations

import json
import random
from typing import Any

from scripts.robustness.fuzz_models import mutate_bytes

ODD: list[Any] = [None, True, -1, 0, 1.5, 1e39, 2**63, 2**80, "", "x", [], [[]], {}, [None], ["1"], {"a": 1}]
FIELDS = (
    b"Content-Length: 0", b"Content-Length: 99999999999", b"Content-Length: x", b"Transfer-Encoding: chunked",
    b"Inference-Header-Content-Length: 3", b"Inference-Header-Content-Length: 999999", b"Content-Encoding: gzip",
    b"Content-Encoding: br", b"Expect: 100-continue", b"Connection: close", b"Upgrade: h2c", b"A" * 5000 + b": b", b"\x00: \xff",
)  # fmt: skip


def mutated(good: bytes, seed: int) -> bytes:
    """One request, changed in one to three places; often its Content-Length is right again afterwards."""
    source = random.Random(seed)
    request = good
    for _ in range(source.randint(1, 3)):
        request = source.choice((mutate_bytes, mutate_bytes, _head, _json, _json, _cut))(request, source)
    return _measured(request) if source.random() < 0.7 else request


def _head(request: bytes, source: random.Random) -> bytes:
    """A header field more, or another method or address."""
    line, end, rest = request.partition(b"\r\n")
    if source.random() < 0.3:
        path = source.choice(
            (b"/v2/models/../../etc/infer", b"/v2/models/%00/infer", b"/", b"*", b"/v2//models", b"/metrics")
        )
        return source.choice((b"GET", b"PUT", b"POST", b"OPTIONS")) + b" " + path + b" HTTP/1.1" + end + rest
    return line + end + source.choice(FIELDS) + b"\r\n" + rest


def _json(request: bytes, source: random.Random) -> bytes:
    """One value somewhere in the JSON replaced by an odd one, or taken out."""
    head, end, body = request.partition(b"\r\n\r\n")
    try:
        text, length = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    except ValueError:
        return request
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = (
            list(value)
            if isinstance(value, dict)
            else list(range(min(len(value), 5)))
            if isinstance(value, list)
            else []
        )
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(text)
    if places:
        owner, key = source.choice(places)
        if source.random() < 0.8:
            owner[key] = source.choice(ODD)
        else:
            del owner[key]
    return head + end + json.dumps(text).encode() + body[length:]


def _cut(request: bytes, source: random.Random) -> bytes:
    return request[: source.randrange(len(request) or 1)]


def _measured(request: bytes) -> bytes:
    """With the Content-Length that its body has."""
    head, end, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + end + body if end else request
