"""Names that converters joined from all that they fused."""

from __future__ import annotations

import numpy as np
from prepare_graphs import apply, graph, op

from fcdeploy.graph.nodes import name_of
from fcdeploy.prepare.passes.shorten_names import shorten_names

NAMES = {
    "w": "net/weight;net/conv",
    "y": "net/relu;net/conv;net/bias",
    "z": "net/relu;net/add",
    "out": "net/out;net/end",
}


def test_the_first_part_stays_and_names_stay_different() -> None:
    nodes = [op("Mul", f"x {NAMES['w']}", NAMES["y"]), op("Add", f"{NAMES['y']} one", NAMES["z"])]
    nodes.append(op("Mul", f"{NAMES['z']} {NAMES['y']}", NAMES["out"]))
    constants = {
        NAMES["w"]: np.full(4, 2, np.float32),
        "one": np.ones(4, np.float32),
        "net/weight": np.ones(4, np.float32),
    }
    nodes[0].name = nodes[1].name = ""  # named after what they write
    model = graph(nodes, {"x": ["n", 4]}, [NAMES["out"]], constants)
    assert apply(shorten_names, model).count == 6
    assert [name_of(node.outputs[0]) for node in model.graph] == ["net/relu", "net/relu.2", NAMES["out"]]
    assert set(model.graph.initializers) == {"net/weight", "net/weight.2", "one"}
    assert [node.name for node in model.graph] == ["Mul:net/relu", "Add:net/relu", "n_net/out"]
    assert apply(shorten_names, model).count == 0


def test_names_of_one_part_stay() -> None:
    nodes = [op("Relu", "x", ";y"), op("Relu", ";y", "z")]
    nodes[0].name = "a node"
    model = graph(nodes, {"x": ["n", 4]}, ["z"])
    assert apply(shorten_names, model).count == 0
