"""The emulator of ARM's 16-bit sums against what ARM CPUs computed, and the proof that says where they wrap around."""

from __future__ import annotations

import arm_cases
import numpy as np
import pytest
from byte_convolutions import convolution_wraps
from hypothesis import given, settings
from hypothesis import strategies as st
from saturating_layers import node, only, qdq

from fcdeploy.arithmetic.kernels import neon
from fcdeploy.proof.saturation import EXACT, WRAPS


def test_emulator_is_what_arm_kernels_computed() -> None:
    with np.load(arm_cases.FILE) as file:
        real = dict(file)
    layers = dict(arm_cases.layers())
    assert set(layers) == {name for name in real if "/" not in name}
    wrapped = [0, 0]
    for name, layer in layers.items():
        for at, cpu in enumerate(arm_cases.CPUS):
            recorded = real.get(f"{cpu}/{name}", real[name]) if at else real[name]
            np.testing.assert_array_equal(layer.arm[at], recorded, err_msg=f"{name} on {cpu}")
            wrapped[at] += layer.node.op_type != "MatMulIntegerToFloat" and bool((recorded != layer.exact).any())
    assert wrapped[0] > 40 and wrapped[1] > 12  # every CPU wraps in depthwise layers


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["dense", "conv", "grouped", "depthwise"]), st.sampled_from([4, 8, 16, 24]),
    st.sampled_from([[1, 1], [2, 2], [3, 3], [1, 9], [5, 5]]), st.floats(0, 0.4), st.integers(0, 2**31),
)  # fmt: skip
def test_the_proof_finds_every_layer_that_wraps(
    kind: str, channels: int, kernel: list[int], share: float, seed: int
) -> None:
    """Against the emulator fed with the lowest byte everywhere: if that does not wrap, nothing does."""
    random = np.random.default_rng(seed)
    groups = {"depthwise": channels, "grouped": 2}.get(kind, 1)
    shape = (channels, 7) if kind == "dense" else (channels, channels // groups, *kernel)
    w = random.integers(-127, 128, shape).astype(np.int8)
    w[random.random(shape) < share] = neon.LOWEST
    if kind == "dense":
        w = np.concatenate([w, w], axis=1)
        proof = only(qdq("Gemm", w, transB=1))
        wraps = neon.count_wraps(np.zeros((1, 14), np.uint8), w, neon.dense_pairs(14))
    else:
        proof = only(qdq("Conv", w, group=groups, axis=0))
        x = np.zeros((1, channels, *kernel), np.uint8)
        wraps = convolution_wraps(x, w, groups=groups)
        on_all = convolution_wraps(x, w, groups=groups, dot_product=True)
        assert (proof.wraps == "depthwise") == bool(on_all.any())
    assert bool(proof.wraps) == bool(wraps.any())
    if proof.wraps:
        assert not proof.safe and WRAPS[proof.wraps] in proof.verdict


@pytest.mark.parametrize(("zero", "relu"), [(0, False), (1, True)])
def test_activations_above_the_lowest_byte_do_not_wrap(zero: int, relu: bool) -> None:
    """Behind a Relu with zero point 1 the byte 0 never comes."""
    before = [node("Relu", "x", "b")] if relu else []
    proof = only(qdq("MatMul", np.full((16, 4), neon.LOWEST, np.int8), zero=zero, before=before))
    assert bool(proof.wraps) is not relu


def test_weights_from_minus_127_are_exact_everywhere() -> None:
    for w, groups in ((np.full((8, 8, 3, 3), -127, np.int8), 1), (np.full((8, 1, 3, 3), -127, np.int8), 8)):
        proof = only(qdq("Conv", w, group=groups, axis=0))
        assert proof.wraps == ""
        assert (proof.verdict == EXACT) == (groups == 8)
