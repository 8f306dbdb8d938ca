"""What the options of `fcdeploy serve` say, as rows: seconds and bytes. Imports nothing that serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    max_bytes: int = 1 << 26
    seconds: float = 30.0


@dataclass(frozen=True)
class Settings:
    """The options of the command, checked."""

    source: Path
    limits: Limits
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    workers: int = 1
    threads: int = 1
    engine: str = "onnxruntime"
    max_batch: int | None = None
    max_delay: float = 0.0
    max_queue: int = 1024
    max_queue_bytes: int = 1 << 26
    queue_seconds: float = 30.0
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    access_log: bool = False
    poll: float = 1.0
    drain: float = 30.0


@dataclass(frozen=True)
class Worker:
    """One of several processes that share an address; `share` is the folder where they publish their figures."""

    index: int
    share: Path
