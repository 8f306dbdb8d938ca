"""The types of weights and activations that can be asked for: one row a pair, and what the layers become by it."""

from __future__ import annotations

from dataclasses import dataclass

from fcdeploy.records.plan import Kind


@dataclass(frozen=True)
class Types:
    """`weights` and `activations` as they are asked for.

    `dense` is what a dense layer becomes, `recurrent` an LSTM, `other` a convolution.  Weights of few bits exist for
    dense layers only: `elsewhere` is the type of all other weights.  `between` says whether the operators between layers
    read and write integers too, and `why` what the row is for.
    """

    weights: str
    activations: str
    dense: Kind
    recurrent: Kind
    other: Kind
    elsewhere: str
    between: bool
    why: str


SIXTEEN = (
    "for accuracy, DSPs and NPUs: no integer kernel of onnxruntime takes 16 bits, so this runtime computes in float"
)
IN_BLOCKS = "4-bit weights in blocks for dense layers, on float activations"
WEIGHT_ONLY: Kind = "weight_only"

TYPES = {
    (row.weights, row.activations): row
    for row in (
        Types("int8", "int8", "int8", "dynamic", "int8", "int8", True, "integer kernels: small and fast"),
        Types("int8", "int16", "int16", WEIGHT_ONLY, "int16", "int8", True, SIXTEEN),
        Types("int16", "int16", "int16", WEIGHT_ONLY, "int16", "int16", True, SIXTEEN),
        Types("int16", "int8", "int16", WEIGHT_ONLY, "int16", "int16", True, SIXTEEN),
        Types("int8", "none", WEIGHT_ONLY, WEIGHT_ONLY, WEIGHT_ONLY, "int8", False, "a quarter of the size at the float speed"),
        Types("int16", "none", WEIGHT_ONLY, WEIGHT_ONLY, WEIGHT_ONLY, "int16", False, "half the size at the float speed"),
        Types("int4", "none", "blockwise", WEIGHT_ONLY, WEIGHT_ONLY, "int8", False, f"{IN_BLOCKS}; other layers as int8, none"),
        Types("int4", "int8", "blockwise", WEIGHT_ONLY, "int8", "int8", True, f"{IN_BLOCKS}; other layers as int8, int8"),
        Types("int4", "int16", "blockwise", WEIGHT_ONLY, "int16", "int8", True, f"{IN_BLOCKS}; other layers as int8, int16"),
        Types("int8", "dynamic", "dynamic", "dynamic", WEIGHT_ONLY, "int8", False,
              "dense and LSTM layers scale their activations in every run; nothing is calibrated"),
    )
}  # fmt: skip

WEIGHTS = tuple(dict.fromkeys(weights for weights, _ in TYPES))
ACTIVATIONS = tuple(dict.fromkeys(activations for _, activations in TYPES))
INT8 = TYPES["int8", "int8"]
