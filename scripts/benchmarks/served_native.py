"""`scripts/bench served-native`: CPU of an answer with native code and with onnxruntime, of the same bundle and in turn."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import click

import fcdeploy
from scripts.benchmarks.serve import Process, client, fcdeploy_server, quantized, request, result

NETWORKS = ("mlp", "resnet20")
CONNECTIONS = (1, 8)  # one after the other; and as many at once as the server puts into one run of onnxruntime
ENGINES = ("onnxruntime", "native")


def spend(server: Process, connections: int, data: bytes, seconds: float, folder: Path) -> float:
    """CPU microseconds of the server's process for one binary answer."""
    before = server.cpu()
    got = result(client(server.port, connections, seconds, data, folder))
    assert not got["failed"], got
    return 1e6 * (server.cpu() - before) / got["answers"]


def measure(name: str, seconds: float, rounds: int) -> dict[int, dict[str, list[float]]]:
    """CPU of an answer in each round, by connections and engine."""
    found: dict[int, dict[str, list[float]]] = {count: {engine: [] for engine in ENGINES} for count in CONNECTIONS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path, x = quantized(name, folder)
        library, bundle, data = folder / f"{name}.so", folder / f"{name}.fcd", request(name, x, "binary")
        fcdeploy.compile(path, output=library, data=folder / "x.npz", allow_float=True)
        fcdeploy.bundle(path, output=bundle, libraries=[library], data=folder / "x.npz")
        with fcdeploy_server(bundle) as usual, fcdeploy_server(bundle, "--engine", "native") as native:
            for _ in range(rounds):
                for count in CONNECTIONS:
                    for engine, server in zip(ENGINES, (usual, native), strict=True):
                        found[count][engine].append(spend(server, count, data, seconds, folder))
    return found


@click.command("served-native")
@click.option("--seconds", type=float, default=1.5, show_default=True, help="Time for each load.")
@click.option("--rounds", type=int, default=5, show_default=True)
def served_native(seconds: float, rounds: int) -> None:
    """CPU of a binary answer, onnxruntime and native code in turn."""
    for name in NETWORKS:
        for count, found in measure(name, seconds, rounds).items():
            usual, native = (statistics.median(found[engine]) for engine in ENGINES)
            ratio = statistics.median(own / other for other, own in zip(*found.values(), strict=True))
            click.echo(
                f"{name:10} {count} at once: onnxruntime {usual:6.0f} us, native {native:6.0f} us, ratio {ratio:.2f}"
            )
