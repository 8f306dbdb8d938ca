"""How counts and names are said, and how paths are written into commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def say_count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 layer", "1,024 layers"; `plural` where an s does not make it."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def list_some(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first of many texts, and how many more there are: "a, b and 3 more"."""
    more = f"{';' if separator == '; ' else ''} and {len(texts) - most:,} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def shorten_name(name: str, letters: int = 48) -> str:
    """The ends of a long name of a node or tensor, more of its last letters, which tell it from others."""
    if len(name) <= letters:
        return name
    first = letters // 3
    return f"{name[:first]}…{name[first + 1 - letters :]}"


def quote_path(path: str | Path) -> str:
    """A path in a command that may be pasted into a shell: in quotes where it has spaces or the like."""
    return shlex.quote(str(path))
