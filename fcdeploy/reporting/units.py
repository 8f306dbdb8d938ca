"""Numbers for people: sizes, counts and shapes, in words and units."""

from __future__ import annotations

import math
from collections.abc import Sequence


def format_size(number: float) -> str:
    """Bytes for people: 512 B, 17.4 kB, 1.08 MB."""
    scaled, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    return f"{number:g} B" if units[0] == "B" else f"{scaled:.3g} {units[0]}"


def format_count(number: int | None) -> str:
    """A count for people: 9,216, 40.6 million."""
    if number is None:
        return "an unknown number of"
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"


def format_decibels(value: float, *, same: str = "identical", digits: int = 1) -> str:
    """A ratio of signal to noise for people: 31.2 dB, or that there is no noise."""
    return same if value == math.inf else f"{value:.{digits}f} dB"


def format_lengths(shape: Sequence[int | str | None]) -> str:
    """A shape for people: batch x 3 x 32 x 32, with ? for a length that is neither known nor named."""
    return " x ".join("?" if n is None else str(n) for n in shape) or "one number"
