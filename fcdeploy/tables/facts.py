"""What fcdeploy is built on about onnxruntime's CPU provider: a row a fact, each with a tiny model of the same name.

`runtime/probes/` has the models and runs them on the installed runtime; its answer decides, not the version.
`tables/observations.py` says what each version answered.  `expected` is what is taken for granted where nothing can be
asked: of another machine's runtime.

An answer is, by `kind`,
  kernels   the integer kernels that run, joined by " + ", or "float"
  runs      "runs", or what is in the way
  result    "right", "rounded" (25 to 100 dB), "wrong", "fails" (at its first run) or "does not load"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcdeploy.tables.operators import NO_KERNEL, OPERATORS

Kind = Literal["kernels", "runs", "result"]


@dataclass(frozen=True)
class Fact:
    """`why` is what follows where the answer is the expected one. `trap`: the expected answer is a harm."""

    name: str
    kind: Kind
    expected: str
    why: str
    trap: bool = False


def _of_operators() -> list[Fact]:
    """What the table of operators says of kernels."""
    facts = []
    for op, row in OPERATORS.items():
        if row.role in ("multiply", "integer") and "," not in row.why:
            facts.append(Fact(op, "kernels", row.why, "between pairs it is an integer kernel"))
        elif row.role == "passthrough" or op == "Clip":
            facts += [
                Fact(f"{op}, on {dtype}", "runs", "runs", "it stands on bytes themselves in int8 files")
                for dtype in ("uint8", "int8")
            ]
        elif row.why == NO_KERNEL or row.role in ("integer", "affine"):  # those are written by way of another
            facts.append(Fact(op, "kernels", "float", "pairs around it would cost time and rounding and buy nothing"))
    return facts


QLINEAR, STAYS = "QLinearConv", "float"
LIMIT = "clips are left to the bytes only where these end at the clip"
HELD = "a LeakyRelu of slope 1 stands behind float convolutions whose result is quantized"
UNSIGNED = "activations are uint8 on x86: a residual's bytes have two readers"
OWN_ZEROS = "every weight of a Gemm has zero points"
NO_WIDE = "16 bits are for accuracy, DSPs and NPUs"
REFUSED = "a file that has it is refused where it fuses"
LEVEL = "a file of weights alone is warned of, or asks for accuracy level 1"
APART = "every weight has zero points of its own"
LOWERED = "files are written in the lowest operator set that says the same"
PAIRS = "weights are kept small enough where a CPU adds two products in 16 bits"

_PATTERNS = (
    Fact("Conv, 1 axis", "kernels", QLINEAR, "convolutions of 1 to 3 axes are integer kernels"),
    Fact("Conv, 3 axes", "kernels", QLINEAR, "convolutions of 1 to 3 axes are integer kernels"),
    Fact("Conv, groups", "kernels", QLINEAR, "grouped convolutions are integer kernels"),
    Fact("Conv, depthwise", "kernels", QLINEAR, "depthwise convolutions are integer kernels"),
    Fact("Conv, no bias", "kernels", QLINEAR, "a bias is no condition"),
    Fact("Conv, bias of another scale", "kernels", STAYS, "biases have the product of the scales"),
    Fact("Conv, to float", "kernels", STAYS, "a convolution's result is always quantized"),
    Fact("Conv, Relu at the lowest byte", "kernels", QLINEAR, LIMIT),
    Fact("Conv, Relu inside the bytes", "kernels", STAYS, LIMIT),
    Fact("Conv, Clip at the last byte", "kernels", QLINEAR, LIMIT),
    Fact("Conv, Clip inside the bytes", "kernels", STAYS, LIMIT),
    Fact("Conv, float weights", "kernels", QLINEAR, HELD, trap=True),
    Fact("Conv, float weights, held", "kernels", STAYS, HELD),
    Fact("ConvTranspose, float weights, held", "kernels", STAYS, HELD),
    Fact("residual, uint8", "kernels", "QLinearConv + QLinearConv + QLinearAdd", UNSIGNED),
    Fact("residual, int8", "kernels", STAYS, UNSIGNED, trap=True),
    Fact("Gemm, to float", "kernels", "QGemm", "a last dense layer is not rounded again"),
    Fact("Gemm, turned", "kernels", "QGemm", "transB is no obstacle"),
    Fact("Gemm, no zero points", "kernels", STAYS, OWN_ZEROS),
    Fact("Gemm, alpha", "kernels", STAYS, "a Gemm with alpha or beta stays float"),
    Fact("Gemm, beta", "kernels", STAYS, "a Gemm with alpha or beta stays float"),
    Fact("MatMul, to float", "kernels", "MatMulIntegerToFloat", "a last dense layer is not rounded again"),
    Fact("MatMul, two activations", "kernels", "QLinearMatMul", "products of activations are integer kernels"),
    Fact("MatMul, weights alone", "kernels", "MatMulNBits", LEVEL),
    Fact("MatMul, weights alone, one scale", "kernels", "MatMulNBits", LEVEL),
    Fact("MatMul, weights alone, scales along inputs", "kernels", STAYS, LEVEL),
    Fact("Add, float constant", "kernels", STAYS, "constants of Add and Mul are quantized too"),
    Fact("Mul, float constant", "kernels", STAYS, "constants of Add and Mul are quantized too"),
    Fact("Relu, alone", "kernels", STAYS, "a Relu is part of the kernel before it, or moves bytes"),
    Fact("Conv, 16 bits", "kernels", STAYS, NO_WIDE),
    Fact(
        "Gemm, 16 bits",
        "kernels",
        "MatMulNBits",
        "weights of 8 bits behind 16-bit activations are weights alone",
        trap=True,
    ),
    Fact(
        "MatMul, 16 bits",
        "kernels",
        "MatMulNBits",
        "weights of 8 bits behind 16-bit activations are weights alone",
        trap=True,
    ),
    Fact("Gemm, 16-bit weights", "kernels", STAYS, NO_WIDE),
)

_TRAPS = tuple(
    Fact(name, "result", expected, why, trap=expected != "right")
    for name, expected, why in (
        ("scales along the wrong axis, MatMul", "right", REFUSED),
        ("scales along the wrong axis, MatMul to float", "wrong", REFUSED),
        ("scales along the wrong axis, MatMul of no square", "right", REFUSED),
        ("scales along the wrong axis, Gemm", "wrong", REFUSED),
        ("scales along the wrong axis, Gemm turned", "wrong", REFUSED),
        ("scales along the wrong axis, Conv", "wrong", REFUSED),
        ("scales along a kernel's axis, Conv", "wrong", REFUSED),
        ("bias scale not the product, Gemm", "wrong", REFUSED),
        ("bias scale not the product, MatMul and Add", "wrong", REFUSED),
        ("bias scale not the product, Conv", "right", "it stays float, which is warned of"),
        ("bias scale not the product, Conv of tiny scales", "wrong", REFUSED),
        ("bias zero point, Gemm", "wrong", REFUSED),
        ("bias beyond 32 bits, Conv", "wrong", REFUSED),
        ("bias beyond 32 bits, Gemm", "wrong", REFUSED),
        ("bias beyond 32 bits, Conv of 16 bits", "wrong", REFUSED),
        ("bias beyond 32 bits, Gemm of 16 bits", "wrong", REFUSED),
        ("weights alone, int8", "rounded", LEVEL),
        ("weights alone, int4", "rounded", LEVEL),
        ("weights alone, one large activation", "wrong", LEVEL),
        ("weights alone, accuracy level 1", "right", LEVEL),
        ("zero points shared by two weights", "right", APART),
        ("zero points shared by two weights, 32-bit sums", "does not load", APART),
        ("no zero points, Conv, 32-bit sums", "right", APART),
        ("no zero points, MatMul, 32-bit sums", "fails", "zero points are written out"),
        ("no zero points, int8 activations, 32-bit sums", "right", "zero points are written out"),
        ("zero points of another type", "does not load", "refused by name"),
        ("zero points of another number", "fails", "refused by name"),
        ("activation scales by channel, Conv", "fails", REFUSED),
        ("activation scales by channel, depthwise", "fails", REFUSED),
        ("MatMulNBits of another size", "does not load", "refused by name"),
        ("AveragePool, counting pads", "right", "average pools are integer kernels"),
        ("AveragePool, ceil_mode", "right", "average pools with ceil_mode are integer kernels"),
        ("AveragePool, ceil_mode counting pads", "wrong", "such average pools stay float"),
        ("AveragePool, dilations", "does not load", "such average pools stay float"),
        ("Softmax, scale 1/255", "rounded", "a softmax has the next smaller scale"),
        ("Softmax, scale below 1/255", "right", "a softmax has the next smaller scale"),
    )
)

_SUMS = tuple(
    Fact(name, "result", expected, PAIRS, trap=expected != "right")
    for name, expected in (
        ("pairs of products, full weights, Gemm", "wrong"),
        ("pairs of products, full weights, Conv", "wrong"),
        ("pairs of products, weights within 64, Gemm", "right"),
        ("pairs of products, weights within 64, Conv", "right"),
        ("pairs of products, depthwise", "right"),
        ("pairs of products, uint8 weights", "right"),
        ("pairs of products, full weights, 32-bit sums", "right"),
    )
)

_RUNS = tuple(
    Fact(name, "result", expected, why)
    for name, expected, why in (
        ("DynamicQuantizeMatMul", "right", "dense layers with dynamic activations"),
        ("DynamicQuantizeLSTM", "right", "LSTMs with dynamic activations"),
        ("weights of INT2", "right", "new types are read"),
        ("weights of UINT2", "right", "new types are read"),
        ("weights of FLOAT4E2M1", "does not load", "new types are read, and kept float"),
        *((f"operator set {opset}", "right", LOWERED) for opset in range(19, 28)),
        ("operator set 28", "does not load", LOWERED),
    )
)

FACTS = {fact.name: fact for fact in (*_of_operators(), *_PATTERNS, *_TRAPS, *_SUMS, *_RUNS)}
