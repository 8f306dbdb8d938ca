"""The head of an HTTP request: parsed by llhttp (httptools), then remembered, because a client sends the same one again."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httptools

from fcdeploy.serve.refusal import RefusedError

END = b"\r\n\r\n"
MEMO = 512  # heads that are remembered, each of at most
MEMO_BYTES = 1024
CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "identity": "", "": ""}


@dataclass(frozen=True, slots=True)
class Route:
    """What is asked for: a row of the table below, and the model that the address names."""

    what: str
    name: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """All that a request says before its body. `header_length` is of the JSON in front of binary tensors, `kind` the body's
    Content-Type.

    `plain`: binary tensors for a model, and nothing beside that asks for more than the answer in one piece.
    """

    method: str
    path: str
    route: Route
    length: int
    chunked: bool
    keep_alive: bool
    old: bool
    header_length: int | None
    coding: str
    accepts: str
    expects: bool
    kind: str = ""
    plain: bool = False


OF_SERVER = {
    ("",): ("GET", "page"),
    ("v2",): ("GET", "server"),
    ("v2", "health", "live"): ("GET", "live"),
    ("v2", "health", "ready"): ("GET", "ready"),
    ("v2", "models"): ("GET", "models"),
    ("v2", "repository", "index"): ("POST", "index"),
    ("metrics",): ("GET", "metrics"),
}
OF_MODEL = {
    (): ("GET", "model"),
    ("ready",): ("GET", "model ready"),
    ("config",): ("GET", "config"),
    ("infer",): ("POST", "infer"),
}
"""Address (of a model that below v2/models/NAME or v2/models/NAME/versions/VERSION) -> method, and its name in `routes.py`."""

OPEN = {"live", "ready", "page"}  # answered without a token: whoever starts servers, and browsers, have none
CLASSIFY = ":classify"  # behind v1/models/NAME, or .../versions/VERSION


def find_route(method: str, target: str) -> Route:
    """Raises RefusedError 404, or 405 with what the address takes."""
    path = target.split("?", 1)[0]
    words = tuple(unquote(word) for word in path.strip("/").split("/"))
    name = version = ""
    row = OF_SERVER.get(words)
    if row is None and words[:2] == ("v2", "models") and len(words) > 2:
        name, words = words[2], words[3:]
        if words[:1] == ("versions",) and len(words) > 1:
            version, words = words[1], words[2:]
            if not version:
                raise RefusedError(404, f"{path[:200]!r} names no version")
        row = OF_MODEL.get(words)
    if words[:2] == ("v1", "models") and words[-1].endswith(CLASSIFY):
        words = (*words[2:-1], words[-1].removesuffix(CLASSIFY))
        if len(words) in (1, 3) and all(words) and words[1:2] in ((), ("versions",)):
            name, version, row = words[0], words[-1] if len(words) == 3 else "", ("POST", "classify")
    if row is None:
        raise RefusedError(
            404, f"nothing is at {path[:200]!r}, expected v2/models/NAME/infer or v1/models/NAME:classify"
        )
    if method not in (row[0], "HEAD" if row[0] == "GET" else ""):
        raise RefusedError(405, f"{method} {path[:200]}: expected {row[0]}")
    return Route(row[1], name, version)


class HeadParser:
    """Parses heads. With a token, all but health wants `Authorization: Bearer TOKEN`."""

    def __init__(self, token: bytes | None = None) -> None:
        self._token = token
        self._known: dict[bytes, RequestHead] = {}

    def read(self, text: bytes) -> RequestHead:
        """Raises RefusedError for anything that is no request for what is served here."""
        head = self._known.get(text)
        if head is None:
            head = self._parse(text)
            if len(text) <= MEMO_BYTES:
                if len(self._known) >= MEMO:
                    self._known.clear()
                self._known[text] = head
        return head

    def _parse(self, text: bytes) -> RequestHead:
        seen = _HeadCallbacks()
        parser = seen.parser = httptools.HttpRequestParser(seen)
        try:
            parser.feed_data(text)
        except httptools.HttpParserUpgrade:  # not offered, so the request is answered as it stands
            pass
        except httptools.HttpParserError as error:
            raise RefusedError(400, f"not an HTTP request: {str(error)[:100]}") from None
        method, fields = parser.get_method().decode(), seen.fields
        target = seen.target.decode("latin-1")
        chunked = b"transfer-encoding" in fields
        asked = find_route(method, target)
        if self._token is not None and asked.what not in OPEN and not self._is_authorized(fields):
            raise RefusedError(401, "this server wants a token, expected the header 'Authorization: Bearer TOKEN'")
        header_length = fields.get(b"inference-header-content-length")
        if header_length is not None and not (header_length.isdigit() and len(header_length) < 19):
            raise RefusedError(
                400, f"Inference-Header-Content-Length is {_quote(header_length)}, expected a number of bytes"
            )
        coding = fields.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        if coding not in CODINGS:
            raise RefusedError(415, f"Content-Encoding is {_quote(coding.encode())}, expected gzip or deflate")
        length = fields.get(b"content-length", b"0")
        old, accepts = parser.get_http_version() == "1.0", _choose_coding(fields.get(b"accept-encoding", b""))
        expects = fields.get(b"expect", b"").lower() == b"100-continue"
        unusual = chunked or old or accepts or expects or CODINGS[coding] or not seen.keep_alive
        return RequestHead(
            method, target, asked, int(length), chunked, seen.keep_alive, old,
            None if header_length is None else int(header_length), CODINGS[coding], accepts, expects,
            fields.get(b"content-type", b"").decode("latin-1"),
            plain=asked.what == "infer" and header_length is not None and not unusual,
        )  # fmt: skip

    def _is_authorized(self, fields: dict[bytes, bytes]) -> bool:
        scheme, _, given = fields.get(b"authorization", b"").partition(b" ")
        assert self._token is not None
        return hmac.compare_digest(given.strip(), self._token) and scheme.lower() == b"bearer"


class _HeadCallbacks:
    """What the parser calls."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: dict[bytes, bytes] = {}
        self.keep_alive = False
        self.parser: Any = None

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()


