"""Workers for sharded work: this process, several processes of this machine, or Ray.

Work is a module-level function of one shard (both can be pickled) that yields what it found so far, as often as it
likes.  What the shards yield comes in as it is made, each with the number of its shard; in which order shards come is
left open, so whatever is gathered must add in any order.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from fcdeploy.errors import FcdeployError, first_line
from fcdeploy.runtime.cpu import count_usable_cores
from fcdeploy.runtime.interpreters import interpreter_environment
from fcdeploy.user_code import DEBUG

Work = Callable[[Any], Iterator[Any]]
Results = Iterator[tuple[int, Any]]
CHILD = "from fcdeploy.runtime.workers import run_child; run_child()"
KINDS = "ray, or ray:ADDRESS for a cluster that runs already"
MOST_PROCESSES, MOST_TASKS = 256, 10_000  # each process holds Python, onnxruntime and a model
ALONE = "run without --workers and --cluster, with FCDEPLOY_DEBUG=1, to see where"
PATIENCE = 5.0  # seconds for a cluster to answer; Ray itself would ask again for ever
# What an HTTP/2 client says first (RFC 9113, section 3.4), and the type of the frame that any server answers with.
PREFACE, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), 4


@dataclass(frozen=True)
class WorkerPool:
    """A pool of workers: how many shards run at a time, with how many threads each, and the function that runs them."""

    size: int
    threads: int | None
    run: Callable[[Work, Sequence[Any]], Results]


@contextmanager
def open_pool(workers: int | None = None, cluster: str | None = None) -> Iterator[WorkerPool]:
    """`workers` processes, 1 being this one; or with `cluster` "ray" or "ray:ADDRESS" as many tasks, by default one a CPU.

    The processes, and a Ray that was started here, are gone when the block ends.  Raises FcdeployError for a cluster
    of another kind, when Ray is not installed or cannot be reached, and for a number of workers that makes no sense.
    """
    most = MOST_TASKS if cluster and ":" in cluster else MOST_PROCESSES
    if workers is not None and not 1 <= workers <= most:
        raise FcdeployError(
            f"number of workers {workers} is out of range, expected 1 to {most}", f"--workers {count_usable_cores()}"
        )
    if cluster is not None:
        kind, colon, address = cluster.partition(":")
        if kind != "ray":
            raise FcdeployError(f"--cluster {cluster!r} is of no kind that is known, expected {KINDS}", "--cluster ray")
        with _open_ray(address if colon else None, workers) as (ray, cpus):
            yield WorkerPool(workers or cpus, 1, lambda work, shards: _run_on_ray(ray, work, shards))
    elif (workers or 1) == 1:
        yield WorkerPool(1, None, _run_here)
    else:
        assert workers is not None
        yield WorkerPool(workers, max(1, count_usable_cores() // workers), _run_in_processes)


def _run_here(work: Work, shards: Sequence[Any]) -> Results:
    for index, shard in enumerate(shards):
        for value in work(shard):
            yield index, value


def _run_in_processes(work: Work, shards: Sequence[Any]) -> Results:
    """A process for each shard, all at once."""
    queue: SimpleQueue[tuple[int, str, Any]] = SimpleQueue()
    children: list[subprocess.Popen[bytes]] = []
    try:
        for index, shard in enumerate(shards):
            children.append(_start_process())
            threading.Thread(target=_listen, args=(index, children[-1], queue), daemon=True).start()
            _send(children[-1], (work, shard))
        left = len(children)
        while left:
            index, kind, value = queue.get()
            if kind == "found":
                yield index, value
            elif kind == "failed":
                raise FcdeployError(*value)
            elif kind == "lost":
                raise _make_lost_error(f"worker {index + 1} of {len(shards)}", _describe_exit(children[index].wait()))
            else:
                left -= 1
    finally:
        for process in children:
            process.kill()
        for process in children:
            process.wait()


def _start_process() -> subprocess.Popen[bytes]:
    """A fresh interpreter: nothing of this process is run again in it, whatever its main module looks like.

    It has a session of its own, so that Ctrl-C reaches this process alone, which then ends all of them.
    """
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=interpreter_environment(),
        start_new_session=True,
    )


def _send(process: subprocess.Popen[bytes], job: tuple[Work, Any]) -> None:
    assert process.stdin is not None
    try:
        pickle.dump(job, process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once, which whoever listens to it notices


def _listen(index: int, process: subprocess.Popen[bytes], queue: SimpleQueue[tuple[int, str, Any]]) -> None:
    """Forward a process's messages until it is done or gone."""
    assert process.stdout is not None
    kind = ""
    with process.stdout as pipe:
        while kind not in ("done", "failed", "lost"):
            try:
                kind, value = pickle.load(pipe)
            except Exception:  # what is cut off in the middle raises whatever it stops at; nobody else would tell
                kind, value = "lost", None
            queue.put((index, kind, value))


