"""The search on drawn tables of errors: what it ends at, against trying every choice there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from fcdeploy.search.ladder import (
    HEIGHT,
    RUNGS,
    Forms,
    NodeGroup,
    Objective,
    PathStep,
    Score,
    apply_moves,
    choose_best,
    climb_ladder,
    find_front,
    meets_bound,
    raise_nodes,
    take_back,
)  # fmt: skip

WEIGHTS, TENSOR = ("rounded", "wide", "float"), ("bytes", "wide", "float")


@dataclass
class Table:
    """A chain of layers: errors of each layer's weights and of the tensor behind it, and what better rounding leaves."""

    weights: Sequence[float]
    tensors: Sequence[float]
    left: Sequence[float]
    unit: float  # of error that is a point of drop; what is less than half of one drops nothing
    measured: int = 0

    @property
    def groups(self) -> list[NodeGroup]:
        layers = [str(i) for i in range(len(self.weights))]
        found = [NodeGroup(f"w{i}", "weights", (layer,), WEIGHTS) for i, layer in enumerate(layers)]
        pairs = itertools.pairwise(layers)
        return found + [NodeGroup(f"t{i}", "tensor", pair, TENSOR) for i, pair in enumerate(pairs)]

    def error(self, forms: Forms) -> float:
        """What is left: the weights' by their rung, a tensor's unless both its ends compute in float."""
        rungs = [forms.get(str(i), "int8") for i in range(len(self.weights))]
        keeps = [{"int8": 1.0, "rounded": left, "bytes": 1.0, "wide": 0.0, "float": 0.0} for left in self.left]
        total = sum(e * keep[rung] for e, keep, rung in zip(self.weights, keeps, rungs, strict=True))
        out = [HEIGHT[rung] >= HEIGHT["bytes"] for rung in rungs]
        both = [a and b for a, b in itertools.pairwise(out)]
        return total + sum(e for e, gone in zip(self.tensors, both, strict=True) if not gone)

    def measure(self, forms: Forms) -> Score:
        self.measured += 1
        error = self.error(forms)
        return Score(float(math.floor(error / self.unit + 0.5)), error, self.cost(forms))

    def cost(self, forms: Forms) -> float:
        return float(sum(HEIGHT[rung] >= HEIGHT["bytes"] for rung in forms.values()))

    def rank(self, forms: Forms, groups: Sequence[NodeGroup]) -> Mapping[str, float]:
        undone = {group.name: raise_nodes(forms, group.nodes, "float") for group in groups}
        whole = max(self.error(forms), 1e-300)
        return {name: 1 - self.error(each) / whole for name, each in undone.items()}

    def search(self, bound: float = 0.5, stop: Callable[[], bool] = lambda: False) -> list[PathStep]:
        judge = Objective(bound, self.rank, self.measure, self.cost, stop)
        path = climb_ladder(self.groups, judge)
        if meets_bound(path[-1].score, bound):
            path += take_back(self.groups, path, judge)
        return path


@st.composite
def tables(draw: st.DrawFn) -> Table:
    layers = draw(st.integers(2, 5))
    size = st.floats(0.0, 4.0)
    weights, left = ([draw(size) for _ in range(layers)], [draw(st.floats(0.0, 1.2)) for _ in range(layers)])
    return Table(weights, [draw(size) for _ in range(layers - 1)], left, draw(st.floats(0.5, 2.0)))


@given(tables())
def test_what_float_holds_is_held_at_the_end(table: Table) -> None:
    path = table.search()
    assert meets_bound(path[-1].score, 0.5)
    assert path[0].forms == {}
    assert table.cost(path[-1].forms) <= min(table.cost(step.forms) for step in path if meets_bound(step.score, 0.5))
    assert all(step.score == table.measure(step.forms) for step in path)


@given(tables())
def test_no_group_can_be_given_back_whole(table: Table) -> None:
    """Each group that left int8, with every node that no other one holds up, is needed."""
    path = table.search()
    forms = path[-1].forms
    last = {name: rung for step in path for name, rung in step.moved}
    up = {name for name, rung in last.items() if rung != "int8"}
    for group in table.groups:
        others = {node for other in table.groups if other.name in up - {group.name} for node in other.nodes}
        own = set(group.nodes) - others
        if group.name in up and own & set(forms):
            lower = {node: rung for node, rung in forms.items() if node not in own}
            assert not meets_bound(table.measure(lower), 0.5) or table.cost(lower) >= table.cost(forms)


@given(tables(), st.data())
def test_one_fragile_place_is_found_and_nothing_else_left_out(table: Table, data: st.DataObject) -> None:
    """All other errors together drop nothing; of every choice of layers the cheapest that holds is the one found."""
    layers = len(table.weights)
    table.weights, table.tensors = ([0.4 * table.unit / 10] * layers, [0.4 * table.unit / 10] * (layers - 1))
    table.left = [1.0] * layers
    of_weights = data.draw(st.booleans())
    place = data.draw(st.integers(0, layers - 1 if of_weights else layers - 2))
    errors = table.weights if of_weights else table.tensors
    errors[place] = data.draw(st.floats(2.0, 50.0)) * table.unit  # type: ignore[index]
    names = [str(i) for i in range(layers)]
    every = [set(some) for n in range(layers + 1) for some in itertools.combinations(names, n)]
    held = [some for some in every if meets_bound(table.measure(dict.fromkeys(some, "float")), 0.5)]
    found = {node for node, rung in table.search()[-1].forms.items() if HEIGHT[rung] >= HEIGHT["bytes"]}
    assert found == min(held, key=len) == ({names[place]} if of_weights else {names[place], names[place + 1]})


