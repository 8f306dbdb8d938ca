"""What a server lives through: greedy requests, silent clients, broken files, killed workers, full pipes, signals at any time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import fails
from networks import Net
from servers import PATIENCE, RUN, Server, binary, counted, read_command, serving, tensor, until, wire
from small_models import dense

from fcdeploy.commands.bundle import bundle
from fcdeploy.serve import batching, served_models, workers
from fcdeploy.serve import engine as engines
from fcdeploy.serve.engine import BatchingEngine
from fcdeploy.serve.limits import Limits
from fcdeploy.serve.log import WAITING, LineWriter
from fcdeploy.serve.models import PIECE, load_model
from fcdeploy.serve.repository import ModelFile, Stamp, find_models, hash_content, take_stamp
from fcdeploy.serve.settings import Settings, Worker
from fcdeploy.serve.sockets import bind_socket
from fcdeploy.serve.workers import reserve_port

IMAGE = np.zeros((1, 5), np.float32)
SLOW = (
    "import sys, time; from fcdeploy.serve import {module} as m; real = m.{name}; m.INLINE_SECONDS = 0;"
    "m.{name} = lambda *a, **k: (print('begun', file=sys.stderr, flush=True), time.sleep(600), real(*a, **k))[2];" + RUN
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense(tmp_path_factory.mktemp("models") / "m.onnx", 3)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    options = ("--max-json", "50K", "--max-connections", "6", "--read-timeout", "2", "--access-log")
    with serving(model, *options) as running:
        assert running.process.stdout
        running.process.stdout.close()  # nobody reads the log
        yield running


REQUEST: dict[str, Any] = {"inputs": [tensor("x", IMAGE)]}


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.infer("m", REQUEST).status == 200
    return False


def test_an_output_is_answered_once(server: Server) -> None:
    asked = {**REQUEST, "outputs": [{"name": "y"}] * 9}
    assert server.infer("m", asked).error.startswith("9 outputs, expected each of")


def test_json_is_limited_before_it_is_read(server: Server) -> None:
    answer = server.ask("POST", "/v2/models/m/infer", b"[" * 60_000)
    assert (answer.status, answer.error) == (413, "60000 bytes of JSON, expected at most 51200: send binary tensors")


def test_chunks_are_counted(server: Server) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as line:
        line.sendall(head + b"1\r\n \r\n" * 66_000)
        answer = line.recv(1000)
    assert b"413" in answer
    assert b"a body of more than 65536 chunks" in answer


def test_silent_connections_make_room(server: Server) -> None:
    """Those that never ask go after the time in which a request must be whole; too many at once are told so."""
    silent = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(8)]
    until(lambda: answers(server))
    assert b"503" in silent[7].recv(1000)
    assert silent[0].recv(1) == b""
    for line in silent:
        line.close()


def test_a_log_that_nobody_reads_is_counted(server: Server) -> None:
    assert answers(server)
    until(lambda: counted(server, "fcdeploy_log_lines_dropped_total") > 0)


def test_lines_are_dropped_when_too_many_wait() -> None:
    gate = threading.Event()
    written: list[str] = []
    writer = LineWriter(lambda line: (gate.wait(), written.append(line))[1])
    for number in range(WAITING + 50):
        writer.write(str(number))
    assert 48 <= writer.dropped <= 50
    gate.set()
    writer.close()
    assert written[:2] == ["0", "1"]


def test_descriptors_that_run_out_come_back(model: Path) -> None:
    with serving(model, "--read-timeout", "300") as server:
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 4, used + 4))
        many = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(12)]
        time.sleep(0.2)
        for line in many:
            line.close()
        until(lambda: answers(server))
        assert server.stop() == 0


def test_handshakes_count_and_end(model: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9",
         "-subj", "/CN=localhost", "-out", cert, "-keyout", key], check=True, capture_output=True,
    )  # fmt: skip
    options = ("--tls-cert", str(cert), "--tls-key", str(key), "--max-connections", "3", "--read-timeout", "1")
    with serving(model, *options) as server:
        lines = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(4)]
        assert lines[3].recv(1) == b""  # at once
        assert lines[0].recv(1) == b""  # when its time is over
        for line in lines:
            line.close()


def test_one_broken_bundle_blocks_no_other_and_what_serves_goes_on(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(model, folder / "m.onnx")
    bundle(model, output=folder / "b.zip", name="b")
    said: list[str] = []

    async def live(monkeypatch: pytest.MonkeyPatch) -> None:
        engine = BatchingEngine(folder, say=said.append)
        await engine.start()
        (folder / "b.zip").write_bytes(b"broken")
        shutil.copy(model, folder / "new.onnx")
        shutil.copy(model, folder / "a b.onnx")
        for _ in range(2):
            await engine.models.refresh()
        assert [each.name for each in engine.models.list_models()] == ["b", "m", "new"]

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("what no one foresaw")

        for module, name in ((engines, "load_model"), (served_models, "find_models")):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, fail)
                shutil.copy(model, folder / f"{name}.onnx")
                for _ in range(2):
                    await engine.models.refresh()
        os.utime(folder / "load_model.onnx")
        for _ in range(2):
            await engine.models.refresh()
        assert [each.name for each in engine.models.list_models()] == ["b", "find_models", "load_model", "m", "new"]

        for number in range(3):  # names that come and go
            (folder / f"bad{number}.onnx").write_bytes(b"broken")
            for _ in range(2):
                await engine.models.refresh()
            (folder / f"bad{number}.onnx").unlink()
        await engine.models.refresh()
        assert not engine.models._failed and not engine.models._pending
        await engine.stop()

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(live(patch))
    assert sum("b.zip' is left out" in line for line in said) == 1
    odd = [line for line in said if "a b.onnx" in line]
    assert odd == [f"{str(folder / 'a b.onnx')!r} is left out: the name 'a b' cannot stand in an address"]
    assert sum("what no one foresaw" in line for line in said) == 2


def test_a_file_that_could_not_be_loaded_is_tried_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed may have been the system: no descriptors, no memory, a disk that was away."""
    shutil.copy(model, tmp_path / "m.onnx")
    said: list[str] = []
    now = [1000.0]
    monkeypatch.setattr(
        served_models, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    )

    async def live() -> None:
        engine = BatchingEngine(tmp_path, say=said.append)
        await engine.start()
        shutil.copy(model, tmp_path / "new.onnx")
        tries = []
        with monkeypatch.context() as patch:

            def fail(*_: object, **__: object) -> None:
                tries.append(now[0] - 1000)
                raise OSError(24, "Too many open files")

            patch.setattr(engines, "load_model", fail)
            for _ in range(160):
                await engine.models.refresh()
                now[0] += 1
        assert tries == [1, 6, 16, 36, 76, 156]
        now[0] += served_models.LONGEST_PAUSE
        await engine.models.refresh()
        assert [each.name for each in engine.models.list_models()] == ["m", "new"]
        assert not engine.models._failed
        await engine.stop()

    asyncio.run(live())
    assert sum("Too many open files" in line for line in said) == 1


