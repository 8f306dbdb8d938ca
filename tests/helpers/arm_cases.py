"""What ARM CPUs computed of the layers of avx2_cases.py, and of more whose bytes are at the lowest.

`arm_kernels.npz` holds what onnxruntime 1.32.0 for aarch64 computed under emulation (qemu 10.0.2) of a Cortex-A53, which has
no dot product instructions, and of a Neoverse N1, which has them; of the latter only what differs.  It was made by `write`, a
run of each model there, and `read`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avx2_cases
import numpy as np
from avx2_cases import Layer, convolution, dense, recorded

FILE = Path(__file__).parent / "arm_kernels.npz"
CPUS = ("cortex-a53", "neoverse-n1")
PLAIN = {"weight_zero": 0, "zero": 128, "batch": 2}


def lowest() -> Iterator[tuple[str, Layer]]:
    """Layers in which most bytes, activations and weights, are the lowest of their type."""
    before, avx2_cases.SHARES = avx2_cases.SHARES, (0.1, 0.4)
    kinds: list[tuple[Any, Any]] = [(np.uint8, np.int8), (np.int8, np.int8)]
    depthwise = [(16, [3, 3]), (24, [3, 3]), (20, [3, 3]), (8, [9]), (32, [9]), (16, [5, 5]), (8, [2, 2]), (16, [7])]
    for at, (channels, kernel) in enumerate(depthwise):
        for types in kinds:
            yield f"depthwise{at}.{types[0].__name__}", convolution({
                **PLAIN, "types": types, "groups": channels, "channels": channels, "outs": channels, "kernel": kernel,
                "space": [n + 2 for n in kernel], "strides": [1] * len(kernel), "dilations": [1] * len(kernel),
                "pads": [1] * (2 * len(kernel)), "seed": 9000 + at,
            })  # fmt: skip
    for at, (groups, each, kernel) in enumerate([(1, 3, [3, 3]), (1, 24, [1, 1]), (2, 9, [2, 2]), (1, 16, [3])]):
        for types in kinds:
            yield f"conv-low{at}.{types[0].__name__}", convolution({
                **PLAIN, "types": types, "groups": groups, "channels": groups * each, "outs": groups * 8,
                "kernel": kernel, "space": [n + 2 for n in kernel], "strides": [1] * len(kernel),
                "dilations": [1] * len(kernel), "pads": [0] * (2 * len(kernel)), "seed": 9100 + at,
            })  # fmt: skip
    for at, (m, k, n) in enumerate([(1, 9, 3), (1, 40, 17), (5, 130, 20)]):
        for op in avx2_cases.DENSE_OPS:
            yield f"dense-low{at}.{op}", dense(op, {
                **PLAIN, "m": m, "k": k, "n": n, "stored": at != 1 or op == "QGemm", "seed": 9200 + at, "kind": np.int8,
            })  # fmt: skip
    avx2_cases.SHARES = before


def layers() -> Iterator[tuple[str, Layer]]:
    yield from recorded()
    yield from lowest()


def write(folder: Path) -> None:
    """Models and their inputs, for a machine that has nothing but onnxruntime and NumPy."""
    for at, (_, layer) in enumerate(layers()):
        model = avx2_cases.write_model(layer.node, layer.inputs, layer.weights, layer.out)
        (folder / f"{at}.onnx").write_bytes(model)
        np.savez(folder / f"{at}.npz", **layer.inputs)


def read(folder: Path) -> None:
    """Make the file from what each CPU wrote, FOLDER/CPU.npz, by number."""
    names = [name for name, _ in layers()]
    real = {cpu: dict(np.load(folder / f"{cpu}.npz")) for cpu in CPUS}
    first, second = ({name: real[cpu][str(at)] for at, name in enumerate(names)} for cpu in CPUS)
    differ = {name: array for name, array in second.items() if (array != first[name]).any()}
    np.savez_compressed(FILE, **first, **{f"{CPUS[1]}/{name}": array for name, array in differ.items()})
    sys.stdout.write(f"{json.dumps({'layers': len(names), 'differ': len(differ), 'bytes': FILE.stat().st_size})}\n")


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
