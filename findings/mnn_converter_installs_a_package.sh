#!/usr/bin/env bash
# Converting an ONNX model with MNN 3.6.1's own command, mnnconvert.
#
# Expected: a converter reads a model and writes a model; the environment that it runs in stays as it was.
# Seen: it runs `pip install -U aliyun-log-python-sdk` (twice here), with whichever pip stands first on PATH,
# the client of a logging service for its usage. Without that package the model is converted all the same. In an environment with
# pinned versions this may replace what the package's own requirements want otherwise.
#
# Here a stub stands first on PATH in place of pip: it writes down what it is asked for and installs nothing.
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MNN==3.6.1 onnx==1.23.2 numpy==2.4.6
mkdir "$folder/stub"
cat >"$folder/stub/pip" <<STUB
#!/bin/sh
echo "pip \$*" >>"$folder/asked"
exit 1
STUB
chmod +x "$folder/stub/pip"
"$folder/venv/bin/python" - "$folder/model.onnx" <<'PYTHON'
import sys

from onnx import TensorProto, helper, save

ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
PYTHON
touch "$folder/asked"
PATH="$folder/stub:$PATH" "$folder/venv/bin/mnnconvert" -f ONNX --modelFile "$folder/model.onnx" \
  --MNNModel "$folder/model.mnn" --bizCode MNN >"$folder/said" 2>&1 || true
echo "asked of pip, $(wc -l <"$folder/asked") times: $(sort -u "$folder/asked")"
test -s "$folder/model.mnn" && echo "converted: yes"
test "$(sort -u "$folder/asked")" = "pip install -U aliyun-log-python-sdk"
test -s "$folder/model.mnn"
