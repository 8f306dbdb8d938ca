"""A progress bar where IPython runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from fcdeploy.console import PATIENCE
from fcdeploy.records.progress import OnStep

EVERY = 0.2  # seconds between two pictures of a bar


def in_notebook() -> bool:
    """A kernel of Jupyter, whose output is HTML; a terminal that runs IPython is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def show_progress() -> Iterator[OnStep]:
    """Give a callback that draws one bar into the cell's output, once the work has taken a second; it goes at the end."""
    from IPython import display

    begun, drawn = time.monotonic(), 0.0
    shown: display.DisplayHandle | None = None

    def on_step(label: str, done: int, total: int | None) -> None:
        nonlocal shown, drawn
        now = time.monotonic()
        if now - begun < PATIENCE or now - drawn < EVERY:
            return
        drawn = now
        bar = f'<progress value="{done}" max="{total}"></progress> {done}/{total}' if total else f"{done}"
        picture = display.HTML(f"{escape(label)} {bar}")
        if shown is None:
            shown = display.display(picture, display_id=True)
        else:
            shown.update(picture)

    try:
        yield on_step
    finally:
        if shown is not None:
            shown.update(display.HTML(""))
