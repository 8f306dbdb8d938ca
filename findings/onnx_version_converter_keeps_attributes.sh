#!/usr/bin/env bash
# onnx.version_converter on the way down: an attribute that the older operator does not have.
#
# Expected: converting an AveragePool with dilations, or a Cast with saturate=0, from operator set 28 to 18, where neither
# attribute exists, is refused; what cannot be said there is not said.
# Seen (onnx 1.23.2): both are converted and keep the attribute, and the result fails onnx's own checker ("Unrecognized
# attribute"), which nothing calls.  A Pad of mode "wrap", which came with 19, passes even the checker.  Gelu, which came with 20, is
# refused as expected.
# So a model that was "converted" for an older runtime may be one that no runtime loads; check it afterwards.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter


def convert(op: str, constants: tuple[np.ndarray, ...] = (), **attributes: object) -> str:
    names = [f"c{index}" for index in range(len(constants))]
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [2, 3, 4, 4]), ("y", [*"abcd"]))]
    weights = [numpy_helper.from_array(array, name) for name, array in zip(names, constants)]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)])
    onnx.checker.check_model(model, full_check=True)
    try:
        older = version_converter.convert_version(model, 18)
    except RuntimeError:
        return "refused"
    try:
        onnx.checker.check_model(older, full_check=True)
    except onnx.checker.ValidationError as error:
        return "invalid" if "Unrecognized attribute" in str(error) else str(error)
    return "valid"


found = {
    "AveragePool, dilations": convert("AveragePool", kernel_shape=[2, 2], dilations=[2, 2]),
    "Cast, saturate=0": convert("Cast", to=TensorProto.FLOAT, saturate=0),
    "Pad, wrap": convert("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]),), mode="wrap"),
    "Gelu": convert("Gelu"),
}
print(f"onnx {onnx.__version__}, operator set 28 to 18: {found}")
assert [*found.values()] == ["invalid", "invalid", "valid", "refused"], found
PYTHON
