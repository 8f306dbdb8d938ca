"""Parts of a source: shards, draws, and going on after bad samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Net

from fcdeploy.cli import main
from fcdeploy.graph.model import TensorSpec
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.calibration import read
from fcdeploy.samples import listing
from fcdeploy.samples.kept_samples import hash_sample, split_into_chunks
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import BadSample, Load, Source, draw_positions, make_batches

X = TensorSpec("x", np.dtype(np.float32), (None, 2))


def numbered(total: int, *, known: bool = True, batch: int | None = None, loaded: list[int] | None = None) -> Source:
    """Sample i holds i; `loaded` hears of every sample that is asked for."""

    def load(i: int) -> dict[str, Any]:
        if loaded is not None:
            loaded.append(i)
        return {"x": np.full(2, i, np.float32)}

    def read() -> Iterator[tuple[str, Load]]:
        for i in range(total):
            yield f"sample {i}", partial(load, i)

    return Source("numbers", (TensorSpec("x", X.dtype, (batch, 2)),), read, total if known else None, False)


def values(source: Source) -> list[int]:
    return [int(sample.inputs["x"][0]) for sample in source]


@given(
    st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.sampled_from([None, 1, 2, 3]), st.booleans(),
    st.integers(1, 40), st.sampled_from([None, 0, 7]),
)  # fmt: skip
def test_shards_partition_the_whole(
    total: int, of: int, again: int, batch: int | None, known: bool, limit: int, seed: int | None
) -> None:
    loaded: list[int] = []
    source = numbered(total, known=known, batch=batch, loaded=loaded)
    source = source.first(limit) if seed is None else source.draw(limit, seed)
    whole = values(source)
    assert len(whole) == min(total, limit)
    loaded.clear()
    parts = [source.shard(i, of) for i in range(of)]
    cut = [part.shard(j, again) for part in parts for j in range(again)]
    for some in (parts, cut):
        found = [values(part) for part in some]
        assert sorted(chain(*found)) == whole
        assert all(part == sorted(part) for part in found)
        assert all(part.count in (None, len(values)) for part, values in zip(some, found, strict=True))
        assert sorted(loaded) == whole  # and no sample was loaded that is another's
        loaded.clear()
    if batch and len(whole) % batch == 0:  # every shard of what runs in whole batches does
        assert all(len(b) == batch for part in cut for b in make_batches(part, batch))
    assert {tuple(values(part)) for part in cut} == {
        tuple(values(source.shard(i, of * again))) for i in range(of * again)
    }


def test_shards_of_equal_size() -> None:
    assert [numbered(10).shard(i, 4).count for i in range(4)] == [3, 3, 2, 2]
    assert [numbered(10, batch=4).shard(i, 2).count for i in range(2)] == [6, 4]
    assert values(numbered(10).shard(1, 4)) == [1, 5, 9]
    assert values(numbered(12, batch=3).shard(1, 2)) == [3, 4, 5, 9, 10, 11]


def test_a_shard_may_be_empty_but_not_the_whole() -> None:
    assert list(numbered(1).shard(1, 2)) == []
    assert list(make_batches(numbered(1).shard(1, 2), 4)) == []
    for index in range(2):
        with fails("numbers holds no samples"):
            list(numbered(0).shard(index, 2))


@pytest.mark.parametrize("kind", ["npz", "npy", "npy column-major", "npy files", "csv", "py", "images"])
def test_every_kind_of_source_can_be_cut(tmp_path: Path, kind: str) -> None:
    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    spec, data = X, tmp_path / "data"
    if kind == "npz":
        data = data.with_suffix(".npz")
        np.savez_compressed(data, x=x, label=np.arange(11))
    elif kind.startswith("npy"):
        data.mkdir()
        np.save(data / "label.npy", np.arange(11))
        if kind == "npy files":
            for i, row in enumerate(x):
                np.save(data / f"{i:02}.npy", row)
        else:
            np.save(data / "x.npy", x if kind == "npy" else np.asfortranarray(x))
    elif kind == "csv":
        data = data.with_suffix(".csv")
        data.write_text("a,b,label\n" + "".join(f"{a},{b},{i}\n" for i, (a, b) in enumerate(x)))
    elif kind == "py":
        (tmp_path / "gen.py").write_text(
            "def f():\n    for i in range(11):\n        yield {'x': [2 * i, 2 * i + 1], 'label': i}\n"
        )
        data = f"{tmp_path / 'gen.py'}:f"  # type: ignore[assignment]
    else:
        from PIL import Image

        spec = TensorSpec("x", X.dtype, (None, 3, 1, 1))
        for i in range(11):  # in three classes, in the order of their names
            file = data / "abc"[i // 4] / f"{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1, 1), (i, 0, 0)).save(file)
    source = open_source(data, [spec])
    whole = {sample.name: sample for sample in source}
    assert len(whole) == 11
    for other in (source, open_source(data, [spec], limit=7, seed=3)):
        found = [sample for i in range(3) for sample in other.shard(i, 3)]
        assert len(found) == len({sample.name for sample in found}) == (7 if other.chosen is not None else 11)
        for sample in found:
            np.testing.assert_array_equal(sample.inputs["x"], whole[sample.name].inputs["x"])
            assert sample.labels == whole[sample.name].labels


# --- draws


def test_a_draw_is_the_documented_hash() -> None:
    """splitmix64 again, in Python's integers."""

    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    for total, limit, seed in ((100, 9, 0), (33, 32, 5), (1000, 1, 2**63), (50, 10, -1)):
        hashes = [mixed((mixed(seed % 2**64) + (i + 1) * 0x9E3779B97F4A7C15) % 2**64) for i in range(total)]
        assert draw_positions(total, limit, seed).tolist() == sorted(
            sorted(range(total), key=hashes.__getitem__)[:limit]
        )


