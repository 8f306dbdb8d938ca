"""Of `scripts/bench native`: what onnxruntime sees of this CPU, and runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.runtime.cpu import read_cpu_flags
from scripts.benchmarks.native_peers import CPUID_DOES_NOT_FAULT, HiddenRuntime, HidingError, make_hiding_environment

PRODUCTS = 64  # pairs of them saturate where bytes are multiplied by vpmaddubsw
RUN = f"""
import sys, numpy, onnxruntime
feeds = dict(x=numpy.full((1, {PRODUCTS}), 255, numpy.uint8))
print(onnxruntime.InferenceSession(sys.argv[1]).run(None, feeds)[0][0, 0])
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """64 products of 255 and 127."""
    weights = numpy_helper.from_array(np.full((PRODUCTS, 16), 127, np.int8), "w")
    ends = [
        helper.make_tensor_value_info("x", TensorProto.UINT8, (1, PRODUCTS)),
        helper.make_tensor_value_info("y", TensorProto.INT32, (1, 16)),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights]
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_onnxruntime_takes_the_kernels_of_avx2_where_more_is_hidden(model: Path, tmp_path: Path) -> None:
    try:
        environment = make_hiding_environment(tmp_path)
    except HidingError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-c", RUN, str(model)]
    hidden = subprocess.run(command, env=environment, capture_output=True, text=True)
    if hidden.returncode == CPUID_DOES_NOT_FAULT:
        pytest.skip("cpuid cannot fault here")
    assert hidden.stdout.split() == [str(PRODUCTS // 2 * 32767)], hidden.stderr
    if {"avx512_vnni", "avx_vnni"} & read_cpu_flags():
        plain = subprocess.run(command, capture_output=True, text=True, check=True)
        assert plain.stdout.split() == [str(PRODUCTS * 255 * 127)]


def test_a_process_that_hides_it_answers_with_times(model: Path, tmp_path: Path) -> None:
    try:
        runtime = HiddenRuntime(model, {"x": np.full((1, PRODUCTS), 255, np.uint8)}, tmp_path)
    except HidingError as error:
        pytest.skip(str(error))
    assert runtime(3) > 0 and runtime(1) > 0
    assert runtime.close() == 0
