"""Run in a process of its own, on a Ray that runs already: serves a folder, asks it, calibrates there; prints JSON."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import ray
from ray import serve
from servers import binary, tensor

from fcdeploy import cli
from fcdeploy.serve.ray_app import app


def ask(port: int, method: str, path: str, body: bytes | None = None, **fields: str) -> list[Any]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    client.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
    answer = client.getresponse()
    content, header = answer.read(), answer.getheader("Inference-Header-Content-Length")
    client.close()
    if header is None:
        return [answer.status, json.loads(content)]
    return [answer.status, json.loads(content[: int(header)]), np.frombuffer(content[int(header) :], "f4").tolist()]


def run(*words: str) -> list[Any]:
    """Exit code and messages of a command, on the Ray that this process has reached."""
    with redirect_stderr(StringIO()) as said, redirect_stdout(StringIO()):
        return [cli.main([*words, "--cluster", "ray"]), said.getvalue()]


def main(address: str, source: str) -> dict[str, Any]:
    """In the current folder lie net.onnx, data.npz, and spoilt.npz with a sample that is no number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(address=address, configure_logging=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    handle = serve.run(app({"source": source, "threads": "1"}))
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    body, fields = binary("x", x, "second_out")
    by_handle = handle.infer.remote("net", {"x": x}).result()
    return {
        "x": x.tolist(),
        "ready": ask(port, "GET", "/v2/health/ready"),
        "metadata": ask(port, "GET", "/v2/models/net"),
        "json": ask(port, "POST", "/v2/models/net/infer", json.dumps({"inputs": [tensor("x", x)]}).encode()),
        "binary": ask(port, "POST", "/v2/models/net/infer", body, **fields),
        "handle": {name: array.tolist() for name, array in by_handle.items()},
        "unknown": ask(port, "GET", "/v2/models/no"),
        "mistake": ask(port, "POST", "/v2/models/net/infer", b"{"),
        "calibrated": run("calibrate", "net.onnx", "--data", "data.npz", "-o", "there.calib", "--workers", "2"),
        "spoilt": run("calibrate", "net.onnx", "--data", "spoilt.npz", "-o", "no.calib"),
    }


if __name__ == "__main__":
    found = main(*sys.argv[1:])
    serve.shutdown()
    ray.shutdown()
    print(json.dumps(found))  # noqa: T201