def test_a_draw_is_even() -> None:
    """Over 2,000 seeds each of 20 positions is among 5 about 500 times; 6 standard deviations are 116."""
    hits = Counter(i for seed in range(2000) for i in draw_positions(20, 5, seed).tolist())
    assert sum(hits.values()) == 10_000
    assert all(abs(hits[i] - 500) < 116 for i in range(20))


def test_drawn_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(200).reshape(100, 2))
    drawn = open_source(tmp_path / "d.npz", [X], limit=10, seed=1)
    names = [sample.name for sample in drawn]
    assert (drawn.count, len(set(names))) == (10, 10)
    assert names == [f"d.npz, sample {i}" for i in draw_positions(100, 10, 1)]
    assert names != [sample.name for sample in open_source(tmp_path / "d.npz", [X], limit=10, seed=2)]
    assert open_source(tmp_path / "d.npz", [X], limit=1000, seed=1).count == 100
    with fails("seed 3 draws samples, but not how many", "--samples 512 --seed 3"):
        open_source(tmp_path / "d.npz", [X], seed=3)


@pytest.mark.parametrize("known", [False, True])
def test_the_first_of_the_first(known: bool) -> None:
    source = numbered(9, known=known)
    assert values(source.first(2).first(5)) == values(source.first(5).first(2)) == [0, 1]
    assert values(source.draw(4, 1).first(2)) == values(source.draw(4, 1))[:2]


def test_a_draw_counts_what_does_not_know_its_length() -> None:
    """The same samples as from a source that knows, and no sample loaded to count them."""
    loaded: list[int] = []
    source = numbered(30, known=False, loaded=loaded).draw(5, 4)
    assert loaded == []
    assert source.count == 5
    assert values(source) == loaded == values(numbered(30).draw(5, 4))


# --- bad samples


def with_bad(tmp_path: Path, **bad: Any) -> Path:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    for at, value in bad.items():
        x[int(at[1:]), 1] = value
    np.savez(tmp_path / "d.npz", x=x)
    return tmp_path / "d.npz"


def skipping(source: Source, heard: list[BadSample]) -> Source:
    return replace(source, on_bad=heard.append)


