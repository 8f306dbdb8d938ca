"""Mistakes are told in the caller's language: options to a shell, parameters to Python."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

import click
import pytest
from conftest import fails

import fcdeploy
from fcdeploy import cli
from fcdeploy.arithmetic.ranges.methods import METHODS
from fcdeploy.errors import FcdeployError, find_close
from fcdeploy.int8.timing import costs
from fcdeploy.python_words import speak_python
from fcdeploy.records.plan import EFFORTS
from fcdeploy.tables import types
from fcdeploy.tables.targets import TARGETS


def parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(fcdeploy, name)).parameters)


@pytest.mark.parametrize(
    ("function", "shell", "python"),
    [
        ("validate", "--max-drop inf is no finite number of 0 or more", "max_drop=inf is no finite number of 0 or more"),
        ("validate", "--max-drop -1.0 is no finite number of 0 or more", "max_drop=-1.0 is no finite number of 0 or more"),
        ("validate", "--max-drop 1", "max_drop=1"),
        ("validate", "--metric top1", "metric='top1'"),
        ("validate", "--samples 512 --seed 3", "limit=512, seed=3"),
        ("calibrate", "--samples 512 --seed 3", "samples=512, seed=3"),
        ("validate", "--data OTHER, or --same-data to go on", "data=OTHER, or same_data=True to go on"),
        ("bench", "--shape x:1,3,224,224", "shapes={'x': (1, 3, 224, 224)}"),
        ("bench", "leave --batch out, or export the model anew", "leave batch out, or export the model anew"),
        ("bench", "--against FLOAT.onnx", "against='FLOAT.onnx'"),
        ("bundle", "add --force, or give another name with -o", "add force=True, or give another name with output"),
        ("bundle", "-o model.fcd", "output='model.fcd'"),
        ("quantize", "--weights int4 --activations none", "weights='int4', activations='none'"),
        ("quantize", "--floor 99,20 is what it is", "floor='99,20' is what it is"),
        ("quantize", "--batch-axis cache=1", "batch_axes=['cache=1']"),
        ("quantize", "those of before; --costs measure takes them anew", "those of before; costs='measure' takes them anew"),
        ("quantize", "--activations int16 rounds finer", "activations='int16' rounds finer"),
        ("split", "--memory 256KB", "memory=256 << 10"),
        ("quantize", "fcdeploy calibrate m.onnx --data DATA -o m", "fcdeploy.calibrate('m.onnx', data=DATA, output='m')"),
        ("bench", "see: fcdeploy inspect 'my m.onnx' --exact, then", "see: fcdeploy.inspect('my m.onnx', exact=True), then"),
        ("bench", "fcdeploy inspect MODEL shows it, --batch 2 too", "fcdeploy.inspect(MODEL) shows it, batch=2 too"),
        ("bench", "fcdeploy quantize M --int8 --costs none does", "fcdeploy.quantize(M, costs='none') does"),
        ("bench", "fcdeploy calibrate --skip-bad leaves it out", "fcdeploy.calibrate(..., skip_bad=True) leaves it out"),
        ("bench", "fcdeploy transform repair MODEL -o OUT", "fcdeploy.repair(MODEL, output=OUT)"),
        ("bench", "fcdeploy serve BUNDLE", "fcdeploy.start_server(BUNDLE)"),
        ("bench", "fcdeploy calibration show C --batch 2", "fcdeploy calibration show C --batch 2"),  # no function
        ("bench", "fcdeploy bench M --batch 2 --json > b.json", "fcdeploy bench M --batch 2 --json > b.json"),
        ("verify", "--data DATA", "data=DATA"),  # of other functions
        ("calibrate", "--same-data, or --against FLOAT", "same_data=True, or against=FLOAT"),
        ("validate", "--json > x.json, or --reload", "--json > x.json, or --reload"),  # of the shell alone
        ("validate", "fcdeploy validate --layers looks at all", "fcdeploy.validate(..., layers=True) looks at all"),
        ("quantize", "the axis -1 of 'a--data-b' and a-o", "the axis -1 of 'a--data-b' and a-o"),
    ],
)  # fmt: skip
def test_options_become_parameters(function: str, shell: str, python: str) -> None:
    assert speak_python(shell, parameters(function)) == python


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--ranges", METHODS), ("--effort", EFFORTS), ("--costs", costs.NAMES), ("--weights", types.WEIGHTS),
        ("--activations", types.ACTIVATIONS), ("--target", TARGETS),
    ],
)  # fmt: skip
def test_every_word_of_a_setting_is_its_value(option: str, words: Collection[str]) -> None:
    for word in filter(None, words):
        assert speak_python(f"{option} {word} is near", parameters("quantize")) == f"{option[2:]}={word!r} is near"


def test_commands_with_options_are_called_by_their_whole_name() -> None:
    """What only names a command and an option is no call that a Python caller could read."""
    commands = "|".join(fcdeploy.FUNCTIONS)
    short = re.compile(rf"(?<!fcdeploy )(?<![\w`(])(?:{commands}) --[a-z]")
    assert not [text for text in read_sentences() if short.search(text)]


def read_texts() -> set[str]:
    """Every text below the command line that names a command, with M for what is filled in."""
    return {text for text in read_sentences() if re.search(r"fcdeploy [a-z]+ [^\n]*(M|[A-Z]{2}|--)", text)}


def read_sentences() -> set[str]:
    found = set[str]()
    for path in (path for path in Path(fcdeploy.__file__).parent.rglob("*.py") if path.parent.name != "cli"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(v.value) if isinstance(v, ast.Constant) else "M" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                found.add(node.value)
    return found


def test_commands_that_are_recommended_become_calls_that_bind() -> None:
    calls = 0
    for text in sorted(read_texts()):
        spoken = speak_python(text, {})
        for name, given in re.findall(r"fcdeploy\.(\w+)\(((?:'[^']*'|[^)'])*)\)", spoken):
            names = re.findall(r"(\w+)=", re.sub(r"'[^']*'", "", given))
            inspect.signature(getattr(fcdeploy, name)).bind_partial(**dict.fromkeys(names))
            calls += 1
        left = re.findall(r"fcdeploy (\w+) \S", spoken)
        assert "--json" in text or not set(left) & {*fcdeploy.FUNCTIONS, "transform", "serve"}, spoken
    assert calls > 50


def test_a_python_caller_hears_of_max_drop_and_a_shell_user_of_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FcdeployError) as failed:
        fcdeploy.validate("int8.onnx", against="float.onnx", data="x.npz", max_drop=-1)
    assert (failed.value.message, failed.value.hint) == ("max_drop=-1 is no finite number of 0 or more", "max_drop=1")
    assert str(failed.value) == failed.value.message
    shown = "".join(traceback.format_exception(failed.value))
    assert shown.endswith("max_drop=-1 is no finite number of 0 or more\nhint: max_drop=1\n")
    assert "--max-drop" not in shown  # nor does a line of ours
    assert cli.main(["validate", "int8.onnx", "--against", "float.onnx", "--data", "x.npz", "--max-drop", "-1"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: --max-drop -1.0 is no finite number of 0 or more"
    assert hint == "hint: --max-drop 1"


def test_public_functions_keep_their_signature_and_docstring() -> None:
    for name in fcdeploy.FUNCTIONS:
        inner = getattr(importlib.import_module(getattr(fcdeploy, name).__module__), name)
        assert parameters(name) == dict(inspect.signature(inner).parameters)
        assert getattr(fcdeploy, name).__doc__ == inner.__doc__


@pytest.mark.parametrize("name", sorted(set(cli.COMMANDS) & set(fcdeploy.FUNCTIONS)))
def test_every_option_can_be_told_to_python(name: str) -> None:
    """But for those that only the shell has, each option is translated to the parameter that click passes it as."""
    command = cli.fcdeploy.get_command(click.Context(cli.fcdeploy), name)
    assert command is not None
    known = parameters(name)
    for option in (param for param in command.params if isinstance(param, click.Option)):
        if option.name in known:
            long = next((word for word in option.opts if word.startswith("--") and len(option.opts) == 1), None)
            told = speak_python(long or option.opts[0], known)
            assert told in (option.name, f"{option.name}=True"), option.opts


def test_a_near_name_is_a_slip_and_no_other_word() -> None:
    known = ("--int8", "--ops", "--help", "--calibration", "--interval", "--seed", "--data", "--output", "--max-drop")
    for name, close in {
        "--int4": "--int8", "--calib": "--calibration", "--seeds": "--seed", "--dtaa": "--data", "--Output": "--output",
        "--max-dorp": "--max-drop", "--calbration": "--calibration", "calibration": "--calibration",
    }.items():  # fmt: skip
        assert find_close(name, known) == close
    for name in ("--opset", "--eval", "--model", "--gpu", "--dtype", "--input", "--name", "--o", "--", "-", ""):
        assert find_close(name, known) is None, name
    assert find_close("dgo", ["cat", "dog"]) == "dog"
    assert find_close("bird", ["cat", "dog"]) is None
    assert find_close("a" * 5000, ["b" * 999] * 5000) is None


IN_A_SHELL = re.compile(r"(ls|rmdir|mkdir|cp|openssl|unzip|fcdeploy) ")


def list_hints() -> Iterator[tuple[str, ast.JoinedStr]]:
    """Hints that begin as commands and name something, by where they stand."""
    for path in sorted(Path(fcdeploy.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "FcdeployError" and len(node.args) > 1:
                hint = node.args[1]
                if isinstance(hint, ast.JoinedStr) and IN_A_SHELL.match(ast.unparse(hint.values[0]).strip("'\"")):
                    yield f"{path.name}:{node.lineno}", hint


def test_paths_in_hints_can_be_pasted_into_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths may have spaces, and a file of a stranger names its weight files."""
    hints = list(list_hints())
    assert len(hints) > 10
    for where, hint in hints:
        named = [ast.unparse(part.value) for part in hint.values if isinstance(part, ast.FormattedValue)]
        assert all(name.startswith("quote_path(") for name in named), (where, named)
    (tmp_path / "my models").mkdir()
    monkeypatch.chdir(tmp_path)
    with fails("is a folder, expected an .onnx file", "ls 'my models'"):
        fcdeploy.inspect("my models")
