"""The commands that scripts/faults disturbs: all but the server, on two versions of small inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.reporting.page.overlay import FIGURES
from fcdeploy.runtime.probes.traps import TRAPS


@dataclass(frozen=True)
class Command:
    """What is run in the folder, and its outputs, the most important first; `old` makes those that are replaced.

    Of `measured` files it only counts that they are there: they hold times, or follow from them.  `stations` are several
    commands in one, which leave what earlier ones made where a later one fails.  A command without outputs needs files in
    TMPDIR and in the cache alone.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    old: tuple[str, ...]
    measured: tuple[str, ...] = ()
    stations: bool = False


def make_network(path: Path, seed: int) -> None:
    """A map of 4 x 2 x 2, flattened, and two dense layers, 16 -> 12 -> 4."""
    draw = np.random.default_rng(seed)
    weights = {"w1": (16, 12), "b1": (12,), "w2": (12, 4), "b2": (4,)}
    tensors = [numpy_helper.from_array(draw.normal(size=s).astype(np.float32), n) for n, s in weights.items()]
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "second"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *s]) for n, s in (("x", (4, 2, 2)), ("y", (4,)))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def list_commands() -> list[Command]:
    """Every command, on the new inputs; the old outputs come from the same command on the old inputs."""

    def command(name: str, text: str, *outputs: str, measured: tuple[str, ...] = (), stations: bool = False) -> Command:
        new, old = (tuple(text.replace("VERSION", version).split()) for version in ("new", "old"))
        force = ("--force",) if outputs and new[0] not in ("python", "demo") else ()
        return Command(name, (*new, *force), outputs, old, measured, stations)

    calibrate = "calibrate in/VERSION.onnx --data in/VERSION.npz"
    quantize = "quantize in/VERSION.onnx --int8 --calibration in/VERSION.calib --costs none --floor none"
    bundle = "bundle in/VERSION.int8.onnx --calibration in/VERSION.calib --plan in/VERSION.plan.json --name net"
    dense = "transform conv-to-dense in/VERSION.conv.onnx"
    emit = "compile in/VERSION.int8.onnx --data in/VERSION.npz --emit object --target cortex-m4"
    deploy = "deploy in/VERSION.onnx --data in/VERSION.npz --eval in/VERSION.second.npz --max-drop 100"
    deployed = ("d.fcd", "d.int8.onnx", "d.plan.json", "d.calib", "d.validation.json", "d.bench.json")
    timed = ("d.bench.json", "d.fcd/bench.json", "d.fcd/manifest.json")
    measure = "quantize in/VERSION.onnx --calibration in/VERSION.calib --floor none --costs measure"
    overlays = [f"overlay/{name}.json" for name in FIGURES]
    demo = ("dense.onnx", "dense.calib", "dense.int8.onnx")
    return [
        command("export", "export in/VERSION.py:network -o out/e.onnx", "e.onnx"),
        command("calibrate", f"{calibrate} -o out/c.calib --csv out/c.csv", "c.calib", "c.csv"),
        command("merge", "calibration merge in/VERSION.calib in/VERSION.second.calib -o out/m.calib", "m.calib"),
        command("convert", "calibration convert in/VERSION.calib -o out/ranges.json", "ranges.json"),
        command("quantize", f"{quantize} --save-plan out/plan.json -o out/q.onnx", "q.onnx", "plan.json"),
        command("convert-back", "calibration convert in/VERSION.json --model in/VERSION.onnx -o out/b.calib", "b.calib"),
        command("repair", "transform repair in/VERSION.broken.onnx -o out/r.onnx", "r.onnx"),
        command("conv-to-dense", f"{dense} --shape x:1,4,2,2 -o out/dense.onnx", "dense.onnx"),
        command("dense-to-conv", "transform dense-to-conv in/VERSION.onnx -o out/conv.onnx", "conv.onnx"),
        command("split", "transform split in/VERSION.onnx --at relu -o out/half.onnx", "half.first.onnx", "half.second.onnx"),
        command("bundle", f"{bundle} -o out/net.fcd", "net.fcd"),
        command("zip", f"{bundle} -o out/net.zip", "net.zip"),
        command("triton", f"{bundle} --triton out/models", "models/net/1", "models/net/config.pbtxt"),
        command("compile", "compile in/VERSION.int8.onnx --data in/VERSION.npz --emit c -o out/c", "c"),
        command("library", "compile in/VERSION.int8.onnx --data in/VERSION.npz -o out/net.so", "net.so"),
        command("object", f"{emit} -o out/net.o", "net.o", "net.h"),
        command("report", "report in/VERSION.int8.onnx -o out/net.html", "net.html"),
        command("card", "report in/VERSION.int8.onnx --format markdown -o out/net.md", "net.md"),
        command("overlay", "report in/VERSION.int8.onnx --format model-explorer -o out/overlay", *overlays),
        command("deploy", f"{deploy} -o out/d.fcd", *deployed, measured=timed, stations=True),
        command("deploy-zip", f"{deploy} -o out/z.zip", "z.zip", *(f"z{name[1:]}" for name in deployed[1:]),
                measured=("z.bench.json", "z.zip"), stations=True),
        command("costs", f"{measure} -o out/m.onnx", "m.onnx", measured=("m.onnx",)),
        command("costs-file", f"{measure.replace('measure', 'out/c.json').replace('VERSION', 'new')} -o out/m.onnx", "m.onnx",
                "c.json", measured=("m.onnx", "c.json"), stations=True),  # a file of another model's is refused
        command("cache", "calibration convert in/VERSION.calib -o out/ranges.cache", "ranges.cache"),
        command("with-library", f"{bundle} --library in/VERSION.so -o out/net.fcd", "net.fcd"),
        command("demo", "demo --seconds 0.05 -o out/demo", *(f"demo/{name}" for name in demo),
                measured=("demo/dense.int8.onnx",), stations=True),
        command("inspect", "inspect in/VERSION.int8.onnx --kernels --saturation"),
        command("cuts", "transform split in/VERSION.onnx"),
        command("show", "calibration show in/VERSION.calib"),
        command("validate", "validate in/VERSION.int8.onnx --against in/VERSION.onnx --data in/VERSION.second.npz --layers"),
        command("bench", "bench in/VERSION.int8.onnx --against in/VERSION.onnx --seconds 0.05"),
        command("profile", "bench in/VERSION.int8.onnx --per-node --seconds 0.05"),
        command("verify", "verify in/VERSION.fcd"),
        command("verify-native", "verify in/VERSION.native.zip --engine native"),
        command("doctor", "doctor"),
        command("weights", "python write_large in/VERSION.onnx out/large.onnx", "large.onnx", "large.onnx.data"),
    ]  # fmt: skip


