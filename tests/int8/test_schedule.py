"""Batches, passes and where samples lie: chosen from shapes or a run, and never visible in the record."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from hypothesis import given
from hypothesis import strategies as st
from networks import Arrays, Net, in_memory, random_data
from onnx import TensorProto
from recordings import any_shapes, images, model_of, record

from fcdeploy.int8.calibrating.observe import observable_tensors, observe
from fcdeploy.int8.calibrating.schedule import Passes, move_samples_first, plan_passes
from fcdeploy.records.calibration import to_bytes
from fcdeploy.runtime.session import Session

ROOT = Path(__file__).parents[2]


def passes_of(net: Net, data: Arrays, **options: Any) -> Passes:
    model = model_of(net, prepared=False)
    return plan_passes(model, observable_tensors(model.graph, everything=True), in_memory(data, model), **options)


def sequence(net: Net, *, declared: bool = True) -> Net:
    """Time comes first inside, as recurrent layers want it, and all steps of all samples in one row further on."""
    x = net.op("Transpose", net.input("x", 6 if declared else "t", 5), perm=[1, 0, 2], name="turned")
    x = net.op("Tanh", x, name="time_first")
    net.output(net.op("MatMul", x, net.constant(net.normal(5, 2))))
    x = net.op("Reshape", net.op("Transpose", x, perm=[1, 0, 2]), net.constant([-1, 5], np.int64), name="flat")
    x = net.op("Relu", net.op("MatMul", x, net.constant(net.normal(5, 4)), name="dense"), name="last")
    return net.output(net.op("MatMul", x, net.constant(net.normal(4, 3))))


SEQUENCES = random_data(0, 9, x=(6, 5))


@pytest.mark.parametrize("declared", [True, False])
def test_the_axis_of_samples_is_found(declared: bool) -> None:
    found = passes_of(sequence(Net(0), declared=declared), SEQUENCES)
    assert (found.axes["x"], found.axes["time_first_out"], found.axes["last_out"]) == (0, 1, 0)


@pytest.mark.parametrize("declared", [True, False])
def test_sequences_are_recorded_sample_by_sample_for_any_batch(declared: bool) -> None:
    """Against each sample run alone; so many features that a part of them is counted, which a batch could upset."""
    model = model_of(sequence(Net(0), declared=declared))
    expected = to_bytes(record(model, SEQUENCES, batch=1))
    assert all(to_bytes(record(model, SEQUENCES, batch=batch)) == expected for batch in (2, 5, 9, None))
    found = record(model, SEQUENCES).tensors
    assert found["time_first_out"].shape == (None, 6, 5)
    assert found["last_out"].shape == (None, 6, 4)
    for name, channels in (("time_first_out", 5), ("last_out", 4)):
        moments = found[name].moments
        assert moments is not None
        assert (len(moments.limbs), moments.samples) == (channels, 9)
    wide = np.tanh(SEQUENCES["x"]).mean((0, 1), dtype=np.float64)
    np.testing.assert_allclose(found["time_first_out"].moments.mean(), wide, atol=1e-6)  # type: ignore[union-attr]


def test_a_tensor_without_samples_is_that_of_each_sample_alone() -> None:
    """Its value depends on who shares a batch, and so does what is computed from it: nobody shares one."""
    net = Net(0)
    x = net.input("x", 7)
    middle = net.op("ReduceMean", x, axes=[0], keepdims=0, name="middle")
    net.output(net.op("Sub", net.op("Relu", x), middle, name="rest"))
    data = random_data(0, 8, x=(7,))
    found = passes_of(net, data, batch=4)
    assert (found.batch, found.axes["middle_out"]) == (1, None)
    model = model_of(net)
    one, many = record(model, data, batch=1), record(model, data, batch=8)
    assert to_bytes(one) == to_bytes(many)
    assert many.tensors["middle_out"].histogram.total == 8 * 7
    assert many.tensors["rest_out"].histogram.high == (np.maximum(data["x"], 0) - data["x"]).max()


def test_a_model_that_takes_one_sample_only_gets_one() -> None:
    """Its declared batch is free, and a Reshape inside is not."""
    net = Net(0)
    x = net.op("Reshape", net.input("x", 6), net.constant([1, 2, 3], np.int64), name="cut")
    data = random_data(0, 5, x=(6,))
    assert passes_of(net.output(x), data).batch == 1
    model = model_of(net)
    assert record(model, data).tensors["cut_out"].histogram.total == 30


def test_states_and_integers_beside_samples() -> None:
    """A recurrent layer with its state as an input, as exporters write it, and an index: one sample at a time."""
    net = Net(0)
    index = net.input("index", 3, dtype=TensorProto.INT64)
    x = net.op("Gather", net.constant(net.normal(9, 4)), index)
    time_first = net.op("Transpose", x, perm=[1, 0, 2])
    net.inputs.append(onnx_value("state", [1, "n", 5]))
    weights = [net.constant(net.normal(1, 15, n, size=0.3)) for n in (4, 5)]
    y, last = net.ops("GRU", time_first, *weights, "", "", "state", outputs=2, hidden_size=5, name="gru")
    model = model_of(net.output(y, last))
    random = np.random.default_rng(0)
    samples = [
        {"index": random.integers(0, 9, 3), "state": random.normal(size=(1, 5)).astype(np.float32)} for _ in range(7)
    ]
    found = observe(model, any_shapes(model, samples), model_hash="hash")
    assert found.samples == 7
    assert found.tensors["gru_out1"].histogram.total == 7 * 5
    assert "index" not in found.tensors
    parts = [observe(model, any_shapes(model, [sample]), model_hash="hash") for sample in samples[::-1]]
    from fcdeploy.int8.calibrating.merge import merge

    assert to_bytes(functools.reduce(merge, parts)) == to_bytes(found)


def onnx_value(name: str, shape: list[int | str]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2))
def test_samples_come_first(count: int, length: int, features: int, form: int) -> None:
    """Samples first, time first, or all steps in a row: the same array comes out."""
    x = np.arange(count * length * features, dtype=np.float32).reshape(count, length, features)
    given, axis, channels = (
        (x, 0, 2),
        (np.moveaxis(x, 0, 1), 1, 1),
        (x.reshape(-1, features), 0, 1),
    )[form]
    found, where = move_samples_first(given, count, axis, channels)
    if form == 2 and length == 1:
        found, where = found[:, None], 2
    np.testing.assert_array_equal(found, x)
    assert where == 2


DATA = random_data(0, 12, a=(4, 8, 8), b=(4, 8, 8))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_any_number_of_passes_gives_the_same_bytes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(images(Net(0)))
    expected = to_bytes(record(model, DATA))
    names = [value.name or "" for value in observable_tensors(model.graph)]
    groups = tuple(tuple(names[i : i + most]) for i in range(0, len(names), most))
    one = plan_passes(model, observable_tensors(model.graph), in_memory(DATA, model))
    monkeypatch.setattr("fcdeploy.int8.calibrating.observe.plan_passes", lambda *_, **__: Passes(4, groups, one.axes))
    assert to_bytes(record(model, DATA)) == expected


def test_data_that_change_between_passes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(images(Net(0)))
    names = tuple(value.name or "" for value in observable_tensors(model.graph))
    axes = dict.fromkeys(names, 0)
    monkeypatch.setattr(
        "fcdeploy.int8.calibrating.observe.plan_passes", lambda *_, **__: Passes(4, (names[:2], names[2:]), axes)
    )
    calls = iter(range(100))
    source = in_memory(DATA, model)

    def read() -> Any:
        shift = next(calls)
        for name, load in source.read():
            yield name, lambda load=load: {key: value + shift for key, value in load().items()}

    changing = type(source)("data", source.inputs, read, source.count, False)
    with fails("the data gave other samples when they were read again", "--max-memory"):
        observe(model, changing, model_hash="hash")


WIDE = """
import json, sys
import fcdeploy
import fcdeploy.commands.calibrate
from fcdeploy.runtime.footprint import read_peak_resident_bytes, read_resident_bytes
limit = read_resident_bytes() + (200 << 20)
report = fcdeploy.calibrate("wide.onnx", data="wide.npz", output=sys.argv[1], max_memory=limit if sys.argv[2] else None)
print(json.dumps([limit, read_peak_resident_bytes()]))
"""


def test_a_limit_on_memory_is_kept_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve tensors of 16 MB a sample, which have to leave the model whole because images may have any size.

    In a process of its own, with 200 MB to spare; then without a limit.
    """
    monkeypatch.chdir(tmp_path)
    net = Net(0)
    x = net.input("x", 4, "h", "w")
    for _ in range(6):
        x = net.op("Relu", net.op("Tanh", net.op("Resize", x, "", net.constant([1, 1, 16, 16])) if _ == 0 else x))
    net.output(net.op("GlobalAveragePool", x)).save(Path("wide.onnx"))
    np.savez("wide.npz", **random_data(0, 3, x=(4, 64, 64)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    peaks = {}
    for name, limited in (("limited", "yes"), ("free", "")):
        command = [sys.executable, "-c", WIDE, f"{name}.calib", limited]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        limit, peaks[name] = json.loads(done.stdout.splitlines()[-1])
        assert not limited or peaks[name] <= limit
    assert peaks["free"] > peaks["limited"] + (16 << 20)  # a tensor; how much more depends on what else needs memory
    assert Path("limited.calib").read_bytes() == Path("free.calib").read_bytes()


def test_less_memory_than_the_model_takes_is_refused() -> None:
    with fails("--max-memory of 1 MB is less than the ", "--max-memory "):
        passes_of(images(Net(0)), DATA, max_memory=1 << 20)


def test_the_batch_follows_from_the_size_of_a_sample() -> None:
    assert passes_of(images(Net(0)), DATA).batch == 64
    assert passes_of(images(Net(0)), DATA, batch=3).batch == 3
    net = Net(0)
    big = net.output(net.op("Relu", net.op("Neg", net.input("x", 64, 128, 128))))
    assert passes_of(big, random_data(0, 2, x=(64, 128, 128))).batch == 2


def test_dense_layers_give_the_same_bits_for_any_batch_and_number_of_threads() -> None:
    """Large enough that the kernels of one sample, of a few and of many are different code."""
    net = Net(0)
    x = net.op("Relu", net.dense(net.input("x", 700), 700, 900, name="one"))
    model = model_of(net.output(net.dense(x, 900, 333, name="two")))
    data = random_data(0, 70, x=(700,))
    expected = to_bytes(record(model, data, batch=1))
    assert {to_bytes(record(model, data, batch=batch)) == expected for batch in (2, 16, 64)} == {True}
    assert isinstance(model, ir.Model)
    assert Session(model).run({"x": data["x"][:1]})[0].shape == (1, 333)
