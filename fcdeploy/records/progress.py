"""Progress of long work: libraries call it, the command line draws it."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[str, int, int | None], None]
"""Called with what is being done, how many steps are done, and how many there are (None: unknown)."""
