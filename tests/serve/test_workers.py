"""Work on shards: here, in processes and on a real Ray the same is found; whatever goes wrong in a worker is named."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import HELPERS, fails
from servers import PATIENCE
from worker_tasks import counting

from fcdeploy.runtime.workers import open_pool

ROOT = Path(__file__).parents[2]


def found(**who: object) -> list[tuple[int, tuple[int, int]]]:
    with open_pool(**who) as team:  # type: ignore[arg-type]
        return sorted(team.run(counting, [5, 6]))


EXPECTED = sorted((index, (shard, i)) for index, shard in enumerate((5, 6)) for i in (0, 1, 2, True))


def test_here_and_in_processes_the_same_is_found() -> None:
    assert found() == found(workers=1) == EXPECTED
    assert found(workers=2) == EXPECTED


@pytest.mark.parametrize(
    ("shard", "message", "hint"),
    [
        (13, "worker 2 of 2 was killed by SIGKILL, perhaps for want of memory", "with fewer workers"),
        (14, "sample 3 has nan", "repair it"),
        (15, "a worker failed: ValueError: no such thing", "FCDEPLOY_DEBUG=1"),
    ],
)
def test_what_goes_wrong_in_a_process_is_named(shard: int, message: str, hint: str) -> None:
    with open_pool(2) as team, fails(message, hint):
        list(team.run(counting, [5, shard]))


def test_what_a_worker_prints_does_not_get_between(capfd: pytest.CaptureFixture[str]) -> None:
    with open_pool(2) as team:
        assert len(list(team.run(counting, [16, 5]))) == 8
    out, err = capfd.readouterr()
    assert out == ""
    assert "user code prints what it likes" in err


def test_another_kind_of_cluster_is_refused() -> None:
    with (
        fails("--cluster 'spark' is of no kind that is known, expected ray", "--cluster ray"),
        open_pool(cluster="spark"),
    ):
        pass


@pytest.mark.parametrize(
    ("who", "most"),
    [
        ({"workers": 0}, 256),
        ({"workers": -1}, 256),
        ({"workers": 10**9}, 256),
        ({"workers": 257, "cluster": "ray"}, 256),
        ({"workers": 10_001, "cluster": "ray:127.0.0.1:6379"}, 10_000),
    ],
)
def test_numbers_of_workers_that_make_no_sense(who: dict[str, Any], most: int) -> None:
    with (
        fails(f"number of workers {who['workers']} is out of range, expected 1 to {most}", "--workers "),
        open_pool(**who),
    ):
        pass


@contextmanager
def answering(reply: bytes | None) -> Iterator[int]:
    """A port where each caller is told the same; None: nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.recv(100)
                if reply is None:
                    line.recv(100)  # until the caller has had enough
                else:
                    line.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(20)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else answers there"),
        (b"", "something else answers there"),
        (None, "timed out"),
    ],
)
def test_something_else_at_the_address_of_a_cluster(
    reply: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("fcdeploy.runtime.workers.PATIENCE", 0.5)
    with (
        answering(reply) as port,
        fails(f"no Ray at 127.0.0.1:{port}: {why}", "ray start --head"),
        open_pool(cluster=f"ray:127.0.0.1:{port}"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "Ray's address '' is not of the form HOST:PORT"),
        ("nowhere", "Ray's address 'nowhere' is not of the form HOST:PORT"),
        (":6379", "Ray's address ':6379' is not of the form HOST:PORT"),
        ("host:99999", "Ray's address 'host:99999' is not of the form HOST:PORT"),
        ("127.0.0.1:1", "no Ray at 127.0.0.1:1: "),
    ],
)
def test_addresses_of_no_cluster(address: str, message: str) -> None:
    pytest.importorskip("ray")
    with fails(message), open_pool(cluster=f"ray:{address}"):
        pass


FOREVER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
sys.path.insert(0, {tests!r})
from fcdeploy.cli import main
from fcdeploy.runtime import workers
import worker_tasks
def run():
    with workers.open_pool(2) as team:
        for _, pid in team.run(worker_tasks.forever, [0, 1]):
            print(pid, flush=True)
try:
    run()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command(how: signal.Signals) -> None:
    code = FOREVER.format(tests=str(HELPERS))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    pids: set[int] = set()
    while len(pids) < 2:
        pids.add(int(process.stdout.readline()))
    process.send_signal(how)
    assert process.wait(PATIENCE) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    process.stdout.close()
    until = time.monotonic() + PATIENCE
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and nobody waited for does not."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
