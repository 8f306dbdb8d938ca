"""Pictures served beside pictures here: equal classes, mutated files, memory, and CPU time of a request.

python -m scripts.pictures.check_served BUNDLE FOLDER [MUTATED]      # FOLDER: JPEG files, of which 400 are taken; 10,000 mutated
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from fcdeploy import load_bundle
from fcdeploy.preprocessing.apply import read_picture

MOST = 400
TURN = 20  # pictures
TENTHS = 10  # after each of which memory is read


def start_server(bundle: Path) -> tuple[subprocess.Popen[str], int]:
    command = [
        sys.executable,
        "-c",
        "import sys; from fcdeploy.cli import main; sys.exit(main())",
        "serve",
        str(bundle),
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"serving on http://\S+:(\d+)", line):
            return process, int(found[1])
    raise SystemExit("the server did not start")


def read_cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def read_memory(pid: int) -> float:
    """Megabytes of its own."""
    found = re.search(r"^Anonymous:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    return int(found[1]) / 1024 if found else 0.0


def mutate(good: bytes, random: np.random.Generator) -> bytes:
    body = bytearray(good)
    kind, at = int(random.integers(3)), int(random.integers(len(body)))
    if kind == 0:
        del body[at : at + int(random.integers(1, len(body)))]
    else:
        for place in random.integers(0, len(body) if kind == 1 else min(len(body), 600), int(random.integers(1, 60))):
            body[place] = int(random.integers(256))
    return bytes(body)


def main() -> None:
    """Print a line for each figure."""
    bundle, folder = Path(sys.argv[1]), Path(sys.argv[2])
    mutated = int(sys.argv[3]) if len(sys.argv) > 3 else 10_000
    files = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:MOST]]
    loaded = load_bundle(bundle, threads=1)
    how, (spec,) = loaded.manifest.format.preprocessing, loaded.manifest.inputs
    assert how is not None
    process, port = start_server(bundle)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(body: bytes) -> tuple[int, dict[str, object]]:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        client.request("POST", f"/v1/models/{loaded.manifest.name}:classify", body, {"Content-Type": "image/jpeg"})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())

    try:
        for file in files[:20]:
            ask(file)
        served, scores, cost, alone = list[dict[str, object]](), list[np.ndarray](), 0.0, 0.0
        for at in range(0, len(files), TURN):  # in turns, so that what else this machine does burdens both
            begun = read_cpu(process.pid)
            served += [ask(file)[1] for file in files[at : at + TURN]]
            cost += read_cpu(process.pid) - begun
            begun = time.process_time()
            for file in files[at : at + TURN]:
                x = read_picture(file, how, spec)[0][None]
                scores.append(next(iter(loaded.predict(**{spec.name: x}).values())))
            alone += time.process_time() - begun
        wanted = [int(row[0].argmax()) for row in scores]
        found = [row["predictions"][0]["classes"][0]["class"] for row in served]  # type: ignore[index]
        sys.stdout.write(f"{sum(a != b for a, b in zip(wanted, found, strict=True))} of {len(files)} classes differ\n")
        sys.stdout.write(
            f"CPU of a request {1000 * cost / len(files):.2f} ms, {cost / alone:.2f} of decode, resize and net alone\n"
        )

        random = np.random.default_rng(0)
        png = io.BytesIO()
        Image.open(io.BytesIO(files[0])).save(png, "PNG")
        small = [*sorted(files, key=len)[: len(files) // 2], png.getvalue()]
        client.close()  # it was idle while this process worked, and the server may have closed it
        for at in range(100):
            ask(mutate(small[at % len(small)], random))
        memory, statuses, slowest = [read_memory(process.pid)], Counter[int](), 0.0
        for at in range(mutated):
            begun = time.perf_counter()
            statuses[ask(mutate(small[at % len(small)], random))[0]] += 1
            slowest = max(slowest, time.perf_counter() - begun)
            if (at + 1) % max(1, mutated // TENTHS) == 0:
                memory.append(read_memory(process.pid))
        sys.stdout.write(f"{mutated} mutated: {dict(statuses)}, slowest {slowest:.2f} s, ")
        sys.stdout.write("memory of its own, MB: ")
        sys.stdout.write(" ".join(f"{each:.1f}" for each in memory))
        sys.stdout.write(f" ({100 * (memory[-1] / memory[0] - 1):+.1f} %, ")
        sys.stdout.write(f"{100 * (memory[-1] / memory[1] - 1):+.1f} % after the first tenth)\n")
    finally:
        process.kill()


if __name__ == "__main__":
    main()
