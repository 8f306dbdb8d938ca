"""Lines that are written beside the loop: where a disk is full or nobody reads a pipe, lines are lost and no answer waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

WAITING = 10_000  # lines that may wait to be written
LAST = 1.0  # seconds that those have when the server ends


class LineWriter:
    """Gives lines to `write` in a thread. `dropped` counts those that found too many waiting or could not be written."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.dropped = 0
        self._write = write
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Never waits and raises nothing."""
        if self._lines.qsize() >= WAITING:
            self.dropped += 1
        else:
            self._lines.put(line)

    def close(self) -> None:
        """Wait a moment for the last lines."""
        self._lines.put(None)
        self._thread.join(LAST)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(line)
            except (OSError, ValueError):  # a full disk, a pipe without a reader, a closed file
                self.dropped += 1


def write_stdout(line: str) -> None:
    """A line of the access log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
