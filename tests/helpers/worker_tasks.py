"""Work for the processes of test_workers.py, which import this file: it needs nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

from fcdeploy.errors import FcdeployError


def counting(shard: int) -> Iterator[tuple[int, int]]:
    """Yield (shard, 0), (shard, 1), ... ; some shards go wrong on the way."""
    for i in range(3):
        yield shard, i
    if shard == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if shard == 14:
        raise FcdeployError("sample 3 has nan", "repair it")
    if shard == 15:
        raise ValueError("no such thing")
    if shard == 16:
        sys.stdout.write("user code prints what it likes\n")
    yield shard, os.getpid() != shard


def forever(_: int) -> Iterator[int]:
    while True:
        yield os.getpid()
        time.sleep(0.02)
