"""`fcdeploy serve`, put together: what the options say becomes an engine, a socket and a loop."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.records.report import Report
from fcdeploy.runtime.cpu import count_usable_cores
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.limits import QueueLimits
from fcdeploy.serve.log import LineWriter, write_stdout
from fcdeploy.serve.metrics import Metrics
from fcdeploy.serve.server import Stop, make_tls_context, read_token, run, serve
from fcdeploy.serve.server_state import ServerState
from fcdeploy.serve.settings import Settings, Worker
from fcdeploy.serve.sockets import bind_socket
from fcdeploy.wording import say_count


def serve_one(
    settings: Settings, *, say: Callable[[str], None], on_ready: Callable[[Report], None], worker: Worker | None = None
) -> None:
    """Serve in this process until SIGTERM or SIGINT; `worker` says which of several it is."""
    spoken = LineWriter(say)
    say = spoken.write
    access = LineWriter(write_stdout) if settings.access_log else None
    writers = [spoken, *([access] if access else [])]
    metrics = Metrics(worker.share, worker.index, writers) if worker else Metrics(writers=writers)
    limits = QueueLimits(
        settings.max_batch, settings.max_delay, settings.max_queue, settings.max_queue_bytes, settings.queue_seconds
    )
    engine = BatchingEngine(
        settings.source, threads=settings.threads, workers=settings.workers, runs_on=settings.engine, limits=limits,
        required=worker.required if worker else None, say=say, observer=metrics,
    )  # fmt: skip
    token = read_token(settings.token_file) if settings.token_file else None
    context = load_certificate(settings)
    sock = bind_socket(settings.host, settings.port, shared=worker is not None)
    host, port = sock.getsockname()[:2]
    if host not in ("127.0.0.1", "::1") and token is None:
        say(f"warning: {host} can be reached from other machines, and no --token-file was given")
    address = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    rpc_address: list[str] = []

    async def rpc(state: ServerState) -> Stop:
        from fcdeploy.serve.grpc_service import start_grpc

        pem = (settings.tls_cert, settings.tls_key) if settings.tls_cert and settings.tls_key else None
        shared = worker is not None
        server, rpc_port = await start_grpc(
            state, settings.host, settings.grpc_port or 0, token=token, tls=pem, shared=shared
        )
        rpc_address.append(f"{f'[{host}]' if ':' in host else host}:{rpc_port}")
        return server.stop  # type: ignore[no-any-return]

    def ready() -> None:
        say(describe_threads(settings.threads, engine.at_once, settings.workers))
        if rpc_address:
            say(f"serving gRPC on {rpc_address[0]}")
        say(f"serving on {address}")
        on_ready(Report("serve", {**describe_server(engine, address), "grpc": rpc_address[0] if rpc_address else None}))

    log = None if access is None else lambda line: access.write(json.dumps(line))
    state = ServerState(engine, metrics, settings.limits.body, settings.limits.json, settings.max_queue_bytes, log)
    with closing(sock), ExitStack() as stack:
        for writer in writers:
            stack.callback(writer.close)
        run(
            serve(
                state, sock, settings, token=token, context=context,
                on_ready=ready, also=None if settings.grpc_port is None else rpc,
            )
        )  # fmt: skip


def describe_server(engine: BatchingEngine, address: str) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "address": address,
        "cores": count_usable_cores(),
        "threads": engine.threads,
        "runs_at_once": engine.at_once,
        "models": [
            {
                "name": model.name,
                "version": model.version,
                "max_batch": model.largest,
                "why_alone": model.alone,
                "sample_seconds": model.sample_seconds,
                "load_seconds": model.load_seconds,
            }
            for model in engine.models.list_models()
        ],
    }


def load_certificate(settings: Settings) -> ssl.SSLContext | None:
    """None without TLS; the two files come together."""
    if settings.tls_cert and settings.tls_key:
        return make_tls_context(settings.tls_cert, settings.tls_key)
    if settings.tls_cert or settings.tls_key:
        given, missing = ("--tls-cert", "--tls-key") if settings.tls_cert else ("--tls-key", "--tls-cert")
        raise FcdeployError(f"{given} is given without {missing}, expected both", f"{missing} FILE.pem")
    return None


def describe_threads(threads: int, at_once: int, workers: int = 1) -> str:
    """The thread plan, in a sentence."""
    each = say_count(threads, "thread")
    processes = f", {workers} processes" if workers > 1 else ""
    return (
        f"{say_count(count_usable_cores(), 'core')}{processes}: runs up to 2 ms on the loop, "
        f"longer ones {at_once} at a time beside it, {each} a run, no spinning"
    )