@given(tables())
def test_rounding_that_heals_leaves_nothing_out(table: Table) -> None:
    table.left = [0.0] * len(table.left)
    table.tensors = [0.0] * len(table.tensors)
    table.weights = [*table.weights[:2], *[0.0] * (len(table.weights) - 2)]  # more are taken several at a time
    last = table.search()[-1]
    assert table.cost(last.forms) == 0
    assert set(last.forms.values()) <= {"rounded"}


@given(tables(), st.integers(1, 12))
def test_stopped_early_it_has_measured_what_it_ends_at(table: Table, most: int) -> None:
    path = table.search(stop=lambda: table.measured >= most)
    assert table.measured <= most + 1
    best = choose_best(path, [], 0.5)
    assert best.score.drop == min(step.score.drop for step in path) or meets_bound(best.score, 0.5)


def test_what_was_rejected_is_taken_only_where_it_holds() -> None:
    """Of many trials the least drop may be chance: where none holds, the path decides."""
    path = [PathStep((), {}, Score(3.0, 0.5, 1.0)), PathStep((), {"a": "float"}, Score(2.0, 0.4, 2.0))]
    rejected = PathStep((), {"b": "float"}, Score(1.0, 0.6, 0.5))
    assert choose_best(path, [rejected], 0.5) is path[1]
    assert choose_best(path, [rejected], 1.0) is rejected


def test_noise_that_is_everywhere_takes_ever_larger_steps() -> None:
    """40 layers of which 38 have to go: one at a time would rank 38 times."""
    table = Table([1.0] * 40, [0.0] * 39, [1.0] * 40, 1.0)
    path = table.search(bound=2.0)
    assert [len(step.moved) for step in path[1:7]] == [1, 1, 2, 4, 8, 16]
    assert table.cost(path[-1].forms) == 38


def test_for_what_chance_explains_no_layer_leaves_int8() -> None:
    """Eleven points, of which no group has half: rounding is bettered, no more. For one that causes most, a layer goes."""
    table = Table([1.0] * 6, [1.0] * 5, [0.98] * 6, 1.0)
    sure = table.measure
    table.measure = lambda forms: replace(sure(forms), unsure=10.5)  # type: ignore[method-assign]
    path = table.search()
    assert [step.score.drop for step in path] == [11.0, 11.0]
    assert path[1].moved == tuple((f"w{i}", "rounded") for i in range(6))
    table.measure = lambda forms: replace(sure(forms), unsure=10.4)  # type: ignore[method-assign]
    assert meets_bound(table.search()[-1].score, 0.5)
    table = Table([0.01, 3.0, 0.01, 0.01], [0.01] * 3, [1.0] * 4, 1.0)
    sure = table.measure
    table.measure = lambda forms: replace(sure(forms), unsure=10.5)  # type: ignore[method-assign]
    assert table.search()[-1].forms == {"1": "wide"}


def test_a_group_that_costs_less_time_goes_first_among_equals() -> None:
    table = Table([1.0, 0.0, 1.2], [0.0, 0.0], [1.0] * 3, 1.0)
    slow = {"0": 1.0, "1": 1.0, "2": 5.0}
    judge = Objective(
        1.0, table.rank, table.measure, stop=lambda: False,
        cost=lambda forms: sum(slow[node] for node, rung in forms.items() if HEIGHT[rung] > 1),
    )  # fmt: skip
    path = climb_ladder(table.groups, judge)
    assert path[1].moved[0][0] == "w0"


def test_the_way_up_is_by_rungs_and_a_node_is_as_high_as_its_highest_group() -> None:
    groups = [NodeGroup("w", "weights", ("a",), WEIGHTS), NodeGroup("t", "tensor", ("a", "b"), TENSOR)]
    assert apply_moves(groups, {"w": "wide", "t": "bytes"}) == {"a": "wide", "b": "bytes"}
    assert apply_moves(groups, {"w": "int8"}) == {}
    assert raise_nodes({"a": "float"}, ("a", "b"), "rounded") == {"a": "float", "b": "rounded"}
    assert [HEIGHT[rung] for rung in RUNGS] == list(range(len(RUNGS)))


@given(
    st.dictionaries(st.integers(0, 9), st.tuples(st.sampled_from([0.5, 0.6, 0.7]), st.sampled_from([0.0, 1.0, 2.0])))
)
def test_the_front_holds_what_nothing_beats(points: dict[int, tuple[float, float]]) -> None:
    found = find_front(points)
    assert len({points[number] for number in found}) == len(found)
    for number, (time, drop) in points.items():
        beaten = any(other[0] <= time and other[1] <= drop and other != (time, drop) for other in points.values())
        assert ((time, drop) in {points[one] for one in found}) == (not beaten), number
