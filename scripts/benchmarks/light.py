"""`scripts/bench light`: one connection that asks now and then, beside the bare runtime called at the same moments."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort

from scripts.benchmarks.client import whole
from scripts.benchmarks.serve import fcdeploy_server, quantized, request

Array = np.ndarray[Any, Any]
RATE = 150.0  # requests a second
WARM = 50
NETWORKS = ("mlp", "resnet20")
LEAST = """
import asyncio, sys
import numpy as np, onnxruntime, uvloop
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
_, *shape = session.get_inputs()[0].shape
size = 4 * int(np.prod(shape))
class Least(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        outputs = session.run(None, {"x": np.frombuffer(data[-size:], np.float32).reshape(1, *shape)})
        answer = outputs[0].tobytes()
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(answer) + answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Least, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
uvloop.run(main())
"""
"""A server on the same loop that runs the model on the last bytes of what comes and looks at nothing: less no server in
Python can take."""


@contextmanager
def least_server(path: Path) -> Iterator[int]:
    """Its port."""
    with subprocess.Popen([sys.executable, "-c", LEAST, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def ask(line: socket.socket, data: bytes) -> None:
    """One request and its whole answer."""
    line.sendall(data)
    answer, wanted = b"", 0
    while not wanted or len(answer) < wanted:
        piece = line.recv(1 << 16)
        if not piece:
            raise SystemExit("error: the server closed the connection")
        answer += piece
        wanted = wanted or whole(answer)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"error: {answer[:200]!r}")


def measure(name: str, seconds: float) -> Array:
    """Milliseconds, a row each: of requests, of runs of the bare runtime, of the least server; taken in turn at RATE."""
    with tempfile.TemporaryDirectory() as folder:
        path, x = quantized(name, Path(folder))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        data, rows = request(name, x, "binary"), []
        with (
            fcdeploy_server(path) as server, socket.create_connection(("127.0.0.1", server.port)) as line,
            least_server(path) as port, socket.create_connection(("127.0.0.1", port)) as least,
        ):  # fmt: skip
            for each in (line, least):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kinds = (lambda: ask(line, data), lambda: session.run(None, {"x": x}), lambda: ask(least, data))
            begun = time.perf_counter()
            for turn in range(int(seconds * RATE)):
                row = []
                for at, kind in enumerate(kinds):
                    time.sleep(max(begun + (turn + at / len(kinds)) / RATE - time.perf_counter(), 0))
                    first = time.perf_counter()
                    kind()
                    row.append(time.perf_counter() - first)
                rows.append(row)
    return 1000 * np.array(rows[WARM:]).T


@click.command()
@click.option("--seconds", type=float, default=20.0, show_default=True, help="For each network.")
def light(seconds: float) -> None:
    """Milliseconds of a request and of a run, on one connection at a light load; nothing is written.

    On a busy machine run it as `chrt -f 20 scripts/bench light`: what others compute then takes no turns from it.
    """
    click.echo(f"{RATE:g} requests a second, {seconds:g} s each; load of the machine {os.getloadavg()[0]:.1f}")
    kinds = ("served", "bare", "least", "more", "least more")
    click.echo(f"{'network':10}" + "".join(f"{f'{kind} p50':>15}{'p99':>8}" for kind in kinds))
    for name in NETWORKS:
        served, bare, least = np.percentile(measure(name, seconds), (50, 99), axis=1).T
        rows = served, bare, least, served - bare, least - bare
        click.echo(f"{name:10}" + "".join(f"{a:15.3f}{b:8.2f}" for a, b in rows))
