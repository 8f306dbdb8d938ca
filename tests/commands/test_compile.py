"""`fcdeploy compile` end to end: a library and a folder of C, loaded, run, and refused where they should be."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from compiled_once import compiled_once
from conftest import fails
from native_kernels import KERNELS, compiler, source
from networks import Line, Net, quantize_net, quantize_residual, random_data

import fcdeploy
from fcdeploy.arrays import Array, Arrays
from fcdeploy.bundles import golden, libraries
from fcdeploy.bundles.golden import compare
from fcdeploy.bundles.load import load_bundle
from fcdeploy.cli import main
from fcdeploy.commands.compile import _read_samples
from fcdeploy.graph.light_reader import Outline
from fcdeploy.graph.model import name_everything, read_model
from fcdeploy.native import prove
from fcdeploy.native.build import build, compile_object, write_sources
from fcdeploy.native.device_limits import build_model
from fcdeploy.native.estimate import estimate
from fcdeploy.native.program.steps import Move, Step
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import Compiler, compile_c
from fcdeploy.records import calibration
from fcdeploy.reporting.compilation import format_proof
from fcdeploy.runtime.cpu import read_cpu_flags
from fcdeploy.runtime.engine import ENGINES
from fcdeploy.runtime.native_library import SHORTEST_US, NativeModel, load_native
from fcdeploy.runtime.session import Session
from fcdeploy.serve import models
from fcdeploy.serve.model_metadata import describe_model
from fcdeploy.serve.models import load_model
from fcdeploy.serve.repository import ModelFile, find_models
from fcdeploy.serve.tensors import decode
from fcdeploy.tables.devices import DEVICES


@pytest.fixture(autouse=True, scope="module")
def _compiled_once() -> Iterator[None]:
    """`validate`, `bench` and `compile` would each compile the same model."""
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def line() -> Line:
    return quantize_residual()


@pytest.fixture(scope="module")
def model(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.int8.onnx"
    onnx.save(ir.to_proto(line.int8), path)
    return path


@pytest.fixture(scope="module")
def library(model: Path, line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler()
    path = tmp_path_factory.mktemp("library") / "net.so"
    kept = path.with_name("net.calib")
    kept.write_bytes(calibration.to_bytes(line.calibration))
    assert len(line.calibration.groups[0]["image"]) > 2  # which are proven on one by one
    report = fcdeploy.compile(model, output=path, calibration=kept, samples=2)
    assert report.passed
    assert report.values["proof"]["samples"] == 2
    assert report.values["proof"]["differ"] == 0
    assert report.values["arena_bytes"] < 4096
    return path


def test_the_library_says_nothing_of_the_folder_it_was_made_in(library: Path) -> None:
    """So that the same model gives the same bytes: compilers write the folder into what debuggers read."""
    assert b"fcdeploy-" not in library.read_bytes()
    assert b"/tmp" not in library.read_bytes()


def test_the_library_gives_what_onnxruntime_does(line: Line, model: Path, library: Path) -> None:
    native = fcdeploy.load_native(library)
    assert native.description["name"] == "net"
    images = line.data["image"]
    (wanted,) = Session(model, threads=1).run({"image": images})
    (found,) = native.run({"image": images}).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    plain = fcdeploy.load_native(library, level="plain").run({"image": images})
    np.testing.assert_array_equal(found, next(iter(plain.values())))


def test_what_onnxruntime_fuses_wrongly_is_compared_without_its_optimizations(tmp_path: Path) -> None:
    """Its Softmax of bytes divides by 254 where 1/255 is asked for; the file's own operators, one by one, do not."""
    net = Net()
    coding = [(net.constant(each), net.constant(zero, np.uint8)) for each, zero in ((0.02, 128), (1 / 255, 0))]
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.input("x", 40), *coding[0]), *coding[0])
    y = net.op("DequantizeLinear", net.op("QuantizeLinear", net.op("Softmax", x, axis=-1), *coding[1]), *coding[1])
    path = net.output(y).save(tmp_path / "softmax.int8.onnx")
    report = fcdeploy.compile(path, output=tmp_path / "softmax.so")
    assert report.passed
    assert report.values["proof"]["onnxruntime"] == prove.UNOPTIMIZED
    assert any("gives other answers than the file says" in line for line in report.lines)


