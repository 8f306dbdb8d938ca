"""Axes of any length, tried at lengths of their own: what works at the example's and twice that may work at no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

BATCH = "batch"


def list_lengths(lengths: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Lengths for axes of these names and lengths: odd ones, each other than its neighbours', smaller and larger ones.

    The batch stays 2.
    """
    axes = [name for name in lengths if name != BATCH]
    offsets = {
        name: 2 * place for place, name in enumerate(axes)
    }  # axes that are always equal would hide what mixes them
    fixed = {BATCH: 2} if BATCH in lengths else {}
    for numerator, denominator in ((1, 1), (1, 2), (4, 3), (2, 1)):
        made = {name: lengths[name] * numerator // denominator + 1 + offsets[name] for name in axes}
        yield {**fixed, **made}
