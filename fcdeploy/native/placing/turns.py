"""Which pairs of steps take turns: those that make the arena smaller."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.placing.layout import place
from fcdeploy.native.placing.strips import Pair, find_pairs
from fcdeploy.native.placing.work import Layout, Placed, list_arena
from fcdeploy.native.program.steps import Program


def place_by_turns(program: Program, *, in_place: bool = True) -> Layout:
    """The layout whose largest step needs least; with turns only where one needs more without them.

    As long as pairs are where most is needed, they take turns if that is less: those that gain something together, so that a
    network of many equal layers is not placed anew for each; one by one where that does not go well.
    """
    plain = layout = place(program, in_place=in_place)
    taken: list[Pair] = []
    left = find_pairs(program)
    while left:
        live = _add_up(layout)
        largest = [pair for pair in left if _find_most(layout, live, pair) == live.max()]
        if not largest:
            break
        pairs, most = largest, live.max()
        while True:
            some = _leave_out_overlaps(taken, pairs)
            tried = place(program, in_place=in_place, pairs=[*taken, *some]) if some else layout
            needed = _add_up(tried)
            useless = [pair for pair in some if _find_most(tried, needed, pair) >= most]
            if needed.max() <= most and not useless:
                layout, taken = tried, [*taken, *some]
                break
            if len(pairs) == 1 or len(useless) == len(some):
                break
            pairs = [pair for pair in pairs if pair not in useless] if useless else pairs[:1]
        left = [pair for pair in left if pair not in pairs]
    return layout if _add_up(layout).max() < _add_up(plain).max() else plain


def _leave_out_overlaps(taken: Sequence[Pair], pairs: Sequence[Pair]) -> list[Pair]:
    """Of the pairs, in their order, those none of whose steps takes turns already."""
    some: list[Pair] = []
    for pair in pairs:
        if not any({pair.first, pair.then} & {each.first, each.then} for each in (*taken, *some)):
            some.append(pair)
    return some


def _add_up(layout: Layout) -> Array:
    """Bytes of the arena that each piece of work needs."""
    live = np.zeros(max(1, len(layout.work)), np.int64)
    for buffer in list_arena(layout.buffers):
        live[buffer.first : buffer.last + 1] += buffer.nbytes
    return live


def _find_most(layout: Layout, live: Array, pair: Pair) -> int:
    """What either step of a pair needs."""
    names: Collection[str] = {pair.between.name, pair.then.output.name}
    own = [n for n, work in enumerate(layout.work) if isinstance(work, Placed) and work.step.output.name in names]
    return int(live[own].max(initial=0))