def test_two_layers_that_share_weights(tmp_path: Path) -> None:
    """onnxruntime 1.32 does not load them where it is asked to add in 32 bits: they are compared with its answers without."""
    net = Net()
    weight = net.op("DequantizeLinear", net.constant(net.random.integers(-99, 99, (4, 6)), np.int8), net.constant(0.01))
    ends = []
    for name in ("left", "right"):
        coding = net.constant(0.02), net.constant(128, np.uint8)
        x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.input(name, 6), *coding), *coding)
        gemm = net.op("Gemm", x, weight, transB=1)
        ends.append(net.op("DequantizeLinear", net.op("QuantizeLinear", gemm, *coding), *coding))
    path = net.output(*ends).save(tmp_path / "twins.int8.onnx")
    with fails("cannot load the model"):
        Session(path, threads=1, precise=True)
    report = fcdeploy.compile(path, output=tmp_path / "twins.so")
    assert report.passed
    assert report.values["proof"]["onnxruntime"] == prove.AS_IT_IS
    assert all(output["differ"] == 0 for output in report.values["proof"]["outputs"])


def test_many_threads_may_share_a_model(line: Line, library: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    native = fcdeploy.load_native(library)
    feeds = [{"image": line.data["image"][i % 6 : i % 6 + 1]} for i in range(200)]
    alone = [next(iter(native.run(each).values())) for each in feeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: next(iter(native.run(each).values())), feeds))
    np.testing.assert_array_equal(together, alone)


def test_wrong_inputs_and_libraries_are_refused(library: Path, model: Path) -> None:
    native = fcdeploy.load_native(library)
    with fails("input 'image' has the shape (1, 3, 4, 4), expected samples of (1, 3, 8, 8)"):
        native.run({"image": np.zeros((1, 3, 4, 4), np.float32)})
    image = np.zeros((1, 3, 8, 8), np.float32)
    with fails("input 'picture' is unknown"):
        native.run({"image": image, "picture": image})
    assert [len(output) for output in native.run({"image": image[:0]}).values()] == [0]
    with fails("no level 'avx10' that runs on this CPU"):
        fcdeploy.load_native(library, level="avx10")
    with fails("is no library of fcdeploy for this machine"):
        fcdeploy.load_native(model)
    with fails("library 'nope.so' does not exist", "fcdeploy.compile"):
        fcdeploy.load_native("nope.so")
    with fails("is no file"):
        fcdeploy.load_native(library.parent)
    wants = "image float32[1, 3, 8, 8]"
    for wrong in (image, [image], image[:0], None):
        with fails(f"expected arrays by name: {wants}", "run({'image': array})"):
            native.run(wrong)
    with fails("input 'image' is missing, given were 'X'", f"the model reads {wants}"):
        native.run({"X": image})
    with fails("input 'image' is missing, given were none"):
        native.run({})
    for dtype in (np.uint8, np.int64, bool, np.complex64):
        with fails(f"input 'image' is {np.dtype(dtype)}, the model wants float32", "array.astype('float32')"):
            native.run({"image": image.astype(dtype)})
    assert repr(native).startswith(f"<NativeModel {library.name!r}: {wants} -> ")
    assert repr(native).endswith(f"; level {native.level}>")


def test_what_is_float_is_told_how_to_become_integers(tmp_path: Path) -> None:
    net = Net()
    net.output(net.dense(net.op("Relu", net.dense(net.input("x", 6), 6, 200)), 200, 2))
    model, kept = net.save(tmp_path / "small.onnx"), tmp_path / "kept.onnx"
    with fails("small.onnx' is not quantized: 3 steps compute in float: ", "data=DATA, engine='native', output="):
        fcdeploy.compile(model, dry_run=True)
    np.savez(tmp_path / "data.npz", **random_data(3, 64, x=(6,)))
    fcdeploy.quantize(model, data=tmp_path / "data.npz", costs="table", target="x86-avx2", output=kept)
    with fails("kept.onnx' came out of quantize with its layers in float", "data=DATA, engine='native', output=OUT)"):
        fcdeploy.compile(kept, dry_run=True)
    fcdeploy.quantize(model, data=tmp_path / "data.npz", engine="native", output=tmp_path / "small.int8.onnx")
    assert fcdeploy.compile(tmp_path / "small.int8.onnx", dry_run=True).passed


