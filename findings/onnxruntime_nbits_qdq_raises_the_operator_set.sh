#!/usr/bin/env bash
# MatMulNBitsQuantizer with quant_format=QDQ, onnxruntime 1.32.0, on a model of an operator set before 18.
#
# Expected: the model keeps its operator set, or is converted to the one that weights of 4 bits behind a DequantizeLinear need (21), its
# other nodes with it, or is refused.
# Seen: the number of the operator set becomes 21 and no node is touched.  What changed its form in between is broken: a ReduceMean
# with the attribute `axes`, valid in operator set 17, makes a file that onnxruntime itself does not load ("Unrecognized attribute: axes").
# With quant_format=QOperator (MatMulNBits) the operator set stays and the file loads.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 onnx-ir==1.1.0 numpy==2.2.6
cat >"$folder/ask.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("ReduceMean", ["m"], ["y"], axes=[1], keepdims=1)]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 64), ("y", 1))]
graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
for form in (QuantFormat.QOperator, QuantFormat.QDQ):
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, quant_format=form)
    quantizer = MatMulNBitsQuantizer(onnx.ModelProto.FromString(model.SerializeToString()), algo_config=config)
    quantizer.process()
    made = quantizer.model.model
    try:
        ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        said = "loads"
    except Exception as error:
        said = str(error)[-60:]
    sets = {each.domain: each.version for each in made.opset_import}
    print(f"{form}: operator set {sets['']}, {said}")
    assert sets[""] == (21 if form == QuantFormat.QDQ else 17)
    assert ("Unrecognized attribute: axes" in said) == (form == QuantFormat.QDQ), said
    assert (said == "loads") == (form == QuantFormat.QOperator)
PYTHON
ORT_DISABLE_TELEMETRY=1 "$folder/env/bin/python" "$folder/ask.py" 2>/dev/null
