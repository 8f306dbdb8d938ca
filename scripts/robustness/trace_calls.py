"""What commands ask of the system besides their work: see scripts/trace."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fcdeploy.runtime.probes.traps import TRAPS
from scripts.checkout import ROOT
from scripts.robustness.faults_commands import BROKEN, make_network

CALLS = (
    "connect,bind,sendto,sendmsg,socket,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,"
    "link,symlink,truncate,chdir,clone,clone3,fork,vfork"
)
COMMANDS = (
    "doctor", "inspect in/net.onnx --kernels",
    "calibrate in/net.onnx --data in/net.npz -o out/net.calib --csv out/net.csv",
    "calibrate in/net.onnx --data in/eval.npz -o out/other.calib",
    "calibration merge out/net.calib out/other.calib -o out/merged.calib", "export in/net.py:make --input 1,5 -o out/export.onnx",
    "calibration show out/net.calib", "calibration convert out/net.calib -o out/ranges.json",
    "quantize in/net.onnx --int8 --calibration out/net.calib --costs none --floor none --save-plan out/p.json"
    " -o out/net.int8.onnx",
    "inspect out/net.int8.onnx --saturation", "quantize in/net.onnx --int8 --data in/net.npz --effort best -o out/best.onnx",
    "validate out/net.int8.onnx --against in/net.onnx --data in/eval.npz", "bench out/net.int8.onnx --seconds 0.2",
    "transform dense-to-conv in/net.onnx -o out/conv.onnx",
    "transform conv-to-dense out/conv.onnx --shape x:1,4,2,2 -o out/dense.onnx",
    "transform split in/net.onnx --at relu -o out/half.onnx", "transform repair in/broken.onnx -o out/repaired.onnx",
    "quantize in/net.onnx --data in/net.npz -o out/measured.onnx", "inspect out/net.int8.onnx --kernels --runtimes",
    "bench out/net.int8.onnx --against in/net.onnx --per-node --seconds 0.2",
    "bundle out/net.int8.onnx --calibration out/net.calib -o out/net.fcd", "bundle out/net.int8.onnx -o out/net.zip",
    "verify out/net.fcd", "verify out/net.zip",
    "deploy in/net.onnx --data in/net.npz --eval in/eval.npz --max-drop 99 -o out/all.fcd",
    "report out/net.int8.onnx -o out/report.html",
    "report out/net.int8.onnx --format markdown -o out/card.md",
    "report out/net.int8.onnx --format model-explorer -o out/overlay",
    "compile out/net.int8.onnx --data in/net.npz --allow-float -o out/net.so",
    "compile out/net.int8.onnx --data in/net.npz --allow-float --emit c -o out/c",
    "compile out/net.int8.onnx --data in/net.npz --allow-float --emit object --target cortex-m4 -o out/net.o",
    "bundle out/net.int8.onnx --library out/net.so -o out/native.fcd", "verify out/native.fcd --engine native",
    "bench out/net.int8.onnx --engine native --seconds 0.2", "bundle out/net.int8.onnx --triton out/models",
    "demo --seconds 0.1 -o out/demo", "serve out/net.int8.onnx --port PORT", "serve out/native.fcd --engine native --port PORT",
    "serve out/net.fcd --workers 2 --grpc-port 0 --port PORT",
)  # fmt: skip
"""In the order in which one needs what those before it wrote."""
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")
RESOLVING = ("/etc/hosts", "/etc/resolv.conf", "/etc/gai.conf", "/run/systemd/resolve")
STARTED = re.compile(r"^(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)\b.* = (\d+)$")
CHANGED = re.compile(r'^(\d+) +chdir\("((?:[^"\\]|\\.)*)"(?:\) += 0$| <unfinished)')
LOOPBACK = ('"127.0.0.1"', '"::1"', '"::ffff:127.0.0.1"')  # the others are gRPC's, which looks whether there is IPv6
HARMLESS = ("/dev/", "/proc/self/", "pipe:", "socket:")
PORT = 18475


def judge(line: str, allowed: Sequence[str], folder: Path, *, serves: bool = False) -> str:
    """What is wrong with a call that strace wrote, "" where nothing is."""
    match = re.match(r"(?:\d+ +)?(\w+)\((.*)", line)
    if match is None:
        return ""
    call, given = match.groups()
    if call == "chdir" or STARTED.match(line):
        return ""
    if call in ("socket", "connect", "bind", "sendto", "sendmsg"):
        inet = re.search(r"AF_INET6?\b", given)
        own = serves and (call == "socket" or (call == "bind" and any(address in given for address in LOOPBACK)))
        return "" if inet is None or own else "a socket"
    paths = re.findall(r'"((?:[^"\\]|\\.)*)"', given)
    if call in ("open", "openat") and WRITING.search(given) is None:
        return "a name is looked up" if paths and paths[0].startswith(RESOLVING) else ""
    for path in paths:
        whole = os.path.normpath(folder / path)
        relative = call.endswith("at") and not path.startswith("/") and "AT_FDCWD" not in given
        if not relative and not whole.startswith((*allowed, *HARMLESS)):
            return f"{whole!r} is written"
    return ""


def trace(arguments: Sequence[str], folder: Path, log: Path, *, port: int = 0) -> tuple[int, list[str]]:
    """Exit code of a command, and the lines that are wrong; with `port` a server, which is asked and then ended."""
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "FCDEPLOY_CACHE": str(folder / "cache")}
    environment |= {"HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    options = ["-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    program = "import sys; from fcdeploy.cli import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen(
        ["strace", *options, sys.executable, "-P", "-c", program, *arguments],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    if port:
        _ask(child, port)
    _, said = child.communicate(timeout=600)
    if child.returncode not in (0, 1):
        print(said, file=sys.stderr)
    allowed = [str(folder / name) for name in ("out", "tmp", "cache")]
    faults = dict.fromkeys(
        f"{fault}: {line[:200]}"
        for line, where in follow_folders(log.read_text(errors="replace").splitlines(), folder)
        if (fault := judge(line, allowed, where, serves=bool(port)))
    )
    return child.returncode, list(faults)


def follow_folders(lines: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Each line and the folder that its process is in; a new process is where the one was that started it."""
    parents = {match[2]: match[1] for line in lines if (match := STARTED.match(line))}
    folders: dict[str, Path] = {}

    def find(process: str | None) -> Path:
        if process is None:
            return folder
        if process not in folders:
            folders[process] = find(parents.get(process))
        return folders[process]

    for line in lines:
        process = line.split(" ", 1)[0]
        where = find(process)
        if match := CHANGED.match(line):
            folders[process] = where / match[2]
        yield line, where


