"""export: what is written computes what torch computes, at any batch; and every mistake is told in one sentence."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from fcdeploy.commands.export import TORCH, export  # noqa: E402
from fcdeploy.errors import FcdeployError  # noqa: E402
from fcdeploy.pytorch.module import build_module, load_state, parse_input  # noqa: E402
from fcdeploy.runtime.session import Session  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from fcdeploy.records.report import Report

ROOT = Path(__file__).parent.parent


class Convolutional(nn.Module):
    """What networks are made of, with random weights and statistics that are not the initial ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(8, 5)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.conv(x)))
        x = nn.functional.hardtanh(self.depthwise(x), 0, 6)
        return self.dense(self.drop(x.mean((2, 3)))).softmax(1)


class Several(nn.Module):
    """Two inputs of different types, three outputs, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.dense = nn.Linear(6, 3)

    def forward(self, features: Any, tokens: Any) -> dict[str, Any]:
        found = self.table(tokens).mean(1)  # (batch, 4)
        logits = self.dense(features)
        return {"logits": logits, "parts": (found, torch.cat([found, logits], 1)), "nothing": None}


class Tagger(nn.Module):
    """A two-way LSTM over any length: an answer for every step, and the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.dense = nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        y, (state, _) = self.lstm(x)
        return self.dense(self.gru(y)[0]), state


class Noisy(nn.Module):
    def forward(self, x: Any) -> Any:
        return x, x + torch.rand_like(x)


