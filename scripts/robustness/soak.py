"""Many requests, each with inputs of its own, to a server whose model is replaced meanwhile: see scripts/soak.

Every answer is compared, bit for bit, with that of a run of its own of the model as it was or as it became.
"""

from __future__ import annotations

import argparse
import re
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from small_models import dense

import fcdeploy
from scripts.benchmarks.client import whole
from scripts.benchmarks.serve import Process, fcdeploy_server, request

WIDTH, OUTPUTS = 5, 3  # numbers of an input and of an answer


Run = Callable[[np.ndarray], np.ndarray]
"""A sample to its answer."""


def make_models(folder: Path) -> list[tuple[Path, Run]]:
    """Two float models, each with what answers as it does."""
    paths = [dense(folder / f"{sigmoid}.onnx", OUTPUTS, sigmoid=sigmoid) for sigmoid in (False, True)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths]
    return [
        (path, lambda x, run=session.run: run(None, {"x": x})[0]) for path, session in zip(paths, sessions, strict=True)
    ]


def make_native_models(folder: Path) -> list[tuple[Path, Run]]:
    """The same two as bundles of int8 models with their libraries."""
    made: list[tuple[Path, Run]] = []
    data = folder / "x.npz"
    np.savez(data, x=np.random.default_rng(0).normal(size=(64, WIDTH)).astype(np.float32))
    for path, _ in make_models(folder):
        int8, library, bundle = (path.with_suffix(suffix) for suffix in (".int8.onnx", ".so", ".zip"))
        fcdeploy.quantize(path, output=int8, data=data, effort="fast", costs="none", floor="none")
        fcdeploy.compile(int8, output=library, data=data, allow_float=True)
        fcdeploy.bundle(int8, output=bundle, libraries=[library], data=data, name="m")
        model = fcdeploy.load_native(library)
        made.append((bundle, lambda x, run=model.run: run({"x": x})["y"]))
    return made


@dataclass
class Client:
    """A connection: what it has asked, and what has come of the answer."""

    line: socket.socket
    asked: np.ndarray = field(default_factory=lambda: np.zeros((1, WIDTH), np.float32))
    answer: bytes = b""
    wanted: int = 0


@dataclass
class Count:
    """Answers, those that were neither model's, and those that were refused."""

    answers: int = 0
    wrong: int = 0
    refused: int = 0


class Judge:
    """Answers beside those of both models, run alone."""

    def __init__(self, models: list[Run]) -> None:
        self._models = models
        self.by_model = [0] * len(models)

    def is_right(self, asked: np.ndarray, answered: bytes) -> bool:
        for at, run in enumerate(self._models):
            if run(asked).tobytes() == answered:
                self.by_model[at] += 1
                return True
        return False


def anonymous_mb(process: int) -> float:
    """Memory of its own: what it shares with others counts for less when they come, and more when they go."""
    found = re.search(r"^Anonymous:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def ask_all(server: Process, count: int, connections: int, judge: Judge, seed: int) -> Iterator[Count]:
    """Ask `count` times over all connections; yields after every answer."""
    draw = np.random.default_rng(seed)
    done, sent = Count(), 0
    template = request("m", np.zeros((1, WIDTH), np.float32), "binary")
    head = template[: -4 * WIDTH]
    drawn: list[np.ndarray] = []

    def send(client: Client) -> None:
        nonlocal sent
        if not drawn:
            drawn.extend(draw.normal(size=(4096, 1, WIDTH)).astype(np.float32))
        client.asked, client.answer, client.wanted = drawn.pop(), b"", 0
        client.line.sendall(head + client.asked.tobytes())
        sent += 1

    with selectors.DefaultSelector() as ready:
        for _ in range(connections):
            client = Client(socket.create_connection(("127.0.0.1", server.port)))
            client.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(client.line, selectors.EVENT_READ, client)
            send(client)
        while done.answers < count:
            for key, _ in ready.select():
                client = key.data
                piece = client.line.recv(1 << 16)
                if not piece:
                    raise SystemExit("error: the server closed a connection")
                client.answer += piece
                client.wanted = client.wanted or whole(client.answer)
                if client.wanted and len(client.answer) >= client.wanted:
                    done.answers += 1
                    if not client.answer.startswith(b"HTTP/1.1 200 "):
                        done.refused += 1
                    elif not judge.is_right(client.asked, client.answer[-4 * OUTPUTS :]):
                        done.wrong += 1
                    if sent < count:
                        send(client)
                    yield done


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--reload", type=float, default=0.0, metavar="SECONDS", help="replace the model that often")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--engine", choices=("onnxruntime", "native"), default="onnxruntime")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        native = options.engine == "native"
        made = make_native_models(folder) if native else make_models(folder)
        models, judge = [path for path, _ in made], Judge([run for _, run in made])
        (folder / "models").mkdir()
        served = shutil.copy(models[0], folder / "models" / f"m{models[0].suffix}")
        begun, sizes, reloads = time.monotonic(), list[float](), 0
        with fcdeploy_server(folder / "models", "--poll", "0.1", "--engine", options.engine) as server:
            replaced = begun
            for done in ask_all(server, options.requests, options.connections, judge, options.seed):
                if done.answers % max(options.requests // 100, 1) == 0:
                    sizes.append(anonymous_mb(server.process.pid))
                if options.reload and time.monotonic() - replaced > options.reload:
                    reloads, replaced = reloads + 1, time.monotonic()
                    aside = Path(shutil.copy(models[reloads % 2], folder / "models" / ".aside"))
                    aside.replace(served)
            taken = time.monotonic() - begun
    early, late = statistics.median(sizes[10:20]), statistics.median(sizes[-10:])
    growth = f"{early:.1f} MB in the second tenth, {late:.1f} in the last ({100 * (late / early - 1):+.1f} %)"
    shares = " and ".join(f"{share:,}" for share in judge.by_model)
    print(
        f"{done.answers:,} answers over {options.connections} connections in {taken:.0f} s, {reloads} replacements (by model: "
        f"{shares}): {done.wrong} wrong, {done.refused} refused; memory {growth}"
    )
    return int(done.wrong > 0 or done.refused > 0 or late > 1.03 * early)


if __name__ == "__main__":
    sys.exit(main())
