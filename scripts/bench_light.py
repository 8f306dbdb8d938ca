"""`scripts/bench light`: one connection that asks now and then, beside the bare runtime called at the same moments."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
from bench_client import whole
from bench_serve import fcdeploy_server, quantized, request

Array = np.ndarray[Any, Any]
RATE = 150.0  # requests a second
WARM = 50
NETWORKS = ("mlp", "resnet20")


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


def measure(name: str, seconds: float) -> tuple[Array, Array]:
    """Milliseconds of requests, and of runs of the bare runtime, the two taken in turn at RATE."""
    with tempfile.TemporaryDirectory() as folder:
        path, x = quantized(name, Path(folder))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        data, rows = request(name, x, "binary"), []
        with fcdeploy_server(path) as server, socket.create_connection(("127.0.0.1", server.port)) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begun = time.perf_counter()
            for turn in range(int(seconds * RATE)):
                time.sleep(max(begun + turn / RATE - time.perf_counter(), 0))
                first = time.perf_counter()
                ask(line, data)
                second = time.perf_counter()
                time.sleep(max(begun + (turn + 0.5) / RATE - second, 0))
                third = time.perf_counter()
                session.run(None, {"x": x})
                rows.append((second - first, time.perf_counter() - third))
    served, bare = 1000 * np.array(rows[WARM:]).T
    return served, bare


@click.command()
@click.option("--seconds", type=float, default=20.0, show_default=True, help="For each network.")
def light(seconds: float) -> None:
    """Milliseconds of a request and of a run, on one connection at a light load; nothing is written."""
    click.echo(f"{RATE:g} requests a second, {seconds:g} s each; load of the machine {os.getloadavg()[0]:.1f}")
    click.echo(f"{'network':10}{'served p50':>12}{'p99':>8}{'bare p50':>12}{'p99':>8}{'more, p50':>12}{'p99':>8}")
    for name in NETWORKS:
        served, bare = (np.percentile(times, (50, 99)) for times in measure(name, seconds))
        more = served - bare
        click.echo(
            f"{name:10}{served[0]:12.3f}{served[1]:8.2f}{bare[0]:12.3f}{bare[1]:8.2f}{more[0]:12.3f}{more[1]:8.2f}"
        )
