"""What scripts/robustness/trace_calls.py takes for wrong, call by call; and a whole command under strace, where there is one."""

from __future__ import annotations

import contextlib
import shutil
import socket
from pathlib import Path

import conftest
import pytest

from scripts.robustness.trace_calls import follow_folders, judge, prepare, trace

ALLOWED = ("/work/out", "/work/tmp")
CALLS = {
    'openat(AT_FDCWD, "/work/out/q.onnx", O_WRONLY|O_CREAT, 0666) = 3': "",
    '17 openat(AT_FDCWD, "out/q.onnx", O_RDWR|O_CREAT, 0666) = 3': "",
    'openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3': "",
    'openat(AT_FDCWD, "/dev/null", O_RDWR) = 3': "",
    'unlinkat(5, "weights", 0) = 0': "",
    'socket(AF_UNIX, SOCK_STREAM, 0) = 3': "",
    'openat(AT_FDCWD, "/home/me/.cache/device", O_WRONLY|O_CREAT, 0666) = 3': "'/home/me/.cache/device' is written",
    'rename("/work/out/q.onnx", "/work/q.onnx") = 0': "'/work/q.onnx' is written",
    'unlink("../other") = 0': "'/other' is written",
    'openat(AT_FDCWD, "/etc/resolv.conf", O_RDONLY|O_CLOEXEC) = 3': "a name is looked up",
    'socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 4': "a socket",
    'connect(4, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16) = 0': "a socket",
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_wrong_where_it_reaches_outside(call: str) -> None:
    assert judge(call, ALLOWED, Path("/work")) == CALLS[call]


def test_a_server_opens_its_own_socket_and_no_other() -> None:
    bound = 'bind(7, {sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("ADDRESS")}, 16) = 0'
    assert not judge(bound.replace("ADDRESS", "127.0.0.1"), ALLOWED, Path("/work"), serves=True)
    assert judge(bound.replace("ADDRESS", "0.0.0.0"), ALLOWED, Path("/work"), serves=True) == "a socket"
    six = 'bind(7, {sa_family=AF_INET6, sin6_port=htons(0), inet_pton(AF_INET6, "ADDRESS", &sin6_addr)}, 28) = 0'
    assert not judge(six.replace("ADDRESS", "::ffff:127.0.0.1"), ALLOWED, Path("/work"), serves=True)
    assert judge(six.replace("ADDRESS", "::"), ALLOWED, Path("/work"), serves=True) == "a socket"
    asked = 'connect(7, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0'
    assert judge(asked, ALLOWED, Path("/work"), serves=True) == "a socket"


def test_a_name_that_is_looked_up_by_any_test_is_seen() -> None:
    with contextlib.suppress(AssertionError):  # as a library would swallow it
        socket.getaddrinfo("telemetry.example", 443)
    assert conftest.asked_elsewhere == ["socket.getaddrinfo 'telemetry.example'"]
    conftest.asked_elsewhere.clear()


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_calibrate_writes_where_it_may_and_asks_nobody(tmp_path: Path) -> None:
    prepare(tmp_path)
    code, faults = trace(
        ["calibrate", "in/net.onnx", "--data", "in/net.npz", "-o", "out/c.calib"], tmp_path, tmp_path / "log"
    )
    assert (code, faults) == (0, [])
    assert "c.calib" in (tmp_path / "log").read_text()


def test_a_relative_name_is_one_of_the_folder_that_its_process_is_in() -> None:
    """A compiler's children work in folders of their own."""
    lines = [
        "10 clone(child_stack=NULL, flags=SIGCHLD) = 11",
        '11 chdir("/tmp/own") = 0',
        '11 openat(AT_FDCWD, "a.o", O_WRONLY|O_CREAT, 0666) = 3',
        "11 <... clone3 resumed>) = 12",
        '12 unlink("b.o") = 0',
        '10 unlink("c.o") = 0',
    ]
    seen = {line: str(where) for line, where in follow_folders(lines, Path("/start"))}
    assert [seen[line] for line in (lines[2], lines[4], lines[5])] == ["/tmp/own", "/tmp/own", "/start"]
    assert judge(lines[2], ["/tmp/own"], Path("/tmp/own")) == ""
    assert judge(lines[5], ["/tmp/own"], Path("/start")) == "'/start/c.o' is written"
