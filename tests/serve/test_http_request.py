"""Heads and chunked bodies, byte by byte; `test_serve.py` has them on a socket."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcdeploy.serve.http_request import ChunkedBody
from fcdeploy.serve.refusal import RefusedError

NEXT = b"GET /v2 HTTP/1.1\r\n\r\n"
LINES = st.lists(st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"a", b"1\r\nx"]), max_size=6).map(b"".join)


def feed(parts: list[bytes]) -> tuple[bytes, bytes | None]:
    """The body, and what follows it, of the data in these parts."""
    chunked = ChunkedBody()
    for index, part in enumerate(parts):
        rest = chunked.feed(part)
        if rest is not None:
            return bytes(chunked.body), rest + b"".join(parts[index + 1 :])
    return bytes(chunked.body), None


@given(
    st.lists(LINES.filter(len), max_size=4),
    st.sampled_from([b"", b";a=b"]),
    st.sampled_from([b"", b"Trailer: a\r\n", b"A: 0\r\nB:\r\n"]),
    st.lists(st.integers(0, 120), max_size=8),
)
def test_a_chunked_body_is_the_same_however_it_arrives(
    chunks: list[bytes], extension: bytes, trailer: bytes, cuts: list[int]
) -> None:
    encoded = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    stream = encoded + b"0\r\n" + trailer + b"\r\n" + NEXT
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    parts = [stream[a:b] for a, b in itertools.pairwise(ends)]
    assert feed(parts) == (b"".join(chunks), NEXT)
    assert feed([stream[i : i + 1] for i in range(len(stream))]) == (b"".join(chunks), NEXT)


@pytest.mark.parametrize(
    "broken", [b"zz\r\n", b"-1\r\n", b"0x1\r\nx\r\n", b"2\r\n{}}}\r\n", b"f" * 20 + b"\r\n", b"1\nx\n0\n\n"]
)
def test_what_is_not_chunked_is_refused(broken: bytes) -> None:
    with pytest.raises(RefusedError, match="the chunked body is broken") as refused:
        feed([broken])
    assert refused.value.status == 400


@pytest.mark.parametrize("start", [b"1;", b"0\r\nTrailer: "])
def test_framing_without_end_is_refused(start: bytes) -> None:
    with pytest.raises(RefusedError, match="more than 4096 bytes around the chunks"):
        feed([start, *[b"a" * 1000] * 6])