def test_an_interrupt_ends_the_compilers(model: Path, tmp_path: Path) -> None:
    """Of the process alone, as a supervisor sends it: nothing waits for compilers that take their time, and nothing is left."""
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\necho $$ >> "$STARTED"\nexec sleep 600\n')
    slow.chmod(0o755)
    started, out = tmp_path / "started", tmp_path / "net.so"
    command = [
        sys.executable,
        "-c",
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a job in the background ignores it
        "from fcdeploy.cli import main; sys.exit(main())",
        "compile",
        str(model),
        "-o",
        str(out),
        "--allow-float",
    ]
    with subprocess.Popen(command, env={**os.environ, "CC": str(slow), "STARTED": str(started)}) as running:
        try:
            while not started.exists() or not started.read_text().endswith("\n"):
                assert running.poll() is None, "it ended before anything was compiled"
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=120) == 130
        finally:
            running.kill()
    for process in map(int, started.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slow", "started"]


def test_a_folder_of_c_compiles_without_anything_else(line: Line, model: Path, tmp_path: Path) -> None:
    """A program that reads floats and writes floats; warnings are errors."""
    build = compiler()
    folder = tmp_path / "c"
    assert main(["compile", str(model), "-o", str(folder), "--emit", "c", "--name", "tiny"]) == 0
    (folder / "main.c").write_text(
        """#include <stdio.h>
#include "tiny.h"
static _Alignas(64) unsigned char arena[TINY_ARENA_BYTES];
int main(void)
{
    float image[TINY_INPUT_SIZE], out[TINY_OUTPUT_SIZE];
    if (fread(image, sizeof image, 1, stdin) != 1)
        return 1;
    tiny_run(image, out, arena);
    fwrite(out, sizeof out, 1, stdout);
    return 0;
}
"""
    )
    compile_c(
        build,
        ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "main.c", "tiny.c", "tiny_weights.c", "-o", "main"],
        folder,
    )
    image = line.data["image"][:1]
    done = subprocess.run([folder / "main"], input=image.tobytes(), capture_output=True, check=True)
    (wanted,) = Session(model, threads=1).run({"image": image})
    np.testing.assert_allclose(np.frombuffer(done.stdout, np.float32).reshape(1, 4), wanted, rtol=1e-5, atol=1e-5)
    with fails("exists", "force"):
        fcdeploy.compile(model, output=folder, emit="c")


@pytest.mark.parametrize("target", ["host", "cortex-m7"])
def test_c_says_what_it_takes_where_it_lies_and_what_comes_next(model: Path, tmp_path: Path, target: str) -> None:
    folder = tmp_path / "c code"
    made = fcdeploy.compile(model, output=folder, emit="c", name="tiny", target=target)
    device, core = ("stm32f4", "Cortex-M4") if target == "host" else ("stm32h7", "Cortex-M7")
    wanted = estimate(
        build_model(read_model(model), {}, None if target == "host" else DEVICES[device]), DEVICES[device]
    )
    flash, place, after = made.report.lines[-3:]
    assert flash.startswith(f"flash about {wanted.flash:,} bytes on a {core}: weights {wanted.weights:,}, ")
    assert made.report.values["ram_about"] == wanted.ram
    assert f"'{folder}': {len(list(folder.iterdir()))} files; tiny.h has the sizes and tiny_run" == place
    compiler = "cc" if target == "host" else f"the compiler of {core}"
    sources = f"'{folder}/example.c' '{folder}/tiny.c' '{folder}/tiny_weights.c'"
    own = ", or a main.c of yours in place of example.c"
    assert after == f"next: {compiler} -std=c11 -O2 -I '{folder}' {sources}{own}"


