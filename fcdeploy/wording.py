"""How counts are said."""

from __future__ import annotations


def say_count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 layer", "1,024 layers"; `plural` where an s does not make it."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
