#!/usr/bin/env bash
# Taking outputs off a graph with onnx-ir 1.1.0: `del graph.outputs[1:]`, the last ones as a slice.
#
# Expected: as after pop() and clear(), the values are no outputs any more: is_graph_output() is False, and another value can
# take their place in what reads them.
# Seen: they are gone from the list, but still say that they are outputs, and replace_all_uses_with refuses them.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx-ir==1.1.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import onnx_ir as ir

def take_off(how):
    x = ir.Value(name="x")
    nodes = [ir.node("Relu", [x], outputs=[ir.Value(name=name)]) for name in "ab"]
    graph = ir.Graph([x], [node.outputs[0] for node in nodes], nodes=nodes, opset_imports={"": 17}, name="g")
    how(graph)
    left = [value.name for value in graph.outputs]
    try:
        nodes[1].outputs[0].replace_all_uses_with(x)
        replaced = "replaced"
    except ValueError as error:
        replaced = f"refused: {str(error)[:60]}"
    return left, nodes[1].outputs[0].is_graph_output(), replaced

def delete_slice(graph):
    del graph.outputs[1:]

popped, sliced = take_off(lambda graph: graph.outputs.pop()), take_off(delete_slice)
print("pop:", *popped)
print("del [1:]:", *sliced)
assert popped == (["a"], False, "replaced")
assert sliced[:2] == (["a"], True) and sliced[2].startswith("refused")
PYTHON
