"""Weights a block at a time: what is read in slices is what is there, and what is made of slices is the same."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fcdeploy.arithmetic.weights.rounding import SEARCHED, round_rows, sample_columns, search_scales
from fcdeploy.graph import weights
from fcdeploy.graph.weights import initializer_bytes, is_large, read_blocks, read_whole

DTYPES = (np.float32, np.float64, np.int8, np.float16, ml_dtypes.bfloat16)


def outside(path: Path, array: np.ndarray, before: bytes = b"") -> ir.ExternalTensor:
    """The array as a tensor in a file, behind some other bytes."""
    path.write_bytes(before + array.tobytes() + b"more")
    shape = ir.Shape(array.shape)
    dtype = ir.DataType.from_numpy(array.dtype)
    return ir.ExternalTensor(
        path.name, len(before), array.nbytes, dtype, shape=shape, name="w", base_dir=str(path.parent)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    size=st.integers(1, 300),
    data=st.data(),
)
def test_slices_are_what_is_there(
    tmp_path: Path, shape: list[int], dtype: type, size: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    array = np.random.default_rng(0).integers(-99, 99, shape).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "BLOCK_BYTES", size)
        for tensor in (outside(tmp_path / "w", array, b"12345"), ir.Tensor(array)):
            parts = list(read_blocks(tensor, axis))
            np.testing.assert_array_equal(np.concatenate([part for _, part in parts], axis=axis), array)
            assert [part.start for part, _ in parts] == [0, *(part.stop for part, _ in parts)][:-1]
            assert all(part.nbytes <= max(size, array.nbytes // shape[axis]) for _, part in parts)


def test_a_number_is_one_block() -> None:
    ((_, found),) = read_blocks(ir.Tensor(np.float32(3)))
    assert found.tolist() == [3]


def test_numbers_of_half_a_byte_are_read_as_a_whole(tmp_path: Path) -> None:
    array = np.arange(-8, 8).astype(ml_dtypes.int4).reshape(4, 4)
    packed = ir.PackedTensor(np.array([0], np.uint8), ir.DataType.INT4, shape=[1, 2])  # how onnx-ir packs: low first
    assert packed.nbytes == 1
    low, high = array.reshape(-1)[::2].view(np.uint8) & 15, array.reshape(-1)[1::2].view(np.uint8) & 15
    (tmp_path / "w").write_bytes((low | high << 4).astype(np.uint8).tobytes())
    tensor = ir.ExternalTensor("w", 0, 8, ir.DataType.INT4, shape=ir.Shape([4, 4]), name="w", base_dir=str(tmp_path))
    np.testing.assert_array_equal(np.concatenate([part for _, part in read_blocks(tensor)]), array)


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    tensor = outside(tmp_path / "w", np.ones((4, 4), np.float32))
    (tmp_path / "w").write_bytes(bytes(40))
    with fails("ends at byte 40, before its weights do", "copy the weight file"):
        list(read_blocks(tensor))


def test_reading_slices_maps_nothing(tmp_path: Path) -> None:
    tensor = outside(tmp_path / "w", np.ones((4, 4), np.float32))
    list(read_blocks(tensor))
    np.testing.assert_array_equal(read_whole(tensor), np.ones((4, 4), np.float32))
    assert tensor.raw is None
    np.testing.assert_array_equal(read_whole(ir.tensor(np.float32(3))), np.float32(3))


def test_large_counts_all_weights_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [
        ir.Value(name="a", const_value=outside(tmp_path / "w", np.ones((4, 4), np.float32))),
        ir.Value(name="b", const_value=ir.Tensor(np.ones(4, np.int8))),
    ]
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=values), ir_version=8)
    assert initializer_bytes(model) == 68
    assert not is_large(model)
    monkeypatch.setattr(weights, "LARGE", 68)
    assert is_large(model)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 9),
    length=st.sampled_from([3, 8, SEARCHED, SEARCHED + 1, 2 * SEARCHED + 5]),
    limit=st.sampled_from([None, 128]),
    seed=st.integers(0, 99),
)
def test_scales_from_parts_of_rows_are_those_of_whole_rows(
    rows: int, length: int, limit: int | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, length)).astype(np.float32)
    weight[random.integers(rows)] = 0
    importance = random.random(length)
    whole = search_scales(weight.astype(np.float64), importance, limit)
    parts = search_scales(*sample_columns(weight, importance), limit, top=np.abs(weight).max(axis=1))
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize(("limit", "most"), [(None, 1.02), (128, 1.06)])
def test_a_part_of_a_long_row_finds_the_scale_of_all_of_it(limit: int | None, most: float) -> None:
    random = np.random.default_rng(0)
    weight, importance = random.standard_normal((20, 8 * SEARCHED)), random.random(8 * SEARCHED)
    found, best = (search_scales(weight, importance, limit, searched=n) for n in (SEARCHED, weight.shape[1]))
    assert error(weight, importance, limit, found) < most * error(weight, importance, limit, best)


def error(weight: np.ndarray, importance: np.ndarray, limit: int | None, scale: np.ndarray) -> float:
    off = weight - round_rows(weight, scale, importance, limit) * scale[:, None]
    return float((importance * off**2).sum())
