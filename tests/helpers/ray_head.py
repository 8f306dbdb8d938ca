"""A Ray that runs already: a head of its own on this machine, as `ray start` makes it, gone when the block ends."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def ray_head(cpus: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Its address, and the environment in which it is reached: nobody else has the token that it asks for.

    It is started in another folder than the current one, as on a machine that others look after.
    """
    port, client, agent = free_ports(3)
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets lie in it, whose paths must be short
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}",
        f"--num-cpus={cpus}", f"--temp-dir={folder}", "--include-dashboard=false", "--disable-usage-stats",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
        "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000",
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }  # fmt: skip
    log = Path(folder, "started.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd="/", stdout=out, stderr=out, env=environment, start_new_session=True
        )  # fmt: skip
    try:
        until = time.monotonic() + 300
        while b"Ray runtime started" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        shutil.rmtree(folder, ignore_errors=True)
