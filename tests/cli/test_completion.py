"""What a shell completes: the tables' words, and the nodes of the model on the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from networks import Net

from fcdeploy import cli
from fcdeploy.arithmetic.ranges.methods import METHODS
from fcdeploy.cli import completion
from fcdeploy.records.plan import EFFORTS


def ask(arguments: list[str], typed: str) -> list[str]:
    shell = ShellComplete(cli.fcdeploy, {}, "fcdeploy", "_FCDEPLOY_COMPLETE")
    return [item.value for item in shell.get_completions(arguments, typed)]


def test_the_words_are_those_of_the_tables() -> None:
    assert set(completion.RANGES) == set(METHODS)
    assert EFFORTS[1:] == completion.EFFORTS


@pytest.mark.parametrize(
    ("command", "option", "typed", "expected"),
    [
        ("quantize", "--ranges", "m", {"mse", "mse-unweighted", "minmax"}),
        ("quantize", "--target", "x86", {"x86-avx2", "x86-vnni"}),
        ("quantize", "--effort", "", {"fast", "balanced", "best"}),
        ("quantize", "--device", "stm", {"stm32f4", "stm32h7", "stm32n6"}),
        ("inspect", "--device", "rp", {"rp2040", "rp2350"}),
        ("compile", "--target", "cortex-m5", {"cortex-m55"}),
        ("compile", "--target", "h", {"host"}),
    ],
)  # fmt: skip
def test_values_of_options(command: str, option: str, typed: str, expected: set[str]) -> None:
    assert set(ask([command, "model.onnx", option], typed)) == expected


def test_nodes_of_the_model(tmp_path: Path) -> None:
    net = Net()
    x = net.input("x", 3, 8, 8)
    net.outputs = [net.op("Relu", net.conv(x, 3, 4, name="first"), name="second")]
    path = net.save(tmp_path / "m.onnx")
    assert ask(["quantize", str(path), "--keep-float"], "") == ["first", "second", "op:Conv", "op:Relu"]
    assert ask(["quantize", str(path), "--keep-float"], "se") == ["second"]
    assert ask(["quantize", str(tmp_path / "nothing.onnx"), "--keep-float"], "") == []
    assert ask(["quantize", "--keep-float"], "") == []


def test_commands() -> None:
    assert ask([], "vali") == ["validate"]