def test_going_on_after_bad_samples(tmp_path: Path) -> None:
    source = open_source(with_bad(tmp_path, i3=np.nan, i4=np.inf, i9=np.nan), [X])
    heard: list[BadSample] = []
    skipped = skipping(source, heard)
    assert [int(sample.inputs["x"][0]) // 2 for sample in skipped] == [0, 1, 2, 5, 6, 7, 8]
    assert [(bad.position, bad.name) for bad in heard] == [(i, f"d.npz, sample {i}") for i in (3, 4, 9)]
    assert "input 'x': sample 3 has nan at (1,)" in heard[0].why
    heard.clear()
    assert [len(batch) for batch in make_batches(skipped, 4)] == [4, 3]
    heard.clear()
    for i in range(4):  # whoever reads the sample tells of it
        list(skipped.shard(i, 4))
    assert sorted(bad.position for bad in heard) == [3, 4, 9]
    with fails("sample 3 has nan"):
        list(source)


def test_a_model_that_insists_on_its_batch_cannot_do_without_a_sample(tmp_path: Path) -> None:
    source = open_source(with_bad(tmp_path, i3=np.nan), [TensorSpec("x", X.dtype, (5, 2))])
    with fails(
        "the model runs batches of exactly 5; after 5 of 9 samples of d.npz, 4 are left", "repair or remove the bad"
    ):
        list(make_batches(skipping(source, []), 5))


def test_positions_are_those_in_the_whole(tmp_path: Path) -> None:
    heard: list[BadSample] = []
    source = open_source(with_bad(tmp_path, **{f"i{i}": np.nan for i in range(1, 10)}), [X], limit=4, seed=8)
    list(skipping(source, heard).shard(0, 2))
    assert source.chosen is not None
    assert [bad.position for bad in heard] == [i for i in source.chosen[::2] if i]


def test_nothing_but_bad_samples(tmp_path: Path) -> None:
    source = skipping(open_source(with_bad(tmp_path, **{f"i{i}": np.nan for i in range(10)}), [X]), [])
    with fails("no sample of d.npz can be used, the first: input 'x': sample 0 has nan at (1,)"):
        list(source)
    assert list(source.shard(0, 2)) == []  # the other shard may have good ones


def test_what_can_be_skipped_of_each_kind(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (1, 1), (i, 0, 0)).save(folder / f"{i}.png")
    (folder / "0.png").write_bytes(b"no picture")
    files = tmp_path / "files"
    files.mkdir()
    for i in range(4):
        np.save(files / f"{i}.npy", np.zeros(2 if i else 3))
    (files / "3.npy").write_bytes(b"no array")
    (tmp_path / "d.csv").write_text("a,b\n1,2\n1\n1,x\n3,4\n")
    (tmp_path / "gen.py").write_text("def f():\n    yield 7\n    yield {'y': 1}\n    yield {'x': [0, 1]}\n    1 / 0\n")
    picture = TensorSpec("x", X.dtype, (None, 3, 1, 1))
    for data, spec, good, bad in (
        (folder, picture, 3, ["image "]),
        (files, X, 2, ["sample 0 (0.npy) has shape (3,)", "'3.npy' is not a NumPy array"]),
        (tmp_path / "d.csv", X, 2, ["d.csv, sample 1 has 1 cells", "column 'b' is 'x'"]),
    ):
        heard: list[BadSample] = []
        assert len(list(skipping(open_source(data, [spec]), heard))) == good
        assert len(heard) == len(bad)
        assert all(part in why.why for part, why in zip(bad, heard, strict=True))
    heard = []
    with fails("gen.py:f fails: ZeroDivisionError"):  # a function that raises yields no more
        list(skipping(open_source(f"{tmp_path / 'gen.py'}:f", [X]), heard))
    assert [bad.position for bad in heard] == [0, 1]


# --- folders of very many files


def test_a_folder_is_sorted_and_never_decoded_ahead(tmp_path: Path) -> None:
    """Only the sample that is asked for is opened: of 300 files 299 are no pictures at all."""
    from PIL import Image

    names = [f"{i * 7919 % 1000:03}é.png" for i in range(300)]
    for name in names:
        (tmp_path / name).touch()
    Image.new("RGB", (1, 1), (9, 0, 0)).save(tmp_path / sorted(names)[123])
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.txt").touch()
    source = open_source(tmp_path, [TensorSpec("x", X.dtype, (None, 3, 1, 1))])
    assert source.count == 300
    (sample,) = source.first(124).shard(123, 124)
    assert sample.name == f"{tmp_path.name}, sample 123 ({sorted(names)[123]})"


def test_a_folder_that_changes_while_it_is_read(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").touch()
    source = open_source(tmp_path, [TensorSpec("x", X.dtype, (None, 3, 1, 1))])
    (tmp_path / "0.png").unlink()
    with fails("held 3 images and now holds 2"):
        list(source)


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with fails(f"folder '{tmp_path / 'none'}' cannot be read: No such file or directory", "ls "):
        listing.count_files(tmp_path / "none", {".png"})


# --- the commands


@pytest.mark.parametrize("command", ["calibrate", "quantize", "validate"])
def test_commands_draw(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The samples that a command reads are those that open_source draws."""
    monkeypatch.chdir(tmp_path)
    net = Net(0)
    net.output(net.dense(net.input("x", 4), 4, 3)).save(Path("net.onnx"))
    random = np.random.default_rng(0)
    np.savez("d.npz", x=random.normal(size=(30, 4)).astype(np.float32), label=np.arange(30) % 3)
    inputs = [TensorSpec("x", X.dtype, (None, 4))]
    wanted = sorted(hash_sample(s.inputs) for s in open_source("d.npz", inputs, limit=7, seed=5))
    drawing = ["--data", "d.npz", "--samples", "7", "--seed", "5"]
    if command == "calibrate":
        assert main(["calibrate", "net.onnx", *drawing, "-o", "c.calib"]) == 0
        assert read(Path("c.calib")).seen.tolist() == wanted
    elif command == "quantize":
        assert main(["quantize", "net.onnx", "--int8", *drawing, "-o", "q.onnx", "--costs", "none", "--json"]) == 0
        assert main(["calibrate", "net.onnx", *drawing]) == 0
        capsys.readouterr()
        again = ["quantize", "net.onnx", "--int8", "--calibration", "net.calib", "--costs", "none"]
        assert main([*again, "-o", "again.onnx"]) == 0
        assert Path("q.onnx").read_bytes() == Path("again.onnx").read_bytes()
    else:
        assert main(["quantize", "net.onnx", "--int8", "--data", "d.npz", "-o", "q.onnx", "--costs", "none"]) == 0
        capsys.readouterr()
        assert main(["validate", "q.onnx", "--against", "net.onnx", *drawing, "--same-data", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == 7
    assert main([command, *(["q.onnx", "--against"] if command == "validate" else []), "net.onnx", "--data", "d.npz",
                 "--seed", "5", *(["--int8", "-o", "r.onnx"] if command == "quantize" else [])]) == 2  # fmt: skip
    assert "error: seed 5 draws samples, but not how many" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "batch", "block"), [(23, None, 5), (23, None, 40), (24, 2, 6), (8, 4, 4)])
@pytest.mark.parametrize("of", [1, 2, 3, 9])
def test_blocks_are_dealt_out_in_turn_and_no_batch_spans_two(
    count: int, batch: int | None, block: int, of: int
) -> None:
    expected = [list(range(count))[at : at + block] for at in range(0, count, block)]
    for index in range(of):
        shard = numbered(count, batch=batch).shard(index, of, block)
        assert values(shard) == list(chain(*expected[index::of]))
        assert shard.count == len(values(shard))
        assert [shard.rank(n + 1) for n in range(len(values(shard)))] == [n + 1 for n in values(shard)]
        groups = [[int(value) for value in group.inputs["x"][:, 0]] for group in make_batches(shard, batch or 4)]
        assert list(chain(*groups)) == values(shard)
        assert all(group[0] // block == group[-1] // block for group in groups)


def test_samples_of_large_tensors_run_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the largest tensor that the model writes; every sample once, in order."""
    net = Net(0)
    model = ir.from_proto(net.output(net.conv(net.input("x", 3, 8, 8), 3, 4)).model())
    infer_shapes(model)
    samples = {"x": np.arange(10 * 3 * 64, dtype=np.float32).reshape(10, 3, 8, 8)}
    for most, sizes in ((1 << 30, [10]), (3 * 4 * 64 * 4, [3, 3, 3, 1]), (1, [1] * 10)):
        monkeypatch.setattr("fcdeploy.samples.kept_samples.CHUNK_BYTES", most)
        chunks = list(split_into_chunks(model, samples))
        assert [count for count, _ in chunks] == sizes
        assert np.array_equal(np.concatenate([part["x"] for _, part in chunks]), samples["x"])
