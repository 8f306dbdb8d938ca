"""`inspect --device`: what native code takes on a device, from its calls alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Net, quantize_net, random_data

import fcdeploy
from fcdeploy.cli import main
from fcdeploy.commands.inspect import inspect
from fcdeploy.native.amounts import BY_STRUCT, Amounts
from fcdeploy.native.build import build
from fcdeploy.native.estimate import estimate, find_cost
from fcdeploy.native.program.float_steps import list_float_steps
from fcdeploy.native.program.steps import Pointwise, Program, Quantize
from fcdeploy.native.program.tensors import Coding, Tensor
from fcdeploy.native.reading.operators import read_program
from fcdeploy.tables.device_costs import COSTS
from fcdeploy.tables.devices import DEVICES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", 4, 8, 8), 4, 16, name="wide"))
    net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 16, 4, name="last"))
    path = tmp_path_factory.mktemp("device") / "net.onnx"
    onnx.save(ir.to_proto(quantize_net(net, random_data(0, 4, x=(4, 8, 8))).int8), path)
    return path


def test_memory_and_instructions(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--device", "stm32f4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["device"]
    wide = next(step for step in found["steps"] if step["macs"] == 64 * 36 * 16)
    cost = COSTS["dsp"].kernels[wide["kernel"]]
    assert wide["node"] == "wide"
    # three positions at a time, the last two of 66 once more; rows of the window are one run of 12 bytes each
    expected = 66 * 36 * 16 * cost.product + 64 * 16 * cost.element + 22 * 3 * cost.run + 22 * cost.window + cost.once
    assert wide["instructions"] == pytest.approx(expected, abs=1)
    assert found["flash"] == found["flash_code"] + found["flash_weights"] > 16 * 36 + 16 * 4
    assert found["ram"] == found["ram_arena"] + found["ram_inputs_outputs"] + found["ram_stack"]
    assert found["ram_inputs_outputs"] == 4 * (4 * 64 + 4)  # floats in and out
    assert found["ram_arena"] >= 10 * 10 * 4 + 8 * 8 * 16  # the input with its border, and the map of 16 channels
    once = found["instructions"] / 168e3
    assert [found["ms_fast"], found["ms_slow"]] == pytest.approx([once * each for each in DEVICES["stm32f4"].cycles])
    assert found["limits"] == {"ram": 192 << 10, "flash": 1 << 20, "ms": None}


@pytest.mark.parametrize("limit", ["--max-ram=1KB", "--max-flash=1KB", "--max-ms=0.01"])
def test_limits_are_exit_codes(model: Path, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--device", "nrf52840", limit]) == 1
    assert "does not fit" in capsys.readouterr().out


def test_what_was_not_counted_is_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--device", "raspberry-pi-5"]) == 0
    said = capsys.readouterr().out
    assert "code not counted" in said
    assert "stack not counted" in said


def test_python_has_the_same_answer(model: Path) -> None:
    found = fcdeploy.inspect(model, device="rp2040", max_ms=1e6)
    assert found.passed
    assert found.device is not None
    assert found.device.core == "Cortex-M0+"
    assert found.device.missed == ()
    assert sum(step.instructions for step in found.device.steps) == found.device.instructions


def test_every_device_has_its_costs() -> None:
    for device in DEVICES.values():
        assert {"fc_layer_bytes", "fc_depthwise_bytes"} <= COSTS[device.kernels].kernels.keys()
        assert 0 < device.cycles[0] < device.cycles[1]


def test_a_kernel_that_was_not_counted_costs_what_the_slowest_of_its_kind_does() -> None:
    costs = COSTS["dsp"]
    unary = [cost.element for name, cost in costs.kernels.items() if name.startswith("fc_unary")]
    assert find_cost("fc_unary_Tanh", costs).element == max(unary)
    assert find_cost("fc_layer_bytes", costs) is costs.kernels["fc_layer_bytes"]


def test_amounts_are_counted_by_hand() -> None:
    at = {"images": 1, "rows": 5, "columns": 4, "widths": None}  # 20 positions
    layer = {**at, "groups": 2, "outs": 20, "runs_y": 3, "runs_x": 1, "steps": 2}  # tiles of 16 and 8
    count = BY_STRUCT["struct fc_layer"]
    assert count(layer) == Amounts(20 * 2 * 3 * 8 * 24, 20 * 40, 20 * 2 * 3 * 2, 20)
    each = {**at, "channels": 17, "taps_x": 3, "taps_y": 5}
    assert BY_STRUCT["struct fc_depthwise"](each) == Amounts(20 * 2 * 3 * 2 * 64, 20 * 17, 20 * 2 * 3 * 2, 20)
    assert BY_STRUCT["struct fc_loop"]({"count": [1, 2, 3, 7], "kernel": "fc_quantize"}) == Amounts(0, 42, 6)

    alone, dsp, mve = (COSTS[core].widths for core in ("m0", "dsp", "mve"))
    six = layer | {"outs": 6}
    assert count(six | {"widths": alone}) == Amounts(20 * 2 * 24 * 8, 20 * 12, 20 * 2 * 3 * 2, 40)
    # 20 positions are 7 times 3, of which one is computed twice, or 6 times 3 and two by themselves, whose channels are 8
    assert count(six | {"widths": dsp}) == Amounts(2 * 24 * 21 * 6, 20 * 12, 2 * 7 * 3, 2 * 7)
    assert count(six | {"widths": mve}) == Amounts(2 * 32 * (18 * 6 + 2 * 8), 20 * 12, 2 * 8 * 3, 2 * 8)
    one = six | {"rows": 1, "columns": 1, "widths": dsp}
    assert count(one) == Amounts(2 * 24 * 8, 12, 2 * 3, 2)
    for widths, filled in ((alone, 17), (dsp, 20), (mve, 24)):
        amounts = BY_STRUCT["struct fc_depthwise"](each | {"widths": widths})
        assert amounts[:2] == (20 * filled * 15, 20 * 17)


def test_pools_count_what_their_windows_read() -> None:
    """Windows of 3 x 2 over 5 x 4 elements with a border of 1 above and below: of 15 rows of windows two are outside."""
    pool = {"images": 1, "rows": 5, "columns": 3, "channels": 17, "taps_y": 3, "taps_x": 2, "x_rows": 5, "x_columns": 4}
    pool |= {"step_y": 1, "step_x": 1, "gap_y": 1, "gap_x": 1, "before_y": 1, "before_x": 0, "widths": None}
    count = BY_STRUCT["struct fc_pool"]
    mean = count(pool | {"kernel": "fc_average_pool_bytes", "behind": 1})
    assert mean == Amounts(13 * 6 * 17, 15 * 17, 15 * 6 * 2, 15 * 2)
    assert count(pool | {"kernel": "fc_max_pool_bytes", "behind": 0}) == mean
    assert count(pool | {"kernel": "fc_max_pool_bytes", "behind": 1}).products == 13 * 6 * 32


@pytest.mark.parametrize("stride", [1, 3])
def test_copies_take_neighbours_together(stride: int) -> None:
    loop = {"kernel": "fc_copy_1", "count": [1, 2, 3, 7], "y": [0, 21, 7, 1], "a": [0, 21, 7, stride]}
    expected = Amounts(42, 0, 6) if stride == 1 else Amounts(0, 42, 6)
    assert BY_STRUCT["struct fc_loop"](loop) == expected


def test_what_makes_no_sense_is_refused(model: Path, tmp_path: Path) -> None:
    with fails("--device 'z80' is unknown, expected stm32f4", "--device stm32f4"):
        inspect(model, device="z80")
    with fails("--max-ms is for --device alone"):
        inspect(model, max_ms=3)
    for limit in (math.nan, -1.0, 0.0, math.inf):
        with fails(f"--max-ms {limit:g} is no limit above 0"):
            inspect(model, device="stm32f4", max_ms=limit)
    net = Net()
    net.output(net.dense(net.input("x", 4), 4, 4))
    with fails("is not quantized: --device is about native code"):
        inspect(net.save(tmp_path / "float.onnx"), device="stm32f4")
    assert main(["inspect", str(model), "--device", "stm32f4", "--max-ram", "much"]) == 2


def test_a_layer_that_writes_floats_alone_has_code() -> None:
    """Its helpers were counted with the kernel that writes bytes."""
    net = Net()
    x, scale, zero = net.input("x", 8), net.constant(0.02), net.constant(100, np.uint8)
    real = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
    integers = np.random.default_rng(0).integers(-127, 128, (8, 4))
    weight = net.op("DequantizeLinear", net.constant(integers, np.int8), net.constant(0.01))
    net.output(net.op("MatMul", real, weight))
    built = build(read_program(ir.from_proto(net.model()), "net"))
    assert [call.kernel for call in built.calls] == ["fc_quantize", "fc_layer_reals"]
    for device in DEVICES.values():
        costs = COSTS[device.kernels]
        assert estimate(built, device).code >= costs.kernels["fc_layer_bytes"].code + costs.kernels["fc_quantize"].code


def test_a_model_is_cut_where_its_first_half_still_fits(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fcdeploy.inspect(model, device="nrf52840").values["device"]["flash"]
    command = ["transform", "split", str(model), "-o", str(tmp_path / "net.onnx"), "--device", "nrf52840"]
    assert main([*command, f"--max-flash={whole - 1}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first = fcdeploy.inspect(tmp_path / "net.first.onnx", device="nrf52840").values["device"]
    assert first["flash"] == found["device"]["flash"] < whole
    assert found["cut"]["node"] == found["cuts"][-1]["node"]  # the last one there is
    assert main([*command, "--max-flash=1KB", "--force"]) == 2
    assert "no first half fits on nrf52840: the smallest, cut behind" in capsys.readouterr().err
    assert main([*command, "--memory=1MB", "--force"]) == 2
    assert "takes one of --at, --memory, --macs, --device, and -o" in capsys.readouterr().err


def test_quantize_holds_a_model_to_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    y = net.op("Relu", net.dense(net.input("x", 8), 8, 24, name="wide"))
    net.output(net.dense(y, 24, 4, name="last")).save(tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32))
    command = ["quantize", str(tmp_path / "net.onnx"), "--int8", "--data", str(tmp_path / "x.npz"), "--effort", "fast"]
    command += ["--floor", "none", "-o", str(tmp_path / "net.int8.onnx"), "--force", "--device", "stm32f4"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "fits on stm32f4, by an estimate: flash" in said
    assert "for native code on stm32f4" in said and "target x86" not in said
    object_file = tmp_path / "net.int8.o"
    compiling = f"next: fcdeploy compile {tmp_path / 'net.int8.onnx'} --emit object --target cortex-m4 -o {object_file}"
    assert said.splitlines()[-1] == compiling
    flash = fcdeploy.inspect(tmp_path / "net.int8.onnx", device="stm32f4").values["device"]["flash"]
    assert main([*command, "--max-ram=1KB", "--max-ms=0.0001"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("does not fit on stm32f4 (memory, time): flash")
    assert "no first half fits on stm32f4" in said and (tmp_path / "net.int8.onnx").exists()
    assert main([*command, f"--max-flash={flash - 1}"]) == 1
    said = capsys.readouterr().out
    cutting = said.partition("its layers up to 'wide' fit; next: fcdeploy ")[2].splitlines()[0]
    assert main([*cutting.split(), "--force"]) == 0  # as it is said, limits and all
    assert (tmp_path / "net.first.onnx").exists() and "next: fcdeploy compile" not in said
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 2
    assert "--device would be ignored" in capsys.readouterr().err


@pytest.mark.parametrize("scaling", [("Sub", "Div"), ("Div", "Sub"), ("BatchNormalization",)])
def test_a_picture_that_is_scaled_in_the_model_is_made_bytes_and_no_more(
    scaling: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What quantize makes for a device compile takes, and no cut has the scaling alone in front of it."""
    net = Net()
    y = net.input("x", 3, 10, 10)
    numbers = {"Sub": [0.5, 0.4, 0.3], "Div": [0.2, 0.3, 0.1]}
    for op in scaling:
        if op == "BatchNormalization":
            y = net.op(op, y, *(net.constant(np.array(each, np.float32)) for each in (
                [1.0, 1, 1], [0.0, 0, 0], [0.5, 0.4, 0.3], [0.04, 0.09, 0.01])))  # fmt: skip
        else:
            y = net.op(op, y, net.constant(np.array(numbers[op], np.float32).reshape(1, 3, 1, 1)))
    y = net.op("Relu", net.conv(y, 3, 8, name="first", pads=[1, 1, 1, 1]))
    y = net.op("Relu", net.conv(y, 8, 8, name="second"))
    net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 8, 4, name="last"))
    net.save(tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).uniform(size=(64, 3, 10, 10)).astype(np.float32))
    int8, data = str(tmp_path / "net.int8.onnx"), str(tmp_path / "x.npz")
    command = ["quantize", str(tmp_path / "net.onnx"), "--int8", "--data", data, "--floor", "none"]
    assert main([*command, "-o", int8, "--device", "stm32f4"]) == 0
    assert "in float" not in capsys.readouterr().err
    object_file = ["--emit", "object", "--target", "cortex-m4", "-o", str(tmp_path / "net.o"), "--dry-run"]
    assert main(["compile", int8, *object_file]) == 0
    assert "convolution 3x3, 3 -> 8" in capsys.readouterr().out  # and no fourth channel
    split = ["transform", "split", int8, "-o", str(tmp_path / "net.onnx"), "--device", "stm32f4", "--json"]
    assert main([*split, "--max-flash=1KB"]) == 2
    assert "no first half fits on stm32f4: the smallest, cut behind 'first'" in capsys.readouterr().err
    assert main(["transform", "split", int8]) == 0
    behind = capsys.readouterr().out.partition("--at ")[2].split()[0]
    assert behind.rstrip("0123456789") in ("first", "second", "globalaveragepool")


def test_scaling_in_front_of_a_float_layer_computes_in_float() -> None:
    """It is a part of the quantization only where all that reads it are bytes."""
    x, shifted, taken = (Tensor(name, (1, 6), "float32") for name in ("x", "shifted", "taken"))
    held = Tensor("held", (6,), "float32", held=np.ones(6, np.float32))
    code = Tensor("code", (1, 6), "uint8", Coding(np.float32(0.1), 3))
    shift = Pointwise(node="shift", inputs=(x, held), outputs=(shifted,), kind="Sub")
    convert = Quantize(node="convert", inputs=(shifted,), outputs=(code,))
    program = Program("net", (x,), (code,), (shift, convert))
    assert list_float_steps(program) == []
    root = Pointwise(node="root", inputs=(shifted,), outputs=(taken,), kind="Sqrt")
    both = Program("net", (x,), (code, taken), (shift, convert, root))
    assert list_float_steps(both) == ["'shift': float Sub", "'root': float Sqrt"]
    assert list_float_steps(Program("net", (x,), (code, shifted), program.steps)) == ["'shift': float Sub"]