def run_child() -> None:
    """A worker process: a job on stdin, what it finds on stdout; whatever else is printed goes to stderr.

    It ends when nobody reads any more, for then the process that started it is gone.
    """
    out: IO[bytes] = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what user code prints appears when it does
    work, shard = pickle.load(sys.stdin.buffer)
    try:
        for message in _run_guarded(work, shard):
            pickle.dump(message, out)
            out.flush()
        pickle.dump(("done", None), out)
        out.close()
    except BrokenPipeError:
        os._exit(1)


def _run_guarded(work: Work, shard: Any) -> Iterator[tuple[str, Any]]:
    """Yield the work's results, and last the error that stopped it, as text that any process can unpickle."""
    try:
        for value in work(shard):
            yield "found", value
    except FcdeployError as error:
        yield "failed", describe_failure(error)
    except Exception as error:
        yield "failed", (f"a worker failed: {type(error).__name__}: {first_line(error)}", ALONE)


def describe_failure(error: FcdeployError) -> tuple[str, str]:
    """Message and hint of an error for whoever started the worker, who cannot see its traceback."""
    return error.message, ALONE if error.hint == DEBUG else error.hint


def _run_in_folder(folder: str, work: Work, shard: Any) -> Iterator[tuple[str, Any]]:
    """As `_run_guarded`, with relative paths meaning what they mean where the command runs."""
    if not Path(folder).is_dir():
        where = f"folder {folder!r} of the command is not on machine {socket.gethostname()!r} of the cluster"
        yield "failed", (where, "let all machines see the same files")
        return
    with chdir(folder):
        yield from _run_guarded(work, shard)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def _make_lost_error(who: str, how: str) -> FcdeployError:
    return FcdeployError(f"{who} {how}", "run the command again, with fewer workers if memory is short")


@contextmanager
def _open_ray(address: str | None, workers: int | None) -> Iterator[tuple[Any, int]]:
    """Ray, started here or reached at `address`, and its number of CPUs. One that runs in this process is used."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise FcdeployError("--cluster ray needs Ray, which is not installed", "pip install 'fcdeploy[ray]'") from error
    if ray.is_initialized():
        yield ray, int(ray.cluster_resources().get("CPU", 1))
        return
    if address is not None:
        _check_address(address)
    where: dict[str, Any] = (
        {"address": address} if address else {"address": "local", "num_cpus": workers or count_usable_cores()}
    )
    try:
        ray.init(
            **where, include_dashboard=None if address else False, log_to_driver=False, logging_level=logging.ERROR
        )
    except Exception as error:  # anything that a network, a version or a full disk can do
        raise FcdeployError(
            f"no Ray at {address or 'this machine'}: {first_line(error)}", "ray status; ray:ADDRESS is HOST:PORT"
        ) from error
    try:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if not cpus:
            raise FcdeployError(f"Ray at {address or 'this machine'} has no CPU, expected one or more", "ray status")
        yield ray, cpus
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise FcdeployError unless something that speaks HTTP/2, as Ray's gRPC does, answers soon at HOST:PORT."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise FcdeployError(f"Ray's address {address!r} is not of the form HOST:PORT", "--cluster ray:10.0.0.5:6379")
    hint = "ray status shows the address of a cluster; ray start --head --port 6379 starts one"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as line:
            line.sendall(PREFACE)
            answer = line.recv(9)
    except OSError as error:
        raise FcdeployError(f"no Ray at {address}: {first_line(error)}", hint) from error
    if len(answer) < 4 or answer[3] != SETTINGS:
        raise FcdeployError(f"no Ray at {address}: something else answers there", hint)


def _run_on_ray(ray: Any, work: Work, shards: Sequence[Any]) -> Results:
    """A task for each shard, of one CPU, which streams what it finds."""
    task = ray.remote(_run_in_folder).options(num_returns="streaming", num_cpus=1, max_retries=0)
    streams = {task.remote(str(Path.cwd()), work, shard): index for index, shard in enumerate(shards)}
    try:
        while streams:
            (stream, *_), _ = ray.wait(list(streams), num_returns=1)
            index = streams[stream]
            try:
                kind, value = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
                continue
            except ray.exceptions.RayError as error:
                raise _make_lost_error(
                    f"Ray task {index + 1} of {len(shards)}", f"was lost: {first_line(error)}"
                ) from error
            if kind == "failed":
                raise FcdeployError(*value)
            yield index, value
    finally:
        for stream in streams:
            ray.cancel(stream, force=True)
