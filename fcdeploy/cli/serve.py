"""`fcdeploy serve`: every option has the name of a field of `Settings` or of its `Limits`, and its default."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from typing import Any

import click

from fcdeploy import console
from fcdeploy.cli import options
from fcdeploy.errors import FcdeployError
from fcdeploy.installed import NATIVE_INSTEAD, RUNTIME, say_install
from fcdeploy.serve.limits import Limits, QueueLimits

SECONDS = click.FloatRange(min=0, min_open=True)


@click.command("serve")
@click.argument("source", type=options.FILE, metavar="MODEL|BUNDLE|FOLDER")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for all.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), metavar="N", help="Serve gRPC there as well; 0 takes a free one."
)
@click.option(
    "--workers", type=options.COUNT, metavar="N", default=1, show_default=True, help="Processes that share the address."
)
@click.option(
    "--threads",
    type=options.COUNT,
    metavar="N",
    default=1,
    show_default=True,
    help="Threads of one run of onnxruntime.",
)
@click.option(
    "--max-batch",
    type=options.COUNT,
    metavar="N",
    help="Samples in one run, or computed in one go by native code; by default what takes 2 ms, at most 16.",
)
@click.option(
    "--max-delay-us",
    "max_delay",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    callback=lambda _context, _option, value: value / 1e6,
    help="Microseconds that a batch may wait to fill.",
)
@click.option(
    "--max-queue",
    type=options.COUNT,
    metavar="N",
    default=QueueLimits.max_requests,
    show_default=True,
    help="Requests that wait or run; more are answered with 503.",
)
@click.option(
    "--max-queue-bytes",
    type=options.SizeType(),
    metavar="SIZE",
    default=f"{QueueLimits.max_bytes >> 20}M",
    show_default=True,
    help="The same in bytes of their inputs.",
)
@click.option(
    "--queue-timeout",
    "queue_seconds",
    type=SECONDS,
    metavar="S",
    default=QueueLimits.seconds,
    show_default=True,
    help="Seconds that a request may wait for its run before it is answered with 504.",
)
@click.option(
    "--max-body",
    "body",
    type=options.SizeType(),
    metavar="SIZE",
    default=f"{Limits.body >> 20}M",
    show_default=True,
    help="A body beyond it is refused (413).",
)
@click.option(
    "--max-json",
    "json",
    type=options.SizeType(),
    metavar="SIZE",
    default=f"{Limits.json >> 20}M",
    show_default=True,
    help="JSON beyond it is refused (413): reading it takes eighteen times its size; binary tensors take none.",
)
@click.option(
    "--max-connections",
    "connections",
    type=options.COUNT,
    metavar="N",
    default=Limits.connections,
    show_default=True,
    help="Clients at a time.",
)
@click.option(
    "--read-timeout",
    "read_seconds",
    type=SECONDS,
    metavar="S",
    default=Limits.read_seconds,
    show_default=True,
    help="Seconds in which a request must be whole (408).",
)
@click.option(
    "--idle-timeout",
    "idle_seconds",
    type=SECONDS,
    metavar="S",
    default=Limits.idle_seconds,
    show_default=True,
    help="Seconds after which a silent connection is closed.",
)
@click.option(
    "--drain-timeout",
    "drain",
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
@click.option(
    "--token-file", type=options.FILE, metavar="FILE", help="Require the bearer token in the first line of FILE."
)
@click.option("--tls-cert", type=options.FILE, metavar="PEM", help="Certificate chain: serve HTTPS.")
@click.option("--tls-key", type=options.FILE, metavar="PEM", help="Its private key.")
@click.option("--access-log", is_flag=True, help="A JSON line on stdout for every request.")
@options.engine_option
@options.operators_option
@options.json_option
def command(grpc_port: int | None, as_json: bool, **given: Any) -> None:
    """Serve models over HTTP and gRPC: Open Inference Protocol v2, JSON and binary tensors.

    MODEL is an .onnx file; FOLDER holds such files, bundles, or NAME/VERSION/model.onnx.  Needs the extra `serve`, for
    gRPC `grpc` as well.
    """
    needed = {
        RUNTIME: (RUNTIME,) if given["engine"] == RUNTIME else (),
        "serve": ("httptools", "orjson", "simdjson", "uvloop"),
        "grpc": () if grpc_port is None else ("grpc",),
    }
    for extra, modules in needed.items():
        for module in modules:
            if find_spec(module) is None:
                other = NATIVE_INSTEAD if extra == RUNTIME else ""
                raise FcdeployError(f"serve needs {module!r}, which is not installed", say_install(extra) + other)
    from fcdeploy.serve.settings import Settings
    from fcdeploy.serve.workers import serve_forever

    limits = Limits(**{row.name: given.pop(row.name) for row in fields(Limits) if row.name in given})
    settings = Settings(limits=limits, grpc_port=grpc_port, **given)
    serve_forever(
        settings, say=console.say, on_ready=lambda report: console.show(report, as_json=True) if as_json else None
    )
