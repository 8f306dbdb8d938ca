"""Layers by CMSIS-NN: multipliers against brute force, and generated code with a stand-in for it (`tests/helpers/cmsis_nn`)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import HELPERS, fails
from drawn_layers import FEW, SEEDS, bytes_like, coding, layer_of, window_of
from hypothesis import given
from hypothesis import strategies as st
from native_kernels import KERNELS, Machine, compiler
from networks import Line, quantize_residual

import fcdeploy
from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.build import build
from fcdeploy.native.cmsis_nn import add_copy, compile_copy
from fcdeploy.native.program.interpret import run
from fcdeploy.native.program.layers import IntegerLayer, Layer
from fcdeploy.native.program.multipliers import find_multiplier, find_sums, hand_over
from fcdeploy.native.program.steps import Move, Program
from fcdeploy.native.program.tensors import Coding, Tensor
from fcdeploy.native.toolchain import STRICT, compile_c

COPY = HELPERS / "cmsis_nn"


@cache
def kernels() -> ctypes.CDLL:
    """The kernel and the stand-in, for this machine."""
    build_with = add_copy(compiler(), COPY)
    folder = Path(tempfile.mkdtemp(prefix="cmsis-nn-", dir=os.environ.get("SHARED_BY_WORKERS")))
    objects = compile_copy(build_with, COPY, (), folder)
    text = '#include "common.h"\n#undef FC_KERNEL\n#define FC_KERNEL\n#include "move.h"\n#include "cmsis_nn.h"\n'
    (folder / "all.c").write_text(text)
    how = [*STRICT, "-Werror", "-shared", "-fPIC", f"-I{KERNELS}", "all.c", *objects, "-o", "all.so"]
    compile_c(build_with, how, folder)
    return ctypes.CDLL(str(folder / "all.so"))


def scale_exactly(sums: np.ndarray, factor: np.float32, step: Layer) -> np.ndarray:
    """The bytes of these sums as the program defines them."""
    assert step.output.coding is not None
    return np.clip(np.rint(sums.astype(np.float32) * factor) + step.output.coding.zero_point, step.low, step.high)


def dense_of(random: np.random.Generator, length: int, factor: float) -> Layer:
    x, y = Tensor("x", (1, length), "uint8", coding(random)), Tensor("y", (1, 1), "uint8", coding(random))
    weight = random.integers(-20, 21, (1, length)).astype(np.int8)
    low = int(random.integers(0, 120))
    return Layer(
        node="layer", inputs=(x,), outputs=(y,), weight=weight, bias=random.integers(-900, 900, 1).astype(np.int32),
        factor=np.array([factor], np.float32), low=low, high=int(random.integers(low, 256)),
    )  # fmt: skip


@FEW
@given(
    seed=SEEDS, length=st.integers(1, 12), factor=st.floats(0.001, 0.49) | st.sampled_from([0.125, 0.05, 3 / 256, 0.1])
)
def test_multipliers_give_the_bytes_of_every_sum_but_those_they_count(seed: int, length: int, factor: float) -> None:
    step = dense_of(np.random.default_rng(seed), length, factor)
    least, most = (int(each[0]) for each in find_sums(step))
    found = find_multiplier(step, 0)
    sums = np.arange(least, most + 1)
    assert step.output.coding is not None
    product = sums * found.multiplier
    scaled = (product + (1 << (30 - found.shift)) >> (31 - found.shift)) + step.output.coding.zero_point
    apart = np.abs(np.clip(scaled, step.low, step.high) - scale_exactly(sums, step.factor[0], step))
    assert apart.max() <= 1
    assert np.count_nonzero(apart) == found.differ
    assert len(sums) == found.sums
    assert 0 < found.multiplier < 1 << 31


def test_halves_that_go_to_even_bytes_have_no_multiplier() -> None:
    """Of 0.5, 1.5 and 2.5 the second goes up and the others down, which no line does."""
    x = Tensor("x", (1, 1), "uint8", Coding(np.float32(1), 0))
    y = Tensor("y", (1, 1), "uint8", Coding(np.float32(1), 0))
    step = Layer(
        node="layer", inputs=(x,), outputs=(y,), weight=np.ones((1, 1), np.int8), bias=np.zeros(1, np.int32),
        factor=np.array([0.25], np.float32),
    )  # fmt: skip
    assert find_multiplier(step, 0).differ > 0
    program = Program("net", (x,), (y,), (step,))
    kept, (row,) = hand_over(program, ties=False)
    assert kept.steps == (step,)
    assert row.why == "no integer multiplier gives the same bytes for 1 of 1 channels"
    taken, (row,) = hand_over(program, ties=True)
    assert isinstance(taken.steps[0], IntegerLayer)
    assert row.differ == 32  # 0.5, 2.5, 4.5, ... of 63.75
    assert row.sums == 256


@pytest.mark.parametrize(
    ("weight", "bias", "factor"), [(1, 1, 2.0**-9), (0, 2, 0.25), (1, -5, 0.25)], ids=["top", "one sum", "bottom"]
)
def test_the_least_and_the_largest_sum_count_too(weight: int, bias: int, factor: float) -> None:
    """A sum at an end that float32 rounds down from a half, where no smaller or larger one gives another byte."""
    x, y = (Tensor(name, (1, 1), "uint8", Coding(np.float32(1), 3)) for name in "xy")
    step = Layer(
        node="layer", inputs=(x,), outputs=(y,), weight=np.full((1, 1), weight, np.int8), bias=np.array([bias], np.int32),
        factor=np.array([factor], np.float32),
    )  # fmt: skip
    least, most = (int(each[0]) for each in find_sums(step))
    found, sums = find_multiplier(step, 0), np.arange(least, most + 1)
    scaled = (sums * found.multiplier + (1 << (30 - found.shift)) >> (31 - found.shift)) + 3
    apart = np.clip(scaled, step.low, step.high) != scale_exactly(sums, step.factor[0], step)
    assert np.count_nonzero(apart) == found.differ


@FEW
@given(seed=SEEDS, extreme=st.booleans(), kind=st.sampled_from(["window", "signal", "depthwise", "dense", "times"]))
def test_layers_on_drawn_shapes(seed: int, extreme: bool, kind: str) -> None:
    """Two of them, so that bytes change their sign and back, and one input is read twice; of `times` a dense one at each time."""
    random = np.random.default_rng(seed)
    channels = int(random.integers(1, 20))
    space = tuple(int(n) for n in random.integers(1, 12, 1 if kind == "signal" else 2))
    window: Window | None = None if kind in ("dense", "times") else window_of(random, space)
    shape = (1, channels, *space) if window is not None else (int(random.integers(1, 5)), channels)
    if kind == "times":
        shape = (1, *shape)
    x = Tensor("x", shape, "uint8", coding(random))
    groups = channels if kind == "depthwise" else 1
    outs = channels if kind == "depthwise" else int(random.integers(1, 24))
    layers = []
    for name in ("first", "second"):
        made = layer_of(random, x, outs, window, groups, extreme=extreme, real=False)
        layers.append(replace(made, node=name, outputs=(replace(made.output, name=name),)))
    axis = len(layers[0].output.shape) - 1
    joined = tuple(2 * n if i == axis else n for i, n in enumerate(layers[0].output.shape))
    both = Move(
        node="both", kind="concat", arguments=((axis,),), inputs=tuple(each.output for each in layers),
        outputs=(Tensor("y", joined, "uint8", layers[0].output.coding),),
    )  # fmt: skip
    program, rows = hand_over(Program("drawn", (x,), both.outputs, (*layers, both)), ties=True)
    assert all(isinstance(step, IntegerLayer) for step in program.steps[:2]), rows
    feeds = {"x": bytes_like(random, x.shape, extreme=extreme)}
    given_ = feeds["x"].copy()
    expected = run(program, feeds)
    np.testing.assert_array_equal(Machine(build(program), kernels()).run(feeds)["y"], expected["y"])
    np.testing.assert_array_equal(feeds["x"], given_)
    plain = run(Program("drawn", (x,), both.outputs, (*layers, both)), feeds)
    assert np.abs(plain["y"].astype(int) - expected["y"]).max() <= 1


@pytest.fixture(scope="module")
def line() -> Line:
    return quantize_residual()


@pytest.fixture(scope="module")
def model(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.int8.onnx"
    onnx.save(ir.to_proto(line.int8), path)
    return path


def test_a_folder_of_c_with_the_users_copy(line: Line, model: Path, tmp_path: Path) -> None:
    build_with = compiler()
    how = {"kernels": f"cmsis-nn={COPY}", "emit": "c", "name": "tiny"}
    report = fcdeploy.compile(model, output=tmp_path / "c", allow_ties=True, **how)
    assert report.passed
    taken = [row for row in report.values["cmsis_nn"] if row["by"] == "cmsis-nn"]
    assert [row["node"] for row in taken] == ["first", "second"]
    assert report.lines[0].startswith("CMSIS-NN computes 2 of 3 layers")
    (tmp_path / "c" / "main.c").write_text(
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
    sources = ["main.c", "tiny.c", "tiny_weights.c", *map(str, COPY.rglob("*.c"))]
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{COPY / 'Include'}"]
    with pytest.raises(fcdeploy.FcdeployError, match="CMSIS_NN_USE_SINGLE_ROUNDING"):
        compile_c(build_with, [*flags, *sources, "-o", "main"], tmp_path / "c")
    compile_c(build_with, [*flags, "-DCMSIS_NN_USE_SINGLE_ROUNDING", *sources, "-o", "main"], tmp_path / "c")
    image = line.data["image"][:1]
    done = subprocess.run([tmp_path / "c" / "main"], input=image.tobytes(), capture_output=True, check=True)
    assert fcdeploy.compile(model, output=tmp_path / "net.so").passed
    (wanted,) = fcdeploy.load_native(tmp_path / "net.so").run({"image": image}).values()
    np.testing.assert_allclose(
        np.frombuffer(done.stdout, np.float32), wanted.reshape(-1), atol=np.abs(wanted).max() / 50
    )


def test_a_copy_that_wants_more_memory_or_computes_something_else_is_found(model: Path, tmp_path: Path) -> None:
    compiler()
    source = Path("Source", "ConvolutionFunctions", "stand_in_convolve_s8.c")
    for number, (said, instead) in enumerate({"return 2 *": "return 64 *", "sum +=": "sum -="}.items()):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(COPY, copy)
        (copy / source).write_text((COPY / source).read_text().replace(said, instead))
        out = tmp_path / f"out{number}"
        report = fcdeploy.compile(model, output=out, emit="c", kernels=f"cmsis-nn={copy}", allow_ties=True)
        assert not report.passed
        assert any(line.startswith("not exact: 2 steps differ") for line in report.lines)
        assert not out.exists()


def test_what_cannot_be_asked_for(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with fails("'cmsis' is unknown, expected own, or cmsis-nn=FOLDER", "own"):
        fcdeploy.compile(model, output=out, emit="c", kernels="cmsis")
    with fails("has no Include/arm_nnfunctions.h, expected the folder of CMSIS-NN", "Include and Source"):
        fcdeploy.compile(model, output=out, emit="c", kernels=f"cmsis-nn={tmp_path}")
    with fails("library holds no CMSIS-NN", "emit"):
        fcdeploy.compile(model, output=out, kernels=f"cmsis-nn={COPY}")
    with fails("is for CMSIS-NN", "cmsis-nn=FOLDER"):
        fcdeploy.compile(model, output=out, emit="c", allow_ties=True)
    assert not out.exists()
