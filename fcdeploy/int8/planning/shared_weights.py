"""Layers that have the same weight: a head run on several scales, the two halves of a pair, the steps of an unrolled cell.

Each stands in the graph with a copy of its own.  Rounded alike, the copies are stored once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable

import onnx_ir as ir

from fcdeploy.graph.nodes import constant_array, name_of
from fcdeploy.graph.stored_once import FIRST, hash_content


def group_by_weight(
    layers: Iterable[tuple[ir.Node, ir.Value]], describe: Callable[[ir.Node, ir.Value], Hashable]
) -> dict[str, tuple[ir.Node, ...]]:
    """Of each layer that has its weight in common with others, and what `describe` says of it, by name, all of them."""
    alike = defaultdict[Hashable, list[tuple[ir.Node, ir.Value]]](list)
    for node, weight in layers:
        array = constant_array(weight)
        alike[describe(node, weight), array.shape, array.dtype, array.flat[:FIRST].tobytes()].append((node, weight))

    groups = defaultdict[Hashable, list[ir.Node]](list)
    for place, likely in enumerate(alike.values()):
        for node, weight in likely if len(likely) > 1 else ():
            groups[place, hash_content(constant_array(weight))].append(node)
    return {name_of(node): tuple(nodes) for nodes in groups.values() if len(nodes) > 1 for node in nodes}
