"""What nodes cost when nothing is measured: rough, and good enough to see where integers clearly lose.

Read off onnxruntime 1.31.1, one thread, batch 1, on an AMD EPYC (Zen 4) with AVX512-VNNI, and on the same CPU with
nothing beyond AVX2 shown to onnxruntime.  A plan that matters is measured on its own CPU.
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
class TargetRates:
    """Rates on one target by kind of layer, and of what stands between layers; `verified`: they were read off a run."""

    rates: dict[str, Rate]
    conversions: Rates
    verified: bool


FEW_INPUTS = "a convolution of fewer than 4 input channels"
DEPTHWISE = "a depthwise convolution"
FEW_CHANNELS = "a convolution of fewer than 16 channels"
CONVOLUTION = "a convolution"
DENSE = "a dense layer"
LARGE_DENSE = "a dense layer whose weights do not fit the caches"
LARGE_FROM = 1 << 20  # weights

AVX2 = TargetRates(
    {
        FEW_INPUTS: Rate(2.0, 0.04, 9.0, 0.008, 0.8),
        DEPTHWISE: Rate(1.5, 0.05, 1.3, 0.07, 0.6),
        FEW_CHANNELS: Rate(1.0, 0.027, 1.5, 0.008, 0.3),
        CONVOLUTION: Rate(1.0, 0.019, 1.5, 0.0085, 0.07),
        DENSE: Rate(1.2, 0.07, 2.0, 0.027),
        LARGE_DENSE: Rate(1.2, 0.153, 2.0, 0.031),
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
    Rates(quantize=0.3, dequantize=0.2, transpose=0.3, node_us=1.0),
    verified=False,
)
ARM = ("arm64", "arm64-dotprod", "arm64-i8mm")
BY_TARGET = {"portable": AVX2, "x86-avx2": AVX2, "x86-vnni": VNNI, **dict.fromkeys(ARM, ARM64)}
"""A portable file should be no slower anywhere: it is planned for the slowest that was measured."""
