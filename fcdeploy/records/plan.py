"""The plan: what every node and tensor becomes, and why. The only thing that `rewrite` reads beside the graph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from fcdeploy.errors import FcdeployError
from fcdeploy.records.json_keys import check_keys

Kind = Literal[
    "int8", "int16", "passthrough", "fused", "reinterpreted", "blockwise", "dynamic", "weight_only", "float"
]  # fmt: skip
"""int8: an integer kernel. int16: between Q/DQ of 16 bits, which runs in float. passthrough: integers go through as
they are, or clipped. fused: a clip that is part of the integer kernel before it. reinterpreted: arithmetic with one number, by
reading the same integers with another scale and zero point; a HardSigmoid clips them. blockwise: a dense layer whose weights
have a scale a block, on float activations. dynamic: an integer kernel that finds the scale of its activations in every
run. weight_only: float, but for its weights in the file. float: as before."""

Rounding = Literal["nearest", "gptq"]
"""nearest: each weight of a layer by itself. gptq: so that their errors make up for each other on samples."""

Cause = Literal["", "time"]
"""time: left in float because integers are slower. Empty: by what kernels there are, or by what was asked for."""

Effort = Literal["", "fast", "balanced", "best"]
"""fast: nothing is run on samples. balanced: biases are corrected on them. best: and more was tried to come to the plan.
Empty: the plan does not say."""

LIMITS = {
    "uint8": (0, 255), "int4": (-8, 7), "int8": (-128, 127), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1),
}  # fmt: skip
"""The lowest and the highest integer of each type."""


@dataclass(frozen=True)
class Range:
    """Both ends of what a tensor's integers must represent; 0 lies between them."""

    low: float
    high: float


@dataclass(frozen=True)
class QParams:
    """real = scale * (integer - zero_point). One scale for a tensor, or one for each index of `axis`.

    With `block`, so many neighbours along a dense layer's inputs share a scale, output by output; those scales are found
    while the weights are rounded, and `scale` is empty.  With `pixels`, (step, lowest) of each channel of an input, real =
    lowest + step * (integer - zero_point); the layer that reads it has step and lowest in its weights, and scale is 1.
    """

    dtype: str
    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None
    why: str = ""
    block: int = 0
    pixels: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class NodeDecision:
    """What a node becomes, one sentence that says why, how the weights of an int8 layer are rounded, and what decided it."""

    node: str
    op: str
    kind: Kind
    why: str
    rounding: Rounding = "nearest"
    cause: Cause = ""


@dataclass(frozen=True)
class Plan:
    """One row per node and per quantized tensor, activations and weights alike.

    `costs` is the hash of the choice of kernels by time, empty where time was not weighed.  `weights` and
    `activations` are the types that were asked for, a row of tables/types.py.  `rescaled` are activations of the prepared
    model whose channels are divided by these factors, one a channel, before anything else is done (prepare/channels.py);
    `absorbed` are what is then taken off channels and added to the biases behind them (int8/refining/absorb.py).  Where it is
    `reconstructed`, weights and biases are then learnt together on samples (int8/refining/reconstruct.py).
    """

    target: str
    nodes: tuple[NodeDecision, ...]
    tensors: dict[str, QParams]
    costs: str = ""
    weights: str = "int8"
    activations: str = "int8"
    effort: Effort = ""
    rescaled: dict[str, tuple[float, ...]] = field(default_factory=dict)
    absorbed: dict[str, tuple[float, ...]] = field(default_factory=dict)
    reconstructed: bool = False

    @property
    def kinds(self) -> dict[str, Kind]:
        """Node -> what it becomes."""
        return {decision.node: decision.kind for decision in self.nodes}

    @property
    def gptq_nodes(self) -> set[str]:
        """Nodes whose weights are rounded so that their errors make up for each other."""
        return {decision.node for decision in self.nodes if decision.rounding == "gptq"}


