"""`fcdeploy serve`."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import click

from fcdeploy import console
from fcdeploy.cli import options
from fcdeploy.errors import FcdeployError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SECONDS = click.FloatRange(min=0, min_open=True)


def parse_bytes(option: str, text: str) -> int:
    """`64M`: a whole number of bytes, or of 2^10, 2^20, 2^30 of them."""
    found = re.fullmatch(r"(\d{1,12})([KMG]?)", text.strip().upper())
    if not found or not int(found[1]):
        raise FcdeployError(f"{option} {text!r} is not a size, expected bytes, or K, M, G of them", f"{option} 64M")
    return int(found[1]) * UNITS[found[2]]


@click.command("serve")
@click.argument("source", type=options.FILE, metavar="MODEL|BUNDLE|FOLDER")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), metavar="N", help="Serve gRPC there as well; 0 takes a free one."
)
@click.option(
    "--workers", type=options.COUNT, metavar="N", default=1, show_default=True, help="Processes that share the address."
)
@click.option("--threads", type=options.COUNT, metavar="N", default=1, show_default=True, help="Threads of one run.")
@click.option(
    "--max-batch", type=options.COUNT, metavar="N", help="Samples in one run; by default what runs in 2 ms, at most 16."
)
@click.option(
    "--max-delay-us",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Microseconds that a batch may wait to fill.",
)
@click.option(
    "--max-queue",
    type=options.COUNT,
    metavar="N",
    default=1024,
    show_default=True,
    help="Requests that wait or run; more are answered with 503.",
)
@click.option(
    "--max-queue-bytes", metavar="SIZE", default="256M", show_default=True, help="The same in bytes of their inputs."
)
@click.option(
    "--queue-timeout",
    type=SECONDS,
    metavar="S",
    default=30.0,
    show_default=True,
    help="Seconds that a request may wait for its run before it is answered with 504.",
)
@click.option("--max-body", metavar="SIZE", default="64M", show_default=True, help="A body beyond it is refused (413).")
@click.option(
    "--max-connections", type=options.COUNT, metavar="N", default=1024, show_default=True, help="Clients at a time."
)
@click.option(
    "--read-timeout",
    type=SECONDS,
    metavar="S",
    default=10.0,
    show_default=True,
    help="Seconds in which a request must be whole (408).",
)
@click.option(
    "--idle-timeout",
    type=SECONDS,
    metavar="S",
    default=75.0,
    show_default=True,
    help="Seconds after which a silent connection is closed.",
)
@click.option(
    "--drain-timeout",
    type=SECONDS,
    metavar="S",
    default=30.0,
    show_default=True,
    help="Seconds that requests under way have after SIGTERM.",
)
@click.option(
    "--poll",
    type=click.FloatRange(min=0),
    metavar="S",
    default=1.0,
    show_default=True,
    help="Look for changed models every S seconds; 0 never.",
)
@click.option("--token-file", type=options.FILE, metavar="FILE", help="Want the bearer token that FILE holds.")
@click.option("--tls-cert", type=options.FILE, metavar="PEM", help="Certificate chain: serve HTTPS.")
@click.option("--tls-key", type=options.FILE, metavar="PEM", help="Its private key.")
@click.option("--access-log", is_flag=True, help="A JSON line on stdout for every request.")
@options.json_option
def command(
    source: Path, host: str, port: int, grpc_port: int | None, workers: int, threads: int, max_batch: int | None,
    max_delay_us: int, max_queue: int, max_queue_bytes: str, queue_timeout: float, max_body: str,
    max_connections: int, read_timeout: float, idle_timeout: float, drain_timeout: float, poll: float,
    token_file: Path | None, tls_cert: Path | None, tls_key: Path | None, access_log: bool, as_json: bool,
) -> None:  # fmt: skip
    """Serve models over HTTP: Open Inference Protocol v2, JSON and binary tensors.

    MODEL is an .onnx file; FOLDER holds such files, bundles, or NAME/VERSION/model.onnx.  Needs the extra `serve`.
    """
    needed = {"serve": ("httptools", "orjson", "simdjson", "uvloop"), "grpc": () if grpc_port is None else ("grpc",)}
    for extra, modules in needed.items():
        for module in modules:
            if find_spec(module) is None:
                raise FcdeployError(
                    f"serve needs {module!r}, which is not installed", f"pip install 'fcdeploy[{extra}]'"
                )
    from fcdeploy.serve.settings import Limits, Settings
    from fcdeploy.serve.workers import serve_forever

    limits = Limits(
        body=parse_bytes("--max-body", max_body), read_seconds=read_timeout, idle_seconds=idle_timeout,
        connections=max_connections,
    )  # fmt: skip
    settings = Settings(
        source, limits, host=host, port=port, grpc_port=grpc_port, workers=workers, threads=threads, max_batch=max_batch,
        max_delay=max_delay_us / 1e6, max_queue=max_queue, max_queue_bytes=parse_bytes("--max-queue-bytes", max_queue_bytes),
        queue_seconds=queue_timeout, token_file=token_file, tls_cert=tls_cert, tls_key=tls_key, access_log=access_log,
        poll=poll, drain=drain_timeout,
    )  # fmt: skip
    serve_forever(
        settings, say=console.say, on_ready=lambda report: console.show(report, as_json=True) if as_json else None
    )
