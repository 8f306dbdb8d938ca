"""What the nodes of a model cost on one CPU, in float and as integers: an input of the plan, kept so that it can be repeated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from fcdeploy.errors import FcdeployError

SCHEMA = "fcdeploy.costs/1"


@dataclass(frozen=True)
class Rates:
    """Nanoseconds per element of what stands between float and integer nodes, and microseconds for each node at all."""

    quantize: float
    dequantize: float
    transpose: float
    node_us: float


@dataclass(frozen=True)
class Trial:
    """A split that was run: the nodes left in float, and its time relative to the float model with its 95 % interval."""

    slow: tuple[str, ...]
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Costs:
    """Node name -> (microseconds in float, microseconds as integers); trials, best first, when splits were run."""

    model: str  # sha256 of the float model's file
    source: str  # the CPU and runtime it was measured on, or the table it was taken from
    rates: Rates
    nodes: dict[str, tuple[float, float]]
    trials: tuple[Trial, ...] = field(default=())

    @property
    def hash(self) -> str:
        return hashlib.sha256(to_text(self).encode()).hexdigest()


def to_text(costs: Costs) -> str:
    """The costs as a JSON document."""
    return json.dumps({"schema": SCHEMA, **asdict(costs)}, indent=1)


def from_text(text: str, source: str) -> Costs:
    """Read costs; `source` is what to call them in an error. Raises FcdeployError."""
    hint = "fcdeploy quantize MODEL --int8 --data DATA -o OUT --costs NEW.json measures and writes them"
    try:
        data: dict[str, Any] = json.loads(text)
        if data.get("schema") != SCHEMA:
            raise FcdeployError(f"{source} has schema {data.get('schema')!r}, expected {SCHEMA!r}", hint)
        nodes = {str(name): (float(a), float(b)) for name, (a, b) in data["nodes"].items()}
        trials = tuple(
            Trial(tuple(map(str, t["slow"])), float(t["ratio"]), float(t["low"]), float(t["high"]))
            for t in data["trials"]
        )
        return Costs(str(data["model"]), str(data["source"]), Rates(**data["rates"]), nodes, trials)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FcdeployError(f"{source} is not a file of costs: {error}", hint) from error
