"""Memory that was freed goes back to the system, where the C library is glibc: it keeps large blocks otherwise."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from functools import cache

MMAP_THRESHOLD, LARGE_BLOCK = -3, 1 << 21  # M_MMAP_THRESHOLD of mallopt(3), bytes
TRIM_THRESHOLD, SPARE = (
    -1,
    1 << 24,
)  # M_TRIM_THRESHOLD, bytes: each picture would fetch again what the last one gave back


def return_large_blocks() -> None:
    """Have large blocks returned whenever they are freed, which glibc otherwise learns not to."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(TRIM_THRESHOLD, SPARE)


def trim_heap() -> None:
    """Return what large pictures have left free between blocks that are in use."""
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
