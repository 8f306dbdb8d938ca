"""What nodes cost when nothing is measured: rough, and good enough to see where integers clearly lose.

Read off two x86 CPUs with onnxruntime 1.31.1, one thread, batch 1.  A plan that matters is measured on its own CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from fcdeploy.records.costs import Rates


@dataclass(frozen=True)
class Rate:
    """Nanoseconds per multiply-accumulate in float, and the time as integers relative to it."""

    name: str
    float_ns: float
    ratio: float


FEW_INPUTS = Rate("a convolution of fewer than 4 input channels", 0.03, 2.5)
DEPTHWISE = Rate("a depthwise convolution", 0.08, 1.6)
FEW_CHANNELS = Rate("a convolution of fewer than 16 channels", 0.03, 1.0)
CONVOLUTION = Rate("a convolution", 0.02, 0.55)
DENSE = Rate("a dense layer", 0.1, 0.3)
CONVERSIONS = Rates(quantize=0.25, dequantize=0.15, transpose=0.1, node_us=1.0)
OVERHEAD_US = 1.0  # of any node that runs
