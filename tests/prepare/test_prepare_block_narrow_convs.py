"""Neighbouring positions at once: the same numbers, however the kernel lies, and no change where it does not pay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from networks import Net, quantize_net, random_data
from prepare_graphs import RNG, apply, graph, op, ops

from fcdeploy.int8.writing.blocked_weights import store_unblocked
from fcdeploy.prepare.passes.block_narrow_convs import block_narrow_convs
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.runtime.kernels import optimize_graph
from fcdeploy.runtime.session import Session
from fcdeploy.tables.types import TYPES

ORDER = ["Reshape", "Transpose", "Reshape"]


def model_of(shape: tuple[int, ...], lengths: list[int | str], *, clip: str = "", **attributes: Any) -> ir.Model:
    weight = RNG.normal(size=shape).astype(np.float32)
    last = "c" if clip else "y"
    nodes = [op("Neg", "x", "z"), op("Conv", "z w b", last, **attributes), *([op(clip, "c", "y")] if clip else [])]
    constants = {"w": weight, "b": RNG.normal(size=shape[0]).astype(np.float32)}
    return graph(nodes, {"x": ["n", shape[1], *lengths]}, ["y"], constants)


@pytest.mark.parametrize(
    ("shape", "lengths", "attributes", "blocked"),
    [
        ((8, 8, 3, 9), [6, 12], {"pads": [1, 4, 1, 4]}, (16, 8, 3, 10)),
        ((1, 16, 7, 3), [16, "free"], {"auto_pad": "SAME_UPPER"}, (4, 16, 10, 3)),
        ((4, 8, 2, 6), [8, 16], {"auto_pad": "SAME_LOWER", "dilations": [1, 1]}, (16, 8, 2, 9)),
        ((3, 9, 5, 5), [7, 10], {"pads": [0, 2, 1, 2], "strides": [3, 1]}, (12, 9, 5, 8)),
        ((2, 16, 9), [24], {"auto_pad": "VALID"}, (8, 16, 12)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("clip", ["", "Relu"])
def test_positions_at_once_are_the_same_numbers(
    shape: tuple[int, ...], lengths: list[int | str], attributes: dict[str, Any], blocked: tuple[int, ...], clip: str
) -> None:
    model = model_of(shape, lengths, clip=clip, **attributes)
    if model.graph.outputs[0].shape[-1] == 10:  # no multiple of four  # type: ignore[index]
        blocked = (6, 9, 5, 6)
    assert apply(block_narrow_convs, model).count == 1
    assert ops(model) == ["Neg", "Conv", *([clip] if clip else []), *ORDER]
    weight = model.graph.node(1).inputs[1]
    assert weight is not None and tuple(weight.shape.numpy()) == blocked  # type: ignore[union-attr]
    assert model.graph.node(1).name in ("n_y", "n_c")


def test_one_axis_is_enough() -> None:
    model = model_of((1, 8, 5, 5), [8, 16], pads=[2, 2, 2, 2])
    prepare(model)
    assert ops(model) == ["Neg", "Conv", *ORDER]


@pytest.mark.parametrize(
    ("shape", "lengths", "attributes"),
    [
        ((16, 8, 3, 9), [6, 12], {}),  # enough outputs
        ((8, 8, 3, 3), [8, 8], {}),  # a short kernel
        ((8, 1, 3, 9), [8, 16], {}),  # few products
        ((8, 8, 3, 9), [8, "free"], {"pads": [1, 4, 1, 4]}),
        ((8, 8, 3, 9), ["free", 15], {"pads": [1, 0, 1, 0]}),  # 7 positions
        ((8, 8, 3, 9), [8, 32], {"strides": [1, 2]}),
        ((8, 8, 3, 9), [8, 32], {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
        ((8, 8, 3, 9), [8, 33], {"dilations": [1, 2]}),
    ],
)  # fmt: skip
def test_others_stay(shape: tuple[int, ...], lengths: list[int | str], attributes: dict[str, Any]) -> None:
    model = model_of(shape, lengths, **attributes)
    assert apply(block_narrow_convs, model).count == 0
    assert ops(model) == ["Neg", "Conv"]


def test_integers_run_it_as_one_kernel_and_move_its_bytes() -> None:
    net = Net(5)
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 16), 4, 8))
    y = net.op("Relu", net.conv(x, 8, 8, (3, 9), name="long"))
    line = quantize_net(net.output(net.conv(y, 8, 4, name="last")), random_data(0, 8, x=(4, 8, 16)))
    assert line.kinds["long"] == "int8"
    assert line.kinds_of("Transpose") == ["passthrough"]
    assert line.kinds_of("Relu")[1] == "fused"
    assert line.sqnr() > 30
    assert line.kernel_sqnr() > 40


@pytest.mark.parametrize("stored", ["bytes", "16 bits", "floats"])
def test_a_file_holds_the_weights_of_one_position_and_the_runtime_repeats_them(stored: str) -> None:
    net, data = Net(5), random_data(0, 4, x=(4, 8, 16))
    x = net.op("Relu", net.conv(net.input("x", 4, 8, 16), 4, 16))
    net.output(net.op("Relu", net.conv(x, 16, 8, (3, 9), name="long")))
    slow, types = {"long": "slow"}, TYPES["int16" if stored == "16 bits" else "int8", "none"]
    line = quantize_net(net, data, slow=slow) if stored == "bytes" else quantize_net(net, data, types=types)
    if stored == "floats":
        line.int8 = line.prepared.clone()
    once = line.int8.clone()
    assert store_unblocked(once.graph) == 1
    assert store_unblocked(once.graph) == 0
    assert ir.to_proto(once).ByteSize() < ir.to_proto(line.int8).ByteSize() - 1000
    assert "Pad" not in [node.op_type for node in optimize_graph(once)]
    before, after = (Session(model, threads=1).run(data)[0] for model in (line.int8, once))
    assert np.array_equal(before, after)
