"""The cheapest split of a graph into two sides, as a minimum cut.

Each node costs `left[i]` on the left side and `right[i]` on the right; each arc (i, j, c) costs c when i is left and j is
right.  Vladimir Kolmogorov and Ramin Zabih, "What Energy Functions Can Be Minimized via Graph Cuts?", IEEE TPAMI 26(2),
2004, section 4: such a sum has its minimum at a minimum s-t cut, found here by the shortest augmenting paths of Jack
Edmonds and Richard Karp, Journal of the ACM 19(2), 1972.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

SMALLEST = 1e-9  # residual capacity below this is rounding


def find_cheapest_split(
    left: Sequence[float], right: Sequence[float], arcs: Sequence[tuple[int, int, float]]
) -> tuple[list[bool], float]:
    """Find which nodes go left in the cheapest split, and what it costs.

    `left` and `right` may be infinite where a node must be on the other side.  Of equally cheap splits, the one with
    most nodes on the left is given.
    """
    count = len(left)
    source, sink = count, count + 1
    capacity: list[dict[int, float]] = [{} for _ in range(count + 2)]

    def add_arc(i: int, j: int, c: float) -> None:
        capacity[i][j] = capacity[i].get(j, 0.0) + c
        capacity[j].setdefault(i, 0.0)

    for i in range(count):
        add_arc(source, i, right[i])
        add_arc(i, sink, left[i])
    for i, j, c in arcs:
        if i != j:
            add_arc(i, j, c)
    cost = 0.0
    while path := _find_shortest_path(capacity, source, sink):
        flow = min(capacity[i][j] for i, j in path)
        if math.isinf(flow):
            raise ValueError("a node can be on neither side")
        cost += flow
        for i, j in path:
            capacity[i][j] -= flow
            capacity[j][i] += flow
    right_side = _find_nodes_reaching(capacity, sink)
    return [i not in right_side for i in range(count)], cost


def _find_shortest_path(capacity: list[dict[int, float]], source: int, sink: int) -> list[tuple[int, int]]:
    """The arcs of a shortest path with residual capacity, empty when there is none."""
    before: dict[int, int] = {source: source}
    queue = deque([source])
    while queue and sink not in before:
        i = queue.popleft()
        for j, space in capacity[i].items():
            if space > SMALLEST and j not in before:
                before[j] = i
                queue.append(j)
    path, j = [], sink
    while j in before and j != source:
        path.append((before[j], j))
        j = before[j]
    return path[::-1]


def _find_nodes_reaching(capacity: list[dict[int, float]], sink: int) -> set[int]:
    """The nodes from which the sink can still be reached: the smallest right side among the cheapest splits."""
    reaching, queue = {sink}, deque([sink])
    while queue:
        j = queue.popleft()
        for i in capacity[j]:
            if i not in reaching and capacity[i].get(j, 0.0) > SMALLEST:
                reaching.add(i)
                queue.append(i)
    return reaching