@pytest.mark.parametrize(("width", "kind"), [(8, "c"), (600, "S")])
@pytest.mark.parametrize("multiply_and_add", [False, True])
@pytest.mark.parametrize("which", ["cc", "its own"])
def test_the_line_that_comes_next_builds_what_was_proven(
    tmp_path: Path, width: int, kind: str, multiply_and_add: bool, which: str
) -> None:
    """As a shell runs it, for weights as text and as a file, also where a core could do two roundings in one."""
    if which == "cc" and shutil.which("cc") is None:
        pytest.skip("there is no cc")
    if multiply_and_add and "fma" not in read_cpu_flags():
        pytest.skip("this CPU has no fused multiply-add")
    random, net = np.random.default_rng(0), Net()
    x = net.input("x", width)
    hidden = net.op("Relu", net.op("MatMul", x, net.constant(random.normal(size=(width, width)))))
    net.output(net.op("MatMul", hidden, net.constant(random.normal(size=(width, 4)))))
    line = quantize_net(net, random_data(0, 32, x=(width,)))
    onnx.save(ir.to_proto(line.int8), tmp_path / "big.onnx")
    folder = tmp_path / "c code"
    made = fcdeploy.compile(tmp_path / "big.onnx", output=folder, emit="c", name="big")
    assert (folder / f"big_weights.{kind}").exists()
    (tmp_path / "main.c").write_text(
        """#include <stdio.h>
#include "big.h"
static _Alignas(64) unsigned char arena[BIG_ARENA_BYTES];
int main(void)
{
    float in[BIG_INPUT_SIZE], out[BIG_OUTPUT_SIZE];
    while (fread(in, sizeof in, 1, stdin) == 1) {
        big_run(in, out, arena);
        fwrite(out, sizeof out, 1, stdout);
    }
    return 0;
}
"""
    )
    command = made.report.lines[-1].removeprefix("next: ").removesuffix(", or a main.c of yours in place of example.c")
    command = command.replace(f"'{folder}/example.c'", "main.c")
    assert command.startswith("cc ")
    command += " -mfma" if multiply_and_add else ""
    if which == "cc":
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        program = tmp_path / "a.out"
    else:
        program = tmp_path / "program"
        compile_c(compiler(), [*shlex.split(command)[1:], "-o", str(program)], tmp_path)
    done = subprocess.run([program], input=line.data["x"].tobytes(), capture_output=True, check=True)
    fcdeploy.compile(tmp_path / "big.onnx", output=tmp_path / "big.so")
    (wanted,) = fcdeploy.load_native(tmp_path / "big.so").run({"x": line.data["x"]}).values()
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32).reshape(wanted.shape), wanted)


def test_the_text_of_a_network_stands_beside_every_kernel(tmp_path: Path) -> None:
    """A name of its own that a kernel has too would not compile, and only where that kernel is called."""
    net = Net()
    net.output(net.op("ArgMax", net.input("x", 5), axis=1))
    graph = ir.from_proto(net.model())
    name_everything(graph.graph)
    write_sources(build(read_program(graph, "net")), tmp_path)
    (tmp_path / "all.c").write_text(f'{source()}#include "net.c"\n')
    compile_c(compiler(), ["-std=c11", "-O0", "-DFC_PLAIN", f"-I{KERNELS}", "-c", "all.c", "-o", "all.o"], tmp_path)


def test_hints_at_a_compiler_that_fails_are_of_some_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another compiler is told of only where it could do better: not of C that is wrong, nor of another machine's."""

    def said(arguments: list[str], lines: str) -> str:
        with pytest.raises(fcdeploy.FcdeployError) as caught:
            compile_c(Compiler(("sh", "-c", f"echo '{lines}' >&2; exit 1"), "sh", True), arguments, tmp_path)
        return caught.value.hint

    monkeypatch.delenv("CC", raising=False)
    wrong = "net.c:1:9: error: use of undeclared identifier"
    assert said(["-c", "net.c"], wrong).startswith("please report it")
    assert said(["-c", "net.c"], "error: out of memory") == "CC=gcc takes another compiler"
    assert "gcc" not in said(["-target", "aarch64-linux-gnu.2.17", "-c", "net.c"], "error: out of memory")
    monkeypatch.setenv("CC", "sh")
    assert said(["-c", "net.c"], wrong) == "unset CC"