def _ask(child: subprocess.Popen[str], port: int) -> None:
    """Wait until a server is ready, ask for its models' state, and end it."""
    for _ in range(600):
        if child.poll() is not None:
            return
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
                answer.read()
            break
        except OSError:
            time.sleep(0.1)
    os.killpg(child.pid, signal.SIGTERM)


def prepare(folder: Path) -> None:
    """A network and samples in a folder of their own, and the folders that may be written."""
    for name in ("in", "out", "tmp", "cache", "home"):
        (folder / name).mkdir()
    make_network(folder / "in" / "net.onnx", 0)
    (folder / "in" / "broken.onnx").write_bytes(TRAPS[BROKEN["new"]]().model)
    for name in ("models", "calib_data"):  # of fcdeploy demo
        (folder / name).symlink_to(ROOT / name)
    (folder / "in" / "net.py").write_text("import torch\n\n\ndef make():\n    return torch.nn.Linear(5, 3)\n")
    for name, seed in (("net", 0), ("eval", 1)):
        np.savez(
            folder / "in" / f"{name}.npz", x=np.random.default_rng(seed).normal(size=(40, 4, 2, 2)).astype(np.float32)
        )


def try_all(folder: Path, commands: Sequence[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Each command, its exit code, and what is wrong."""
    prepare(folder)
    for number, command in enumerate(commands):
        serves = command.startswith("serve")
        words = command.replace("PORT", str(PORT)).split()
        code, faults = trace(words, folder, folder / f"{number}.strace", port=PORT if serves else 0)
        yield command, code, faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/trace", description=__doc__)
    parser.add_argument("--command", default="", help="report on commands alone whose name begins so")
    parser.add_argument("--keep", type=Path, help="a folder for what strace wrote")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        print("error: there is no strace\nhint: apt-get install strace", file=sys.stderr)
        return 2
    wrong = done = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for command, code, faults in try_all(folder, COMMANDS):
            if not command.startswith(options.command):
                continue
            done += 1
            # a server that is ended by a signal ends with 0 or by the signal
            ended = code in (0, 1) or (command.startswith("serve") and code in (-signal.SIGTERM, 128 + signal.SIGTERM))
            faults = faults if ended else [f"exit code {code}", *faults]
            wrong += bool(faults)
            print(f"{command}: {'; '.join(faults) or 'nothing'}", flush=True)
        if options.keep:
            for file in folder.glob("*.strace"):
                shutil.copy(file, options.keep)
    print(f"{done} commands, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
