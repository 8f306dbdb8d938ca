"""export of a module in a file: where its weights and inputs come from, and every mistake in them."""

from __future__ import annotations

import re
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from export_modules import Several, assert_same, fails, run  # noqa: E402
from torch import nn  # noqa: E402

from fcdeploy.commands.export import export  # noqa: E402
from fcdeploy.errors import FcdeployError  # noqa: E402
from fcdeploy.pytorch.module import build_module, load_state, parse_input  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "key model": lambda own: {"model": own, "optimizer": {"state": {}}},
    "key net, deep": lambda own: {"trainer": {"net": own}, "epoch": 3},
    "prefix of torch.compile": lambda own: {f"_orig_mod.{key}": value for key, value in own.items()},
    "prefix of Lightning": lambda own: {"state_dict": {f"model.{key}": value for key, value in own.items()}},
    "two prefixes": lambda own: {"state_dict": {f"module._orig_mod.{key}": value for key, value in own.items()}},
    "beside a loss": lambda own: {"net." + key: value for key, value in own.items()} | {"loss.weight": torch.ones(2)},
    "averaged first": lambda own: {"model": {key: value + 1 for key, value in own.items()}, "ema": own},
}


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_weights_are_found_wherever_training_code_puts_them(tmp_path: Path, network: Path, form: str) -> None:
    torch.save(CHECKPOINTS[form](state()), tmp_path / "w.pt")
    chosen = assert_loads(network, tmp_path / "w.pt")
    assert chosen.startswith("weights are those of key 'ema'; ") if form == "averaged first" else chosen == ""


def test_weights_that_the_module_has_not_are_named_behind_any_prefix(tmp_path: Path, network: Path) -> None:
    built, _ = build_module(f"{network}:net")
    more = {f"module.{key}": value for key, value in {**state(), "third.weight": torch.ones(2)}.items()}
    torch.save(more, tmp_path / "w.pt")
    with pytest.raises(FcdeployError, match=r"has 'module\.third\.weight' that the module has not"):
        load_state(built, tmp_path / "w.pt")


def assert_loads(network: Path, weights: Path) -> str:
    """The trained weights are found there; what is said of it, if anything."""
    built, _ = build_module(f"{network}:net")
    chosen = load_state(built, weights)
    x = torch.randn(5, 4)
    assert_same(built(x).detach().numpy(), trained()(x))
    return chosen


def test_a_key_of_a_checkpoint_can_be_named(tmp_path: Path, network: Path) -> None:
    torch.save({"ema": {key: value + 1 for key, value in state().items()}, "model": state()}, tmp_path / "w.pt")
    assert_loads(network, Path(f"{tmp_path / 'w.pt'}:model"))
    fails(
        f"weights '{tmp_path / 'w.pt'}' below key 'ema': misses 'third.weight'.*",
        "it holds tensors below 'model' too",
        module=nn.ModuleDict({"third": nn.Linear(2, 2)}), state=f"{tmp_path / 'w.pt'}", output=tmp_path / "o.onnx",
    )  # fmt: skip


# From a file ----------------------------------------------------------------------------------------------------------


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 2)
    def forward(self, x):
        return self.second(torch.relu(self.first(x)))

def net():
    print("talk goes to stderr")
    return Net()

def example_inputs():
    return torch.ones(1, 4)

def raises():
    raise ValueError("no such luck")

def number():
    return 3
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return path


def trained() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def state() -> dict[str, Any]:
    names = {"0": "first", "2": "second"}
    return {f"{names[key[0]]}{key[1:]}": value for key, value in trained().state_dict().items()}


def save_torch(path: Path) -> None:
    torch.save(state(), path)


def save_checkpoint(path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state().items()}}, path)


def save_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state(), path)


def test_weights_come_from_a_file(tmp_path: Path, network: Path) -> None:
    for name, save in (("w.pt", save_torch), ("w.ckpt", save_checkpoint), ("w.safetensors", save_safetensors)):
        save(tmp_path / name)
        assert_loads(network, tmp_path / name)
    torch.save(CHECKPOINTS["averaged first"](state()), tmp_path / "two.pt")
    path = tmp_path / "net.onnx"
    report = export(f"{network}:net", output=path, state=tmp_path / "two.pt")
    assert report.warnings[0].startswith("weights are those of key 'ema'; ")
    x = torch.randn(5, 4)
    assert_same(run(path, x=x)[0], trained()(x))