NETWORK = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(SEED)
        self.dense = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.dense(x).relu()


def network():
    return Net()


def example_inputs():
    return {"x": torch.zeros(1, 4)}
"""


BROKEN = {"old": "no zero points, MatMul, 32-bit sums", "new": "zero points shared by two weights"}
"""What onnxruntime does not run, and `transform repair` mends."""


def make_inputs(folder: Path) -> None:
    """Networks, samples and all that is made of them, twice."""
    for version, seed in (("old", 0), ("new", 1)):
        make_network(folder / f"{version}.onnx", seed)
        for name, offset in ((version, 0), (f"{version}.second", 7)):
            samples = np.random.default_rng(seed + offset).normal(size=(40, 4, 2, 2)).astype(np.float32)
            np.savez(folder / f"{name}.npz", x=samples)
            data = f"--data {folder / name}.npz -o {folder / name}.calib"
            run_main(f"calibrate {folder / version}.onnx {data}".split())
        run_main(
            f"quantize {folder / version}.onnx --int8 --calibration {folder / version}.calib --costs none --floor none "
            f"--save-plan {folder / version}.plan.json -o {folder / version}.int8.onnx".split()
        )
        (folder / f"{version}.py").write_text(NETWORK.replace("SEED", str(seed)))
        (folder / f"{version}.broken.onnx").write_bytes(TRAPS[BROKEN[version]]().model)
        run_main(f"transform dense-to-conv {folder / version}.onnx -o {folder / version}.conv.onnx".split())
        run_main(f"calibration convert {folder / version}.calib -o {folder / version}.json".split())
        compiled = f"compile {folder / version}.int8.onnx --data {folder / version}.npz"
        run_main(f"{compiled} -o {folder / version}.so".split())
        run_main(f"bundle {folder / version}.int8.onnx -o {folder / version}.fcd".split())
        native = f"--library {folder / version}.so -o {folder / version}.native.zip"
        run_main(f"bundle {folder / version}.int8.onnx {native}".split())


def run_main(arguments: Sequence[str]) -> int:
    """A command of fcdeploy, or, behind the word "python", one of the functions below."""
    if arguments[0] == "python":
        globals()[arguments[1]](*arguments[2:])
        return 0
    from fcdeploy.cli import demo, deploy, main

    deploy.SECONDS = 0.05  # what is timed does not matter here
    demo.NETWORKS = (("dense", "digits64"),)
    return main(arguments)


def write_large(model: str, output: str) -> None:
    """A model with its weights in a file beside it, as one of more than 256 MB is written."""
    from fcdeploy.graph.model import read_model, write_model

    write_model(read_model(model), output, force=True, largest=0)
