"""Which pairs of steps take turns: those that make the arena smaller."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.placing.layout import place
from fcdeploy.native.placing.strips import Pair, find_pairs
from fcdeploy.native.placing.work import Layout, Placed, list_arena
from fcdeploy.native.program.steps import Program


def place_by_turns(program: Program, *, in_place: bool = True) -> Layout:
    """The layout whose largest step needs least; with turns only where one needs more without them.

    As long as a pair is where most is needed, it takes turns if that is less; then the next one.
    """
    plain = layout = place(program, in_place=in_place)
    taken: list[Pair] = []
    left = find_pairs(program)
    while left:
        live = _add_up(layout)
        pair = next((each for each in left if _find_most(layout, live, each) == live.max()), None)
        if pair is None:
            break
        left.remove(pair)
        if any({pair.first, pair.then} & {each.first, each.then} for each in taken):
            continue
        tried = place(program, in_place=in_place, pairs=[*taken, pair])
        needed = _add_up(tried)
        if _find_most(tried, needed, pair) < live.max() and needed.max() <= live.max():
            layout, taken = tried, [*taken, pair]
    return layout if _add_up(layout).max() < _add_up(plain).max() else plain


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
