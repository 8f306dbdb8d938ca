"""Every fact has a probe, every answer of the installed onnxruntime is the table's, and the answer decides."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from conftest import fails
from fused_layers import WRONG
from networks import Net

from fcdeploy.graph.model import read_model
from fcdeploy.int8.planning.eligibility import why_ineligible
from fcdeploy.runtime.cpu import detect_target
from fcdeploy.runtime.probes import answers as probes
from fcdeploy.runtime.probes.ask import CRASHES, PROBES, ask, ask_apart
from fcdeploy.runtime.probes.qdq_graph import Probe, QdqGraph
from fcdeploy.tables.facts import FACTS, Fact
from fcdeploy.tables.observations import CHANGES, VERSIONS, WITH_VNNI, find_observed
from fcdeploy.tables.operators import NO_KERNEL, OPERATORS

HERE = ort.__version__
CPU = detect_target().name


def test_every_fact_has_a_probe() -> None:
    assert list(PROBES) != []
    assert set(PROBES) == set(FACTS)


HANDED_ON = {  # a name that the caller gave, or that a table has
    "answers.py: find_answer(name)", "eligibility.py: find_answer(fact)", "eligibility.py: holds(fact)",
    "repair.py: _fails(fact)", "trust.py: harms(suspect.fact)",
}  # fmt: skip


def test_every_fact_that_the_code_asks_for_has_a_probe() -> None:
    """By how the names begin that stand as such in its calls; others are looked up in a table."""
    where = {"holds": 0, "harms": 0, "find_answer": 0, "_computes": 0, "_fails": 0, "Suspect": 1}
    asked, others = set(), set()
    for file in (Path(__file__).parents[2] / "fcdeploy").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            called = call.func if isinstance(call, ast.Call) else None
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if isinstance(call, ast.Call) and name in where and len(call.args) > where[name]:
                given = call.args[where[name]]
                given = given.values[0] if isinstance(given, ast.JoinedStr) else given
                asked |= {given.value} if isinstance(given, ast.Constant) else set()
                others |= set() if isinstance(given, ast.Constant) else {f"{file.name}: {ast.unparse(call)}"}
    assert others == HANDED_ON
    assert len(asked) > 5
    assert [name for name in asked if not any(fact.startswith(name) for fact in FACTS)] == []


def test_every_operator_whose_kernel_counts_has_a_fact() -> None:
    for op, row in OPERATORS.items():
        if row.role in ("multiply", "integer") or row.why == NO_KERNEL:
            assert op in FACTS
        elif row.role == "passthrough":
            assert {f"{op}, on uint8", f"{op}, on int8"} <= set(FACTS)


def test_the_table_is_in_order() -> None:
    assert sorted(VERSIONS, key=lambda v: [int(part) for part in v.split(".")]) == list(VERSIONS)
    assert set(CHANGES) == set(FACTS)
    assert set(WITH_VNNI) <= set(FACTS)
    for changes in (*CHANGES.values(), *WITH_VNNI.values()):
        assert next(iter(changes)) == VERSIONS[0]
        assert set(changes) <= set(VERSIONS)


def test_what_is_expected_is_what_the_latest_answered() -> None:
    assert {name: (fact.expected, find_observed(name, VERSIONS[-1])) for name, fact in FACTS.items()} == {
        name: (fact.expected, fact.expected) for name, fact in FACTS.items()
    }


@pytest.mark.skipif(
    HERE not in VERSIONS or CPU not in ("x86-avx2", "x86-vnni"), reason="the table is of other versions or CPUs"
)
@pytest.mark.parametrize("name", FACTS)
def test_the_installed_runtime_answers_as_the_table_says(name: str) -> None:
    assert probes.find_answer(name) == find_observed(name, HERE, CPU)


def test_judging() -> None:
    """Against a model that computes something plain, and one that does not load."""

    def probe(expected: Any) -> Probe:
        g = QdqGraph()
        return g.probe(g.op("Neg", g.input(2, 3)), expected=expected)

    fact = Fact("any", "result", "right", "")
    x = dict(probe(None).feeds)["x0"]
    assert ask(fact, probe(None)) == "right"
    assert ask(fact, probe(-x)) == "right"
    assert ask(fact, probe(-x * 1.001)) == "rounded"
    assert ask(fact, probe(x)) == "wrong"
    assert ask(fact, Probe(b"none", {})) == "does not load"
    assert ask(Fact("any", "kernels", "float", ""), probe(None)) == "float"
    assert ask(Fact("any", "runs", "runs", ""), Probe(b"none", {})) == "does not load"


def test_a_probe_that_ends_its_process_crashes_and_the_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fcdeploy.runtime.probes.ask.CHILD",
        "import os, sys\nfor name in sys.stdin.read().split():\n"
        "    name == 'b' and os.abort()\n    print(name, 'fine', sep='\\t', flush=True)",
    )
    assert ask_apart(["a", "b", "c"]) == {"a": "fine", "b": CRASHES, "c": "fine"}


def test_a_process_that_cannot_ask_says_nothing_of_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcdeploy.runtime.probes.ask.CHILD", "import no_such_module")
    with fails("could not be asked, in a process of its own: ModuleNotFoundError: No module named 'no_such_module'"):
        ask_apart(["a", "b"])


def test_answers_are_kept_and_damage_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCDEPLOY_CACHE", str(tmp_path))
    asked: list[int] = []
    monkeypatch.setattr(probes, "ask_apart", lambda names: asked.append(len(names)) or dict.fromkeys(names, "said"))
    assert probes.find_answer("Conv") == "said"
    (file,) = (tmp_path / "probes").iterdir()
    assert asked == [len(FACTS)]
    for text, expected in ((json.dumps({"Conv": "kept"}), len(FACTS) - 1), ("{", len(FACTS)), ("[]", len(FACTS))):
        file.write_text(text)
        probes._collect_answers.cache_clear()
        probes.collect_answers()
        assert asked[-1] == expected
    probes._collect_answers.cache_clear()
    probes.collect_answers()
    assert len(asked) == 4
    probes._collect_answers.cache_clear()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the runtime answer otherwise."""

    def set_answers(changed: dict[str, str] | None = None) -> None:
        said = {name: fact.expected for name, fact in FACTS.items()} | (changed or {})
        monkeypatch.setattr(probes, "collect_answers", lambda: said)

    return set_answers


