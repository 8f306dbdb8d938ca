"""Time costs of a model's nodes on one CPU, in float and as integers: an input of the plan, kept so that it is repeatable."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from fcdeploy.errors import FcdeployError

SCHEMA = "fcdeploy.costs/2"


@dataclass(frozen=True)
class Rates:
    """Nanoseconds per element of what stands between float and integer nodes, and microseconds for each node at all."""

    quantize: float
    dequantize: float
    transpose: float
    node_us: float


@dataclass(frozen=True)
class Choice:
    """A choice of kernels: the nodes left in float, and the layers whose weights have one scale for all channels."""

    slow: tuple[str, ...] = ()
    one_scale: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimeTrial:
    """A choice that was run: its time relative to the float model with its 95 % interval.

    `sqnr_db` is its signal over error, where weights have one scale for all channels and it was therefore looked at.
    """

    choice: Choice
    ratio: float
    low: float
    high: float
    sqnr_db: float | None = None


@dataclass(frozen=True)
class Costs:
    """Node name -> (microseconds in float, microseconds as integers); `layers` are the layers and
    MatMuls of two activations that may be either.

    `trials` are the choices that were run against each other, fastest first, if any were.  `confirmed` are those that
    were then taken and run once more, against float alone: the last one stands.  `sqnr_db` is the signal over error
    of all integer kernels with a scale for each channel, where trials were held against it.  `engine` is what runs them.
    """

    model: str  # sha256 of the float model's file
    source: str  # the CPU and runtime it was measured on, or the table it was taken from
    rates: Rates
    nodes: dict[str, tuple[float, float]]
    layers: tuple[str, ...] = ()
    trials: tuple[TimeTrial, ...] = ()
    confirmed: tuple[TimeTrial, ...] = ()
    sqnr_db: float | None = None
    engine: str = "onnxruntime"

    @property
    def estimated(self) -> bool:
        """Whether they come from a table: nothing was run."""
        return not self.trials and not self.confirmed

    @property
    def hash(self) -> str:
        return hashlib.sha256(to_text(self).encode()).hexdigest()


def hash_choice(choice: Choice) -> str:
    """What a plan says of the costs it rests on: the decision, which is the same where the times were a little different."""
    return hashlib.sha256(json.dumps(asdict(choice)).encode()).hexdigest()


def to_text(costs: Costs) -> str:
    """The costs as a JSON document."""
    nodes = {name: (float(a), float(b)) for name, (a, b) in costs.nodes.items()}  # a whole number reads back as a float
    return json.dumps({"schema": SCHEMA, **asdict(replace(costs, nodes=nodes))}, indent=1)


def from_text(text: str, source: str) -> Costs:
    """Read costs; `source` is what to call them in an error. Raises FcdeployError."""
    hint = "fcdeploy quantize MODEL --int8 --data DATA -o OUT --costs NEW.json measures and writes them"
    try:
        data: dict[str, Any] = json.loads(text)
        if data.get("schema") != SCHEMA:
            raise FcdeployError(f"{source} has schema {data.get('schema')!r}, expected {SCHEMA!r}", hint)
        nodes = {str(name): (_parse_time(a), _parse_time(b)) for name, (a, b) in data["nodes"].items()}
        rates = Rates(**{name: _parse_time(rate) for name, rate in data["rates"].items()})
        trials, confirmed = (tuple(map(_parse_trial, data[key])) for key in ("trials", "confirmed"))
        layers, sqnr_db = tuple(map(str, data["layers"])), _parse_decibels(data["sqnr_db"])
        engine = str(data.get("engine", "onnxruntime"))
        return Costs(str(data["model"]), str(data["source"]), rates, nodes, layers, trials, confirmed, sqnr_db, engine)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise FcdeployError(f"{source} is not a file of costs: {error}", hint) from error


def _parse_trial(row: dict[str, Any]) -> TimeTrial:
    names = {key: tuple(map(str, row["choice"][key])) for key in ("slow", "one_scale")}
    ratio, low, high = (_parse_time(row[key]) for key in ("ratio", "low", "high"))
    return TimeTrial(Choice(**names), ratio, low, high, _parse_decibels(row["sqnr_db"]))


def _parse_decibels(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _parse_time(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is no time")
    return number
