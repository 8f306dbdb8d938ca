"""The fixed point that holds a range of numbers, in words."""

from __future__ import annotations

import math


def describe_fixed_point(low: float, high: float) -> str:
    """Sign, integer bits, and the step of an 8-bit grid over this range.

    n integer bits hold every magnitude below 2^n: -2.1 .. 2.6 needs a sign and 2 integer bits.  A negative number of
    bits says that leading fraction bits are always zero.  The step is that of an affine byte over [low, high] and 0.
    """
    top = max(abs(low), abs(high))
    if top == 0:
        return "always 0"
    bits = math.frexp(top)[1]
    step = (max(high, 0.0) - min(low, 0.0)) / 255
    return (
        f"{'signed' if low < 0 else 'unsigned'}, {bits} integer {'bit' if abs(bits) == 1 else 'bits'}, step {step:.3g}"
    )
