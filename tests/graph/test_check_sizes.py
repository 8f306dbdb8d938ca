"""Small files that ask for more memory than there is: each is refused by its node when it is read, its harmless twin is not."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import fails
from onnx import numpy_helper, parser

from fcdeploy.graph.model import read_model
from fcdeploy.prepare.pipeline import prepare

BOMBS = {
    "ConstantOfShape": "c = ConstantOfShape (large)  m = ReduceMean <keepdims = 0> (c)  y = Add (x, m)",
    "Expand": "c = Expand (x, large)  y = ReduceMean <axes = [0, 1], keepdims = 0> (c)",
    "Tile": "w = Unsqueeze (x, axes)  c = Tile (w, large)  y = ReduceMean <axes = [0, 1], keepdims = 0> (c)",
    "Range": "c = Range (zero, top, one)  f = Cast <to = 1> (c)  m = ReduceMean <keepdims = 0> (f)  y = Add (x, m)",
    "Resize": "w = Unsqueeze (x, axes)  c = Resize (w, , , large)  m = ReduceMean <keepdims = 0> (c)  y = Add (x, m)",
    "Pad": "c = Pad (x, large)  m = ReduceMean <keepdims = 0> (c)  y = Add (x, m)",
    "Mul": "a = ConstantOfShape (column)  b = ConstantOfShape (row)  c = Mul (a, b)"
    "  m = ReduceMean <keepdims = 0> (c)  y = Add (x, m)",
}  # fmt: skip


def save(path: Path, nodes: str, size: int) -> Path:
    """A network of these nodes on x (2, 3), whose constants name lengths of about `size`."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net (float[2, 3] x) => (float[n, k] y) {{ {nodes} }}'
    )
    lengths = {"ConstantOfShape": [size, size], "Expand": [size, 2, 3], "Tile": [1, size, 1], "Resize": [1, size, size]}
    kind = next((kind for kind, text in BOMBS.items() if text == nodes), "")
    constants = {
        "large": lengths.get(kind, [0, 0, size, size]), "axes": [0], "zero": 0, "top": size * size, "one": 1,
        "column": [size, 1], "row": [1, size], "side": size,
    }  # fmt: skip
    for name, value in constants.items():
        if re.search(rf"\b{name}\b", nodes):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", BOMBS)
def test_a_tensor_that_is_too_large_is_refused_before_it_is_made(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path / "bomb.onnx", BOMBS[kind], 1 << 28)
    tracemalloc.start()
    with fails(f"{kind}, writes a tensor of", "smaller inputs"):
        read_model(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(read_model(save(tmp_path / "small.onnx", BOMBS[kind], 5)).graph) > 1


def test_a_size_that_shape_arithmetic_leads_to_is_refused_while_it_is_worked_out(tmp_path: Path) -> None:
    nodes = "m = Mul (side, side)  c = Range (zero, m, one)  f = Cast <to = 1> (c)  r = ReduceMean (f)  y = Add (x, r)"
    model = read_model(save(tmp_path / "bomb.onnx", nodes, 1 << 28))
    with fails("Range, writes a tensor of 512 PB, [72057594037927936]", "smaller inputs"):
        prepare(model)


def test_an_input_of_terabytes_is_refused(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[n, 1099511627776] x) => (float[n, k] y) { y = Relu (x) }'
    )
    onnx.save(model, tmp_path / "bomb.onnx")
    with fails("input 'x' is a tensor of 4 TB, [1, 1099511627776]", "smaller inputs"):
        read_model(tmp_path / "bomb.onnx")