class TwoFaced(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * (2 if torch.compiler.is_exporting() else 1)


class Masked(nn.Module):
    """What the hint on pack_padded_sequence shows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        y, _ = self.lstm(x)
        return y * (torch.arange(y.shape[1]) < lengths[:, None])[..., None]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Any) -> Any:
        lengths = torch.full((x.shape[0],), 3)
        return self.lstm(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[0].data


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x


def run(path: Path, **feeds: Any) -> list[np.ndarray]:
    return Session(path).run({name: tensor.numpy() for name, tensor in feeds.items()})


def assert_same(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def fails(match: str, hint: str, **arguments: Any) -> FcdeployError:
    """Run export, expect an error with this message (whole, a pattern) and a hint that contains that text."""
    with pytest.raises(FcdeployError) as caught:
        export(**arguments)
    assert re.fullmatch(match, caught.value.message, re.DOTALL), caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    return caught.value


# What is written ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Report]:
    torch.manual_seed(0)
    module, path = Convolutional(), tmp_path_factory.mktemp("export") / "conv.onnx"
    return module, path, export(module, output=path, inputs=["1,3,9,9"])


def test_a_convolutional_network_is_the_same_at_every_batch(convolutional: tuple[nn.Module, Path, Report]) -> None:
    module, path, report = convolutional
    module.eval()
    for batch in (1, 2, 5, 17):
        x = torch.randn(batch, 3, 9, 9)
        assert_same(run(path, x=x)[0], module(x))
    module.train()
    assert report.values["free_batch"] is True
    assert report.values["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 3, 9, 9]}]
    (output,) = report.values["outputs"]
    assert (output["name"], output["shape"]) == ("output", [None, 5])
    assert 0 <= output["max_rel"] < 1e-5


def test_opset_and_ir_version_are_read_back_and_as_low_as_can_be(convolutional: tuple[nn.Module, Path, Report]) -> None:
    _, path, report = convolutional
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert [(item.domain, item.version) for item in written.opset_import] == [("", 13)]
    assert (written.ir_version, report.values["opset"], report.values["ir_version"]) == (7, 13, 7)
    assert report.lines[0] == "opset 13, IR version 7, onnxruntime >= 1.7"


def test_the_file_holds_the_network_and_nothing_else(convolutional: tuple[nn.Module, Path, Report]) -> None:
    module, path, report = convolutional
    written = onnx.load(path)
    assert not written.metadata_props
    assert not written.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in written.graph.node)
    weights = sum(parameter.numel() for parameter in module.parameters())
    assert report.values["parameters"] == weights == 3 * 9 * 8 + 8 + 16 + 9 * 8 + 8 + 8 * 5 + 5
    assert report.values["bytes"] == path.stat().st_size < 4 * weights + 1500


def test_weights_that_one_file_cannot_hold_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("fcdeploy.commands.export"), "LARGEST", 10_000)
    module, path = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)), tmp_path / "m.onnx"
    (tmp_path / "m.onnx.data").write_bytes(b"mine")
    fails(".*m.onnx.data' exists", "--force", module=module, inputs=["1,64"], output=path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx.data"]
    report = export(module, inputs=["1,64"], output=path, force=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert report.values["bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert path.stat().st_size < 3000
    x = torch.randn(3, 64)
    assert_same(run(path, input=x)[0], module(x))


def test_nodes_are_named_after_the_module_s_layers(convolutional: tuple[nn.Module, Path, Report]) -> None:
    _, path, _ = convolutional
    names = {node.op_type: node.name for node in onnx.load(path).graph.node if node.op_type != "Conv"}
    convolutions = [node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert convolutions == ["conv", "depthwise"]
    assert names == {"Relu": "Relu", "Clip": "Clip", "ReduceMean": "ReduceMean", "Gemm": "dense", "Softmax": "Softmax"}


def test_the_caller_s_module_stays_in_training(convolutional: tuple[nn.Module, Path, Report]) -> None:
    module, _, _ = convolutional
    assert module.training
    assert module.drop.training


def test_several_inputs_and_outputs_are_named_and_in_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Several(), tmp_path / "several.onnx"
    report = export(module, output=path, inputs=["tokens:1,7:int64", "features:1,6"])
    features, tokens = torch.randn(4, 6), torch.randint(0, 10, (4, 7))
    expected = module(features, tokens)
    logits, found, both = run(path, tokens=tokens, features=features)
    assert_same(logits, expected["logits"])
    assert_same(found, expected["parts"][0])
    assert_same(both, expected["parts"][1])
    assert [item["name"] for item in report.values["inputs"]] == ["features", "tokens"]
    assert [item["name"] for item in report.values["outputs"]] == ["logits", "parts.0", "parts.1"]
    assert len(report.tables[0].rows) == 5


def test_an_lstm_and_a_gru_take_any_batch_and_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Tagger().eval(), tmp_path / "tagger.onnx"
    export(module, output=path, inputs=["1,time=2,8"])
    for batch, length in ((1, 5), (2, 1), (4, 23)):
        x = torch.randn(batch, length, 8)
        expected = module(x)
        tags, state = run(path, x=x)
        assert_same(tags, expected[0])
        assert_same(state, expected[1])
    graph = onnx.load(path).graph
    shapes = [
        [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in (*graph.input, *graph.output)
    ]
    assert shapes == [["batch", "time", 8], ["batch", "time", 3], [2, "batch", 6]]
    assert [node.name for node in graph.node if node.op_type in ("LSTM", "GRU")] == ["lstm/LSTM", "gru/GRU"]
    assert {node.op_type for node in graph.node} == {"LSTM", "GRU", "Transpose", "Reshape", "MatMul", "Add"}


def test_a_state_that_is_not_zero_stays(tmp_path: Path) -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 4, batch_first=True)
            self.start = nn.Parameter(torch.randn(1, 1, 4))

        def forward(self, x: Any) -> Any:
            return self.gru(x, self.start.expand(1, x.shape[0], 4).contiguous())[0]

    module, path = Stateful(), tmp_path / "stateful.onnx"
    export(module, output=path, inputs=["1,5,8"])
    x = torch.randn(3, 5, 8)
    assert_same(run(path, x=x)[0], module(x))


@pytest.mark.parametrize("opset", [17, 21])
def test_the_opset_that_is_asked_for_is_written(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "dense.onnx"
    report = export(nn.Linear(3, 2), output=path, inputs=[(1, 3)], opset=opset)
    assert onnx.load(path).opset_import[0].version == opset == report.values["opset"]
    assert onnx.load(path).ir_version == {17: 8, 21: 10}[opset]


def test_a_network_that_13_cannot_say_gets_the_lowest_that_can(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    assert export(module, output=tmp_path / "norm.onnx", inputs=["1,3"]).values["opset"] == 17
    fails(
        "opset 14 cannot say this network: LayerNormalization '1' needs 17",
        "--opset 17",
        module=module,
        output=tmp_path / "n.onnx",
        inputs=["1,3"],
        opset=14,
    )


def test_a_batch_that_tracing_fixes_is_said(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(2, -1) if x.shape[0] == 2 else x.reshape(1, -1)

    path = tmp_path / "fixed.onnx"
    report = export(Fixed(), output=path, inputs=["1,6"])
    assert report.values["free_batch"] is False
    assert report.values["inputs"][0]["shape"] == [1, 6]
    assert report.warnings[0].startswith("the exported model takes no other batch: torch cannot export Fixed: ")
    assert run(path, x=torch.ones(1, 6))[0].shape == (1, 6)


def test_a_length_that_tracing_fixes_is_an_error(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(-1, 5, 2) if x.shape[1] == 10 else x.reshape(x.shape[0], -1, 2)

    fails(
        "the exported model does not take every length of 'time': .*",
        "give the lengths as numbers, --input 1,10",
        module=Flat(), output=tmp_path / "flat.onnx", inputs=["1,time=10"],
    )  # fmt: skip
    assert not (tmp_path / "flat.onnx").exists()
    report = export(Flat(), output=tmp_path / "flat.onnx", inputs=["1,10"])
    assert report.values["inputs"][0]["shape"] == [None, 10]
    assert run(tmp_path / "flat.onnx", x=torch.ones(7, 10))[0].shape == (7, 5, 2)


def test_free_axes_are_tried_at_lengths_of_their_own(tmp_path: Path) -> None:
    """30 and 60 are multiples of 3, at which the pooling's windows were traced."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(36, 4))
    fails(
        "the exported model does not take every length of 'h' and 'w': .*",
        "give the lengths as numbers, --input 1,3,30,30",
        module=module, output=tmp_path / "m.onnx", inputs=["1,3,h=30,w=30"],
    )  # fmt: skip
    assert not (tmp_path / "m.onnx").exists()


def test_lengths_that_the_module_itself_refuses_are_said(tmp_path: Path) -> None:
    class Halves(nn.Module):
        def forward(self, x: Any) -> Any:
            first, second = x.reshape(x.shape[0], 2, -1).unbind(1)
            return first + second

    report = export(Halves(), output=tmp_path / "m.onnx", inputs=["1,time=10"])
    assert report.lines[0].startswith("also tried, and the same as torch: time ")
    assert report.lines[1].startswith("the module itself does not take time ")


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


def test_samples_are_compared_too(tmp_path: Path) -> None:
    class Bounded(nn.Module):
        """Differs from what is exported beyond values that random inputs reach."""

        def forward(self, x: Any) -> Any:
            return x.clamp(-1000, 2000 if torch.compiler.is_exporting() else 1000)

    data = tmp_path / "data.npz"
    np.savez(data, x=np.linspace(0, 999, 40, dtype=np.float32).reshape(10, 4))
    export(Bounded(), output=tmp_path / "good.onnx", inputs=["1,4"], data=data)
    np.savez(data, x=np.full((10, 4), 1500, np.float32))
    fails(
        r"output 'output' differs from torch's by 5e\+02, 0.5 of its largest value, on data.npz, .*; expected .*",
        "behaves otherwise when traced",
        module=Bounded(),
        output=tmp_path / "bad.onnx",
        inputs=["1,4"],
        data=data,
    )


def test_a_mistake_in_the_samples_is_told_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, input=np.full((10, 4), np.nan, np.float32))
    given = {"output": tmp_path / "m.onnx", "inputs": ["4,4"], "data": data}
    fails("input 'input': sample 0 has nan at .*", "", module=nn.Linear(4, 2), **given)
    np.savez(data, y=np.zeros((10, 4), np.float32))
    fails("data.npz: input 'input' is missing, it has 'y'", "", module=nn.Linear(4, 2), **given)


