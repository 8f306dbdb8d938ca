#!/usr/bin/env bash
# nncf.compress_weights of an ONNX model with a convolution, NNCF 3.4.0 and onnxruntime 1.32.0.
#
# Expected: weights of 8 bits behind a DequantizeLinear with a list of scales, one for each output channel, and an axis: the only form
# in which ONNX has one scale for each slice.
# Seen: that of a MatMul, (16,) of axis -1, which runs. A convolution of 4 outputs gets scales and zero points of one axis less than its
# weight, (4, 1, 1), beside axis 0 and without a block_size. onnx.checker with full_check passes the file, onnxruntime loads it and
# refuses every run: "For per axis quantization, scale must be 1D tensor with size 4".
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check nncf==3.4.0 onnxruntime==1.32.0 onnx==1.23.2 numpy==1.26.4
cat >"$folder/ask.py" <<'PYTHON'
import logging

import numpy as np
import nncf
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

logging.disable(logging.CRITICAL)
random = np.random.default_rng(0)


def make(op: str) -> onnx.ModelProto:
    shape = (4, 3, 3, 3) if op == "Conv" else (8, 16)
    weight = numpy_helper.from_array(random.normal(size=shape).astype(np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8] if op == "Conv" else [1, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6] if op == "Conv" else [1, 16])
    graph = helper.make_graph([helper.make_node(op, ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: onnx.ModelProto) -> str:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    try:
        session.run(None, {"x": np.ones(shape, np.float32)})
    except Exception as error:
        return "refused: " + str(error).split("ERROR : ")[-1][-80:]
    return "runs"


for op in ("Conv", "MatMul"):
    made = nncf.compress_weights(make(op), mode=nncf.CompressWeightsMode.INT8_ASYM)
    onnx.checker.check_model(made, full_check=True)
    node = next(node for node in made.graph.node if node.op_type == "DequantizeLinear")
    scale = next(tuple(each.dims) for each in made.graph.initializer if each.name == node.input[1])
    said = run(made)
    axis = next(each.i for each in node.attribute if each.name == "axis")
    print(f"{op}: scale {scale}, axis {axis}: {said}")
    assert not any(each.name == "block_size" for each in node.attribute)
    if op == "Conv":
        assert (scale, axis) == ((4, 1, 1), 0)
        assert "scale must be 1D tensor" in said, said
    else:
        assert (scale, axis, said) == ((16,), -1, "runs")
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py"
