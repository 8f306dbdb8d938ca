"""CSV files: columns, labels that are words, separators, and lines that never end."""

from __future__ import annotations

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import fails
from sample_files import samples, spec

from fcdeploy.records.data_format import DataFormat
from fcdeploy.samples import csv
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import BadSample

# --- CSV


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("﻿a,b,label,c,d\n1,2.5,0,-3e1,4\n\n5,6,1,7,8\n", encoding="utf-8")
    source = open_source(path, [spec("x", None, 1, 2, 2)])
    assert (source.count, source.labelled) == (None, True)
    for _ in range(2):
        first, second = source
        np.testing.assert_array_equal(first.inputs["x"], [[[1, 2.5], [-30, 4]]])
        np.testing.assert_array_equal(second.inputs["x"], [[[5, 6], [7, 8]]])
        assert (first.labels["label"], second.labels["label"]) == (0, 1)
        assert second.labels["label"].dtype == np.int64
    assert samples(path, spec("x", None, 2, None))[0].inputs["x"].shape == (2, 2)


def test_csv_of_integers(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,9007199254740993\n")
    (sample,) = samples(path, spec("tokens", None, 2, dtype=np.int64))
    assert sample.inputs["tokens"].tolist() == [1, 9007199254740993]
    for cell in ("2.5", "9" * 20):
        path.write_text(f"a,b\n1,{cell}\n")
        with fails(f"data.csv, sample 0, column 'b' is '{cell}', expected a whole number of 64 bits"):
            samples(path, spec("tokens", None, 2, dtype=np.int64))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", "data.csv, sample 1, column 'b' is 'x', expected a number"),
        ("a,b\n1,2\n3,1_0\n", "data.csv, sample 1, column 'b' is '1_0', expected a number"),
        ("a,b\n1,2\n3,1e400\n", "data.csv, sample 1, column 'b' is '1e400', expected a number"),
        ("a,b\n1,2\n3\n", "data.csv, sample 1 has 1 cells, the header has 2"),
        ("a,b\n1,nan\n", "input 'x': sample 0 has nan at (1,)"),
        ("a,b\n", "data.csv holds no samples"),
        ("", "data.csv has 0 feature columns, input 'x' wants 2"),
        ("a:b\n1:2\n", "data.csv has 1 feature columns, input 'x' wants 2"),
        ("a,b,label\n1,2,3\n1,2,cat\n", "sample 1, column 'label' is 'cat', expected a number"),
        ("a,b,label\n1,2,3\n1,2,\n", "data.csv, sample 1, column 'label': label is empty"),
        ("a,a\n1,2\n", "column 'a' is there twice"),
        ("a,b\n\xff\n", "data.csv is not a readable CSV"),
    ],
)
def test_csv_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode("latin-1"))
    with fails(message):
        samples(path, spec("x", None, 2))


def test_a_column_too_many_may_be_that_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b,kind\n1,2,cat\n")
    with fails("data.csv has 3 feature columns, input 'x' wants 2", "--label COLUMN says which holds labels"):
        samples(path, spec("x", None, 2))


def test_csv_columns_are_matched_to_inputs_by_name(tmp_path: Path) -> None:
    """As scikit-learn's pipelines become: an input a column, in any order."""
    path = tmp_path / "data.csv"
    path.write_text("height,kind,age\n1.5,no,3\n1.25,yes,4\n")
    specs = [spec("age", None, 1, dtype=np.int64), spec("height", None, 1)]
    source = open_source(path, specs, format=DataFormat(label="kind"))
    first, second = source
    assert (first.inputs["age"].tolist(), first.inputs["height"].tolist()) == ([3], [1.5])
    assert [int(sample.labels["label"]) for sample in (first, second)] == [0, 1]
    assert source.format.classes == ("no", "yes")
    with fails("data.csv: column 'weight' is missing, it has 'height', 'age'", "did you mean 'height'?"):
        open_source(path, [spec("weight", None, 1), specs[1]], format=DataFormat(label="kind"))
    with fails("there is no column 'sort' of labels", "--label COLUMN"):
        open_source(path, specs, format=DataFormat(label="sort"))


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize("first", [False, True])
def test_an_empty_label_is_no_class(tmp_path: Path, empty: str, first: bool) -> None:
    """It would shift the numbers of all others: its row is refused, or left out."""
    path = tmp_path / "data.csv"
    rows = [f"3,4,{empty}", "1,2,cat"] if first else ["1,2,cat", f"3,4,{empty}"]
    path.write_text("\n".join(["a,b,label", *rows, "5,6,dog"]))
    source = open_source(path, [spec("x", None, 2)])
    assert source.format.classes == ("cat", "dog")
    with fails(f"data.csv, sample {0 if first else 1}, column 'label': label is empty", "--skip-bad"):
        list(source)
    bad: list[BadSample] = []
    kept = list(replace(source, on_bad=bad.append))
    assert [int(sample.labels["label"]) for sample in kept] == [0, 1]
    assert [one.position for one in bad] == [0 if first else 1]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_in_other_forms(tmp_path: Path, separator: str, packed: bool) -> None:
    """Recorded columns are found in any order, and labels that are words are the recorded classes."""
    text = "\n".join(separator.join(row) for row in (("b", "sort", "a"), ("1", "dog", "2"), ("3", "cat", "4")))
    path = tmp_path / ("data.csv.gz" if packed else "data.tsv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    recorded = DataFormat(columns=("a", "b"), classes=("ape", "cat", "dog"), label="sort")
    found = list(open_source(path, [spec("x", None, 2)], format=recorded))
    assert [sample.inputs["x"].tolist() for sample in found] == [[2, 1], [4, 3]]
    assert [int(sample.labels["label"]) for sample in found] == [2, 1]
    path.write_bytes(path.read_bytes()[:-4])
    if packed:
        with fails("data.csv.gz is not a readable CSV"):
            list(open_source(path, [spec("x", None, 2)], format=recorded))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_stands_in_quotes_separates_nothing(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(separator.join(['"a;1;2;3"', '"b\t\t\t\t,,,,,"', "label"]) + "\n" + separator.join("123"))
    (sample,) = samples(path, spec("x", None, 2))
    assert sample.inputs["x"].tolist() == [1, 2]


@pytest.mark.parametrize("before", ["", "a,b\n1,2\n", 'a,b\n"1\n'])
def test_a_csv_of_an_endless_line(tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to a line of any length: no more of it is read than a row may have."""
    monkeypatch.setattr(csv, "MOST_LETTERS", 20_000)
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress((before + "1," * 5_000_000).encode()))
    tracemalloc.start()
    with fails("data.csv.gz has a row of more than 20,000 letters, expected a sample a line"):
        samples(path, spec("x", None, 2))
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()


@pytest.mark.parametrize(("word", "hint"), [("dgo", "did you mean 'dog'?"), ("bird", "--classes FILE")])
def test_a_word_that_is_no_class(tmp_path: Path, word: str, hint: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"a,b,label\n1,2,1\n1,2,{word}\n")
    source = open_source(path, [spec("x", None, 2)], format=DataFormat(classes=("cat", "dog")))
    with fails(f"data.csv, sample 1, column 'label' is '{word}', expected one of the 2 classes: 'cat', 'dog'", hint):
        list(source)
