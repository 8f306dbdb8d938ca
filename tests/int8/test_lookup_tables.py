"""Tables of constants whose rows a Gather looks up: as bytes in the file, each row with a scale of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import Net, quantize_net
from onnx import TensorProto, numpy_helper

from fcdeploy.commands.compile import compile as compile_native
from fcdeploy.commands.quantize import quantize
from fcdeploy.commands.validate import validate
from fcdeploy.int8.planning.decide import LOOKED_UP

ROWS, COLUMNS = 300, 24


def tagger(rows: int) -> Net:
    """Words (n, 12) -> an embedding whose rows differ in size by 1,000, normalized -> scores of 5 classes for each."""
    net, random = Net(0), np.random.default_rng(0)
    table = (random.normal(size=(rows, COLUMNS)) * np.geomspace(5, 0.005, rows)[:, None]).astype(np.float32)
    x = net.op("Gather", net.constant(table), net.input("words", 12, dtype=TensorProto.INT64), name="look up")
    x = net.op("LayerNormalization", x, net.constant(np.ones(COLUMNS)), net.constant(np.zeros(COLUMNS)), epsilon=1e-12)
    y = net.op("Relu", net.op("MatMul", x, net.constant(net.normal(COLUMNS, 32, size=0.2)), name="first"))
    return net.output(net.op("MatMul", y, net.constant(net.normal(32, 5, size=0.3)), name="second"))


def words(count: int, rows: int) -> dict[str, np.ndarray]:
    return {"words": np.random.default_rng(count).integers(0, rows, (count, 12))}


@pytest.mark.parametrize(("rows", "stored"), [(ROWS, True), (20, False)])
def test_a_table_is_kept_as_bytes_where_that_saves_some(rows: int, stored: bool) -> None:
    net = tagger(rows)
    made = quantize_net(net, words(32, rows))
    (decision,) = (each for each in made.plan.nodes if each.node == "look up")
    assert decision.kind == ("weight_only" if stored else "float")
    assert decision.why.startswith(LOOKED_UP)
    (table,) = (
        numpy_helper.to_array(each) for each in net.model().graph.initializer if list(each.dims) == [rows, COLUMNS]
    )
    held = [each.const_value.numpy() for each in made.int8.graph.initializers.values() if each.const_value is not None]
    found = [each for each in held if each.shape == (rows, COLUMNS)]
    assert [each.dtype for each in found] == [np.dtype(np.int8 if stored else np.float32)]
    if stored:  # within a level of each row, clipped or not: a scale for all would lose the small ones
        (scale,) = (each for each in held if each.shape == (rows, 1))
        assert (np.abs(found[0] * scale - table).max(axis=1) <= np.abs(table).max(axis=1) / 64).all()


def test_files_with_tables_are_small_right_for_words_not_seen_and_run_as_native_code(tmp_path: Path) -> None:
    tagger(ROWS).save(tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", **words(64, ROWS // 2))
    np.savez(tmp_path / "eval.npz", **words(65, ROWS))  # most of them with words that no sample had
    quantize(tmp_path / "m.onnx", data=tmp_path / "calib.npz", output=tmp_path / "q.onnx", accept=True)
    before, after = ((tmp_path / name).stat().st_size for name in ("m.onnx", "q.onnx"))
    assert after < 0.5 * before
    found = validate(tmp_path / "q.onnx", against=tmp_path / "m.onnx", data=tmp_path / "eval.npz").values
    assert found["sqnr_db"] > 30
    compile_native(tmp_path / "q.onnx", output=tmp_path / "lib", emit="library", allow_float=True)
    assert ir.load(tmp_path / "q.onnx").graph.inputs[0].name == "words"
    assert ort.InferenceSession(tmp_path / "q.onnx").run(None, words(3, ROWS))[0].shape == (3, 12, 5)
