"""What all connections of a server share, whatever protocol they speak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.metrics import Metrics


@dataclass(eq=False)
class ServerState:
    """The engine, its metrics, and what they may hold.

    `held` is the bytes of bodies that are coming in and of answers that clients have not read; with those of requests
    that wait or run, and of their answers, they are at most `max_held`.
    """

    engine: BatchingEngine
    metrics: Metrics
    max_body: int = 32 << 20
    max_json: int = 6 << 20
    max_held: int = 1 << 26
    log: Callable[[dict[str, Any]], None] | None = None
    draining: bool = False

    @property
    def held(self) -> int:
        return self.engine.held

    @held.setter
    def held(self, size: int) -> None:
        self.engine.held = size

    @property
    def ready(self) -> bool:
        """Whether requests are answered: models are loaded, and the server is not about to end."""
        return self.engine.ready and not self.draining

    def full(self) -> bool:
        return self.held + self.engine.bytes > self.max_held
