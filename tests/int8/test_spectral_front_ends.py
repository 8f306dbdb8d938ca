"""Spectral front ends stay float, and weights that layers share stand in the file once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from networks import Line, Net, quantize_net, random_data

from fcdeploy.int8.planning.spectral_front_ends import find_front_ends
from fcdeploy.int8.writing.shared_constants import share_constants
from fcdeploy.runtime.session import Session

SAMPLES, LENGTH = 24, 512


def spectral(*, activation: str = "") -> Net:
    """Two octaves of sines and cosines from one weight each, power, logarithm, and convolutions on the result."""
    net = Net(0)
    x = net.input("x", 1, LENGTH)
    t = np.arange(64)
    waves = [
        net.constant(np.stack([f(2 * np.pi * k * t / 64) for k in range(1, 13)])[:, None] / 64)
        for f in (np.sin, np.cos)
    ]
    bands = []
    for octave in range(2):
        parts = [
            net.op("Conv", x, wave, strides=[16], kernel_shape=[64], name=f"{octave}{i}")
            for i, wave in enumerate(waves)
        ]
        if activation:
            parts = [net.op(activation, part) for part in parts]
        squares = [net.op("Mul", part, part) for part in parts]
        bands.append(net.op("Add", *squares))
    power = net.op("Add", net.op("Concat", *bands, axis=1), net.constant(1e-10))
    features = net.op("Log", power)
    y = net.op("Relu", net.conv(features, 24, 16, (3,), name="first"))
    return net.output(net.conv(y, 16, 8, (3,), name="last"))


def loud_and_quiet() -> dict[str, np.ndarray]:
    """Sounds whose loudness falls by 60 dB from one sample to another."""
    data = random_data(0, SAMPLES, x=(1, LENGTH))
    return {"x": (data["x"] * np.logspace(0, -3, SAMPLES)[:, None, None]).astype(np.float32)}


def line() -> Line:
    return quantize_net(spectral(), loud_and_quiet())


def test_the_filters_before_a_logarithm_compute_in_float_with_weights_of_16_bits() -> None:
    made = line()
    assert [made.kinds[name] for name in ("00", "01", "10", "11")] == ["weight_only"] * 4
    assert [made.kinds[name] for name in ("first", "last")] == ["int8"] * 2
    reasons = [d.why for d in made.plan.nodes if d.node == "00"]
    assert reasons[0].startswith("part of a spectral front end")
    assert made.sqnr() > 30


def test_only_layers_with_weights_are_named() -> None:
    """Squares, sums and the Concat between compute in float anyway: they have no kernel to be kept from."""
    model = ir.from_proto(spectral().model())
    assert set(find_front_ends(model.graph)) == {"00", "01", "10", "11"}


def test_what_was_learned_before_a_logarithm_is_no_filter_bank() -> None:
    model = ir.from_proto(spectral(activation="Relu").model())
    assert find_front_ends(model.graph) == {}


def test_shared_weights_stand_in_the_file_once(tmp_path: Path) -> None:
    made = line()
    stored = [
        v for v in made.int8.graph.initializers.values() if v.const_value is not None and v.const_value.size == 12 * 64
    ]
    assert len(stored) == 2  # sines and cosines, of four convolutions
    assert [node.op_type for node in made.int8.graph].count("Cast") == 2
    before = Session(made.int8, threads=1).run(made.data)
    assert share_constants(made.int8.graph) == 0
    ir.save(made.int8, tmp_path / "int8.onnx")
    onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)
    after = Session(tmp_path / "int8.onnx", threads=1).run(made.data)
    np.testing.assert_array_equal(before[0], after[0])