def test_progress_is_told_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FcdeployError):
        export(Branching(), output=tmp_path / "m.onnx", inputs=["1,3"])
    seen: list[tuple[str, int, int | None]] = []
    export(nn.Linear(3, 2), output=tmp_path / "m.onnx", inputs=["1,3"], on_step=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == [0, 1, 2, 3, 4]
    assert {total for *_, total in seen} == {4}
    assert capfd.readouterr() == ("", "")


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


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_a_mistake_in_the_reference(tmp_path: Path, network: Path) -> None:
    out = tmp_path / "m.onnx"
    form = "is not of the form FILE.py:FUNCTION"
    fails(f"'net.py' {form}", "models/lenet5.py:lenet5", module="net.py", output=out)
    fails(f"'net.pt:net' {form}", "models/lenet5.py:lenet5", module="net.pt:net", output=out)
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
    fails(f"weights '{path}' cannot be loaded safely: .* holds more than tensors", "torch.save(", **arguments)
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
    fails("1 inputs are given, forward also needs features", "one --input", **several, inputs=["tokens:1,3:int64"])
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


def test_lengths_take_the_place_of_packed_sequences(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Masked().eval()
    export(module, output=tmp_path / "m.onnx", inputs=["x:2,time=6,4", "lengths:2:int64"])
    x, lengths = torch.randn(3, 9, 4), torch.tensor([9, 5, 2])
    (found,) = Session(tmp_path / "m.onnx").run({"x": x.numpy(), "lengths": lengths.numpy()})
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(module.lstm(packed)[0], batch_first=True)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


def test_a_module_that_cannot_be_exported(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    here = re.escape(__file__)
    fails(
        rf"torch cannot export Packed at {here}:\d+ `.*pack_padded_sequence.*`: .*",
        "leave pack_padded_sequence out",
        module=Packed(),
        output=out,
        inputs=["1,3,4"],
    )
    fails(
        r"torch cannot export Branching.*: Could not guard on data-dependent expression .*",
        "without branches on values",
        module=Branching(),
        output=out,
        inputs=["1,3"],
    )
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_no_tensors(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"x": x, "count": 3}

    class Silent(nn.Module):
        def forward(self, x: Any) -> Any:  # noqa: ARG002
            return ()

    out = tmp_path / "m.onnx"
    hint, given = "return a tensor", {"output": out, "inputs": ["1,3"]}
    fails("the module's output 'count' is a int, expected tensors", hint, module=Counts(), **given)
    fails("the module returns no tensor", hint, module=Silent(), **given)


def test_a_model_that_differs_is_not_written_and_the_output_is_named(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"the old one")
    fails(
        r"output 'output_1' differs from torch's by [\d.]+, [\d.]+ of its largest value, on .*; expected .*",
        "take random numbers out of forward",
        module=Noisy(),
        output=out,
        inputs=["1,3"],
        force=True,
    )
    fails(
        r"output 'output' differs from torch's by [\d.]+, 1 of its largest value, on random inputs of batch 2; .*",
        "behaves otherwise when traced",
        module=TwoFaced(),
        output=out,
        inputs=["1,3"],
        force=True,
    )
    assert out.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [out]


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


def test_a_mistake_in_the_opset(tmp_path: Path) -> None:
    linear = {"module": nn.Linear(3, 2), "output": tmp_path / "m.onnx", "inputs": ["1,3"]}
    fails("opset 11 is below 13, the first with int8 scales per channel", "leave --opset out", **linear, opset=11)
    fails(r"opset 99 was asked for and torch 2\.13\.0\S* wrote 18", "leave --opset out", **linear, opset=99)


def test_without_torch_one_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    error = fails(
        "export needs PyTorch, which is not installed",
        "pip install 'fcdeploy[export]'",
        module="net.py:net",
        output=tmp_path / "m.onnx",
    )
    assert error.hint.endswith("pip install torch==2.13.0")


def test_the_torch_that_is_tested_is_allowed_and_another_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"torch=={TORCH}" in extras["test"]
    (allowed,) = (requirement for requirement in extras["export"] if requirement.startswith("torch"))
    assert TORCH.startswith(allowed.removeprefix("torch>="))  # not pinned: other packages want other versions
    monkeypatch.setattr("fcdeploy.commands.export.TORCH", "2.12.9")
    report = export(nn.Linear(3, 2), output=tmp_path / "m.onnx", inputs=["1,3"])
    assert report.warnings == (
        "torch 2.13.0 is installed, fcdeploy is tested with 2.12.9; the file was compared with torch all the same",
    )


class SameName(nn.Module):
    """Returns its input's name, or a weight's, as the name of an output."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(4))
        self.name = name

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {self.name: image * 2 + self.bias}


@pytest.mark.parametrize(("name", "also"), [("image", "an input"), ("bias", "a weight of the module")])
def test_an_output_named_like_something_else(name: str, also: str, tmp_path: Path) -> None:
    with pytest.raises(FcdeployError, match=f"'{name}' names an output and also {also}") as caught:
        export(SameName(name), output=tmp_path / "m.onnx", inputs=[(2, 4)])
    assert caught.value.hint == "return it under another name"
