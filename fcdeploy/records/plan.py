"""The plan: what every node and tensor becomes, and why. The only thing that `rewrite` reads beside the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["int8", "moves", "absorbed", "float"]
"""int8: an integer kernel. moves: bytes are moved unchanged. absorbed: the clip of an integer kernel. float: as before."""


@dataclass(frozen=True)
class Range:
    """Both ends of what a tensor's integers must represent; 0 lies between them."""

    low: float
    high: float


@dataclass(frozen=True)
class QParams:
    """real = scale * (integer - zero_point). One scale for a tensor, or one for each index of `axis`."""

    dtype: str
    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Decision:
    """What a node becomes, and one sentence that says why."""

    node: str
    op: str
    kind: Kind
    why: str


@dataclass(frozen=True)
class Plan:
    """One row per node and per quantized tensor, activations and weights alike."""

    target: str
    nodes: tuple[Decision, ...]
    tensors: dict[str, QParams]
