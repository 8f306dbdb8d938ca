"""The folder of C: its entry for bytes, the example beside it, and what CMake makes of it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from native_kernels import compiler
from networks import Line, Net, quantize_net, random_data

from fcdeploy.native.build import Built, build, write_folder
from fcdeploy.native.program.interpret import run
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.toolchain import STRICT, compile_c

Array = np.ndarray


def picture_to_features() -> Line:
    """Three channels that become four, with a border; what comes out is bytes before it is floats."""
    net = Net()
    x = net.input("x", 3, 7, 6)
    y = net.op("Relu", net.conv(x, 3, 8, name="c1"))
    net.output(net.op("MaxPool", net.conv(y, 8, 4, name="c2"), kernel_shape=[2, 2], strides=[2, 2]))
    return quantize_net(net, random_data(3, 8, x=(3, 7, 6)))


def two_inputs_and_sums() -> Line:
    """The outputs are sums that never were bytes; pictures come with their channels last."""
    net = Net()
    a, b = net.input("a", 5, 4), net.input("b", 6, 5, 3)
    left = net.dense(net.op("Flatten", a), 20, 6)
    right = net.conv(net.op("Transpose", b, perm=[0, 3, 1, 2]), 3, 4, name="c")
    right = net.dense(net.op("Flatten", net.op("GlobalAveragePool", right)), 4, 6)
    net.output(net.dense(net.op("Relu", net.op("Add", left, right)), 6, 3))
    return quantize_net(net, random_data(1, 8, a=(5, 4), b=(6, 5, 3)))


def make_folder(line: Line, folder: Path) -> Built:
    built = build(read_program(line.int8, "net"))
    write_folder(built, folder)
    return built


def call(library: ctypes.CDLL, function: str, given: list[Array], outputs: list[Array], arena: int) -> list[Array]:
    memory = np.zeros(arena + 64, np.uint8)
    begin = memory.ctypes.data + -memory.ctypes.data % 64
    pointers = [ctypes.c_void_p(each.ctypes.data) for each in (*given, *outputs)]
    getattr(library, function)(*pointers, ctypes.c_void_p(begin))
    return outputs


@pytest.mark.parametrize("make", [picture_to_features, two_inputs_and_sums])
def test_bytes_give_what_the_floats_give_that_they_stand_for(make: object, tmp_path: Path) -> None:
    line = make()  # type: ignore[operator]
    built, build_with = make_folder(line, tmp_path), compiler()
    entry, program = built.byte_entry, built.program
    assert entry is not None
    assert set(entry.inputs) == set(range(len(program.inputs)))
    assert bool(entry.outputs) == (make is picture_to_features)
    compile_c(build_with, [*STRICT, "-shared", "-fPIC", "net.c", "net_weights.c", "-o", "net.so"], tmp_path)
    library = ctypes.CDLL(str(tmp_path / "net.so"))
    for i in range(4):
        floats = [line.data[tensor.name][i : i + 1] for tensor in program.inputs]
        (wanted,) = call(
            library, "net_run", floats, [np.zeros(program.outputs[0].shape, np.float32)], built.arena_bytes
        )
        codes = [coding.encode(each) for each, coding in zip(floats, entry.inputs.values(), strict=True)]
        written = np.zeros(wanted.shape, np.uint8 if entry.outputs else np.float32)
        (found,) = call(library, "net_run_bytes", codes, [written], built.arena_bytes)
        assert np.array_equal(entry.outputs[0].values[found] if entry.outputs else found, wanted)
        assert wanted.any()
    header = (tmp_path / "net.h").read_text()
    first = program.inputs[0]
    label = "NET_INPUT" if len(program.inputs) == 1 else "NET_INPUT_0"
    (scale,) = re.findall(rf"#define {label}_SCALE (\S+)f ", header)
    assert np.float32(scale) == entry.inputs[0].scale
    assert f"#define {label}_ZERO_POINT {entry.inputs[0].zero_point}\n" in header, first.name


def test_floats_that_more_than_bytes_are_made_of_stay_floats() -> None:
    net = Net()
    x = net.input("x", 4)
    net.output(net.op("Concat", net.dense(x, 4, 4), net.op("Sin", x), axis=1))
    built = build(read_program(quantize_net(net, random_data(1, 8, x=(4,))).int8, "net"))
    assert built.byte_entry is None
    assert "run_bytes" not in str(built.source.files["net.h"]) + str(built.source.files["net.c"])


def test_the_example_runs_a_sample_as_cmake_builds_it(tmp_path: Path) -> None:
    line = two_inputs_and_sums()
    folder = tmp_path / "c code"
    folder.mkdir()
    built = make_folder(line, folder)
    sample = {name: array[2:3] for name, array in line.data.items()}
    (tmp_path / "sample").write_bytes(b"".join(sample[tensor.name].tobytes() for tensor in built.program.inputs))
    wanted = run(built.program, sample)[built.program.outputs[0].name]

    def check(program: Path) -> None:
        said = subprocess.run([program, tmp_path / "sample"], capture_output=True, check=True, text=True).stdout
        numbers = [np.float32(each) for each in re.findall(r"^out_\w+\[\d+\] = (\S+)$", said, re.MULTILINE)]
        np.testing.assert_allclose(numbers, wanted[0], rtol=1e-5, atol=1e-6)
        assert subprocess.run([program, tmp_path / "none"], check=False).returncode == 1
        assert subprocess.run([program], capture_output=True, check=True).stdout

    compile_c(compiler(), [*STRICT, "-Werror", "example.c", "net.c", "net_weights.c", "-o", "example"], folder)
    check(folder / "example")
    if shutil.which("cmake") is None or shutil.which("cc") is None:
        pytest.skip("there is no cmake, or no cc")
    for words in (["-S", folder, "-B", tmp_path / "made"], ["--build", tmp_path / "made"]):
        subprocess.run(["cmake", *words], check=True, capture_output=True)
    check(tmp_path / "made" / "net_example")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not at hand")
@pytest.mark.parametrize(("level", "size", "window"), [("-O2", 8, 3), ("-O2", 16, 3), ("-O3", 28, 2)])
def test_gcc_finds_nothing_to_warn_of_in_pools(level: str, size: int, window: int, tmp_path: Path) -> None:
    """Windows that overlap are computed row by row, through a buffer whose length gcc knows, as it does all of a lone pool."""
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", 3, size, size), 3, 64, name="c1"))
    net.output(net.op("MaxPool", y, kernel_shape=[window, window], strides=[1, 1]))
    line = quantize_net(net, random_data(5, 8, x=(3, size, size)))
    built = make_folder(line, tmp_path)
    sources = [path for path in tmp_path.glob("*.[cS]") if path.name != "example.c"]
    flags = ["-std=c11", level, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, *sources, "-o", tmp_path / "net.so"], check=True)
    sample = random_data(6, 1, x=(3, size, size))["x"]
    expected = run(built.program, {"x": sample})[built.program.outputs[0].name]
    (made,) = call(
        ctypes.CDLL(str(tmp_path / "net.so")), "net_run", [sample], [np.empty_like(expected)], built.arena_bytes
    )
    np.testing.assert_array_equal(made, expected)
