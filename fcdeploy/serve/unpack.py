"""Bodies that come compressed, unpacked piece by piece: what a client claims is never there twice, nor beyond a limit."""

from __future__ import annotations

import zlib

from fcdeploy.serve.refusal import RefusedError

WINDOW = {"gzip": 31, "deflate": 15}  # zlib's name for the two
MEMBERS = 16  # of a body in gzip: one after the other is how logs and parallel packers write it
DEFLATE = 1032  # zlib's documented limit of how much one byte can expand to
PIECE = 1 << 18  # bytes that are unpacked at a time


def inflate(body: bytes | bytearray, coding: str, limit: int) -> bytearray:
    """Raises RefusedError for a body that is not so compressed (400), or that is larger than `limit` (413).

    gzip may have several members, one after the other (RFC 1952, 2.2).
    """
    given, out, at = memoryview(body), bytearray(), 0
    for _ in range(MEMBERS if coding == "gzip" else 1):
        at = _inflate_member(given, at, coding, out, limit)
        if at == len(given):
            return out
    raise RefusedError(400, f"the body is not whole {coding}, expected its end and at most {MEMBERS} members")


def _inflate_member(given: memoryview, at: int, coding: str, out: bytearray, limit: int) -> int:
    """Unpack what begins there to the end of `out`, piece by piece, so that it is never there twice; where it ends."""
    unpacker = zlib.decompressobj(WINDOW[coding])
    while not unpacker.eof:
        piece: bytes | memoryview = given[at : at + PIECE]
        if not piece:
            raise RefusedError(400, f"the body is not whole {coding}, expected its end")
        at += len(piece)
        while piece and not unpacker.eof:
            try:
                out += unpacker.decompress(piece, PIECE)
            except zlib.error:
                raise RefusedError(400, f"the body is not {coding}, expected what Content-Encoding says") from None
            piece = unpacker.unconsumed_tail
            if len(out) > limit:
                raise RefusedError(413, f"a body of more than {limit} bytes behind its {coding}, expected at most that")
    return at - len(unpacker.unused_data)
