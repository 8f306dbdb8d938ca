"""What nodes cost when nothing is measured: rough, and good enough to see where integers clearly lose.

Read off onnxruntime 1.31.1, one thread, batch 1, on an AMD EPYC (Zen 4) with AVX512-VNNI, and on the same CPU with
nothing beyond AVX2 shown to onnxruntime.  A plan that matters is measured on its own CPU.

What functions between layers cost was read off onnxruntime 1.32.0 on an Intel Xeon (Sapphire Rapids) with AVX512-VNNI, and on the
same CPU with nothing beyond AVX2 shown, by `scripts/bench rates`: medians of three runs at a load of 12 to 16.
"""

from __future__ import annotations

from dataclasses import dataclass

from fcdeploy.records.costs import Rates


@dataclass(frozen=True)
class Rate:
    """A kind of layer: microseconds a call and nanoseconds per multiply-accumulate, in float and as integers.

    Integer kernels gather their inputs first, in `gather_ns` for each multiply-accumulate of one output channel: with
    few channels that is most of the work.
    """

    float_us: float
    float_ns: float
    int8_us: float
    int8_ns: float
    gather_ns: float = 0.0


@dataclass(frozen=True)
class FunctionRate:
    """A function of every number behind a layer: nanoseconds for each, in float and as integers.

    In float much of it is part of the layer's kernel, as integers none is.
    """

    float_ns: float
    int8_ns: float


@dataclass(frozen=True)
class TargetRates:
    """Rates on one target by kind of layer, of functions, and of conversions; `verified`: they were read off a run."""

    rates: dict[str, Rate]
    functions: dict[str, FunctionRate]
    conversions: Rates
    verified: bool


FEW_INPUTS = "a convolution of fewer than 4 input channels"
DEPTHWISE = "a depthwise convolution"
FEW_CHANNELS = "a convolution of fewer than 16 channels"
CONVOLUTION = "a convolution"
DENSE = "a dense layer"
LARGE_DENSE = "a dense layer whose weights do not fit the caches"
LARGE_FROM = 1 << 20  # weights

ADD = "a sum of two tensors"
MUL = "a product of two tensors"
LOOK_UP = "a function that bytes are looked up in"
SILU = "a SiLU"
GELU = "a GELU"
HARD_SWISH = "a hard-swish"

AVX2 = TargetRates(
    {
        FEW_INPUTS: Rate(2.0, 0.04, 9.0, 0.008, 0.8),
        DEPTHWISE: Rate(1.5, 0.05, 1.3, 0.07, 0.6),
        FEW_CHANNELS: Rate(1.0, 0.027, 1.5, 0.008, 0.3),
        CONVOLUTION: Rate(1.0, 0.019, 1.5, 0.0085, 0.07),
        DENSE: Rate(1.2, 0.07, 2.0, 0.027),
        LARGE_DENSE: Rate(1.2, 0.153, 2.0, 0.031),
    },
    {
        ADD: FunctionRate(0.12, 0.17),
        MUL: FunctionRate(0.34, 0.29),
        LOOK_UP: FunctionRate(0.35, 0.19),
        SILU: FunctionRate(0.43, 0.51),
        GELU: FunctionRate(2.07, 0.53),
        HARD_SWISH: FunctionRate(0.25, 0.31),
    },
    Rates(quantize=0.25, dequantize=0.12, transpose=0.27, node_us=1.0),
    verified=True,
)
VNNI = TargetRates(
    {
        FEW_INPUTS: Rate(2.0, 0.04, 9.0, 0.004, 0.8),
        DEPTHWISE: Rate(1.0, 0.042, 1.0, 0.055, 0.6),
        FEW_CHANNELS: Rate(1.0, 0.027, 1.5, 0.004, 0.3),
        CONVOLUTION: Rate(1.0, 0.018, 1.5, 0.0037, 0.07),
        DENSE: Rate(1.2, 0.062, 2.0, 0.03),
        LARGE_DENSE: Rate(1.2, 0.19, 2.0, 0.05),
    },
    {
        ADD: FunctionRate(0.13, 0.17),
        MUL: FunctionRate(0.32, 0.26),
        LOOK_UP: FunctionRate(0.36, 0.26),
        SILU: FunctionRate(0.22, 0.52),
        GELU: FunctionRate(1.55, 0.56),
        HARD_SWISH: FunctionRate(0.19, 0.29),
    },
    Rates(quantize=0.13, dequantize=0.12, transpose=0.27, node_us=1.0),
    verified=True,
)
ARM64 = TargetRates(  # 128-bit vectors: half the float rate of AVX2; sdot does four products a lane and instruction
    {
        FEW_INPUTS: Rate(2.0, 0.08, 9.0, 0.016, 0.8),
        DEPTHWISE: Rate(1.5, 0.08, 1.5, 0.08, 0.6),
        FEW_CHANNELS: Rate(1.0, 0.05, 1.5, 0.015, 0.3),
        CONVOLUTION: Rate(1.0, 0.04, 1.5, 0.013, 0.1),
        DENSE: Rate(1.2, 0.1, 2.0, 0.04),
        LARGE_DENSE: Rate(1.2, 0.2, 2.0, 0.05),
    },
    {
        ADD: FunctionRate(0.24, 0.34),
        MUL: FunctionRate(0.68, 0.58),
        LOOK_UP: FunctionRate(0.7, 0.38),
        SILU: FunctionRate(0.86, 1.02),
        GELU: FunctionRate(4.14, 1.06),
        HARD_SWISH: FunctionRate(0.5, 0.62),
    },
    Rates(quantize=0.3, dequantize=0.2, transpose=0.3, node_us=1.0),
    verified=False,
)
ARM = ("arm64", "arm64-dotprod", "arm64-i8mm")
BY_TARGET = {"portable": AVX2, "x86-avx2": AVX2, "x86-vnni": VNNI, **dict.fromkeys(ARM, ARM64)}
"""A portable file should be no slower anywhere: it is planned for the slowest that was measured."""
