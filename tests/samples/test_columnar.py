"""Parquet and Arrow files as samples: what pyarrow writes, read as the same table in a CSV is."""

from __future__ import annotations

import decimal
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import feather, parquet

from fcdeploy.errors import FcdeployError
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.signature import TensorSpec
from fcdeploy.samples import columnar
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.parquet_sizes import check_extent, measure_group

X = TensorSpec("x", np.dtype(np.float32), (None, 2))
FORMS = ("data.parquet", "data.arrow", "data.arrows", "data.feather")


def save(path: Path, table: Any, rows: int = 700) -> Path:
    """In pieces of so many rows, as the name says."""
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=rows)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path), chunksize=rows)
    else:
        open_writer = arrow.ipc.new_file if path.suffix == ".arrow" else arrow.ipc.new_stream
        with open_writer(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_the_same_samples_as_those_of_a_csv(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(2500, 2)).astype(np.float32)
    words = random.choice(["dog", "cat", "ape"], 2500)
    table = arrow.table({"b": numbers[:, 1], "sort": words, "a": numbers[:, 0]})
    lines = [f"{b!r},{word},{a!r}" for (a, b), word in zip(numbers.astype(float).tolist(), words, strict=True)]
    (tmp_path / "data.csv").write_text("b,sort,a\n" + "\n".join(lines))
    how = DataFormat(columns=("a", "b"), label="sort")
    one, other = (open_source(path, [X], format=how) for path in (tmp_path / "data.csv", save(tmp_path / name, table)))
    assert other.format == one.format
    assert other.format.classes == ("ape", "cat", "dog")
    count = 0
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.inputs["x"], right.inputs["x"])
        assert left.labels["label"] == right.labels["label"]
        count += 1
    assert count == 2500


def test_integers_categories_decimals_and_the_index_of_pandas(tmp_path: Path) -> None:
    table = arrow.table(
        {
            "a": arrow.array([1, 2**53 + 1], arrow.int64()),
            "b": arrow.array([decimal.Decimal("3"), decimal.Decimal("4")]),
            "label": arrow.array(["no", "yes"]).dictionary_encode(),
            "__index_level_0__": arrow.array([7, 8]),
        }
    ).replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__"]}'})
    path = save(tmp_path / "data.parquet", table)
    source = open_source(path, [TensorSpec("n", np.dtype(np.int64), (None, 2))])
    assert [sample.inputs["n"].tolist() for sample in source] == [[1, 3], [2**53 + 1, 4]]
    assert [int(sample.labels["label"]) for sample in source] == [0, 1]


@pytest.mark.parametrize("words", [[None, "cat", "dog"], ["cat", None, "dog"]])
def test_a_label_that_is_null_is_no_class(tmp_path: Path, words: list[str | None]) -> None:
    source = open_source(
        save(tmp_path / "data.parquet", arrow.table({"a": [1.0] * 3, "b": [2.0] * 3, "label": words})), [X]
    )
    assert source.format.classes == ("cat", "dog")
    with pytest.raises(FcdeployError, match=f"sample {words.index(None)}, column 'label': label is empty"):
        list(source)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"a": [[1.0], [2.0]], "b": [[1.0], [2.0]]},
            "sample 0, column 'a' is neither a number nor a word, expected a number",
        ),
        ({"a": ["w" * 10_001], "b": [1.0]}, "sample 0, column 'a' is a text of 10,001 letters, expected a number"),
        ({"a": [1.0, None], "b": [1.0, 2.0]}, "sample 1, column 'a' is None, expected a number"),
        (
            {"a": [[1.0], [2.0]], "b": [1.0, 2.0]},
            "sample 0, column 'a' is neither a number nor a word, expected a number",
        ),
        ({"a": [1.0, float("inf")], "b": [1.0, 2.0]}, "input 'x': sample 1 has inf at (0,)"),
        ({"a": [1.0]}, "data.parquet has 1 feature columns, input 'x' wants 2"),
        ({"a": [], "b": []}, "data.parquet holds no samples"),
    ],
)
@pytest.mark.parametrize("name", ["data.parquet", "data.arrow"])
def test_cells_that_are_no_numbers(tmp_path: Path, name: str, cells: dict[str, Any], message: str) -> None:
    path = save(tmp_path / name, arrow.table(cells))
    with pytest.raises(FcdeployError) as failed:
        list(open_source(path, [X]))
    assert message.replace("data.parquet", name) in failed.value.message


@pytest.mark.parametrize("name", FORMS)
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, arrow.table({"a": np.arange(2000.0), "b": np.arange(2000.0)}))
    whole = path.read_bytes()
    for content in (b"", b"PAR1", b"ARROW1\0\0", whole[: len(whole) // 2], whole[:20], b"a,b\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(FcdeployError) as failed:
            list(open_source(path, [X]))
        assert failed.value.message.startswith(f"{name} is not a readable Parquet or Arrow file: ")


def test_groups_of_rows_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "data.parquet", arrow.table({"a": np.arange(2000.0), "b": np.arange(2000.0)}), rows=1500)
    monkeypatch.setattr(columnar, "MOST_BYTES", 20_000)
    with pytest.raises(FcdeployError, match=r"row group 0 is .* bytes unpacked, expected at most 20,000"):
        open_source(path, [X])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "zstd", "snappy"])
