"""Drawn byte layers of onnxruntime on emulated ARM CPUs, half of their codes at an end: no sum wraps but where the proof says so.

Layers are convolutions (grouped, depthwise, of one to three axes) and the products of ONNX and onnxruntime, weights stored or
given, signed and unsigned. What each CPU computes is compared with exact sums, with the emulator (arithmetic/kernels/neon.py),
and with what `inspect --saturation` proves of that layer. ARM_PYTHON is a command as scripts/test-arm wants it.

    scripts/test-arm --sweep [CASES]      10,000: half an hour
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import avx2_cases
import click
import numpy as np
import onnx
import onnx_ir as ir
from avx2_cases import TYPES, Layer, convolution, dense, write_model
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy.proof.saturation import prove_no_saturation

CPUS = ("cortex-a53", "neoverse-n1")
TOGETHER = 50  # layers in a model: a session is made as slowly as many of them run
SHARES = ((0.4, 0.1), (0.1, 0.4), (0.0, 0.6))
"""Of codes at the highest and at the lowest."""

SECONDS = 7200
RUN = """
import json, sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
for name in json.load(open("models.json")):
    session = onnxruntime.InferenceSession(name + ".onnx", options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    np.savez(f"{name}.{sys.argv[1]}.npz", **dict(zip(names, session.run(names, dict(np.load(name + ".npz"))))))
"""


def main(arguments: Sequence[str]) -> int:
    """Print what was seen on each CPU; 1 where a sum wraps around that was proven not to, 2 where there is no such Python."""
    if not os.environ.get("ARM_PYTHON"):
        click.echo("error: ARM_PYTHON is not set", err=True)
        click.echo("hint: the head of scripts/test-arm says what it is", err=True)
        return 2
    layers = [draw_layer(seed) for seed in range(int(arguments[0]) if arguments else 10_000)]
    wrong = 0
    for cpu, answers in run_layers(layers).items():
        seen = Counter(judge(layer, answer, cpu) for layer, answer in zip(layers, answers, strict=True))
        click.echo(
            f"{cpu:<12} {len(layers):,} layers: {', '.join(f'{count:,} {what}' for what, count in sorted(seen.items()))}"
        )
        wrong += sum(count for what, count in seen.items() if what.isupper())
    return 1 if wrong else 0


def draw_layer(seed: int) -> Layer:
    """One of any kind and shape."""
    random = np.random.default_rng(seed)
    before, avx2_cases.SHARES = avx2_cases.SHARES, SHARES[seed % len(SHARES)]
    common = {
        "zero": int(random.choice([0, 1, 128, 255])),
        "weight_zero": int(random.choice([0, 0, 0, 5])),
        "seed": seed,
    }
    if random.random() < 0.5:
        layer = convolution(common | _draw_window(random))
    else:
        m, k, n = (int(random.integers(1, most)) for most in (6, 150, 40))
        kind, stored = random.choice([np.int8, np.int8, np.uint8]), bool(random.integers(3))
        op = str(random.choice(avx2_cases.DENSE_OPS))
        layer = dense(op, common | {"m": m, "k": k, "n": n, "stored": stored or op.startswith("QGemm"), "kind": kind})
    avx2_cases.SHARES = before
    return layer


def _draw_window(random: np.random.Generator) -> dict[str, Any]:
    rank = int(random.choice([1, 2, 2, 2, 3]))
    kernel = [int(n) for n in random.integers(1, 6 if rank < 3 else 4, rank)]
    groups = int(random.choice([1, 1, 2, 3]))
    each, outs = (int(random.integers(1, 24)) for _ in range(2))
    if random.random() < 0.4:  # depthwise
        groups, each, outs = int(random.choice([3, 8, 16, 24, 32, 40])), 1, 1
    types = [(np.uint8, np.int8), (np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8)][random.integers(4)]
    dilations = [int(n) for n in random.integers(1, 3, rank)]
    return {
        "types": types, "groups": groups, "channels": groups * each, "outs": groups * outs, "kernel": kernel,
        "space": [(k - 1) * d + 1 + int(random.integers(4)) for k, d in zip(kernel, dilations, strict=True)],
        "strides": [int(n) for n in random.integers(1, 3, rank)], "dilations": dilations,
        "pads": [int(n) for n in random.integers(0, 2, 2 * rank)], "batch": int(random.integers(1, 3)),
    }  # fmt: skip


def run_layers(layers: Sequence[Layer]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """What each CPU computes of each."""
    python = shlex.split(os.environ["ARM_PYTHON"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = [f"m{at}" for at in range(0, len(layers), TOGETHER)]
        for at, name in zip(range(0, len(layers), TOGETHER), names, strict=True):
            write_together(folder / name, layers[at : at + TOGETHER])
        (folder / "models.json").write_text(json.dumps(names))
        (folder / "run.py").write_text(RUN)
        found = {}
        for cpu in CPUS:
            subprocess.run([*python, "-cpu", cpu, "run.py", cpu], cwd=folder, check=True, timeout=SECONDS)
            found[cpu] = []
            for at, name in zip(range(0, len(layers), TOGETHER), names, strict=True):
                with np.load(folder / f"{name}.{cpu}.npz") as file:
                    found[cpu] += [file[f"y{n}"] for n in range(len(layers[at : at + TOGETHER]))]
    return found


def write_together(path: Path, layers: Sequence[Layer]) -> None:
    """NAME.onnx, a model of layers beside each other, and NAME.npz, its inputs."""
    graph, feeds = onnx.GraphProto(name="many"), {}
    for n, layer in enumerate(layers):
        node = onnx.NodeProto()
        node.CopyFrom(layer.node)
        node.name, node.output[0] = f"n{n}", f"y{n}"
        node.input[:] = [f"{name}{n}" for name in layer.node.input]
        graph.node.append(node)
        graph.initializer.extend(
            nh.from_array(np.asarray(array), f"{name}{n}") for name, array in layer.weights.items()
        )
        for name, array in layer.inputs.items():
            graph.input.append(oh.make_tensor_value_info(f"{name}{n}", TYPES[array.dtype], array.shape))
            feeds[f"{name}{n}"] = array
        graph.output.append(oh.make_tensor_value_info(f"y{n}", layer.out, None))
    opsets = [oh.make_opsetid("", 13), oh.make_opsetid("com.microsoft", 1)]
    onnx.save(oh.make_model(graph, opset_imports=opsets, ir_version=8), f"{path}.onnx")
    np.savez(f"{path}.npz", **feeds)


def judge(layer: Layer, answer: np.ndarray[Any, Any], cpu: str) -> str:
    """In words, in capitals where something is wrong."""
    at = CPUS.index(cpu)
    (proof,) = prove_no_saturation(
        ir.from_proto(onnx.load_from_string(write_model(layer.node, layer.inputs, layer.weights, layer.out)))
    )
    predicted = proof.wraps == "depthwise" or (proof.wraps == "plain" and at == 0)
    wrapped = not is_near(answer, layer.exact)
    if not wrapped:
        return "could wrap, and did not here" if predicted else "proven and exact"
    if not predicted:
        return "WRAPPED, PROVEN NOT TO"
    return "wrapped, as predicted" if is_near(answer, layer.arm[at]) else "OTHER THAN THE EMULATOR"


def is_near(answer: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    """Integers equal; floats, which ARM CPUs may round once less, within 1e-5 of the largest."""
    if answer.dtype != np.float32:
        return bool(np.array_equal(answer, expected))
    return bool(np.allclose(answer, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max(initial=1))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
