#!/usr/bin/env bash
# The voice detector silero_vad_v6.onnx as faster-whisper 1.2.1 ships it, in onnxruntime 1.32.0: what its first axis counts.
#
# Expected: `input` is float32 [?, 576] and gives one probability a row, so rows are samples: eight windows in one run give
# what eight runs give.
# Seen: the first axis is time.  An LSTM runs along it: a row's answer depends on all rows in front of it, the first row alone
# is the same in both.  Eight runs give the answers of one where each is given the `hn` and `cn` of the run before.  Nothing
# but the name of the axis, `seq_len`, says so: who batches windows of different recordings mixes them without a word.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
install=("$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check)
"${install[@]}" onnxruntime==1.32.0 numpy==2.4.6
"${install[@]}" --no-deps faster-whisper==1.2.1
"$folder/env/bin/python" - <<'PYTHON'
from importlib.metadata import files

import numpy as np
import onnxruntime as ort

(path,) = (each.locate() for each in files("faster-whisper") if each.name == "silero_vad_v6.onnx")
session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
shapes = {each.name: each.shape for each in session.get_inputs()}
print(shapes)
assert shapes["input"] == ["seq_len", 576]

time = np.arange(8 * 576) / 16000
voice = np.sin(2 * np.pi * 140 * time) * (1 + np.sin(2 * np.pi * 4 * time)) / 4
windows = (voice + np.random.default_rng(0).normal(size=voice.size) / 50).astype(np.float32).reshape(8, 576)
still = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}


def run(rows: np.ndarray, states: dict[str, np.ndarray]) -> list[np.ndarray]:
    return session.run(["speech_probs", "hn", "cn"], {"input": rows, **states})


at_once = run(windows, still)[0].ravel()
alone = np.array([run(row[None], still)[0].item() for row in windows])
states, carried = still, []
for row in windows:
    answer, h, c = run(row[None], states)
    states = {"h": h, "c": c}
    carried.append(answer.item())
print("at once      ", np.round(at_once, 3))
print("one by one   ", np.round(alone, 3))
print("states given ", np.round(carried, 3))
assert abs(at_once[0] - alone[0]) < 1e-5
assert np.abs(at_once[1:] - alone[1:]).max() > 0.01
assert np.abs(at_once - carried).max() < 1e-4
PYTHON
