"""Offsets of buffers in one arena: those that are needed at the same time do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 200  # random orders that are tried where none of the fixed ones reaches the bound


@dataclass(frozen=True)
class Life:
    """Bytes that are needed from step `first` to step `last`, both included, at a multiple of `alignment`.

    Up to `end`, which may be further, anything may lie behind them, but within the arena.
    """

    nbytes: int
    first: int
    last: int
    alignment: int = 1
    end: int = 0


@dataclass(frozen=True)
class Memory:
    """Where each piece lies, how large the arena is, and the least that any plan needs: the largest sum at one step."""

    offsets: tuple[int, ...]
    nbytes: int
    bound: int


def plan_memory(lives: Sequence[Life]) -> Memory:
    """Place pieces one after the other, each at the lowest offset where nothing lies that lives when it does.

    Orders by size, by length of life and by size times length are tried, then random ones with a fixed seed; the best
    wins.  (Greedy by size: Pisarchyk and Lee, arXiv:2001.03288.)
    """
    sizes = [life.nbytes for life in lives]
    bound = _compute_bound(lives, sizes)
    filled = _compute_bound(lives, [_round_up(life.nbytes, life.alignment) for life in lives])
    indices = range(len(lives))
    length = [life.last - life.first + 1 for life in lives]
    orders = [
        sorted(indices, key=lambda i: (-sizes[i], lives[i].first)),
        sorted(indices, key=lambda i: (-length[i], -sizes[i])),
        sorted(indices, key=lambda i: (-sizes[i] * length[i], lives[i].first)),
        sorted(indices, key=lambda i: lives[i].first),
    ]
    beside = [[j for j in indices if lives[j].first <= life.last and life.first <= lives[j].last] for life in lives]
    best: tuple[int, list[int]] | None = None
    random = np.random.default_rng(0)
    for turn in range(len(orders) + ORDERS):
        if turn < len(orders):
            order = orders[turn]
        else:  # the largest first, but for noise
            noise = random.uniform(0.3, 1.0, len(lives))
            order = sorted(indices, key=lambda i: -sizes[i] * noise[i])
        offsets = _place(order, beside, lives)
        total = max((at + max(life.nbytes, life.end) for at, life in zip(offsets, lives, strict=True)), default=0)
        if best is None or total < best[0]:
            best = total, offsets
        if best[0] <= filled:  # with every piece filled up: what is less than that is luck
            break
    assert best is not None
    return Memory(tuple(best[1]), best[0], bound)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _place(order: Sequence[int], beside: Sequence[Sequence[int]], lives: Sequence[Life]) -> list[int]:
    """Offsets of pieces that are placed in this order; `beside` are those that live when each does."""
    offsets = [-1] * len(lives)
    for i in order:
        taken = sorted((offsets[j], offsets[j] + lives[j].nbytes) for j in beside[i] if offsets[j] >= 0)
        at = 0
        for begin, end in taken:
            if begin - at >= lives[i].nbytes:
                break
            at = max(at, _round_up(end, lives[i].alignment))
        offsets[i] = at
    return offsets


def _compute_bound(lives: Sequence[Life], sizes: Sequence[int]) -> int:
    """The largest sum of sizes that are needed at one step."""
    steps = {life.first for life in lives}
    return max(
        (sum(size for life, size in zip(lives, sizes, strict=True) if life.first <= at <= life.last) for at in steps),
        default=0,
    )
