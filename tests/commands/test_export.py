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
from conftest import HELPERS

torch = pytest.importorskip("torch")

from export_modules import (  # noqa: E402
    Branching,
    Convolutional,
    Masked,
    Noisy,
    Packed,
    Several,
    Tagger,
    TwoFaced,
    assert_same,
    fails,
    run,
)
from torch import nn  # noqa: E402

from fcdeploy.commands.export import TORCH, export  # noqa: E402
from fcdeploy.errors import FcdeployError  # noqa: E402
from fcdeploy.runtime.session import Session  # noqa: E402

if TYPE_CHECKING:
    from fcdeploy.records.report import Report


ROOT = Path(__file__).parents[2]


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
    for length in (
        "5",
        "time=5",
    ):  # torch forgets nothing of an export before: one with a free length came second, and failed
        export(module, output=path, inputs=[f"1,{length},8"], force=True)
    x = torch.randn(3, 7, 8)
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
    here = re.escape(str(HELPERS / "export_modules.py"))
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