def test_what_the_file_prints_is_not_data(tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(f"{network}:net", output=tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "talk goes to stderr\n")


def test_an_input_can_be_renamed(tmp_path: Path, network: Path) -> None:
    report = export(f"{network}:net", output=tmp_path / "net.onnx", inputs=["features:2,4"])
    assert [item["name"] for item in report.values["inputs"]] == ["features"]
    assert any(line.endswith("made: no --state was given") for line in report.lines)


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_a_mistake_in_the_reference(tmp_path: Path, network: Path) -> None:
    out = tmp_path / "m.onnx"
    form = "is not of the form FILE.py:FUNCTION"
    fails(f"'net.py' {form}", "models/lenet5.py:lenet5", module="net.py", output=out)
    fails(f"'net.pt:net' {form}", "models/lenet5.py:lenet5", module="net.pt:net", output=out)
    fails(f"'net.pt' {form}", "FILE.py:FUNCTION --state net.pt", module="net.pt", output=out)
    fails("Python file 'nowhere.py' does not exist", "FILE.py:FUNCTION", module="nowhere.py:net", output=out)
    own = "Net, net, example_inputs, raises, number"
    fails(f"'{network}' has no function 'nat', it has {own}", f"{network}:", module=f"{network}:nat", output=out)
    fails(
        f"{network}:raises fails: ValueError: no such luck", "FCDEPLOY_DEBUG=1", module=f"{network}:raises", output=out
    )
    fails(
        f"{network}:number returns a value of type int, expected a torch.nn.Module",
        "let number return the network",
        module=f"{network}:number",
        output=out,
    )
    network.write_text("import torch\nready = torch.nn.Linear(2, 3)")
    fails(
        f"{network}:ready is a Linear, expected a function that returns one",
        "def network(): return ready",
        module=f"{network}:ready",
        output=out,
    )
    network.write_text("import nothing_of_that_name")
    fails(
        f"'{network}' fails on import: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        "FCDEPLOY_DEBUG=1",
        module=f"{network}:net",
        output=out,
    )
    assert not out.exists()


def test_a_mistake_in_the_weights(tmp_path: Path, network: Path) -> None:
    path = tmp_path / "w.pt"
    arguments: dict[str, Any] = {"module": f"{network}:net", "output": tmp_path / "m.onnx", "state": path}
    fails(f"weights '{path}' do not exist", "--state takes", **arguments)
    path.write_bytes(b"no weights")
    fails(f"weights '{path}' cannot be loaded safely: .*", "torch.save(module.state_dict()", **arguments)
    torch.save(trained(), path)  # a pickle of the whole module
    fails(
        f"weights '{path}' cannot be loaded safely: it holds '[\\w.]+', a whole module or other objects, and loading those would "
        "run code of the file",
        f"checkpoint = torch.load('{path}', weights_only=False); torch.save(checkpoint.state_dict(), 'weights.pt')",
        **arguments,
    )
    torch.save({"epoch": 3}, path)
    fails(f"weights '{path}' hold no state dict, expected name -> tensor", "torch.save(", **arguments)
    torch.save({"other.weight": torch.ones(1), "first.bias": torch.ones(3)}, path)
    fails(
        f"weights '{path}': misses 'first.weight', 'second.weight', 'second.bias', "
        "and has 'other.weight' that the module has not",
        "the same network",
        **arguments,
    )
    torch.save({f"{i}": torch.ones(1) for i in range(5)} | state(), path)
    fails(f"weights '{path}': has '0', '1', '2' and 2 more that the module has not", "the same network", **arguments)
    torch.save({**state(), "second.bias": torch.ones(7)}, path)
    fails(rf"weights '{path}': 'second.bias' has shape \[7\], expected \[2\]", "the same network", **arguments)
    broken = tmp_path / "w.safetensors"
    broken.write_bytes(b"\xff" * 20)
    fails(f"weights '{broken}' cannot be loaded safely: .*", "torch.save(", **{**arguments, "state": broken})


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("checkpoint['state_dict']", lambda: {"args": Namespace(lr=1), "state_dict": state(), "epoch": 3}),
        ("checkpoint['net']", lambda: {"net": state(), "args": Namespace(), "optimizer": {"state": {0: {"m": torch.ones(3)}}}}),
        ("checkpoint['a']['model']", lambda: {"a": {"model": OrderedDict(state())}, "args": Namespace()}),
        ("checkpoint['ema']", lambda: {"state_dict": state(), "ema": state(), "args": Namespace()}),
        ("checkpoint['model'].state_dict()", lambda: {"model": trained(), "epoch": 3}),
        ("checkpoint.state_dict()", trained),
        (
            "{name: one for name, one in checkpoint.items() if torch.is_tensor(one)}",
            lambda: {**state(), "args": Namespace()},
        ),
    ],
)  # fmt: skip
def test_the_hint_at_a_checkpoint_of_objects_saves_its_weights(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, key: str, make: Callable[[], Any], legacy: bool
) -> None:
    """Pasted into Python it writes a file of the weights alone."""
    path = tmp_path / "w.pt"
    torch.save(make(), path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FcdeployError) as caught:
        export(f"{network}:net", output=tmp_path / "m.onnx", state=path)
    advice = caught.value.hint.removeprefix("where you trust it: ")
    assert advice.endswith(f"torch.save({key}, 'weights.pt')")
    exec(advice, {"torch": torch})
    saved = torch.load("weights.pt", weights_only=True)
    expected = state().values()
    assert len(saved) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(saved.values(), expected, strict=True))


