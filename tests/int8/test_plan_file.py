"""A plan as JSON: back and forth, and what is said about an edit that cannot be meant."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st

from fcdeploy.commands.export import export
from fcdeploy.commands.quantize import quantize
from fcdeploy.errors import FcdeployError
from fcdeploy.int8.plan_file import refresh_reasons
from fcdeploy.records.plan import (
    CAUSES,
    DTYPES,
    EFFORTS,
    FACTORS,
    KINDS,
    LIMITS,
    ROUNDINGS,
    SCHEMA_1,
    NodeDecision,
    Plan,
    QParams,
    digest,
    from_json,
    is_version_1,
    to_json,
)
from fcdeploy.records.plan import HINT as FULL_HINT

HINT = "--save-plan plan.json"
GOOD: dict[str, Any] = {
    "schema": "fcdeploy.plan/2",
    "target": "portable",
    "costs": "c0ffee",
    "weights": "int8",
    "activations": "int8",
    "nodes": [
        {"node": "conv1", "op": "Conv", "kind": "int8", "why": "QLinearConv"},
        {"node": "tanh", "op": "Tanh", "kind": "float", "why": "no kernel"},
    ],
    "tensors": {
        "x": {"dtype": "uint8", "scale": [0.5], "zero_point": 3, "axis": None, "why": "input"},
        "w": {"dtype": "int8", "scale": [0.25, 0.125], "zero_point": 0, "axis": 0, "why": "per channel"},
    },
}


def edited(*path: Any, to: Any = None, drop: bool = False) -> dict[str, Any]:
    """The good plan with one entry replaced or dropped."""
    plan = copy.deepcopy(GOOD)
    *parents, last = path
    place: Any = plan
    for key in parents:
        place = place[key]
    if drop:
        del place[last]
    else:
        place[last] = to
    return plan


def test_the_format_is_this() -> None:
    plan = Plan(
        "portable",
        (NodeDecision("conv1", "Conv", "int8", "QLinearConv"), NodeDecision("tanh", "Tanh", "float", "no kernel")),
        {
            "x": QParams("uint8", (0.5,), 3, None, "input"),
            "w": QParams("int8", (0.25, 0.125), 0, 0, "per channel"),
        },
        "c0ffee",
    )
    assert to_json(plan) == GOOD
    assert from_json(GOOD, "p") == plan
    assert from_json({"schema": "fcdeploy.quantize/1", "plan": GOOD}, "p") == plan  # what --dry-run --json prints


def test_what_is_done_on_samples_stands_in_it_only_where_it_is_done() -> None:
    plan = from_json(GOOD, "p")
    assert (plan.effort, plan.rescaled, plan.gptq_nodes) == ("", {}, set())
    more = edited("effort", to="best") | {"rescaled": {"x": [2, 0.3]}}
    more["nodes"][0]["rounding"] = "gptq"
    plan = from_json(more, "p")
    assert (plan.effort, plan.rescaled, plan.gptq_nodes) == ("best", {"x": (2.0, 0.3)}, {"conv1"})
    assert to_json(plan) == more


names = st.text(min_size=1, max_size=8)
scale = st.floats(2.0**-149, 2.0**127, width=32, allow_subnormal=True)


@st.composite
def qparams(draw: st.DrawFn) -> QParams:
    dtype = draw(st.sampled_from(DTYPES))
    low, high = LIMITS[dtype]
    axis = draw(st.none() | st.integers(0, 4))
    if block := draw(st.sampled_from([0, 0, 0, 16, 64, 256])):
        return QParams(dtype, (), 0, axis, draw(names), block)
    scales = draw(st.lists(scale, min_size=1, max_size=1 if axis is None else 4))
    return QParams(dtype, tuple(scales), draw(st.integers(low, high)), axis, draw(names))


plans = st.builds(
    Plan,
    names,
    st.lists(
        st.builds(
            NodeDecision,
            names,
            names,
            st.sampled_from(KINDS),
            names,
            st.sampled_from(ROUNDINGS),
            st.sampled_from(CAUSES),
        ),
        max_size=4,
    ).map(tuple),
    st.dictionaries(names, qparams(), max_size=4),
    effort=st.sampled_from(EFFORTS),
    rescaled=st.dictionaries(names, st.lists(st.floats(*FACTORS), max_size=3).map(tuple), max_size=2),
    absorbed=st.dictionaries(names, st.lists(st.floats(-FACTORS[1], FACTORS[1]), max_size=3).map(tuple), max_size=2),
)


@given(plans)
def test_a_plan_comes_back_from_its_json(plan) -> None:
    assert from_json(to_json(plan), "p") == plan
    back = from_json(json.loads(json.dumps(to_json(plan), allow_nan=False)), "p")
    assert back == plan
    assert list(back.tensors) == list(plan.tensors)


def test_scales_become_what_a_file_holds() -> None:
    assert from_json(edited("tensors", "x", "scale", to=[0.1]), "p").tensors["x"].scale == (float(np.float32(0.1)),)
    assert from_json(edited("tensors", "x", "scale", to=[2]), "p").tensors["x"].scale == (2.0,)


def test_what_the_user_changes_no_longer_gives_the_old_reason() -> None:
    """A node that was float by its time is not float by its kernels in the plan that is made without times."""
    slow = NodeDecision("slow", "Gemm", "weight_only", "slower as integers", cause="time")
    made = Plan("host", (NodeDecision("fast", "Gemm", "int8", "QGemm"), replace(slow, kind="int8", cause="")), {})
    kept = replace(made, nodes=(made.nodes[0], slow))
    assert refresh_reasons(kept, made) == kept
    edited_by_hand = replace(kept, nodes=(replace(made.nodes[0], kind="float"), replace(slow, kind="int8")))
    assert refresh_reasons(edited_by_hand, made).nodes == (
        NodeDecision("fast", "Gemm", "float", "float by the plan"),
        NodeDecision("slow", "Gemm", "int8", "int8 by the plan"),
    )


def test_version_1_is_read_in_the_words_of_version_2() -> None:
    """What it says is the same plan, and its digest is the one that models made by it carry."""
    words = {"moves": "passthrough", "absorbed": "fused", "stored": "weight_only", "blocks": "blockwise"}
    nodes = [{"node": f"n{i}", "op": "Relu", "kind": kind, "why": ""} for i, kind in enumerate((*words, "int8"))]
    nodes[-1]["rounding"] = "compensated"
    old = {**GOOD, "schema": "fcdeploy.plan/1", "nodes": nodes}
    plan = from_json({"plan": old}, "p")
    assert [decision.kind for decision in plan.nodes] == [*words.values(), "int8"]
    assert plan.gptq_nodes == {"n4"}
    assert (is_version_1(old), is_version_1({"plan": old}), is_version_1(to_json(plan))) == (True, True, False)
    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    assert digest(plan, SCHEMA_1) == hashlib.sha256(text.encode()).hexdigest() != digest(plan)


def test_reasons_may_be_left_out() -> None:
    assert from_json(edited("nodes", 0, "why", drop=True), "p").nodes[0].why == ""
    assert from_json(edited("tensors", "x", "why", drop=True), "p").tensors["x"].why == ""


@pytest.mark.parametrize(
    "data", [None, 3, [], "plan", {}, {"schema": "fcdeploy.plan/3"}, {"plan": 3}, {"plan": [GOOD]}]
)
def test_what_is_no_plan(data) -> None:
    with fails("plan.json is no plan: its schema is not 'fcdeploy.plan/2'", HINT):
        from_json(data, "plan.json")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (edited("extra", to=1), "p has the unknown key 'extra', expected absorbed, activations, costs, effort, "),
        (edited("weights", drop=True), "p has no 'weights'"),
        (edited("target", drop=True), "p has no 'target'"),
        (edited("nodes", drop=True), "p has no 'nodes'"),
        (edited("tensors", drop=True), "p has no 'tensors'"),
        (edited("nodes", to=None), "p has nodes 'None', expected a list"),
        (edited("nodes", to={"conv1": {}}), "p has nodes \"{'conv1': {}}\", expected a list"),
        (edited("nodes", to="conv1"), "p has nodes 'conv1', expected a list"),
        (edited("tensors", to=[]), "p has tensors '[]', expected an object"),
        (edited("tensors", to=7), "p has tensors '7', expected an object"),
        (edited("nodes", 1, to="tanh"), "p, node 1 is 'tanh', expected an object"),
        (
            edited("nodes", 1, "kin", to="int8"),
            "p, node 'tanh' has the unknown key 'kin', expected cause, kind, node, op, rounding, why",
        ),
        (edited("nodes", 0, "op", drop=True), "p, node 'conv1' has no 'op'"),
        (
            edited("nodes", 0, "kind", to="int4"),
            "p, node 'conv1' has kind 'int4', expected int8, int16, passthrough, fused, ",
        ),
        (edited("nodes", 0, "kind", to=["int8"]), "p, node 'conv1' has kind ['int8'], expected int8"),
        (edited("nodes", 0, "rounding", to="up"), "p, node 'conv1' has rounding 'up', expected nearest, gptq"),
        (edited("nodes", 0, "rounding", to=[]), "p, node 'conv1' has rounding [], expected nearest, gptq"),
        (edited("nodes", 1, "cause", to="speed"), "p, node 'tanh' has cause 'speed', expected time"),
        (edited("effort", to="most"), "p has effort 'most', expected fast, balanced, best"),
        (edited("effort", to=3), "p has effort '3', expected fast, balanced, best"),
        (edited("rescaled", to=[]), "p has rescaled '[]', expected an object"),
        (
            edited("rescaled", to={"x": 2}),
            "p, rescaled tensor 'x' has '2', expected a list of numbers from 2^-32 to 2^32",
        ),
        (edited("rescaled", to={"x": [0]}), "p, rescaled tensor 'x' has '[0]', expected a list of numbers"),
        (edited("rescaled", to={"x": [float("nan")]}), "p, rescaled tensor 'x' has '[nan]', expected a list"),
        (edited("rescaled", to={"x": [True]}), "p, rescaled tensor 'x' has '[True]', expected a list"),
        (
            edited("absorbed", to={"x": [1e12]}),
            "p, absorbed tensor 'x' has '[1000000000000.0]', expected a list of numbers from -2^32",
        ),
        (edited("tensors", "x", to=None), "p, tensor 'x' is None, expected an object"),
        (
            edited("tensors", "x", "zeropoint", to=0),
            "p, tensor 'x' has the unknown key 'zeropoint', expected axis, block, dtype, pixels, scale, why, zero_point",
        ),
        (edited("tensors", "x", "axis", drop=True), "p, tensor 'x' has no 'axis'"),
        (
            edited("tensors", "x", "dtype", to="int2"),
            "p, tensor 'x' has dtype 'int2', expected uint8, int4, int8, int16",
        ),
        (edited("tensors", "w", "block", to=48), "p, tensor 'w' has block 48, expected 0 or 16, 32, 64, 128, 256"),
        (edited("tensors", "w", "block", to=64.0), "p, tensor 'w' has block 64.0, expected 0 or 16"),
        (edited("tensors", "w", "block", to=64), "p, tensor 'w' has blocks, whose scales are found later"),
        (edited("tensors", "x", "zero_point", to=256), "has zero_point 256, expected an integer that uint8 holds"),
        (edited("tensors", "x", "zero_point", to=-1), "has zero_point -1, expected an integer that uint8 holds"),
        (edited("tensors", "w", "zero_point", to=128), "has zero_point 128, expected an integer that int8 holds"),
        (edited("tensors", "x", "zero_point", to=1.5), "has zero_point 1.5, expected an integer"),
        (edited("tensors", "x", "zero_point", to=True), "has zero_point True, expected an integer"),
        (edited("tensors", "w", "axis", to="0"), "p, tensor 'w' has axis '0', expected an integer or null"),
        (edited("tensors", "w", "axis", to=None), "p, tensor 'w' has 2 scales and no axis, expected one scale"),
    ],
)
def test_edits_that_cannot_be_meant(plan, message) -> None:
    with fails(message, HINT):
        from_json(plan, "p")


@pytest.mark.parametrize(
    "value",
    [
        0.5, [], "0.5", None, [None], ["0.5"], [True], [0], [-1.0], [0.5, 0.0], [float("nan")], [float("inf")],
        [1e-60], [1e39], [10**400], {"0": 1.0},
    ],
)  # fmt: skip
def test_scales_that_are_none(value) -> None:
    with fails(f"p, tensor 'w' has scale {str(value)[:40]!r}, expected a list of positive float32 numbers", HINT):
        from_json(edited("tensors", "w", "scale", to=value), "p")


def outcome(plan: Any) -> Plan | FcdeployError:
    try:
        return from_json(plan, "p")
    except FcdeployError as error:
        return error


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4,
), st.data())  # fmt: skip
def test_anything_anywhere_is_a_plan_or_an_error(value, data) -> None:
    paths = [
        ("target",),
        ("nodes",),
        ("tensors",),
        ("nodes", 0),
        ("tensors", "w"),
        ("effort",),
        ("rescaled",),
        ("absorbed",),
    ]
    paths += [("nodes", 0, "rounding"), ("nodes", 0, "cause")]
    paths += [("nodes", 0, key) for key in GOOD["nodes"][0]] + [("tensors", "w", key) for key in GOOD["tensors"]["w"]]
    plan = edited(*data.draw(st.sampled_from(paths)), to=value)
    found = outcome(plan)
    if isinstance(found, FcdeployError):
        assert "\n" not in found.message
        assert found.hint == FULL_HINT
    else:
        assert outcome(to_json(found)) == found


def test_the_plan_that_the_guide_shows_is_one(tmp_path: Path) -> None:
    """Key by key; of each table it shows rows that the real one has."""
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "guide.md").read_text()
    (shown,) = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", guide, re.S) if '"fcdeploy.plan/' in text]
    net, words = tmp_path / "dense.onnx", {"costs": "none", "dry_run": True, "target": "x86-avx2"}
    export(f"{root}/models/dense.py:dense", output=net, state=root / "models" / "dense.safetensors")
    made = quantize(net, data=root / "calib_data" / "digits64.calib.npz", **words).to_json()  # type: ignore[arg-type]
    plan = shown["plan"]
    assert shown["schema"] == made["schema"]
    assert list(plan) == list(made["plan"])
    assert plan["nodes"] == made["plan"]["nodes"][: len(plan["nodes"])]
    for name, row in plan["tensors"].items():
        real = made["plan"]["tensors"][name]
        assert {**row, "scale": None} == {**real, "scale": None}
        assert row["scale"] == pytest.approx(real["scale"], rel=1e-5)
    assert {key: plan[key] for key in ("target", "costs", "weights", "activations", "effort")} == {
        key: made["plan"][key] for key in ("target", "costs", "weights", "activations", "effort")
    }