def _choose_coding(value: bytes) -> str:
    """gzip or deflate where the client takes it, in its order; codings with q=0 are refused ones."""
    for word in value.decode("latin-1").lower().split(","):
        coding, _, quality = word.partition(";")
        if coding.strip() in ("gzip", "deflate") and quality.replace(" ", "") not in (
            "q=0",
            "q=0.0",
            "q=0.00",
            "q=0.000",
        ):
            return coding.strip()
    return ""


def _quote(value: bytes) -> str:
    return repr(value[:40].decode("latin-1"))


class ChunkedBody:
    """A chunked body as it comes in (RFC 9112, section 7.1), decoded by llhttp. Extensions and trailers are read over.

    llhttp does not say where a message ends, and what follows is the next request.  But a chunked body ends with an empty
    line, so the parser gets pieces that end with one.
    """

    HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    CHUNKS = 1 << 16  # each costs calls of functions, and a client that sends one has at least a kilobyte to say
    FRAMING = 4096  # bytes of chunk lengths, extensions or trailers without a byte of the body between them

    def __init__(self) -> None:
        self.body = bytearray()
        self._framing = self._count = 0
        self._complete = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(self.HEAD)

    def on_body(self, part: bytes) -> None:
        self.body += part
        self._framing = 0

    def on_chunk_header(self) -> None:
        self._count += 1

    def on_message_complete(self) -> None:
        self._complete = True

    def feed(self, data: bytes) -> bytes | None:
        """What follows the body once it is complete, None before. Raises RefusedError 400."""
        self._framing += len(data)
        start = 0
        for stop in _piece_ends(data):
            try:
                self._parser.feed_data(data[start:stop])
            except httptools.HttpParserError as error:
                raise RefusedError(400, f"the chunked body is broken: {str(error)[:100]}") from None
            if self._complete:
                return data[stop:]
            start = stop
        if self._count > self.CHUNKS:
            raise RefusedError(413, f"a body of more than {self.CHUNKS} chunks, expected larger ones")
        if self._framing > self.FRAMING:
            raise RefusedError(
                400, f"more than {self.FRAMING} bytes around the chunks of the body, expected its next byte"
            )
        return None


def _piece_ends(data: bytes) -> Iterator[int]:
    """Where an empty line may end: after each of the first bytes, since it may have begun before, and behind those inside."""
    yield from range(1, min(len(END), len(data)))
    stop = 0
    while (end := data.find(END, stop)) >= 0:
        stop = end + len(END)
        yield stop
    yield len(data)