def test_a_group_is_as_large_as_its_pages_whatever_its_metadata_say(
    codec: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    columns = {"a": np.arange(20_000.0), "b": np.zeros(20_000), "label": random.choice(["cat", "dog"], 20_000)}
    path = tmp_path / "data.parquet"
    parquet.write_table(
        arrow.table(columns), path, compression=codec, data_page_version=version, use_dictionary=["label"]
    )
    group = parquet.ParquetFile(path).metadata.row_group(0)
    with path.open("rb") as file:
        measured = measure_group(file, group, {"a", "b", "label"})
    assert 0.99 * group.total_byte_size < measured <= group.total_byte_size  # which counts the heads too
    said, less = (_write_integer(number) for number in (group.total_byte_size, 10_000))
    content = path.read_bytes()
    assert 1 <= content.count(said) <= 2  # where nothing is packed, so many bytes lie in the file too
    path.write_bytes(content.replace(said, less))
    assert parquet.ParquetFile(path).metadata.row_group(0).total_byte_size < measured / 4
    monkeypatch.setattr(columnar, "MOST_BYTES", measured - 1)
    with pytest.raises(FcdeployError, match=f"row group 0 is {measured:,} bytes unpacked"):
        open_source(path, [X])


def _write_integer(number: int) -> bytes:
    """As Thrift's compact protocol does, in three bytes."""
    number *= 2
    return bytes(128 | number >> shift & 127 for shift in (0, 7)) + bytes([number >> 14])


def test_offsets_that_point_outside_are_refused_and_not_followed(tmp_path: Path) -> None:
    """Arrow believes what a file says of where its texts are unless it is asked to check: it would read foreign memory."""
    table = arrow.table({"a": [1.0, 2.0], "b": [1.0, 2.0], "label": ["cat", "dog"]})
    path = save(tmp_path / "data.arrow", table)
    ends, far = np.array([0, 3, 6], "<i4").tobytes(), np.array([0, 3, 2**30], "<i4").tobytes()
    assert path.read_bytes().count(ends) == 1
    path.write_bytes(path.read_bytes().replace(ends, far))
    with pytest.raises(FcdeployError, match="is not a readable Parquet or Arrow file"):
        list(open_source(path, [X]))


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("name", ["data.arrow", "data.arrows"])
@pytest.mark.parametrize("words", [False, True], ids=["numbers", "dictionary"])
def test_batches_are_measured_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str | None, words: bool
) -> None:
    """Zeros in Arrow, and words of a dictionary, take next to nothing where they are compressed."""
    table = arrow.table({"a": np.zeros(2000), "b": np.zeros(2000)})
    if words:
        words_of = arrow.DictionaryArray.from_arrays(np.zeros(1, np.int8), ["w" * 29_000])
        table = arrow.table({"a": [0.0], "b": [0.0], "c": words_of})
    open_writer = arrow.ipc.new_file if name == "data.arrow" else arrow.ipc.new_stream
    with open_writer(
        str(tmp_path / name), table.schema, options=arrow.ipc.IpcWriteOptions(compression=codec)
    ) as writer:
        writer.write_table(table)
    monkeypatch.setattr(columnar, "MOST_BYTES", 36_000)
    assert len(list(open_source(tmp_path / name, [X], format=DataFormat(columns=("a", "b"))))) == table.num_rows
    monkeypatch.setattr(columnar, "MOST_BYTES", 28_000)
    with pytest.raises(FcdeployError, match=r"a batch of rows is [23].,... bytes unpacked, expected at most 28,000"):
        open_source(tmp_path / name, [X])


@pytest.mark.parametrize("name", ["data.parquet", "data.arrow"])
def test_a_word_in_every_row_is_kept_once(tmp_path: Path, name: str) -> None:
    word = arrow.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ["w" * 100_000])
    table = arrow.table(
        {"a": np.zeros(1000), "b": np.zeros(1000), "c": word if name == "data.arrow" else word.cast("str")}
    )
    path = save(tmp_path / name, table, 1000)
    tracemalloc.start()
    try:
        with columnar._open_batches(path) as (_, batches):
            batch = next(batches)
            assert batch.get_total_buffer_size() < 1_000_000
            assert len(list(columnar._list_rows(batch, ["a", "b", "c"]))) == 1000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_cut_while_it_is_read_is_damaged(tmp_path: Path, name: str) -> None:
    """Were it mapped, the process would end by a signal."""
    numbers = np.random.default_rng(0).normal(size=40_000)
    path = save(tmp_path / name, arrow.table({"a": numbers, "b": numbers}), 10_000)
    samples = iter(open_source(path, [X]))
    next(samples)
    os.truncate(path, 100)
    with pytest.raises(FcdeployError, match="is not a readable Parquet or Arrow file"):
        list(samples)


def test_columns_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Metadata may name one column's pages a thousand times, and each would be walked again."""
    path = save(tmp_path / "data.parquet", arrow.table({"a": [1.0, 2.0]}))
    metadata = parquet.read_metadata(path)
    twice = SimpleNamespace(num_row_groups=100, row_group=lambda _: metadata.row_group(0))
    with path.open("rb") as file:
        check_extent(file, metadata)
        with pytest.raises(ValueError, match="its columns say that they have"):
            check_extent(file, twice)