SCHEMA, SCHEMA_1 = "fcdeploy.plan/2", "fcdeploy.plan/1"
WORDS_OF_1 = {
    "moves": "passthrough", "absorbed": "fused", "stored": "weight_only", "blocks": "blockwise", "compensated": "gptq",
}  # fmt: skip
"""Kinds and roundings as version 1 of the format has them, which differs in nothing else."""
KINDS, ROUNDINGS, CAUSES, EFFORTS = map(get_args, (Kind, Rounding, Cause, Effort))
OPTIONAL = {"why", "block", "pixels", "rounding", "cause"}
OPTIONAL_OF_PLAN = {"effort", "rescaled", "absorbed", "reconstructed"}
FACTORS = (2.0**-32, 2.0**32)  # of `rescaled`
DTYPES = tuple(LIMITS)
BLOCKS = (16, 32, 64, 128, 256)
LARGEST_SCALE = float(np.finfo(np.float32).max)


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON can say it; `from_json` reads it back, edited or not."""
    return {
        "schema": SCHEMA,
        "target": plan.target,
        "costs": plan.costs,
        "weights": plan.weights,
        "activations": plan.activations,
        **({"effort": plan.effort} if plan.effort else {}),
        **({"reconstructed": True} if plan.reconstructed else {}),
        **{key: {name: list(row) for name, row in rows.items()} for key, rows in _changes(plan).items() if rows},
        "nodes": [_node(decision) for decision in plan.nodes],
        "tensors": {name: _row(q) for name, q in plan.tensors.items()},
    }


def digest(plan: Plan, schema: str = SCHEMA) -> str:
    """sha256 of what the plan's JSON says, however it is laid out; with SCHEMA_1, of what version 1 said."""
    data = to_json(from_json(to_json(plan), "the plan"))
    if schema == SCHEMA_1:
        data = _translate(data, SCHEMA_1, {new: old for old, new in WORDS_OF_1.items()})
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_version_1(data: Any) -> bool:
    """Whether a plan was written before version 2: `from_json` reads it all the same."""
    return isinstance(data, dict) and (data.get("schema") == SCHEMA_1 or is_version_1(data.get("plan")))


def _translate(data: dict[str, Any], schema: str, words: Mapping[str, str]) -> dict[str, Any]:
    """The plan's JSON in the words of another version."""

    def translate(row: Any) -> Any:
        changed = {key: words.get(row[key], row[key]) for key in ("kind", "rounding") if isinstance(row.get(key), str)}
        return {**row, **changed}

    nodes = data.get("nodes")
    rows = [translate(row) if isinstance(row, dict) else row for row in nodes] if isinstance(nodes, list) else nodes
    return {**data, "schema": schema, **({} if nodes is None else {"nodes": rows})}


def _changes(plan: Plan) -> dict[str, dict[str, tuple[float, ...]]]:
    """What is done to the float model first."""
    return {"rescaled": plan.rescaled, "absorbed": plan.absorbed}


def _node(decision: NodeDecision) -> dict[str, Any]:
    row = asdict(decision)
    if decision.rounding == "nearest":
        del row["rounding"]
    if not decision.cause:
        del row["cause"]
    return row


def _row(q: QParams) -> dict[str, Any]:
    row = asdict(q) | {"scale": list(q.scale), "pixels": [list(grid) for grid in q.pixels]}
    if not q.pixels:
        del row["pixels"]
    if not q.block:
        del row["block"]
    return row


def from_json(data: Any, source: str) -> Plan:
    """Read a plan; `source` is what to call it in an error.

    Raises FcdeployError that names the row and what was expected there.
    """
    if isinstance(data, dict) and "plan" in data:  # what `quantize --dry-run --json` prints
        data = data["plan"]
    if is_version_1(data):
        data = _translate(data, SCHEMA, WORDS_OF_1)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise FcdeployError(f"{source} is no plan: its schema is not {SCHEMA!r}", HINT)
    keys = {"schema", "target", "costs", "weights", "activations", "nodes", "tensors"}
    check_keys(data, keys | OPTIONAL_OF_PLAN, source, HINT, optional=OPTIONAL_OF_PLAN)
    if type(reconstructed := data.get("reconstructed", False)) is not bool:
        raise FcdeployError(f"{source} has reconstructed {str(reconstructed)[:40]!r}, expected true or false", HINT)
    if (effort := data.get("effort", "")) not in EFFORTS:
        raise FcdeployError(f"{source} has effort {str(effort)[:40]!r}, expected {', '.join(EFFORTS[1:])}", HINT)
    if not isinstance(data["nodes"], list):
        raise FcdeployError(f"{source} has nodes {str(data['nodes'])[:40]!r}, expected a list", HINT)
    if not isinstance(data["tensors"], dict):
        raise FcdeployError(f"{source} has tensors {str(data['tensors'])[:40]!r}, expected an object", HINT)
    nodes = tuple(
        _decision(row, f"{source}, node {_name_row(row, number)}") for number, row in enumerate(data["nodes"])
    )
    tensors = {name: _qparams(row, f"{source}, tensor {name!r}") for name, row in data["tensors"].items()}
    return Plan(
        str(data["target"]), nodes, tensors, str(data["costs"]), str(data["weights"]), str(data["activations"]), effort,
        rescaled=_rows_of_numbers(data, "rescaled", FACTORS[0], source),
        absorbed=_rows_of_numbers(data, "absorbed", -FACTORS[1], source), reconstructed=reconstructed,
    )  # fmt: skip


HINT = "fcdeploy quantize MODEL --int8 --data DATA -o OUT --save-plan plan.json writes one to edit"


def _name_row(row: Any, number: int) -> str:
    """The name of a row's node, its number where it has none."""
    return repr(row["node"]) if isinstance(row, dict) and isinstance(row.get("node"), str) else str(number)


