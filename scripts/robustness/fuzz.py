"""Mutants of files and requests: see scripts/fuzz.

Each mutant is drawn from its number and the seed alone.  A file is given to one or two commands, each in a forked child
with a limit on its memory and its time.  Faults are: an exit code but 0, 1 and 2, a signal, a defect ("internal"), a
traceback, an answer 5xx of a server, more than SECONDS or MEMORY.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import pkgutil
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcdeploy
from scripts.checkout import ROOT
from scripts.robustness.fuzz_models import NETWORKS, ODD, TEXTS, make_network, mutate_bytes, mutate_model

SECONDS = 60
MEMORY = 2 << 30  # bytes that a command may come to hold
SPACE = 24 << 30  # bytes of addresses, so that a mistake ends the child and not the machine
REQUESTS, PARSED = 10, 50  # at a turn, which are that much quicker than a command
FILES = ("models", "calibrations", "plans", "bundles", "data")
COMMANDS = {
    "models": (
        "inspect MUTANT", "inspect MUTANT --kernels", "inspect MUTANT --saturation", "transform split MUTANT",
        "calibrate MUTANT --data DATA -o out/c.calib", "transform dense-to-conv MUTANT -o out/t.onnx",
        "quantize MUTANT --int8 --data DATA --costs none -o out/q.onnx",
        "quantize MUTANT --int8 --data DATA --dry-run --costs table",
        "quantize MUTANT --weights int8 --activations none -o out/w.onnx",
        "validate MUTANT --against MODEL --data EVAL", "bundle MUTANT -o out/b.fcd", "compile MUTANT --dry-run",
    ),
    "calibrations": (
        "calibration show MUTANT", "quantize MODEL --int8 --calibration MUTANT --costs none -o out/q.onnx",
        "calibration convert MUTANT -o out/r.json", "calibration merge MUTANT CALIB -o out/m.calib",
    ),
    "plans": ("quantize MODEL --int8 --calibration CALIB --plan MUTANT -o out/q.onnx", "bundle INT8 --plan MUTANT -o out/b.fcd"),
    "bundles": ("verify MUTANT",),
    "data": ("calibrate MODEL --data MUTANT -o out/c.calib", "validate INT8 --against MODEL --data MUTANT"),
}  # fmt: skip


class Bench:
    """A folder of good files, and children in which commands are run on mutants of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chdir(folder)
        os.environ.update(TMPDIR=str(folder / "tmp"), FCDEPLOY_CACHE=str(folder / "cache"))
        tempfile.tempdir = str(folder / "tmp")
        for name in ("tmp", "out"):
            Path(name).mkdir()
        for module in pkgutil.walk_packages(fcdeploy.__path__, "fcdeploy."):  # once, and not in every child
            if not re.search(r"pytorch|serve|ray", module.name):
                importlib.import_module(module.name)
        self.names: list[str] = []
        for name in NETWORKS:
            self._make(name)

    def _make(self, name: str) -> None:
        model = make_network(name)
        Path(f"{name}.onnx").write_bytes(model.SerializeToString())
        draw = np.random.default_rng(1)
        for file, rows in (("npz", 16), ("eval.npz", 12)):
            data: dict[str, Any] = {}
            for value in model.graph.input:
                shape = [rows, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
                floats = value.type.tensor_type.elem_type == 1
                data[value.name] = draw.normal(size=shape).astype(np.float32) if floats else draw.integers(0, 9, shape)
            np.savez(f"{name}.{file}", **data)
        steps = (
            f"calibrate {name}.onnx --data {name}.npz -o {name}.calib",
            f"quantize {name}.onnx --int8 --calibration {name}.calib --costs none --floor none "
            f"--save-plan {name}.plan.json -o {name}.int8.onnx",
            f"bundle {name}.int8.onnx --calibration {name}.calib -o {name}.zip",
        )
        for step in steps:
            code, printed = self.run(step.split())
            if code not in (0, 1):
                raise SystemExit(f"{step}: {printed}")
        self.names.append(name)

    def run(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Exit code, negative for a signal, and what was printed, in a child with limits."""
        child = os.fork()
        if child == 0:
            code = 3
            try:
                log = os.open("log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
                os.dup2(log, 1)
                os.dup2(log, 2)
                resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
                signal.alarm(SECONDS)
                from fcdeploy.cli import main

                code = main(arguments)
                sys.stdout.flush()
            finally:
                os._exit(code)
        _, status, used = os.wait4(child, 0)
        printed = Path("log").read_text(errors="replace")
        if used.ru_maxrss * 1024 > MEMORY:
            printed += f"\nmemory: {used.ru_maxrss >> 10} MB"
        return os.waitstatus_to_exitcode(status), printed

    def try_file(self, kind: str, number: int, seed: int, *, show: bool = False) -> list[str]:
        """What is wrong with how a mutant is dealt with."""
        draw = random.Random(f"{seed} {kind} {number}")
        name = draw.choice(self.names)
        mutant = MAKERS[kind](self.folder / name, draw)
        faults = []
        command = draw.choice(COMMANDS[kind])
        words = {"MUTANT": str(mutant), "MODEL": f"{name}.onnx", "INT8": f"{name}.int8.onnx", "CALIB": f"{name}.calib"}
        words |= {"DATA": f"{name}.npz", "EVAL": f"{name}.eval.npz"}
        code, printed = self.run([words.get(word, word) for word in command.split()])
        if show:
            print(f"{command}\nexit code {code}\n{printed}")
        if code not in (0, 1, 2):
            faults.append(f"exit code {code}")
        faults += [
            line for line in printed.splitlines() if "internal " in line or "Traceback" in line or "memory: " in line
        ]
        if set(printed) & set(map(chr, (*range(9), *range(11, 32), 0x202E))):
            faults.append("control characters are printed")
        if code == 2 and any(Path("out").iterdir()):
            faults.append(f"left behind: {[path.name for path in Path('out').iterdir()]}")
        shutil.rmtree("out")
        Path("out").mkdir()
        return [f"{command}: {fault}" for fault in faults]


def make_model(good: Path, draw: random.Random) -> Path:
    """A mutant of a network, or of its int8 form."""
    source = good.with_suffix(".int8.onnx" if draw.random() < 0.25 else ".onnx")
    return _write("mutant.onnx", mutate_model(source.read_bytes(), draw))


def make_calibration(good: Path, draw: random.Random) -> Path:
    """A mutant of a safetensors file: its JSON head, or its bytes."""
    data = good.with_suffix(".calib").read_bytes()
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.6:
        head = json.dumps(mutate_json(json.loads(data[8 : 8 + size]), draw)).encode()
        return _write("mutant.calib", len(head).to_bytes(8, "little") + head + data[8 + size :])
    return _write("mutant.calib", mutate_bytes(data[: 1 << 16] if draw.random() < 0.5 else data, draw))


def make_plan(good: Path, draw: random.Random) -> Path:
    """A mutant of a plan."""
    text = good.with_suffix(".plan.json").read_text()
    if draw.random() < 0.2:
        return _write("mutant.json", mutate_bytes(text.encode(), draw))
    return _write("mutant.json", json.dumps(mutate_json(json.loads(text), draw)).encode())


def make_bundle(good: Path, draw: random.Random) -> Path:
    """A mutant of a zip: a member of it, its names, or its bytes."""
    data = good.with_suffix(".zip").read_bytes()
    if draw.random() < 0.4:
        return _write("mutant.zip", mutate_bytes(data, draw))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draw.choice(list(members))
    if name.endswith(".json"):
        members[name] = json.dumps(mutate_json(json.loads(members[name]), draw)).encode()
    elif draw.random() < 0.3:
        members[draw.choice([*TEXTS, "../up", "a/b"]) or "x"] = members.pop(name)
    else:
        members[name] = mutate_bytes(members[name], draw)
    with zipfile.ZipFile("mutant.zip", "w", draw.choice((0, 8))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return Path("mutant.zip")


def make_data(good: Path, draw: random.Random) -> Path:
    """A mutant of an npz, or a file of another kind with such bytes."""
    arrays = dict(np.load(good.with_suffix(".npz")))
    what = draw.randrange(5)
    if what == 0:
        return _write("mutant.npz", mutate_bytes(good.with_suffix(".npz").read_bytes(), draw))
    name = draw.choice(list(arrays))
    if what == 1:
        arrays[name] = arrays[name].astype(
            draw.choice(("float16", "int8", "U5", "complex64", "datetime64[s]", "bool", "float64"))
        )
    elif what == 2:
        arrays[name] = arrays[name].reshape(draw.choice(((-1,), (1, -1), (*arrays[name].shape, 1))))
    elif what == 3:
        with np.errstate(all="ignore"):
            arrays[name] = arrays[name] * draw.choice((np.nan, np.inf, 0, 1e38))
    else:
        buffer = io.BytesIO()
        np.save(buffer, arrays[name])
        suffix = draw.choice((".npy", ".csv", ".py:samples", ".png", ".bin"))
        data = buffer.getvalue()
        if suffix == ".csv":
            data = "\n".join(",".join(map(str, row)) for row in arrays[name].reshape(len(arrays[name]), -1)).encode()
        file = _write(f"mutant{suffix.partition(':')[0]}", mutate_bytes(data, draw))
        return Path(f"{file}:samples") if ":" in suffix else file
    with np.errstate(all="ignore"):
        np.savez("mutant.npz", **arrays)
    return Path("mutant.npz")


MAKERS: dict[str, Callable[[Path, random.Random], Path]] = {
    "models": make_model, "calibrations": make_calibration, "plans": make_plan, "bundles": make_bundle, "data": make_data,
}  # fmt: skip


def mutate_json(value: Any, draw: random.Random) -> Any:
    """One to three values somewhere in it replaced by odd ones, taken out, or exchanged."""
    places: list[tuple[Any, Any]] = []

    def walk(owner: Any) -> None:
        for key in owner if isinstance(owner, dict) else range(len(owner)) if isinstance(owner, list) else ():
            places.append((owner, key))
            walk(owner[key])

    walk(value)
    odd = [None, True, 1.5, float("nan"), 1e39, [], [[]], {}, [None], {"a": 1}, *ODD, *TEXTS]
    for _ in range(draw.randint(1, 3)):
        owner, key = draw.choice(places)
        if isinstance(owner, list) and key >= len(owner):
            continue
        if draw.random() < 0.7:
            owner[key] = draw.choice(odd)
        elif isinstance(owner, dict):
            owner[draw.choice(TEXTS)] = owner.pop(key, None)
        else:
            del owner[key]
    return value


def _write(name: str, data: bytes) -> Path:
    Path(name).write_bytes(data)
    return Path(name)


@contextlib.contextmanager
def open_server(folder: Path) -> Iterator[Any]:
    """A server of one model, HTTP and gRPC."""
    from servers import serving

    os.environ["PYTHONPATH"] = str(ROOT)
    with serving(folder / "convolutions.int8.onnx", "--grpc-port", "0", "--read-timeout", "1") as server:
        yield server


def make_http_tries(server: Any) -> Callable[[int, int], list[str]]:
    """A function that sends mutant N of a seed, on a connection of its own."""
    from mutations import mutated
    from servers import binary, tensor, wire

    image = np.zeros((1, 3, 8, 8), np.float32)
    path = "/v2/models/convolutions/infer"
    body, fields = binary("image", image, "scores")
    goods = wire(path, json.dumps({"inputs": [tensor("image", image)]}).encode()), wire(path, body, **fields)

    def attempt(number: int, seed: int) -> list[str]:
        sent = mutated(goods[number % 2], (seed << 32) + number)
        answer = b""
        with socket.create_connection(("127.0.0.1", server.port), 5) as line, contextlib.suppress(ConnectionError):
            line.sendall(sent)
            line.shutdown(socket.SHUT_WR)
            while piece := line.recv(1 << 16):
                answer += piece
        bad = [word for word in answer.split(b"HTTP/1.1 ")[1:] if word[:1] == b"5" and word[:3] not in (b"503", b"504")]
        return [f"answer {word[:120]!r}" for word in bad] + (
            [] if server.process.poll() is None else ["the server is gone"]
        )

    return attempt


def make_grpc_tries(server: Any) -> Callable[[int, int], list[str]]:
    """A function that sends mutant N of a call's message."""
    import grpc

    from fcdeploy.serve.grpc_messages import PACKAGE, SERVICE, build_messages

    types = build_messages()
    port = next(line.rpartition(":")[2] for line in server.said if "gRPC on" in line)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    good = types["ModelInferRequest"](model_name="convolutions")
    good.inputs.add(name="image", datatype="FP32", shape=[1, 3, 8, 8])
    good.raw_input_contents.append(bytes(768))
    call = channel.unary_unary(f"/{PACKAGE}.{SERVICE}/ModelInfer")

    def attempt(number: int, seed: int) -> list[str]:
        message = mutate_bytes(good.SerializeToString(), random.Random(f"{seed} {number}"))
        try:
            call(message, timeout=10)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED):
                return [f"{error.code()}: {error.details()[:150]}"]
        return [] if server.process.poll() is None else ["the server is gone"]

    return attempt


def main() -> int:
    options = read_options()
    kinds = options.kind or [*FILES, "parsers", "http", "grpc"]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        bench = Bench(Path(name).resolve())
        if options.replay:
            kind, number = options.replay.split(":")
            return int(bool(bench.try_file(kind, int(number), options.seed, show=True)))
        tries: dict[str, Callable[[int, int], list[str]]] = {
            kind: lambda number, seed, kind=kind: bench.try_file(kind, number, seed) for kind in kinds if kind in FILES
        }
        if "parsers" in kinds:
            from scripts.robustness.fuzz_parsers import make_parser_tries

            tries["parsers"] = make_parser_tries(bench.folder, "convolutions", options.keep)
        if {"http", "grpc"} & set(kinds):
            server = stack.enter_context(open_server(bench.folder))
            tries |= {"http": make_http_tries(server)} if "http" in kinds else {}
            tries |= {"grpc": make_grpc_tries(server)} if "grpc" in kinds else {}
        return try_all(tries, options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="mutants of files and requests")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--count", type=int, default=10**9, help="mutants of each kind")
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=(*FILES, "parsers", "http", "grpc"))
    parser.add_argument("--keep", type=Path, help="a folder for files that were found wanting")
    parser.add_argument("--replay", metavar="KIND:NUMBER")
    options = parser.parse_args()
    options.keep = options.keep and options.keep.resolve()
    return options


def try_all(tries: Mapping[str, Callable[[int, int], list[str]]], options: argparse.Namespace) -> int:
    """Mutants of every kind in turn until time or count is up: 1 where one was answered wrongly."""
    begin, done, wrong = time.monotonic(), Counter[str](), 0
    for number in range(options.first, options.first + options.count):
        for kind, attempt in tries.items():
            several = 1 if kind in FILES else PARSED if kind == "parsers" else REQUESTS
            for index in range(several):
                faults = attempt(number * several + index, options.seed)
                done[kind] += 1
                wrong += bool(faults)
                for fault in faults:
                    print(f"{kind}:{number}: {fault}", flush=True)
                if faults and options.keep and kind in FILES:
                    for file in Path().glob("mutant.*"):
                        shutil.copy(file, options.keep / f"{kind}-{options.seed}-{number}{file.suffix}")
        if time.monotonic() - begin > options.seconds:
            break
    rows = ", ".join(f"{kind} {count}" for kind, count in done.items())
    print(f"{sum(done.values())} mutants, seed {options.seed}, {wrong} wrong: {rows}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