def test_names_that_cannot_be_served_leave_others_alone(tmp_path: Path) -> None:
    """One with a blank, and two of the same name: what runs goes on, and what is new is found."""
    runs, new, blank, bundled = (tmp_path / name for name in ("m.onnx", "new.onnx", "my model.onnx", "b"))
    for path in (runs, new, blank):
        path.touch()
    (bundled / "1").mkdir(parents=True)
    (bundled / "1" / "model.onnx").touch()
    (tmp_path / "b.onnx").touch()
    broken: dict[Path, Exception] = {}
    assert [place.path for place in find_models(tmp_path, broken)] == [runs, new]
    assert broken.keys() == {blank, tmp_path / "b.onnx", bundled / "1" / "model.onnx"}
    with fails("model 'b' version 1 is there twice"):
        find_models(tmp_path)


def test_weights_under_another_name_are_watched(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    place = ModelFile("m", "1", tmp_path / "m.onnx")
    before = take_stamp(place), hash_content(place)
    (tmp_path / "weights.bin").write_bytes(bytes((tmp_path / "weights.bin").stat().st_size))
    after = take_stamp(place), hash_content(place)
    assert before[0] != after[0] and before[1] != after[1]


def test_a_worker_that_dies_young_again_and_again_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until all have begun once; afterwards it is tried more and more seldom, and nobody waits on what is dead."""
    said, started = list[str](), list[workers.Child]()

    def start(_: object, __: object, ___: object, tries: int = 0) -> workers.Child:
        pipe, other = multiprocessing.Pipe(duplex=False)
        other.close()
        started.append(workers.Child(SimpleNamespace(exitcode=-9), pipe, time.monotonic(), tries))
        return started[-1]

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "PAUSE", 0.001)
    monkeypatch.setattr(workers, "LOOK", 0.001)
    with fails("worker 0 ended with -9 before it could begin, 3 times in a row", "--workers 1"):
        workers._watch(
            Settings(tmp_path, Limits()), tmp_path, {0: start(None, None, None)}, [], said.append, lambda _: None
        )
    assert len(started) == len(said) + 1 == workers.TRIES
    assert [child.pause for child in started] == [0.001, 0.002, 0.004]


def test_files_are_looked_at_beside_the_loop(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or a network that hangs holds up no answer."""
    shutil.copy(model, tmp_path / "m.onnx")
    looked: set[str] = set()

    def look(place: ModelFile) -> Stamp:
        looked.add(threading.current_thread().name)
        return take_stamp(place)

    async def live() -> None:
        engine = BatchingEngine(tmp_path)
        await engine.start()
        for _ in range(2):
            shutil.copy(model, tmp_path / "m.onnx")
            await engine.models.refresh()
        await engine.stop()

    monkeypatch.setattr(served_models, "take_stamp", look)
    asyncio.run(live())
    assert looked == {"load_0"}


def test_a_request_behind_a_silence_is_run_at_once_and_those_behind_a_run_together(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live() -> list[int]:
        engine = BatchingEngine(model)
        await engine.start()
        served, batches = engine.models.find("m"), list[int]()
        feeds = {"x": np.zeros((1, 5), np.float32)}

        def ask(arrived: float) -> None:
            engine.submit(served, feeds, lambda request, _: batches.append(request.batch), arrived=arrived)

        begun = time.perf_counter()
        ask(begun + 1)
        assert batches == [1]
        for _ in range(3):
            ask(begun)  # before that run was over
        assert batches == [1]
        await engine.stop()
        return batches

    monkeypatch.setattr(batching, "INLINE_SECONDS", 60)
    assert asyncio.run(live()) == [1, 3, 3, 3]


@pytest.mark.parametrize("independent", [True, False])
def test_many_samples_of_one_request_run_piece_by_piece(model: Path, independent: bool) -> None:
    """So what lies between the layers takes no more for a million samples than for some."""
    loaded = replace(load_model(find_models(model)[0]), independent=independent)
    x = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    odd = np.frombuffer(b"-" + x.tobytes(), np.float32, x.size, 1).reshape(x.shape)  # behind a header of any length
    sizes = list[int]()

    def run(feeds: dict[str, Any]) -> list[Any]:
        sizes.append(len(feeds["x"]))
        assert feeds["x"].flags.aligned
        return loaded.session.run(feeds)

    watching: Any = SimpleNamespace(run=run)
    watched = replace(loaded, session=watching)
    (whole,) = loaded.run({"x": x})
    (pieces,) = watched.run_in_pieces({"x": odd}, 1000, 3 * PIECE)
    assert sizes == ([333, 333, 333, 1] if independent else [1000])
    np.testing.assert_array_equal(pieces, whole)


def test_sighup_reloads(model: Path, tmp_path: Path) -> None:
    shutil.copy(model, tmp_path / "m.onnx")
    with serving(tmp_path, "--poll", "0", "--workers", "2", "--json") as server:
        assert server.process.stdout
        assert server.process.stdout.read(1) == "{"
        shutil.copy(model, tmp_path / "other.onnx")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: all(server.ask("GET", "/v2/models/other").status == 200 for _ in range(4)))


def test_a_broken_file_and_a_killed_worker_do_not_end_the_server(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    shutil.copy(model, path)
    with serving(path, "--workers", "2", "--poll", "0", "--json") as server:
        assert server.process.stdout
        assert server.process.stdout.read(1) == "{"  # all workers serve
        path.write_bytes(b"broken")
        os.kill(list_workers(server)[0], signal.SIGKILL)
        until(lambda: any("cannot begin" in line for line in server.said))
        assert answers(server)
        shutil.copy(model, path)
        until(lambda: sum("starting another one" in line for line in server.said) >= 2)
        assert server.stop() == 0


def list_workers(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in read_command(int(pid))]


def test_workers_begin_again_among_signals_and_beside_what_is_broken(model: Path, tmp_path: Path) -> None:
    """SIGHUP to a process that does not listen yet would end it; a file that nobody served keeps no worker from serving."""
    shutil.copy(model, tmp_path / "m.onnx")
    with serving(tmp_path, "--workers", "2", "--poll", "0.1", "--json") as server:
        assert server.process.stdout
        assert server.process.stdout.read(1) == "{"
        (tmp_path / "broken.onnx").write_bytes(b"broken")
        before = list_workers(server)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while not (len(set(list_workers(server)) - set(before)) == 2 and answers(server)):
            assert time.monotonic() < end
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        assert not any("ended with -1" in line for line in server.said)
        assert server.stop() == 0


def test_a_worker_that_ends_while_all_are_asked_to_reload_ends_nobody_else() -> None:
    """A signal that comes between the end of a process and its exit code: it looks alive, and is gone."""
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join()
    gone = SimpleNamespace(pid=process.pid, exitcode=None)
    ours, _ = multiprocessing.Pipe(duplex=False)
    workers.ask_to_reload([workers.Child(gone, ours, 0.0, ready=True)])


def test_one_that_begins_again_waits_for_what_the_others_serve(model: Path, tmp_path: Path) -> None:
    shutil.copy(model, tmp_path / "m.onnx")
    for name in ("broken", "other"):
        (tmp_path / f"{name}.onnx").write_bytes(b"broken")

    async def begin(*required: str) -> list[str]:
        engine = BatchingEngine(tmp_path, required=frozenset(required))
        try:
            await engine.start()
            return [each.name for each in engine.models.list_models()]
        finally:
            await engine.stop()

    assert asyncio.run(begin()) == ["m"]
    assert asyncio.run(begin("m")) == ["m"]
    with fails("model 'other' cannot be loaded: model 'other' version 1: not served: "):
        asyncio.run(begin("m", "other"))
    (tmp_path / "other.onnx").unlink()
    assert asyncio.run(begin("m", "other")) == ["m"]  # it was taken away, and what else is broken has no part in it
    (tmp_path / "broken.onnx").unlink()
    assert asyncio.run(begin("m", "other")) == ["m"]
    (tmp_path / "other.fcd").write_bytes(b"broken")  # left out before it is loaded
    with fails("model 'other' cannot be loaded: "):
        asyncio.run(begin("m", "other"))
    (tmp_path / "other.fcd").unlink()
    (tmp_path / "m.onnx").unlink()
    with fails("no model can be loaded: "):
        asyncio.run(begin("m"))


def test_a_worker_that_the_system_does_not_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> workers.Child:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(workers, "_start", refuse)
    said: list[str] = []
    pipe, _ = multiprocessing.Pipe(duplex=False)
    dead = workers.Child(SimpleNamespace(exitcode=-9), pipe, 0.0, tries=0, ready=True)
    for tries in (0, 1):
        dead = workers._start_again(Settings(tmp_path, Limits()), Worker(1, tmp_path), said.append, dead)
        assert (dead.tries, dead.ready, dead.pause) == (tries, False, workers.PAUSE * (1 << tries))
    assert said == ["worker 1 cannot be started: Too many open files"] * 2


def test_a_port_is_taken_once(server: Server) -> None:
    """Workers share their port among themselves, not with another server that shares."""
    with (
        fails("Address already in use"),
        reserve_port("127.0.0.1", server.port),
    ):
        pass
    with bind_socket("127.0.0.1", 0, shared=True) as taken:
        taken.listen()
        with fails("Address already in use"), reserve_port("127.0.0.1", taken.getsockname()[1]):
            pass


def start_slow(model: Path, module: str, name: str, *options: str) -> subprocess.Popen[str]:
    """A server in which something takes ten minutes, begun when this returns."""
    code = SLOW.format(module=module, name=name)
    arguments = [sys.executable, "-c", code, "serve", str(model), "--port", "0", *options]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr
    return next(line for line in process.stderr if word in line)


def test_sigterm_during_a_load_ends_it(model: Path) -> None:
    with start_slow(model, "engine", "load_model") as process:
        read_until(process, "begun")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
        line.sendall(b"GET /v2/health/ready HTTP/1.1\r\n\r\n")
        return line.recv(1000).startswith(b"HTTP/1.1 200")
    return False


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGTERM,), 0), ((signal.SIGINT, signal.SIGINT), 130)], ids=["drain", "twice"]
)
def test_a_run_that_does_not_end_is_left(model: Path, signals: tuple[int, ...], code: int) -> None:
    drain = "0.5" if code == 0 else "600"
    with start_slow(model, "batching", "_compute", "--drain-timeout", drain) as process:
        port = int(read_until(process, "serving on").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
            body = json.dumps(REQUEST).encode()
            line.sendall(wire("/v2/models/m/infer", body))
            read_until(process, "begun")
            for number in signals:
                process.send_signal(number)
                until(lambda: not is_ready(port))  # the next one is another one only then
            assert process.wait(PATIENCE) == code


@dataclass(frozen=True)
class Greed:
    """Clients that want much: what they send, to a model of five inputs and three outputs a sample, and whether they read."""

    data: bytes
    patient: bool = True

    def send(self, port: int) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
            line.sendall(self.data)
            if not self.patient:
                time.sleep(1)
                return
            line.settimeout(PATIENCE)
            while line.recv(1 << 20):
                pass


def greedy_clients(output: str) -> Iterator[Greed]:
    """Large answers in binary, in JSON and compressed; long lists; bodies that unpack to much; half bodies; answers unread."""
    x = np.random.default_rng(0).normal(size=(1_500_000, 5)).astype(np.float32)
    path, end = "/v2/models/m/infer", {"Connection": "close"}
    said, as_binary = binary("x", x, output)
    plain, as_json = binary("x", x)
    header = said[: int(as_binary["Inference_Header_Content_Length"])]
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(header + bytes(x.nbytes)) + packer.flush()
    numbers = json.dumps([1] * 2_500_000, separators=(",", ":")).encode()
    listed = b'{"inputs":[{"name":"x","shape":[500000,5],"datatype":"FP32","data":' + numbers + b"}]}"
    yield Greed(wire(path, said, **as_binary, **end))
    yield Greed(wire(path, plain, **as_json, **end))
    yield Greed(wire(path, listed, **end))
    yield Greed(wire(path, listed.replace(b"[1,1,1,1,1,", b"[[1],1,1,1,1,"), **end))
    yield Greed(wire(path, packed, Content_Encoding="gzip", **as_binary, **end))
    yield Greed(wire(path, said, Accept_Encoding="gzip", **as_binary, **end))
    yield Greed(wire(path, said, **as_binary), patient=False)
    yield Greed(wire(path, plain, **as_json), patient=False)
    yield Greed(wire(path, said, **as_binary)[:-10], patient=False)
    yield Greed(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 3000, patient=False)


def read_memory(pid: int, key: str) -> float:
    """A figure of /proc/PID/status in megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def test_no_crowd_takes_more_than_128_megabytes(tmp_path: Path) -> None:
    """Four clients of each kind of greed at once, and then alone; afterwards the server answers as before."""
    net = Net(1)
    hidden = net.op("Relu", net.dense(net.input("x", 5), 5, 32))
    path = net.output(net.dense(hidden, 32, 3)).save(tmp_path / "m.onnx")
    clients = list(greedy_clients(net.outputs[0]))
    with serving(path) as server:
        pid = server.process.pid
        before = server.infer("m", REQUEST).json
        for crowd in (clients * 4, *[[client] * 3 for client in clients]):
            base = read_memory(pid, "VmRSS")
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew
            threads = [threading.Thread(target=client.send, args=(server.port,)) for client in crowd]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert read_memory(pid, "VmHWM") - base < 128  # 102 at most seen; 378 without limits
            until(lambda: server.infer("m", REQUEST).status == 200)
        assert server.infer("m", REQUEST).json == before
