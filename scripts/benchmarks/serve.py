"""`scripts/bench serve`: what the server costs beside one raw run, a bare ASGI server beside it, and what it survives."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime as ort
import orjson
from mutations import mutated
from onnx import TensorProto, helper, numpy_helper

import fcdeploy
from scripts.benchmarks.page import made_by, table, write_section
from scripts.checkout import FCDEPLOY

Array = np.ndarray[Any, Any]
HERE = Path(__file__).parent
ROUNDS = 5
LOADS = (("JSON", 8), ("binary", 8), ("binary", 64))
MEANING = """
Client and server run on the same {cores} cores: raw sockets, 8 or 64 connections, each sending its request again when the
answer is there. CPU is that of the server's process per answer, user and system, relative to the CPU of one raw batch-1
run with one thread, measured before and after each load; the median of {rounds} rounds of {seconds:g} s. Throughput is
relative to the raw loop's. The bare server is uvicorn, Starlette and orjson, without checks, metrics or batches.
"""


@dataclass(frozen=True)
class Process:
    """A server: its process and port."""

    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> float:
        """Seconds, user and system."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def pss_mb(self) -> float:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) / 1024


@contextmanager
def fcdeploy_server(source: Path, *options: str) -> Iterator[Process]:
    command = [FCDEPLOY, "serve", str(source), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    found = None
    for line in process.stderr:
        if found := re.search(r"serving on \S+:(\d+)", line):
            break
    assert found, "the server did not begin"
    try:
        yield Process(process, int(found[1]))
    finally:
        process.kill()
        process.communicate()


@contextmanager
def bare_server(model: Path) -> Iterator[Process]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "bare_server.py"), str(model), str(port)], text=True)
    try:
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield Process(process, port)
    finally:
        process.kill()
        process.wait()


def dense_net(random: np.random.Generator) -> onnx.ModelProto:
    """784-512-512-10."""
    sizes, nodes, weights, name = (784, 512, 512, 10), [], {}, "x"
    for i, (read, write) in enumerate(pairwise(sizes)):
        weights |= {f"w{i}": random.normal(size=(read, write)) * (1.6 / read) ** 0.5, f"b{i}": np.zeros(write)}
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"h{i}"], f"dense{i}"))
        name = f"h{i}"
        if write != 10:
            nodes.append(helper.make_node("Relu", [name], [f"r{i}"]))
            name = f"r{i}"
    return _model(nodes, weights, (784,), name)


def resnet20(random: np.random.Generator) -> onnx.ModelProto:
    """He et al., arXiv:1512.03385, section 4.2, with n = 3, batch normalization folded."""
    nodes: list[Any] = []
    weights: dict[str, Array] = {}

    def conv(x: str, read: int, write: int, kernel: int = 3, stride: int = 1) -> str:
        name = f"c{len(nodes)}"
        weights[f"{name}w"] = random.normal(size=(write, read, kernel, kernel)) * (1 / (read * kernel**2)) ** 0.5
        weights[f"{name}b"] = random.normal(size=write) * 0.1
        pads, strides = [kernel // 2] * 4, [stride, stride]
        nodes.append(helper.make_node("Conv", [x, f"{name}w", f"{name}b"], [name], name, pads=pads, strides=strides))
        return name

    def op(kind: str, *inputs: str) -> str:
        name = f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name))
        return name

    x, read = op("Relu", conv("x", 3, 16)), 16
    for write in (16, 32, 64):
        for block in range(3):
            stride = 2 if write > read and not block else 1
            shortcut = conv(x, read, write, 1, stride) if write > read else x
            x = op("Relu", op("Add", conv(op("Relu", conv(x, read, write, 3, stride)), write, write), shortcut))
            read = write
    weights |= {"w": random.normal(size=(64, 10)) * 0.2, "b": np.zeros(10)}
    return _model(nodes, weights, (3, 32, 32), op("Gemm", op("Flatten", op("GlobalAveragePool", x)), "w", "b"))


