"""A server that a notebook starts and stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from fcdeploy.errors import FcdeployError

COMMAND = "import sys; from fcdeploy.cli import main; sys.exit(main(sys.argv[1:]))"
PATIENCE = 40.0  # seconds for requests under way, which the server itself gives 30


class Server:
    """A running server at `address`; `stop()`, or the end of a `with` block, ends it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address

    def stop(self) -> None:
        """Let requests under way finish, then end it. A second call does nothing."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<fcdeploy server at {self.address}>"


def start_server(
    source: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grpc_port: int | None = None,
    workers: int = 1,
    threads: int = 1,
    token_file: str | Path | None = None,
) -> Server:
    """Serve a model, a bundle or a folder of them in a process of its own, as `fcdeploy serve` does; return when it answers.

    `port` 0 takes a free one; parameters are the options of the command, which has more.  Raises FcdeployError where it
    does not start.
    """
    options: dict[str, object] = {
        "--host": host, "--port": port, "--grpc-port": grpc_port, "--workers": workers, "--threads": threads,
        "--token-file": token_file,
    }  # fmt: skip
    words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", str(source), *words, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip  # a session of its own: Ctrl-C in a notebook interrupts the cell and not the server
    assert process.stdout is not None
    text = "\n".join(_read_object(process.stdout))
    if not text:
        raise _make_error(process)
    return Server(process, json.loads(text)["address"])


def _read_object(lines: Iterator[str]) -> Iterator[str]:
    """The lines of the one indented object that the server prints when it is ready."""
    for line in lines:
        yield line.rstrip()
        if line.startswith("}"):
            return


def _make_error(process: subprocess.Popen[str]) -> FcdeployError:
    """What the server said before it ended."""
    assert process.stderr is not None and process.stdout is not None
    process.stdout.close()
    said = process.stderr.read().splitlines()
    process.wait()
    process.stderr.close()
    parts = {
        kind: line.partition(": ")[2] for line in said for kind in ("error", "hint") if line.startswith(f"{kind}:")
    }
    return FcdeployError(
        parts.get("error", "the server ended: " + " ".join(said[-1:])), parts.get("hint", "see fcdeploy serve")
    )
