"""The server in operation: batches, limits, tokens, TLS, reload, drain, workers. Real processes, real signals."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from networks import Net
from servers import PATIENCE, Server, binary, counted, read_command, serving, tensor, until, wire
from small_models import dense, residual, samples

from fcdeploy import cli
from fcdeploy.commands.bundle import bundle
from fcdeploy.runtime.cpu import count_usable_cores, read_memory_bytes
from fcdeploy.serve.http_answer import LOGGED


def answers(stream: socket.socket, count: int) -> list[bytes]:
    """Bodies of that many answers."""
    data, found = b"", []
    while len(found) < count:
        end = data.find(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", data[: end + 2]) if end >= 0 else None
        if length and len(data) >= end + 4 + int(length[1]):
            found.append(data[end + 4 : end + 4 + int(length[1])])
            data = data[end + 4 + int(length[1]) :]
            continue
        more = stream.recv(1 << 16)
        assert more, (len(found), data)
        data += more
    return found


@pytest.mark.parametrize("build", [dense, residual])
def test_requests_that_share_a_run_are_answered_as_if_alone(build: Any, tmp_path: Path) -> None:
    path = build(tmp_path / "m.onnx", 3) if build is dense else build(tmp_path / "m.onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    shape, output = session.get_inputs()[0].shape[1:], session.get_outputs()[0].name
    x = samples(48, *shape)
    alone = [session.run(None, {"x": x[i : i + 1]})[0].tobytes() for i in range(48)]
    with serving(path, "--max-batch", "16") as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        body, fields = binary("x", x[:1], output)
        start = len(body) - x[:1].nbytes
        bodies = [body[:start] + x[i : i + 1].tobytes() for i in range(48)]
        client.sendall(b"".join(wire("/v2/models/m/infer", body, **fields) for body in bodies))
        found = [answer[-len(alone[0]) :] for answer in answers(client, 48)]
        assert found == alone
        runs = counted(server, 'fcdeploy_batch_size_count{model="m",version="1"}')
        assert counted(server, 'fcdeploy_batch_size_sum{model="m",version="1"}') == 48
        assert 3 <= runs < 48


def test_a_model_whose_answers_depend_on_the_batch_gets_one_request_a_run(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 5)
    path = net.output(net.op("Sub", x, net.op("ReduceMean", x, axes=[0]))).save(tmp_path / "m.onnx")
    with serving(path) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        assert any("one request a run: ReduceMean" in line for line in server.said)
        body = json.dumps({"inputs": [tensor("x", samples(1, 5))]}).encode()
        client.sendall(wire("/v2/models/m/infer", body) * 10)
        assert all(json.loads(answer)["outputs"][0]["data"] == [0] * 5 for answer in answers(client, 10))
        assert counted(server, 'fcdeploy_batch_size_count{model="m",version="1"}') == 10


def test_one_bad_request_does_not_spoil_the_others_of_its_run(tmp_path: Path) -> None:
    net = Net()
    table = net.constant(np.arange(12).reshape(4, 3))
    path = net.output(net.op("Gather", table, net.input("i", 2, dtype=7))).save(tmp_path / "m.onnx")
    with serving(path, "--max-batch", "8") as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        bodies = [json.dumps({"inputs": [tensor("i", np.array([[0, n]]))]}).encode() for n in (1, 99, 2)]
        client.sendall(b"".join(wire("/v2/models/m/infer", body) for body in bodies))
        first, second, third = map(json.loads, answers(client, 3))
        assert first["outputs"][0]["data"] == [0, 1, 2, 3, 4, 5]
        assert third["outputs"][0]["data"] == [0, 1, 2, 6, 7, 8]
        assert second["error"].startswith("model 'm': onnxruntime cannot run the model on i int64[1, 2]: ")


def test_states_of_another_number_than_the_samples_are_named(tmp_path: Path) -> None:
    net = Net()
    path = net.output(net.op("Add", net.input("x", 3), net.input("h", 3))).save(tmp_path / "m.onnx")
    with serving(path) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        body = json.dumps({"inputs": [tensor("x", samples(2, 3)), tensor("h", samples(3, 3))]}).encode()
        client.sendall(wire("/v2/models/m/infer", body))
        (answer,) = answers(client, 1)
        assert json.loads(answer)["error"].endswith("along the leading axis: 'x' has 2, 'h' has 3")


def slow(path: Path) -> Path:
    """About a tenth of a second."""
    net = Net()
    x = net.input("x", 8, 256, 256)
    for _ in range(3):
        x = net.conv(x, 8, 8, (7, 7))
    return net.output(x).save(path)


def test_overload_and_deadlines(tmp_path: Path) -> None:
    path = slow(tmp_path / "m.onnx")
    body, fields = binary("x", samples(1, 8, 256, 256), net_output(path))
    late = body.replace(b'"inputs"', b'"parameters": {"timeout": 1000}, "inputs"', 1)
    added = len(late) - len(body)
    with serving(path, "--max-queue", "3") as server:
        reply = server.ask(
            "POST", "/v2/models/m/infer", late,
            Inference_Header_Content_Length=str(int(fields["Inference_Header_Content_Length"]) + added),
        )  # fmt: skip
        assert reply.status == 504
        assert re.fullmatch(
            r"model 'm': (no answer within the 0\.001 s given|the request waited 0\.\d+ s for its turn, longer than it had)",
            reply.error,
        )
        until(lambda: counted(server, "fcdeploy_waiting_requests") == 0)
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(lambda _: server.ask("POST", "/v2/models/m/infer", body, **fields), range(12)))
        refused = [reply for reply in replies if reply.status == 503]
        assert {reply.status for reply in replies} == {200, 503}
        assert all(reply.fields["retry-after"] == "1" for reply in refused)
        assert all(reply.error.startswith("model 'm' is busy: 3 requests with ") for reply in refused)
        assert counted(server, 'fcdeploy_rejected_total{model="m",version="1"}') == len(refused)


def net_output(path: Path) -> str:
    return str(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_outputs()[0].name)


def test_slow_clients_are_told_so(tmp_path: Path) -> None:
    with serving(dense(tmp_path / "m.onnx", 3), "--read-timeout", "0.3", "--idle-timeout", "0.5") as server:
        for start in (b"GET /v2", b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
                client.sendall(start)
                answer = client.recv(1 << 16)
                assert answer.startswith(b"HTTP/1.1 408 Request Timeout")
                assert b"the request was not whole after 0.3 s, expected it faster" in answer
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            assert client.recv(1) == b""  # silence


def test_a_token_is_wanted_for_all_but_health(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with serving(dense(tmp_path / "m.onnx", 3), "--token-file", str(tmp_path / "token")) as server:
        assert server.ask("GET", "/v2/health/ready").status == 200
        for path in ("/v2", "/metrics", "/v2/models/m"):
            for fields in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
                reply = server.ask("GET", path, **fields)
                assert reply.status == 401
                assert reply.fields["www-authenticate"] == "Bearer"
                assert reply.error == "this server wants a token, expected the header 'Authorization: Bearer TOKEN'"
            assert server.ask("GET", path, Authorization="Bearer secret").status == 200


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", cert, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    path = dense(tmp_path / "m.onnx", 3)
    with serving(path, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        context = ssl.create_default_context(cafile=str(cert))
        client = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=PATIENCE)
        for _ in range(2):
            client.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [tensor("x", samples(1, 5))]}))
            assert client.getresponse().read().startswith(b'{"model_name":"m"')
        client.close()


def test_models_are_replaced_while_they_are_asked(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = dense(folder / "m.onnx", 3)
    body = json.dumps({"inputs": [tensor("x", samples(1, 5))]}).encode()
    stop, statuses = threading.Event(), []

    def load(server: Server) -> None:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        while not stop.is_set():
            client.request("POST", "/v2/models/m/infer", body)
            answer = client.getresponse()
            answer.read()
            statuses.append(answer.status)
        client.close()

    with serving(folder, "--poll", "0.05") as server:
        thread = threading.Thread(target=load, args=(server,))
        thread.start()
        try:
            for outputs in (4, 5, 6):
                dense(tmp_path / "new.onnx", outputs).replace(path)

                def shape() -> list[int]:
                    return server.ask("GET", "/v2/models/m").json["outputs"][0]["shape"]  # type: ignore[no-any-return]

                until(lambda outputs=outputs: shape() == [-1, outputs])  # type: ignore[misc]
            path.write_bytes(b"no model")
            until(lambda: any("keeping the one that runs" in line for line in server.said))
            assert shape() == [-1, 6]
            assert counted(server, 'fcdeploy_load_failures_total{model="m",version="1"}') == 1
            dense(folder / "other.onnx", 2)
            until(lambda: server.ask("GET", "/v2/models/other/ready").status == 200)
            (folder / "other.onnx").unlink()
            until(lambda: server.ask("GET", "/v2/models/other/ready").status == 404)
        finally:
            stop.set()
            thread.join()
    assert set(statuses) == {200}
    assert len(statuses) > 20


def test_sigterm_answers_what_is_under_way(tmp_path: Path) -> None:
    path = slow(tmp_path / "m.onnx")
    body, fields = binary("x", samples(1, 8, 256, 256), net_output(path))
    with serving(path) as server:
        idle = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        busy = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(4)]
        for client in busy:
            client.sendall(wire("/v2/models/m/infer", body, **fields))
        until(lambda: counted(server, "fcdeploy_waiting_requests") > 0)
        server.process.send_signal(signal.SIGTERM)

        def closes() -> bool:
            """Whether the signal is there."""
            idle.sendall(b"GET /v2/health/ready HTTP/1.1\r\n\r\n")
            last = idle.recv(1 << 16)
            return last.startswith(b"HTTP/1.1 503") and b"Connection: close" in last

        until(closes)
        for client in busy:
            assert b"m" in answers(client, 1)[0][:40]
            client.close()
        idle.close()
        assert server.process.wait(PATIENCE) == 0
    assert server.said[-1] == "stopped"


def test_workers_share_the_address_and_are_started_again(tmp_path: Path) -> None:
    with serving(dense(tmp_path / "m.onnx", 3), "--workers", "2") as server:
        body = {"inputs": [tensor("x", samples(1, 5))]}
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")

        def workers() -> set[int]:
            found = {int(word) for word in children.read_text().split()}
            return {pid for pid in found if b"spawn_main" in read_command(pid)}

        until(lambda: len(workers()) == 2)
        assert all(server.infer("m", body).status == 200 for _ in range(10))
        total = 'fcdeploy_requests_total{model="m",version="1",code="200"}'
        until(lambda: counted(server, total) == 10)  # whichever worker is asked, it answers for both
        before = workers()
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(workers() - {min(before)}) == 2)  # both looked at in one moment
        until(lambda: all(quietly(server, body) for _ in range(4)))
        assert server.stop() == 0
    assert any("ended with -9, starting another one" in line for line in server.said), server.said


def test_workers_end_with_the_process_that_watches_them(tmp_path: Path) -> None:
    with serving(dense(tmp_path / "m.onnx", 3), "--workers", "2") as server:
        server.process.kill()
        assert server.process.wait(PATIENCE) == -signal.SIGKILL
        # their standard error is the pipe that is read here: it ends when the last of them has
        until(lambda: not server.alive_on_stderr())


def quietly(server: Server, body: Any) -> bool:
    try:
        return server.infer("m", body).status == 200
    except OSError:
        return False


def test_a_bundle_is_served_when_its_golden_samples_hold(tmp_path: Path) -> None:
    bundle(dense(tmp_path / "tags.onnx", 3), output=tmp_path / "tags.fcd", version="7")
    with serving(tmp_path / "tags.fcd") as server:
        answer = server.ask("GET", "/v2/models/tags").json
        assert (answer["name"], answer["versions"]) == ("tags", ["7"])
        assert server.infer("tags", {"inputs": [tensor("x", samples(2, 5))]}).status == 200


def test_the_access_log_has_a_line_a_request(tmp_path: Path) -> None:
    with serving(dense(tmp_path / "m.onnx", 3), "--access-log") as server:
        server.infer("m", {"inputs": [tensor("x", samples(2, 5))]})
        server.ask("GET", "/nothing")
        server.ask("GET", f"/v2?{'q' * 10_000}")
        assert server.process.stdout
        first, second, third = (json.loads(server.process.stdout.readline()) for _ in range(3))
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v2/models/m/infer", 200)
    assert (first["model"], first["version"], first["samples"], first["batch"]) == ("m", "1", 2, 2)
    assert first["seconds"] >= first["compute_seconds"] > 0
    assert second["status"] == 404
    assert len(third["path"]) == LOGGED  # a client does not fill the log, or memory


def test_cores_are_those_that_a_container_may_keep_busy(tmp_path: Path) -> None:
    here = len(os.sched_getaffinity(0))
    assert count_usable_cores(tmp_path) == here
    for quota, cores in (("max 100000", here), ("150000 100000", min(here, 2)), ("20000 100000", 1), ("garbage", here)):
        groups = tmp_path / quota.replace(" ", "-")  # a folder each: what a container allows is read once
        groups.mkdir()
        (groups / "cpu.max").write_text(quota)
        assert count_usable_cores(groups) == cores
    for quota, cores in (("100000", 1), ("-1", here)):
        groups = tmp_path / f"version-1-{quota}"
        (groups / "cpu").mkdir(parents=True)
        (groups / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        (groups / "cpu" / "cpu.cfs_period_us").write_text("100000")
        assert count_usable_cores(groups) == cores


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    whole = read_memory_bytes(tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000000\n")
    assert read_memory_bytes(tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max")
    assert read_memory_bytes(tmp_path) == whole


MISUSE: list[tuple[list[str], str]] = [
    (["nothing.onnx"], "'nothing.onnx' does not exist"),
    (["empty"], "folder 'empty' holds no models, expected NAME.onnx, bundles or NAME/VERSION/model.onnx"),
    (["bad.onnx"], "'bad.onnx' is not an ONNX model, or is damaged"),
    (["odd"], "model 'odd/a name.onnx': the name 'a name' cannot stand in an address"),
    (["m.onnx", "--port", "PORT"], "cannot listen on 127.0.0.1:PORT: "),
    (["m.onnx", "--token-file", "none"], "cannot read the token 'none': No such file or directory"),
    (["m.onnx", "--token-file", "blank"], "'blank' holds no token, expected a line of text"),
    (["m.onnx", "--tls-cert", "c.pem"], "--tls-cert is given without --tls-key, expected both"),
    (
        ["m.onnx", "--tls-cert", "c.pem", "--tls-key", "k.pem"],
        "cannot use the certificate 'c.pem' with the key 'k.pem': ",
    ),
    (["m.onnx", "--max-body", "0"], "fcdeploy serve: invalid value for '--max-body': '0' is no amount of memory"),
    (["bad.onnx", "--workers", "2"], "'bad.onnx' is not an ONNX model, or is damaged"),
]


@pytest.mark.parametrize(("arguments", "message"), MISUSE, ids=[message for _, message in MISUSE])
def test_what_cannot_begin_says_why(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    dense(Path("m.onnx"), 3)
    Path("empty").mkdir()
    Path("odd").mkdir()
    shutil.copy("m.onnx", "odd/a name.onnx")
    Path("bad.onnx").write_bytes(b"no model")
    Path("blank").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = [port if word == "PORT" else word for word in arguments]
        assert cli.main(["serve", *(given if "--port" in given else [*given, "--port", "0"])]) == 2
    err = capsys.readouterr().err
    assert "no spinning" not in err  # nothing is announced that does not begin
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert lines[0].startswith(f"error: {message}".replace("PORT", port))
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
