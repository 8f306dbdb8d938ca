"""Servers of real processes for tests: `fcdeploy serve` on a free port of the loopback, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RUN = "import sys; from fcdeploy.cli import main; sys.exit(main())"
PATIENCE = 120.0  # seconds for what is to happen soon: on a busy machine it takes its time
DATATYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bool": "BOOL"}


@dataclass
class Reply:
    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Of a refusal: one line."""
        message = self.json["error"]
        assert set(self.json) == {"error"}
        assert "\n" not in message
        return str(message)


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    said: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None  # of standard error, until nobody can write there any more

    def ask(self, method: str, path: str, body: bytes | None = None, **fields: str) -> Reply:
        """One request on a connection of its own; underscores in field names are hyphens."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
            answer = client.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            client.close()

    def infer(self, model: str, value: Any, **fields: str) -> Reply:
        return self.ask("POST", f"/v2/models/{model}/infer", json.dumps(value).encode(), **fields)

    def alive_on_stderr(self) -> bool:
        """Whether a process of this server, whichever, still has its standard error open."""
        return self.reader is not None and self.reader.is_alive()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def cpu_and_pss(self) -> tuple[float, float]:
        """CPU seconds and megabytes of its own."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        pss = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert pss
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK"), int(pss[1]) / 1024


@contextmanager
def serving(source: Path, *options: str, command: Sequence[str] = (sys.executable, "-c", RUN)) -> Iterator[Server]:
    """A server that is ready; ended when the block ends."""
    arguments = [*command, "serve", str(source), "--port", "0", *options]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    server = Server(process, 0)
    assert process.stderr
    for line in process.stderr:
        server.said.append(line.rstrip())
        if found := re.search(r"serving on https?://\S+:(\d+)", line):
            server.port = int(found[1])
            break
    reader = threading.Thread(target=lambda: server.said.extend(line.rstrip() for line in process.stderr), daemon=True)  # type: ignore[union-attr]
    reader.start()
    server.reader = reader
    try:
        assert server.port, server.said
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
        if process.stdout:
            process.stdout.close()


def tensor(name: str, array: Array) -> dict[str, Any]:
    """As JSON."""
    datatype = DATATYPES.get(array.dtype.name, array.dtype.name.upper())
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.reshape(-1).tolist()}


def binary(name: str, array: Array, *outputs: str) -> tuple[bytes, dict[str, str]]:
    """A body with one binary tensor, and the field that goes with it; these outputs are wanted in binary."""
    described = {**tensor(name, array), "parameters": {"binary_data_size": array.nbytes}}
    del described["data"]
    request: dict[str, Any] = {"inputs": [described]}
    if outputs:
        request["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    header = json.dumps(request).encode()
    return header + array.tobytes(), {"Inference_Header_Content_Length": str(len(header))}


def wire(path: str, body: bytes, **fields: str) -> bytes:
    """A POST as it goes over the wire."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, f"Content-Length: {len(body)}"])
    return f"{head}\r\n\r\n".encode() + body


def read_command(pid: int) -> bytes:
    """What a process was started as; nothing where it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def counted(server: Server, line: str) -> float:
    """The figure behind a line of the metrics page."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", server.ask("GET", "/metrics").body.decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0