class _Runs:
    """What a hostile file runs where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_looking_for_weights_runs_nothing_of_the_file(tmp_path: Path, network: Path) -> None:
    path, run = tmp_path / "w.pt", tmp_path / "run"
    torch.save({"args": _Runs(run), "state_dict": state()}, path)
    fails(
        f"weights '{path}' cannot be loaded safely: .*",
        "torch.save(checkpoint['state_dict'], 'weights.pt')",
        module=f"{network}:net",
        output=tmp_path / "m.onnx",
        state=path,
    )
    assert not run.exists()


def test_inputs_that_do_not_fit_the_module(tmp_path: Path, network: Path) -> None:
    out = tmp_path / "m.onnx"
    linear = {"module": nn.Linear(3, 2), "output": out}
    fails("no input shapes are given", "--input 1,3,32,32", **linear)
    fails(
        r"Linear raises on input float32\[1, 4\]: RuntimeError: mat1 and mat2 shapes cannot be multiplied .*",
        "give the shapes it wants",
        **linear,
        inputs=["1,4"],
    )
    fails("2 inputs are given, forward takes input", "one --input for each", **linear, inputs=["1,3", "1,3"])
    several = {"module": Several(), "output": out}
    fails("1 input is given, forward also needs features", "one --input", **several, inputs=["tokens:1,3:int64"])
    fails(
        "inputs 'features' and 'tokens' differ in the length of batch: 1 and 2",
        "the first axis of every input is the batch",
        **several,
        inputs=["1,6", "2,3:int64"],
    )
    fails("input 0 has no axes, expected a leading batch axis", "--input", **linear, inputs=[torch.tensor(1.0)])
    plain = NETWORK.replace("example_inputs", "other")
    network.write_text(plain)
    fails(
        "no input shapes are given, and the file has no example_inputs.*",
        "--input",
        module=f"{network}:net",
        output=out,
    )
    network.write_text(NETWORK.replace("torch.ones(1, 4)", "{'x': [1, 2]}"))
    fails(r"example_inputs\(\): input 'x' is a list, expected a tensor", "return", module=f"{network}:net", output=out)
    network.write_text(NETWORK.replace("torch.ones(1, 4)", "1 / 0"))
    fails(r"example_inputs\(\) fails: ZeroDivisionError: .*", "DEBUG", module=f"{network}:net", output=out)


def test_a_mistake_in_the_output(tmp_path: Path, network: Path) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"precious")
    module = f"{network}:net"
    fails(f"output '{out}' exists", "--force", module=module, output=out)
    fails(f"output '{network}' is also an input", "-o", module=module, output=network, force=True)
    save_torch(tmp_path / "w.pt")
    state_too = {"module": module, "state": tmp_path / "w.pt", "output": tmp_path / "w.pt", "force": True}
    fails("output '.*w.pt' is also an input", "-o", **state_too)
    fails(
        "folder '.*nowhere' of the output does not exist",
        "mkdir",
        module=module,
        output=tmp_path / "nowhere" / "m.onnx",
    )
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x3x32", "'1x3x32' is no length of axis 0, expected a number from 1 up"),
        ("x:1,,3", "'' is no length of axis 1, expected a number from 1 up"),
        ("1,0", "'0' is no length of axis 1, expected a number from 1 up"),
        ("1,-3", "'-3' is no length of axis 1, expected a number from 1 up"),
        ("1,3:int4", "dtype 'int4' is unknown, expected one of float32, .*, bool"),
        ("x:1,3:int64:y", r"is not of the form \[NAME:\]SHAPE\[:DTYPE\]"),
    ],
)
def test_a_mistake_in_a_shape(text: str, message: str) -> None:
    with pytest.raises(FcdeployError) as caught:
        parse_input(text)
    assert re.fullmatch(f"input '{re.escape(text)}':? {message}", caught.value.message), caught.value.message
    assert "--input 1,3,32,32" in caught.value.hint


def test_a_shape_says_name_dtype_and_free_axes() -> None:
    found = parse_input("tokens:2,time=16:int64")
    assert (found.name, tuple(found.example.shape), found.example.dtype) == ("tokens", (2, 16), torch.int64)
    assert found.free == {0: "batch", 1: "time"}
    assert parse_input("1,3:uint8").example.dtype == torch.uint8