def _decision(row: Any, where: str) -> NodeDecision:
    check_keys(row, {"node", "op", "kind", "why", "rounding", "cause"}, where, HINT, optional=OPTIONAL)
    if row["kind"] not in KINDS:
        raise FcdeployError(f"{where} has kind {row['kind']!r}, expected {', '.join(KINDS)}", HINT)
    if (rounding := row.get("rounding", "nearest")) not in ROUNDINGS:
        raise FcdeployError(f"{where} has rounding {rounding!r}, expected {', '.join(ROUNDINGS)}", HINT)
    if (cause := row.get("cause", "")) not in CAUSES:
        raise FcdeployError(f"{where} has cause {cause!r}, expected {', '.join(CAUSES[1:])}", HINT)
    return NodeDecision(str(row["node"]), str(row["op"]), row["kind"], str(row.get("why", "")), rounding, cause)


def _rows_of_numbers(data: dict[str, Any], key: str, least: float, source: str) -> dict[str, tuple[float, ...]]:
    """One number a channel of each tensor. A bool is no number, NaN lies between nothing."""
    rows = data.get(key, {})
    if not isinstance(rows, dict):
        raise FcdeployError(f"{source} has {key} {str(rows)[:40]!r}, expected an object", HINT)
    for name, row in rows.items():
        if not isinstance(row, list) or not all(type(s) in (int, float) and least <= s <= FACTORS[1] for s in row):
            said = f"{source}, {key} tensor {name!r} has {str(row)[:40]!r}"
            raise FcdeployError(
                f"{said}, expected a list of numbers from {'2^-32' if least > 0 else '-2^32'} to 2^32", HINT
            )
    return {name: tuple(float(s) for s in row) for name, row in rows.items()}


def _qparams(row: Any, where: str) -> QParams:
    check_keys(row, {"dtype", "scale", "zero_point", "axis", "why", "block", "pixels"}, where, HINT, optional=OPTIONAL)
    dtype, scale, zero_point, axis = row["dtype"], row["scale"], row["zero_point"], row["axis"]
    if dtype not in DTYPES:
        raise FcdeployError(f"{where} has dtype {dtype!r}, expected {', '.join(DTYPES)}", HINT)
    if block := _block(row, where):
        return QParams(dtype, (), 0, axis, str(row.get("why", "")), block)
    numbers = isinstance(scale, list) and scale and all(type(s) in (int, float) for s in scale)
    if not numbers or not all(0 < s <= LARGEST_SCALE and np.float32(s) > 0 for s in scale):
        raise FcdeployError(f"{where} has scale {str(scale)[:40]!r}, expected a list of positive float32 numbers", HINT)
    if type(zero_point) is not int or not LIMITS[dtype][0] <= zero_point <= LIMITS[dtype][1]:
        raise FcdeployError(f"{where} has zero_point {zero_point!r}, expected an integer that {dtype} holds", HINT)
    if axis is not None and type(axis) is not int:
        raise FcdeployError(f"{where} has axis {axis!r}, expected an integer or null", HINT)
    if axis is None and len(scale) != 1:
        raise FcdeployError(f"{where} has {len(scale)} scales and no axis, expected one scale", HINT)
    grids = _pixels(row["pixels"], where) if "pixels" in row else ()
    why = str(row.get("why", ""))
    return QParams(dtype, tuple(float(np.float32(s)) for s in scale), zero_point, axis, why, pixels=grids)


def _block(row: Any, where: str) -> int:
    """Weights to a scale; 0 where a tensor, or a channel of it, has one."""
    block = row.get("block", 0)
    if type(block) is not int or block not in (0, *BLOCKS):
        raise FcdeployError(f"{where} has block {block!r}, expected 0 or {', '.join(map(str, BLOCKS))}", HINT)
    if block and (row["scale"] != [] or row["zero_point"] != 0):
        raise FcdeployError(
            f"{where} has blocks, whose scales are found later: expected scale [] and zero_point 0", HINT
        )
    return block


def _pixels(rows: Any, where: str) -> tuple[tuple[float, float], ...]:
    """(step, lowest) of each channel."""
    pairs = isinstance(rows, list) and all(isinstance(row, list) and len(row) == 2 for row in rows)
    if not pairs or not all(type(n) in (int, float) and abs(n) <= FACTORS[1] for row in rows for n in row):
        raise FcdeployError(f"{where} has pixels {str(rows)[:40]!r}, expected [step, lowest] for each channel", HINT)
    if not all(step >= FACTORS[0] for step, _ in rows):
        raise FcdeployError(f"{where} has pixels {str(rows)[:40]!r}, expected steps of at least 2^-32", HINT)
    return tuple((float(step), float(lowest)) for step, lowest in rows)