def _model(nodes: list[Any], weights: dict[str, Array], shape: tuple[int, ...], last: str) -> onnx.ModelProto:
    nodes[-1].output[0] = "y"
    assert last
    made = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", *s]) for n, s in (("x", shape), ("y", (10,)))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(name: str, folder: Path) -> tuple[Path, Array]:
    """The int8 form of a network with random weights, and one sample."""
    random = np.random.default_rng(0)
    model, shape = {"mlp": (dense_net, (784,)), "resnet20": (resnet20, (3, 32, 32))}[name]
    onnx.save(model(random), folder / f"{name}.float")
    x = random.normal(size=(32, *shape)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    path = folder / f"{name}.onnx"
    fcdeploy.quantize(
        folder / f"{name}.float", output=path, data=folder / "x.npz", effort="fast", costs="none", floor="none"
    )
    return path, x[:1]


def request(name: str, x: Array, kind: str) -> bytes:
    """As it goes over the wire."""
    tensor: dict[str, Any] = {"name": "x", "shape": list(x.shape), "datatype": "FP32"}
    if kind == "JSON":
        numbers = {"inputs": [{**tensor, "data": x.reshape(-1)}]}  # in the fewest digits that say them
        body, field = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY), ""
    else:
        tensor["parameters"] = {"binary_data_size": x.nbytes}
        outputs = [{"name": "y", "parameters": {"binary_data": True}}]
        header = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        body, field = header + x.tobytes(), f"Inference-Header-Content-Length: {len(header)}\r\n"
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: localhost\r\n{field}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def raw(path: Path, x: Array, seconds: float) -> tuple[float, float]:
    """CPU seconds and seconds of one run at batch 1."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(20):
        session.run(None, {"x": x})
    cpu, begun, count = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        session.run(None, {"x": x})
        count += 1
    return (time.process_time() - cpu) / count, (time.perf_counter() - begun) / count


def client(port: int, connections: int, seconds: float, data: bytes, folder: Path) -> subprocess.Popen[str]:
    file = folder / "request"
    file.write_bytes(data)
    words = [sys.executable, str(HERE / "client.py"), "127.0.0.1", str(port), str(connections), str(seconds)]
    return subprocess.Popen([*words, str(file)], stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, float]:
    out, _ = process.communicate()
    return dict(json.loads(out))


def costs(name: str, path: Path, x: Array, seconds: float, folder: Path) -> list[list[str]]:
    """A row a load: CPU and throughput relative to raw runs."""
    found: dict[tuple[str, str, int], list[tuple[float, float, float]]] = {}
    with fcdeploy_server(path) as ours, bare_server(path) as bare:
        servers = [("fcdeploy", ours, kind, count) for kind, count in LOADS] + [("bare ASGI server", bare, "JSON", 8)]
        for _ in range(ROUNDS):
            for label, server, kind, count in servers:
                raw_cpu, raw_seconds = raw(path, x, seconds / 4)
                before = server.cpu()
                got = result(client(server.port, count, seconds, request(name, x, kind), folder))
                assert not got["failed"], f"{label}: {got}"
                spent = (server.cpu() - before) / got["answers"]
                again_cpu, again_seconds = raw(path, x, seconds / 4)
                one, wall = (raw_cpu + again_cpu) / 2, (raw_seconds + again_seconds) / 2
                row = (spent / one, got["answers"] / got["seconds"] * wall, got["p99_ms"])
                found.setdefault((label, kind, count), []).append(row)
    rows = []
    for (label, kind, count), measured in found.items():
        cpu, throughput, p99 = (statistics.median(column) for column in zip(*measured, strict=True))
        rows.append([name, label, kind, str(count), f"{cpu:.2f}", f"{throughput:.2f}", f"{p99:.2f}"])
    return rows


def start(path: Path, x: Array) -> tuple[float, float]:
    """CPU seconds from the start of the command to the first answer, and idle megabytes (PSS) then."""
    with fcdeploy_server(path) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as stream:
            stream.sendall(request(path.stem, x, "JSON"))
            stream.recv(1 << 16)
        return server.cpu(), server.pss_mb()


def fuzz(path: Path, x: Array, count: int) -> str:
    """Mutated requests one after the other: statuses, requests without an answer in 5 s, growth."""
    goods = [request(path.stem, x[:, :784], kind) for kind in ("JSON", "binary")]
    statuses: Counter[str] = Counter()
    hangs = 0
    sizes = []
    with fcdeploy_server(path) as server:
        for seed in range(count):
            answer = b""
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as stream:
                try:
                    stream.sendall(mutated(goods[seed % 2], seed))
                    stream.shutdown(socket.SHUT_WR)
                    while data := stream.recv(1 << 16):
                        answer += data
                except TimeoutError:
                    hangs += 1
                except OSError:
                    pass
            statuses.update(status.decode() for status in re.findall(rb"HTTP/1\.1 (\d)\d\d ", answer))
            if seed in (count // 10, count // 2):
                sizes.append(server.pss_mb())
        early, late = (100 * (server.pss_mb() / size - 1) for size in sizes)
        assert server.process.poll() is None
    spread = ", ".join(f"{number:,} of {status}xx" for status, number in sorted(statuses.items()))
    growth = f"memory {early:+.1f} % after the first tenth, {late:+.1f} % in the second half"
    return f"{count:,} mutated requests: {spread}; {hangs} hangs; {growth}"


def reloads(path: Path, x: Array, count: int, folder: Path) -> str:
    """The model replaced again and again under load."""
    home = folder / "models"
    home.mkdir()
    served = Path(shutil.copy(path, home / path.name))
    with fcdeploy_server(home, "--poll", "0.02") as server:
        load = client(server.port, 8, 3600, request(path.stem, x, "binary"), folder)
        time.sleep(1)
        begun_with, content = server.pss_mb(), path.read_bytes()
        sizes = []
        for i in range(count):
            model = onnx.ModelProto.FromString(content)
            model.doc_string = str(i)
            aside = home / ".aside"
            aside.write_bytes(model.SerializeToString())
            aside.replace(served)
            wanted = i + 2
            while _loads(server) < wanted:
                time.sleep(0.01)
            sizes.append(server.pss_mb())
        server.process.send_signal(signal.SIGTERM)
        got = result(load)
        code = server.process.wait(20)
    grown = statistics.median(sizes[-20:]) / statistics.median(sizes[10:30]) - 1
    return (
        f"{count} reloads under load ({got['answers']:,} answers): {got['failed']} failed; memory {begun_with:.1f} MB, "
        f"{100 * grown:+.1f} % from the 20th to the last; then SIGTERM under load: {got['ended']} of 8 connections ended "
        f"after an answer, exit code {code}"
    )


def _loads(server: Process) -> int:
    with socket.create_connection(("127.0.0.1", server.port)) as stream:
        stream.sendall(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        page = b""
        while data := stream.recv(1 << 16):
            page += data
    found = re.search(rb"^fcdeploy_loads_total\S* (\d+)", page, re.MULTILINE)
    return int(found[1]) if found else 0


@click.command()
@click.option("--seconds", type=float, default=1.5, show_default=True, help="Time for each load.")
@click.option("--requests", type=int, default=10_000, show_default=True, help="Mutated requests.")
@click.option("--reloads", "count", type=int, default=200, show_default=True, help="Reloads under load.")
@click.option("--output", type=Path, default=Path("docs/benchmarks.md"), show_default=True, help="The page to write.")
def serve(seconds: float, requests: int, count: int, output: Path) -> None:
    """Serve a dense network and a ResNet-20 in int8, and write a table of what it costs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {network: quantized(network, folder) for network in ("mlp", "resnet20")}
        rows = [row for network, (path, x) in models.items() for row in costs(network, path, x, seconds, folder)]
        cpu, pss = start(*models["mlp"])
        lines = [
            f"From the start of the command to the first answer: {cpu:.2f} CPU seconds; idle then: {pss:.1f} MB (PSS).",
            fuzz(*models["mlp"], requests) + ".",
            reloads(*models["mlp"], count, folder) + ".",
        ]
    columns = ("network", "server", "body", "connections", "CPU", "throughput", "p99, ms")
    cores = len(os.sched_getaffinity(0))
    meaning = MEANING.format(cores=cores, rounds=ROUNDS, seconds=seconds)
    head = ["## Serving", "", made_by(f"scripts/bench serve --seconds {seconds:g}"), meaning]
    text = "\n".join([*head, table(columns, rows, 3), "", *(f"- {line}" for line in lines)])
    write_section(output, "serve", text)
    click.echo(text)