def test_a_version_never_seen_is_said(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = VERSIONS[-1]
    seen = {name: find_observed(name, latest, CPU) or fact.expected for name, fact in FACTS.items()}
    answering(seen)
    monkeypatch.setattr(probes, "read_versions", lambda: {"onnxruntime": latest})
    assert probes.describe_version() == ""
    monkeypatch.setattr(probes, "read_versions", lambda: {"onnxruntime": "99.1.0"})
    assert probes.describe_version() == (
        f"onnxruntime 99.1.0 is none of those looked at ({VERSIONS[0]} to {latest}): asked {len(FACTS)} questions, "
        f"it answers all as {latest} does"
    )
    answering(seen | {"Add": "float"})
    assert f"it answers 1 otherwise than {latest} (Add: float, was QLinearAdd)" in probes.describe_version()


def test_the_answer_decides_on_kernels(answering: Any, tmp_path: Path) -> None:
    """An operator without its kernel in this runtime stays float, whatever the table says of the version."""
    net = Net(0)
    x = net.input("x", 4, 6, 6)
    x = net.op("DepthToSpace", net.op("Add", x, x, name="add"), blocksize=2, name="move")
    net.output(
        net.op("AveragePool", x, kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1, count_include_pad=1, name="pool")
    )
    graph = read_model(net.save(tmp_path / "m.onnx")).graph
    add, move, pool = (node for node in graph if node.op_type != "Constant")
    why = lambda node: why_ineligible(node, OPERATORS[node.op_type])  # noqa: E731
    answering()
    assert (why(add), why(move)) == ("", "")
    assert "averages over what lies outside too" in why(pool)
    answering({"Add": "float", "AveragePool, ceil_mode counting pads": "right"})
    assert re.fullmatch(r"onnxruntime [\d.]+ has no integer kernel for it, as a probe shows", why(add))
    assert why(pool) == ""
    answering({"DepthToSpace, on int8": "does not load"})
    assert why(move).endswith("as a probe shows")


def test_the_answer_decides_on_traps(answering: Any) -> None:
    """A fusion that this runtime computes right is no reason to refuse."""
    from fcdeploy.runtime.trust import refuse_untrusted

    model, _, why = WRONG["gemm bias"]
    with fails(why):
        refuse_untrusted(model, "m.onnx")
    answering({"bias scale not the product, Gemm": "right"})
    assert refuse_untrusted(model, "m.onnx") == ()
