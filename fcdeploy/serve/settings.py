"""What the options of `fcdeploy serve` say, as rows: seconds and bytes. Imports nothing that serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fcdeploy.serve.limits import Limits, QueueLimits


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
    max_queue: int = QueueLimits.max_requests
    max_queue_bytes: int = QueueLimits.max_bytes
    queue_seconds: float = QueueLimits.seconds
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    access_log: bool = False
    poll: float = 1.0
    drain: float = 30.0


@dataclass(frozen=True)
class Worker:
    """One of several processes that share an address; `share` is the folder where they publish their figures.

    One that is started again need not load all that lies there, but the `required` models, which the others serve.
    """

    index: int
    share: Path
    required: frozenset[str] | None = None
