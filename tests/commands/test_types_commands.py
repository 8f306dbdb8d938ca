"""Types of weights and activations on the command line: every pair the whole way, edited plans, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import fails, run_command
from networks import Net, quantize_net, random_data
from typed_networks import DATA, LEAST, MICROSOFT, PAIRS, node, resnet

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.graph.model import refuse_unsupported
from fcdeploy.runtime.session import Session
from fcdeploy.tables.types import TYPES


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resnet(Net(0)).save(Path("model.onnx"))
    np.savez("data.npz", **DATA)
    np.savez("others.npz", **random_data(9, 24, x=(3, 8, 8)))


def quantized(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run_command(capsys, "quantize", "model.onnx", *arguments, "-o", "out.onnx", "--force", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("pair", PAIRS, ids=" x ".join)
def test_every_pair_goes_down_the_whole_line(pair: tuple[str, str], capsys: Any) -> None:
    """quantize, validate, inspect and quantize again, which refuses what is quantized already."""
    costs = ["--costs", "none"] if TYPES[pair].other == "int8" else []
    found = quantized(capsys, "--weights", pair[0], "--activations", pair[1], "--data", "data.npz", *costs)
    assert (found["weights"], found["activations"]) == pair
    assert not [text for text in found["warnings"] if not text.startswith("judged on 8 samples alone")]
    code, out, err = run_command(
        capsys, "validate", "out.onnx", "--against", "model.onnx", "--data", "others.npz", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["sqnr_db"] > LEAST[pair if pair in LEAST else pair[0]]
    kernels = json.loads(out)["kernel_sqnr_db"]
    assert kernels is None or kernels > 38  # None: not a bit differs
    code, out, err = run_command(capsys, "inspect", "out.onnx", "--kernels")
    assert code == 0, err
    said = " ".join(out.split())
    assert ("for accuracy, DSPs and NPUs" in said) == ("int16" in pair and pair[1] != "none")
    assert ("rounds activations to bytes by itself" in said) == (pair[0] == "int4")
    assert ("depends on the batch" in said) == (pair[1] == "dynamic")
    model = onnx.load("out.onnx")
    if pair[1] != "none" or pair[0] == "int4":
        with fails("the model is quantized already"):
            refuse_unsupported(ir.from_proto(model), "out.onnx")
    assert {op.domain for op in model.opset_import} <= {"", MICROSOFT}


@pytest.mark.parametrize("pair", [("int8", "none"), ("int16", "none"), ("int4", "none"), ("int8", "dynamic")])
def test_types_that_scale_no_activations_need_no_data(pair: tuple[str, str], capsys: Any) -> None:
    found = quantized(capsys, "--weights", pair[0], "--activations", pair[1])
    left_out = "weights in blocks were rounded one by one: "
    assert [left_out in warning for warning in found["warnings"]] == ([True] if pair[0] == "int4" else [])
    assert found["bytes_int8"] < 0.62 * found["bytes_float"]
    code, out, err = run_command(
        capsys, "validate", "out.onnx", "--against", "model.onnx", "--data", "data.npz", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["sqnr_db"] > LEAST[pair if pair in LEAST else pair[0]]


def test_a_convolution_in_front_of_an_lstm(capsys: Any) -> None:
    """The LSTM on integers, the convolution in float with its weights as bytes."""
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", 24, 12), 24, 20, (3,), name="conv"), name="relu")
    weights = [net.constant(net.normal(1, 96, n, size=0.2)) for n in (20, 24)]
    x = net.op("Transpose", x, perm=[2, 0, 1], name="turn")
    net.output(net.ops("LSTM", x, *weights, outputs=1, name="lstm", hidden_size=24)[0]).save(Path("model.onnx"))
    code, out, err = run_command(
        capsys, "quantize", "model.onnx", "--weights", "int8", "--activations", "dynamic", "-o", "out.onnx"
    )
    assert code == 0, err
    assert "0 of 1 Conv, 1 of 1 LSTM in integer kernels" in out
    assert "ConvInteger takes 5 to 10 times the float time; its weights are kept as bytes" in " ".join(out.split())
    data = random_data(11, 6, x=(24, 12))
    f, q = (Session(Path(name), threads=1).run(data)[0] for name in ("model.onnx", "out.onnx"))
    assert measure_fidelity(f, q).sqnr_db > 30


def test_an_lstm_has_its_integer_kernel_unless_that_is_slower_or_it_is_kept(capsys: Any) -> None:
    """Whatever is chosen, its weights are bytes in the file, but those of a layer the user keeps in float."""
    net = Net(0)
    weights = [net.constant(net.normal(1, 256, n, size=0.2)) for n in (32, 64)]
    x = net.op("Transpose", net.input("x", 9, 32), perm=[1, 0, 2], name="turn")
    net.output(net.ops("LSTM", x, *weights, outputs=1, name="lstm", hidden_size=64)[0]).save(Path("model.onnx"))
    np.savez("data.npz", **random_data(24, 6, x=(9, 32)))
    sizes = {}
    for name, options in {"int8": (), "float": ("--keep-float", "lstm")}.items():
        start = ("quantize", "model.onnx", "--int8", "--data", "data.npz", "--costs", "none", *options)
        code, out, err = run_command(capsys, *start, "-o", f"{name}.onnx")
        assert code == 0, err
        assert ("1 of 1 LSTM in integer kernels" in out, "depends on the batch it is in" in " ".join(out.split())) == (
            (name == "int8",) * 2
        )
        sizes[name] = Path(f"{name}.onnx").stat().st_size / Path("model.onnx").stat().st_size
    assert sizes["int8"] < 0.35 < 0.9 < sizes["float"]
    line = quantize_net(net, random_data(24, 6, x=(9, 32)), slow={"lstm": "slower as integers"})
    assert {d.node: (d.kind, d.why) for d in line.plan.nodes}["lstm"] == (
        "weight_only",
        "slower as integers; its weights are kept as bytes in the file",
    )
    assert node(line.int8, "lstm").op_type == "LSTM"


def test_the_best_effort_takes_layers_without_biases(capsys: Any) -> None:
    net = Net(0)
    net.output(net.op("MatMul", net.input("x", 9, 32), net.constant(net.normal(32, 40)))).save(Path("model.onnx"))
    np.savez("data.npz", **random_data(24, 6, x=(9, 32)))
    start = ("quantize", "model.onnx", "--int8", "--data", "data.npz", "--costs", "none", "--effort", "best")
    code, out, err = run_command(capsys, *start, "-o", "out.onnx")
    assert code == 0, err
    assert "1 of 1 MatMul in integer kernels" in out


def test_the_short_form_and_the_long_one_are_the_same_bytes(capsys: Any) -> None:
    common = ("--data", "data.npz", "--costs", "none")
    quantized(capsys, "--int8", *common)
    short = Path("out.onnx").read_bytes()
    quantized(capsys, "--weights", "int8", "--activations", "int8", *common)
    assert Path("out.onnx").read_bytes() == short
    quantized(capsys, "--weights", "int8", *common)
    assert Path("out.onnx").read_bytes() == short


def test_a_plan_of_other_types_goes_round(capsys: Any) -> None:
    types = ("--weights", "int4", "--activations", "none", "--data", "data.npz")
    quantized(capsys, *types)
    expected = Path("out.onnx").read_bytes()
    code, out, _ = run_command(capsys, "quantize", "model.onnx", *types, "--dry-run", "--json")
    assert code == 0
    Path("plan.json").write_text(out)
    quantized(capsys, *types, "--plan", "plan.json")
    assert Path("out.onnx").read_bytes() == expected
    code, _, err = run_command(
        capsys, "quantize", "model.onnx", "--int8", "--data", "data.npz", "--plan", "plan.json", "-o", "b"
    )
    assert code == 2
    assert "is for weights 'int4' and activations 'none', not 'int8' and 'int8'" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ((), "there is nothing to take ranges from", "--data"),
        (
            ("--activations", "none"),
            "--activations none says nothing of the weights",
            "--weights int8 --activations none",
        ),
        (
            ("--int8", "--weights", "int4"),
            "--int8 is --weights int8 --activations int8, and --weights int4 is",
            "--weights",
        ),
        (("--weights", "int3"), "--weights 'int3' is unknown, expected int8, int16, int4", "--weights int8"),
        (("--weights", "int8"), "there is nothing to take ranges from", "--data"),
        (
            ("--weights", "int16", "--activations", "none", "--costs", "table"),
            "--costs weighs integer kernels",
            "leave",
        ),
    ],
)
def test_mistakes(arguments: tuple[str, ...], error: str, hint: str, capsys: Any) -> None:
    code, out, err = run_command(capsys, "quantize", "model.onnx", *arguments, "-o", "out.onnx")
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    assert f"error: {error}" in said
    assert hint in said[said.index("hint:") :]
    assert not Path("out.onnx").exists()
