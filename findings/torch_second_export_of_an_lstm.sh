#!/usr/bin/env bash
# torch.onnx.export of a one-layer LSTM with a free length, twice in one process, torch 2.13.0 on the CPU.
#
# Expected: the same file twice.
# Seen: the first is right.  The second raises: "inferred a static shape of 5 for dimension inputs['input'].shape[1]".  While it
# traces, torch registers a loop for aten::lstm and takes it back afterwards; what the operator looked up in between is kept, so
# that the second export unrolls the 5 steps of the example.  torch.ops.aten.lstm.input._dispatch_cache.clear() repairs it.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
install() { "$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0+cpu || install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
install onnxscript==0.7.2 onnx==1.23.2 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import io

import torch


class Steps(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 6, batch_first=True)

    def forward(self, input):
        return self.lstm(input)[0]


def export() -> str:
    try:
        torch.onnx.export(
            Steps().eval(), (torch.zeros(2, 5, 8),), io.BytesIO(), dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),
        )
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        return str(error)
    return ""


first, second = export(), export()
torch.ops.aten.lstm.input._dispatch_cache.clear()
third = export()
for name, said in (("first", first), ("second", second), ("third, cleared before", third)):
    print(f"{name}: {said.splitlines()[-1] if said else 'exported'}")
assert not first and "static shape of 5" in second and not third
PYTHON
"$folder/env/bin/python" "$folder/ask.py" 2>/dev/null
