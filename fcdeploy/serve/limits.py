"""What clients may take of the server: the limits of HTTP and of the queue, in bytes and seconds. Imports nothing that serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one client may take: bytes of a body, of JSON in it and of a head, seconds for a whole request and between two."""

    body: int = 32 << 20
    json: int = 6 << 20
    head: int = 16 << 10
    read_seconds: float = 10.0
    idle_seconds: float = 75.0
    connections: int = 1024


@dataclass(frozen=True)
class QueueLimits:
    """What waits in front of a model: samples of a run, seconds it may wait to fill, requests, bytes, seconds of one.

    A `max_batch` of None is what runs in 2 ms, at most 16.
    """

    max_batch: int | None = None
    max_delay: float = 0.0
    max_requests: int = 1024
    max_bytes: int = 3 << 24
    seconds: float = 30.0
