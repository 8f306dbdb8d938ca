"""What becomes of each ONNX operator: one row each. Facts about onnxruntime's CPU kernels, no logic.

Roles:
  multiply     weights against activations: an integer kernel, the reason to quantize at all
  integer      an integer kernel exists: pays between other integer kernels, on its own it is only rounding
  affine       with one number: the same bytes, read with another scale and zero point; Add and Mul by one number too
  passthrough  copies elements: runs on the bytes themselves, keeping their scale
  clips        a clip: the saturation of the byte before it does the same, or it runs on the bytes themselves
  shape        reads only the shape: indifferent to the type
  float        no integer kernel: bytes around it would cost time and rounding and buy nothing

A layer that computes in float can still keep its weights as bytes in the file: `weight_only` are the inputs for which it may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fcdeploy.records.plan import Range

Role = Literal["multiply", "integer", "affine", "passthrough", "clips", "shape", "float"]


@dataclass(frozen=True)
class Operator:
    """One operator. `data` are the inputs that carry activations (None: all of them).

    `weight` and `bias` are inputs that hold constants with a scale per output channel.  `output` fixes the range of
    operators whose values are bounded by their definition.  `reduces` marks pools, which pay wherever their input is
    bytes already.  `ranks` are the ranks of the data input for which a byte kernel exists.
    """

    role: Role
    why: str
    data: tuple[int, ...] | None = (0,)
    weight: int | None = None
    bias: int | None = None
    output: Range | None = None
    reduces: bool = False
    ranks: tuple[int, ...] | None = None
    weight_only: tuple[int, ...] = ()


def _float(why: str, weight_only: tuple[int, ...] = ()) -> Operator:
    return Operator("float", why, weight_only=weight_only)


# QLinearSoftmax takes the whole number below one over the scale of its results: of float32's 1/255 that is 254, and up to half
# of them come out a level low; of the float32 before it, 255 (facts: "Softmax, scale 1/255")
SOFTMAX_TOP = 255 * float(np.nextafter(np.float32(1 / 255), np.float32(0)))
NO_KERNEL = "onnxruntime has no integer kernel for it on CPUs"

OPERATORS: dict[str, Operator] = {
    # weights against activations
    "Conv": Operator("multiply", "QLinearConv", weight=1, bias=2, ranks=(3, 4, 5), weight_only=(1,)),
    "Gemm": Operator("multiply", "QGemm", weight=1, bias=2, ranks=(2,), weight_only=(1,)),
    "MatMul": Operator("multiply", "QLinearMatMul", data=(0, 1), weight=1, weight_only=(1,)),
    # integer kernels between them
    "Add": Operator("integer", "QLinearAdd", data=None),
    "Mul": Operator("integer", "QLinearMul", data=None),
    "AveragePool": Operator("integer", "QLinearAveragePool", reduces=True, ranks=(3, 4, 5)),
    "GlobalAveragePool": Operator("integer", "QLinearGlobalAveragePool", reduces=True, ranks=(3, 4, 5)),
    "LeakyRelu": Operator("integer", "QLinearLeakyRelu"),
    "Sigmoid": Operator("integer", "QLinearSigmoid", output=Range(0.0, 1.0)),
    # both are byte to byte, as the sigmoid is: arithmetic/sigmoid_forms.py
    "Tanh": Operator("integer", "QLinearSigmoid, read as 2 sigmoid(2 x) - 1", output=Range(-1.0, 128 / 127)),
    "Erf": Operator("integer", "QLinearSigmoid, within 0.01 of it", output=Range(-127 / 124, 128 / 124)),
    "Softmax": Operator("integer", "QLinearSoftmax", output=Range(0.0, SOFTMAX_TOP)),
    "Concat": Operator("integer", "QLinearConcat", data=None),
    "Where": Operator("integer", "QLinearWhere", data=(1, 2)),
    # arithmetic with one number
    **{op: Operator("affine", "the same bytes with another scale", data=None) for op in ("Sub", "Div")},
    "HardSigmoid": Operator("affine", "clips the same bytes, read with another scale", output=Range(0.0, 1.0)),
    # bytes moved as they are
    **{
        op: Operator("passthrough", "moves bytes")
        for op in (
            "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Expand", "Tile", "Split",
            "DepthToSpace", "SpaceToDepth", "Pad", "Resize", "Identity", "ReduceMax", "ReduceMin",
        )
    },
    "Gather": Operator("passthrough", "moves bytes", weight_only=(0,)),  # rows of a table: an embedding
    "MaxPool": Operator("passthrough", "compares bytes", ranks=(3, 4, 5)),
    "Relu": Operator("clips", "the lowest byte is zero"),
    "Clip": Operator("clips", "the bytes end where it clips"),
    "Shape": Operator("shape", "reads only the shape"),
    "Size": Operator("shape", "reads only the shape"),
    # float, each with its reason
    "ConvTranspose": _float(NO_KERNEL, weight_only=(1,)),
    "LSTM": _float("its only integer kernel quantizes activations batch by batch, so answers would depend on the batch", (1, 2)),
    "GRU": _float(NO_KERNEL, (1, 2)),
    "RNN": _float(NO_KERNEL, (1, 2)),
    "LayerNormalization": _float("its mean and variance need more than 8 bits"),
    "InstanceNormalization": _float("its mean and variance need more than 8 bits"),
    "GroupNormalization": _float("its mean and variance need more than 8 bits"),
    "LpNormalization": _float("its norm needs more than 8 bits"),
    "LRN": _float("its sum of squares needs more than 8 bits"),
    "BatchNormalization": _float("it could not be folded into a layer beside it"),
    "TopK": _float("its values are compared, not computed with"),
    "NonMaxSuppression": _float("its values are compared, not computed with"),
    "If": _float("what runs is chosen at run time: its branches stay as they are"),
    "Loop": _float("its body stays as it is"),
    "Scan": _float("its body stays as it is"),
    "Einsum": _float("no integer kernel: write it as MatMul to have one"),
    **{
        op: _float(NO_KERNEL)
        for op in (
            "Max", "Min", "Pow", "Sum", "Mean", "PRelu", "HardSwish", "Elu", "Selu",
            "Celu", "Gelu", "Mish", "Swish", "Softplus", "Softsign", "ThresholdedRelu", "Exp", "Log", "Sqrt", "Reciprocal",
            "Abs", "Neg", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "LogSoftmax", "Hardmax", "GlobalMaxPool",
            "GlobalLpPool", "LpPool", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare",
            "ReduceLogSumExp", "CumSum", "GridSample", "RoiAlign", "MaxUnpool", "GatherElements", "GatherND",
            "ScatterElements", "ScatterND", "Cast", "Attention", "Dropout",
        )
    },
}  # fmt: skip

COMPARED = (
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "NonZero",
    "IsNaN",
    "IsInf",
)
FILL_MISSING = {"IsNaN", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}
"""What reads NaN as a number that is not known; Imputer does where NaN is what it replaces."""
NO_NUMBERS = (
    *("SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength"),
    *("SplitToSequence", "ConcatFromSequence", "SequenceMap", "Optional", "OptionalGetElement", "OptionalHasElement"),
    *(
        "StringConcat",
        "StringSplit",
        "StringNormalizer",
        "RegexFullMatch",
        "TfIdfVectorizer",
        "Not",
        "And",
        "Or",
        "Xor",
    ),
)
OPERATORS |= {op: _float("its values are compared, not computed with") for op in COMPARED}
OPERATORS |= {op: _float("it is about sequences, optionals, text or truth, not about numbers") for op in NO_NUMBERS}

UNKNOWN = _float("fcdeploy has no row for this operator")
FOREIGN = _float("an operator outside ONNX's own set: it stays as it is")


def operator(op: str, domain: str = "") -> Operator:
    """The row of an operator; one that is not in the table stays float and says so."""
    return OPERATORS.get(op, UNKNOWN) if domain in ("", "ai.onnx") else FOREIGN
