"""Run in a process of its own: starts Ray on this machine, serves a folder, asks over HTTP and by a handle, prints JSON."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from typing import Any

import numpy as np
import ray
from ray import serve
from servers import binary, tensor

from fcdeploy.serve.ray_app import app


def ask(port: int, method: str, path: str, body: bytes | None = None, **fields: str) -> list[Any]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
    answer = client.getresponse()
    content, header = answer.read(), answer.getheader("Inference-Header-Content-Length")
    client.close()
    if header is None:
        return [answer.status, json.loads(content)]
    return [answer.status, json.loads(content[: int(header)]), np.frombuffer(content[int(header) :], "f4").tolist()]


def main(source: str) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
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
    }


if __name__ == "__main__":
    found = main(sys.argv[1])
    serve.shutdown()
    ray.shutdown()
    print(json.dumps(found))  # noqa: T201