def test_floats_that_differ_are_no_rounding_ties() -> None:
    """A difference between floats is said, however small; that of a byte is one level."""

    def said(golden_values: Any, found: Any) -> str:
        outputs = compare([({}, {"y": np.array(golden_values)})], lambda _: {"y": np.array(found)})
        return format_proof(prove.Proof((), ("plain",), (), tuple(outputs), prove.AS_IT_IS, 1))[-1]

    floats = np.array([0.0, 10.2, 51.0], np.float32)
    assert said(floats, floats) == "equal to onnxruntime in all 3 outputs"
    near = said(floats, np.float32([0.0, 10.3, 51.0]))
    assert near == "1 of 3 outputs differs from onnxruntime, by 0.5 of 255 levels at most"
    assert said(np.uint8([3, 4]), np.uint8([3, 5])) == "1 of 2 outputs differs from onnxruntime: rounding ties"
    assert said(floats, 2 * floats).endswith(", by more than rounding ties")


def test_a_dry_run_needs_no_compiler_and_writes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["compile", str(model), "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    kernels = [step["kernel"] for step in shown["steps"]]
    assert (kernels.count("fc_layer_bytes"), kernels.count("fc_layer_add_bytes")) == (1, 1)
    assert shown["schema"] == "fcdeploy.compile/1"
    with fails("CC is 'no-such-compiler', which is no program"):
        fcdeploy.compile(model, output=tmp_path / "net.so")
    assert not list(tmp_path.iterdir())


def test_steps_in_float_are_refused_unless_allowed(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 6)
    net.output(net.dense(net.op("Softplus", net.dense(x, 6, 6, name="one")), 6, 2, name="two"))
    line = quantize_net(net, random_data(0, 4, x=(6,)), keep_float=["two"])
    onnx.save(ir.to_proto(line.int8), tmp_path / "net.onnx")
    with fails("1 step computes in float: 'two': float dense 6 -> 2", "allow_float"):
        fcdeploy.compile(tmp_path / "net.onnx", dry_run=True)
    report = fcdeploy.compile(tmp_path / "net.onnx", dry_run=True, allow_float=True)
    assert "'two'" in report.warnings[0]


def test_samples_to_prove_it_on_are_whole_runs(line: Line, model: Path, tmp_path: Path) -> None:
    """As many as are asked for, rounded up to runs of the batch that is compiled; none at all is no proof."""
    np.savez(tmp_path / "data.npz", image=line.data["image"][:5])
    kept, other = tmp_path / "net.calib", tmp_path / "other.calib"
    kept.write_bytes(calibration.to_bytes(line.calibration))
    other.write_bytes(calibration.to_bytes(replace(line.calibration, model="0" * 64)))
    graph = read_model(model)

    def read(batch: int, data: Path | None, calibration: Path | None, count: int | None) -> list[int]:
        program = read_program(graph, "net", {"image": [batch, 3, 8, 8]})
        found = _read_samples(graph, model, program, data, calibration, count, None)
        return [len(each["image"]) for each in found]

    for data, recorded in ((tmp_path / "data.npz", None), (None, kept), (None, None)):
        assert read(2, data, recorded, 3) == [2, 2]
        assert read(1, data, recorded, None) == [1] * 4
    assert read(3, tmp_path / "data.npz", None, 6) == [3]
    with fails("less than the 64 samples of a run"):
        fcdeploy.compile(model, output=tmp_path / "net.so", shapes={"image": (64, 3, 8, 8)}, calibration=kept)
    said = onnx.load(model)
    onnx.helper.set_model_props(said, {"fcdeploy": json.dumps({"float": line.calibration.model})})
    onnx.save(said, tmp_path / "said.onnx")
    with fails("is not the one that the model was made with"):
        fcdeploy.compile(tmp_path / "said.onnx", output=tmp_path / "net.so", calibration=other)
    assert not prove.Proof((), ("plain",), (), (), runtime="", samples=0).passed


def test_what_differs_is_not_put_in_place(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is one level off in one step: the answer is no, and there is no file."""
    compiler()
    right = prove.compute

    def wrong(step: Step, given: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(value ^ 1 if value.dtype == np.uint8 else value for value in right(step, given))

    monkeypatch.setattr(prove, "compute", wrong)
    report = fcdeploy.compile(model, output=tmp_path / "net.so")
    assert not report.passed
    assert "not exact" in " ".join(report.lines)
    assert not list(tmp_path.iterdir())


def test_a_tensor_that_is_not_where_it_is_read_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies and places are no steps of the program: what a step reads is what another wrote, moved."""
    net = Net()
    net.output(
        net.op("Concat", *[net.op("Relu", net.conv(net.input(name, 3, 4), 3, 2, (1,))) for name in "ab"], axis=1)
    )
    quantized = quantize_net(net, random_data(4, 8, a=(3, 4), b=(3, 4)))
    onnx.save(ir.to_proto(quantized.int8), tmp_path / "net.onnx")
    compiler()
    assert fcdeploy.compile(tmp_path / "net.onnx", output=tmp_path / "net.so", allow_float=True).passed
    right = prove.compute
    monkeypatch.setattr(
        prove, "compute", lambda step, given: right(step, given[::-1] if isinstance(step, Move) else given)
    )
    report = fcdeploy.compile(tmp_path / "net.onnx", output=tmp_path / "other.so", allow_float=True)
    assert not report.passed
    assert "the outputs <- " in " ".join(report.lines)
    assert not (tmp_path / "other.so").exists()


def test_validate_and_bench_run_native_code(
    line: Line, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(line.float_model, tmp_path / "float.onnx")
    np.savez(tmp_path / "data.npz", image=line.data["image"])
    compiler()
    more: Any = {"against": tmp_path / "float.onnx", "engine": "native"}
    loaded: list[str] = []
    monkeypatch.setattr(
        "fcdeploy.runtime.open_engine.load_native", lambda path: loaded.append(path) or load_native(path)
    )
    found = fcdeploy.validate(model, data=tmp_path / "data.npz", same_data=True, **more)
    assert len(loaded) == 2
    assert found.values["kernel_sqnr_db"] > 100
    assert fcdeploy.bench(model, seconds=0.05, **more).values["ratio"] > 0
    assert len(loaded) > 3
    timed = fcdeploy.bench(model, seconds=0.05, per_node=True, engine="native")
    found, compiled = timed.values["per_node"], fcdeploy.compile(model, dry_run=True)
    assert [step["kernel"] for step in found["steps"]] == [step["kernel"] for step in compiled.values["steps"]]
    assert sum(step["macs"] for step in found["steps"]) == compiled.values["macs"]
    layers = [step for step in found["steps"] if step["macs"]]
    for step in layers:  # what is too short to tell has no share
        assert (step["share_of_peak"] is None) == (step["us"] < SHORTEST_US)
    assert sum(step["us"] for step in found["steps"]) > 0 and found["int8_us"] > 0
    assert {node["node"] for node in found["int8_only"]} == {step["node"] for step in found["steps"]}


def test_an_object_for_a_microcontroller(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is linked like any other: one function, its weights, and nothing that is written or missing but copies."""
    compiler()
    out = tmp_path / "net.o"
    report = fcdeploy.compile(model, output=out, emit="object", target="cortex-m4", name="net")
    elf, sizes = out.read_bytes(), report.values["object"]
    assert elf[:5] == b"\x7fELF\x01" and int.from_bytes(elf[18:20], "little") == 40  # 32 bits, ARM
    assert b"net_run\0" in elf and b"malloc" not in elf and sizes["written_bytes"] == 0
    assert 500 < sizes["flash_code"] == sizes["flash"] - report.values["flash_weight_bytes"]
    assert "NET_ARENA_BYTES" in (tmp_path / "net.h").read_text()
    assert "was not run: what was proven is the same program" in report.warnings[-1]
    command = ["compile", str(model), "-o", str(tmp_path / "other.o")]
    assert main([*command, "--emit", "object"]) == 2
    assert "an object file is for a microcontroller, and --target is 'host'" in capsys.readouterr().err
    assert main([*command, "--target", "cortex-m4"]) == 2
    assert "a library is for a machine, and cortex-m4 is none" in capsys.readouterr().err
    assert main([*command, "--target", "z80"]) == 2
    assert "expected host, x86_64, aarch64, cortex-m0" in capsys.readouterr().err
    assert main(["compile", str(model), "-o", str(tmp_path / "x.h"), "--emit", "object", "--target", "cortex-m4"]) == 2
    assert "expected an object file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.h", "net.o"]


def test_an_object_for_xtensa_comes_from_its_own_gcc(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is looked for before anything is proven; here another compiler stands in for it."""
    command = ["compile", str(model), "--emit", "object", "--target", "esp32s3", "-o", str(tmp_path / "net.o")]
    monkeypatch.setattr("fcdeploy.commands.compile._prove_here", lambda *_: pytest.fail("proven"))
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        assert main(command) == 2
    said = capsys.readouterr().err
    assert "there is no xtensa-esp32s3-elf-gcc, which makes code for esp32s3" in said and "--emit c" in said
    monkeypatch.undo()

    zig, gcc = compiler(), tmp_path / "bin" / "xtensa-esp32s3-elf-gcc"
    if not zig.cross:
        pytest.skip("the compiler makes code for this machine alone")
    gcc.parent.mkdir()
    gcc.write_text(
        f'#!/bin/sh\n[ "$1" = -mlongcalls ] || exit 1\nshift\nexec {shlex.join(zig.command)} -target riscv32-freestanding "$@"\n'
    )
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", str(gcc.parent), prepend=os.pathsep)
    assert main(command) == 0
    assert b"_run\0" in (tmp_path / "net.o").read_bytes()


def test_the_header_of_an_object_is_called_as_it_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing lies beside the two while the compiler runs, which may be killed then."""
    compiler()
    seen = []

    def look(*arguments: Any) -> tuple[int, int]:
        seen.append(list(tmp_path.iterdir()))
        return compile_object(*arguments)

    monkeypatch.setattr("fcdeploy.commands.compile.compile_object", look)
    command = ["compile", str(model), "--emit", "object", "--target", "cortex-m4", "-o", str(tmp_path / "layer.o")]
    assert main(command) == 0
    assert seen == [[]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer.h", "layer.o"]
    (tmp_path / "layer.o").unlink()
    capsys.readouterr()
    assert main(command) == 2
    assert f"output '{tmp_path / 'layer.h'}' exists" in capsys.readouterr().err
    assert len(seen) == 1  # said before anything is proven


@pytest.fixture(scope="module")
def bundled(model: Path, library: Path) -> Path:
    """A zip that carries native code for this machine, and what looks like some for another."""
    other = library.with_name("other.so")
    other.write_bytes(library.read_bytes()[:18] + (183).to_bytes(2, "little"))  # an ELF header of aarch64
    out = model.with_name("net.zip")
    report = fcdeploy.bundle(model, output=out, libraries=[library, other])
    assert list(report.warnings) == ["'native/aarch64.so' is for another machine: fcdeploy.verify(...) there tries it"]
    return out


def test_a_bundle_runs_its_own_library(line: Line, bundled: Path) -> None:
    images = {"image": line.data["image"]}
    onnx_answers, native = (load_bundle(bundled, engine=engine).predict(**images) for engine in ENGINES)
    for name, wanted in onnx_answers.items():
        np.testing.assert_allclose(native[name], wanted, rtol=1e-5, atol=1e-5)
    assert load_bundle(bundled, engine="native").session.input_specs == load_bundle(bundled).manifest.inputs
    report = fcdeploy.verify(bundled, engine="native")
    assert report.passed and report.values["engine"] == "native"


def test_a_library_lies_where_the_next_run_clears_it(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be killed while it loads it."""
    seen = []

    def look(path: Path) -> None:
        seen.append(path.resolve())
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(libraries, "load_native", look)
    with pytest.raises(OSError, match="Input/output"):
        load_bundle(bundled, engine="native")
    (path,) = seen
    assert path.parents[1].name.startswith("fcdeploy-") and path.parents[2] == Path(tempfile.gettempdir()).resolve()
    assert not path.parents[1].exists()


def test_a_bundle_with_a_library_needs_numpy_alone(bundled: Path) -> None:
    code = f"""
import sys
for name in ("onnx", "onnxruntime", "onnx_ir", "torch", "ml_dtypes", "click"):
    sys.modules[name] = None
import numpy as np, fcdeploy
bundle = fcdeploy.load_bundle({str(bundled)!r}, engine="native")
assert [one.kind for one in bundle.compare()] != ["different"]
print(bundle.predict(image=np.zeros((2, 3, 8, 8), np.float32)).popitem()[1].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(2, 4)\n"), done.stderr


def test_a_served_bundle_answers_natively(line: Line, bundled: Path, model: Path) -> None:
    (place,) = find_models(bundled)
    served = load_model(place, engine="native", max_batch=3)
    assert (type(served.session).__name__, served.largest) == ("NativeEngine", 3)
    images = {"image": line.data["image"][:3]}
    (wanted,) = Session(model, threads=1).run(images)
    np.testing.assert_allclose(served.run(images)[0], wanted, rtol=1e-5, atol=1e-5)
    assert (served.company, load_model(place, max_batch=3).company) == (
        "each sample by itself",
        "up to 3 samples a run",
    )
    state = SimpleNamespace(models=SimpleNamespace(list_versions=lambda _: ["1"]))
    assert describe_model(state, served)["platform"] == "fcdeploy_native"
    with fails("is an ONNX file, which onnxruntime runs", "--library"):
        load_model(ModelFile("net", "1", model), engine="native")


def test_what_a_graph_says_of_a_batch_is_nothing_to_native_code(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its samples are apart whatever is proven of the file; a batch of fixed length stays one."""
    (place,) = find_models(bundled)
    read = models.read_outline

    def mix(model: bytes) -> Outline:
        outline = read(model)
        return replace(outline, nodes=(*outline.nodes, replace(outline.nodes[-1], domain="of.ours")))

    monkeypatch.setattr(models, "read_outline", mix)
    alone, together = load_model(place, max_batch=3), load_model(place, engine="native", max_batch=3)
    assert (alone.largest, alone.independent, "of.ours" in alone.alone) == (1, False, True)
    assert (together.largest, together.independent, together.alone) == (3, True, "")

    def fix(model: bytes) -> Outline:
        outline = read(model)
        return replace(outline, inputs={name: (1, *dims[1:]) for name, dims in outline.inputs.items()})

    monkeypatch.setattr(models, "read_outline", fix)
    fixed = load_model(place, engine="native")
    assert (fixed.largest, fixed.alone) == (1, "input 'image' has a leading axis of 1, not a free one")


def test_native_code_is_served_on_one_thread(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "net.fcd", "--engine", "native", "--threads", "2"]) == 2
    assert "--threads 2 is for onnxruntime: native code computes on one" in capsys.readouterr().err


def test_a_binary_request_is_read_from_where_it_lies(
    line: Line, bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample goes the short way: its array has the very dtype that the library was compiled for."""
    (place,) = find_models(bundled)
    served = load_model(place, engine="native")
    one = {"image": line.data["image"][:1]}
    (expected,) = served.run(one)
    size, shape = one["image"].nbytes, list(one["image"].shape)
    tensor = {"name": "image", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    monkeypatch.delattr(NativeModel, "_run_many")
    for _ in range(2):  # the second time the header is known
        feeds, _ = decode(served, header + one["image"].tobytes(), len(header))
        np.testing.assert_array_equal(served.run(feeds)[0], expected)


def test_libraries_that_do_not_fit_are_refused(
    model: Path, library: Path, bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.fcd"
    with fails("are for the same machine"):
        fcdeploy.bundle(model, output=out, libraries=[library, library])
    with fails("is no shared library for x86_64 or aarch64", "fcdeploy.compile("):
        fcdeploy.bundle(model, output=out, libraries=[model])
    other = onnx.load(model)
    other.doc_string = "another file"
    onnx.save(other, tmp_path / "other.onnx")
    with fails("was compiled from another model", "compile it again"):
        fcdeploy.bundle(tmp_path / "other.onnx", output=out, libraries=[library])
    monkeypatch.setattr("fcdeploy.commands.bundle.golden.compare", lambda runs, run: compare_with_others(runs, run))
    with fails("answers otherwise than the model: output"):
        fcdeploy.bundle(model, output=out, libraries=[library])
    with fails("engine 'tflite' is unknown, expected onnxruntime, native"):
        load_bundle(bundled, engine="tflite")
    monkeypatch.setattr("fcdeploy.bundles.libraries.this_machine", lambda: "riscv64")
    with fails("has native code for aarch64, x86_64, expected riscv64", "--engine onnxruntime"):
        load_bundle(bundled, engine="native")
    assert not out.exists()


def compare_with_others(runs: Sequence[golden.Run], run: Callable[[Arrays], Arrays]) -> list[golden.OutputDifference]:
    """Golden answers of another model: those of this one, upside down."""
    return compare([(feeds, {name: -value for name, value in answers.items()}) for feeds, answers in runs], run)
