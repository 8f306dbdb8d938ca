"""The command line's contract: what help imports, exit codes, the form of errors."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from fcdeploy import __version__, cli
from fcdeploy.errors import FcdeployError

ROOT = Path(__file__).parents[2]
RUN = "import sys; from fcdeploy.cli import main; sys.exit(main())"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def replace_command(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    """Let `fcdeploy doctor` do this."""
    from fcdeploy.cli import doctor

    monkeypatch.setattr(doctor, "command", click.command("doctor")(function))


def test_help_imports_next_to_nothing() -> None:
    """That is what makes it quick; `scripts/bench start` times it."""
    code = "import sys; at_start = {*sys.modules}; from fcdeploy.cli import main; main(['--help'])"
    told = "print(*{*sys.modules} - at_start, file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", f"{code}; {told}"], capture_output=True, text=True, check=True)
    imported = set(shown.stderr.split())
    ours = {name for name in imported if name.partition(".")[0] == "fcdeploy"}
    needed = {
        "console",
        "errors",
        "installed",
        "lazy_imports",
        "records",
        "records.progress",
        "records.report",
        "wording",
    }
    assert ours == {"fcdeploy", "fcdeploy.cli", *(f"fcdeploy.{name}" for name in needed)}
    assert {name.partition(".")[0] for name in imported - ours} - set(sys.stdlib_module_names) == {"click"}
    for name, line in cli.COMMANDS.items():
        assert name in shown.stdout
        assert line.split()[0] in shown.stdout


def test_version() -> None:
    shown = run("--version")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"fcdeploy {__version__}\n", "")


def test_no_command_is_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: fcdeploy" in err


@pytest.mark.parametrize("name", ["calibration", "transform"])
def test_commands_of_a_group_are_told_apart_in_whole_sentences(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:\n")[1]
    assert listed.strip().endswith(".") and "..." not in listed


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec(f"fcdeploy.cli.{name}") is None:
        pytest.fail(f"fcdeploy/cli/{name}.py is missing")
    assert cli.main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Usage: fcdeploy {name}" in out
    assert err == ""
    command = cli.fcdeploy.get_command(click.Context(cli.fcdeploy), name)
    inner = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for one in inner:
        values = [p for p in one.params if isinstance(p, click.Option) and not (p.is_flag or p.is_bool_flag)]
        assert not [p.name for p in values if p.metavar is None and not isinstance(p.type, click.Choice)]
        assert "--json" in {word for parameter in one.params for word in parameter.opts}


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (
            ["quantise"],
            f"unknown command 'quantise', expected one of {', '.join(cli.COMMANDS)}",
            "did you mean 'quantize'? fcdeploy --help lists all",
        ),
        (
            ["calibration", "shwo"],
            "unknown command 'shwo', expected one of convert, merge, show",
            "did you mean 'show'? fcdeploy calibration --help lists all",
        ),
        (["--versoin"], "fcdeploy: unknown option '--versoin'", "did you mean '--version'? fcdeploy --help lists all"),
        (
            ["inspect", "m.onnx", "--kernel"],
            "fcdeploy inspect: unknown option '--kernel'",
            "did you mean '--kernels'? fcdeploy inspect --help lists all",
        ),
        (
            ["inspect", "m.onnx", "--zzz"],
            "fcdeploy inspect: unknown option '--zzz'",
            "fcdeploy inspect --help lists all",
        ),
        (["inspect"], "fcdeploy inspect: missing argument 'MODEL'", "fcdeploy inspect --help"),
        (["doctor", "x"], "fcdeploy doctor: got unexpected extra argument (x)", "fcdeploy doctor --help"),
        (["inspect", "nowhere.onnx"], "model 'nowhere.onnx' does not exist", "give the path of an .onnx file"),
    ],
)
def test_mistakes(arguments: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"error: {error}\nhint: {hint}\n")


def test_a_mistake_in_the_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def mistake() -> None:
        raise FcdeployError("input 'x': wrong", "write another")

    replace_command(monkeypatch, mistake)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "error: input 'x': wrong\nhint: write another\n"
    monkeypatch.setenv("FCDEPLOY_DEBUG", "1")
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("Traceback (most recent call last)")


def test_a_defect_is_said_to_be_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def defect() -> None:
        raise KeyError("conv1")

    replace_command(monkeypatch, defect)
    assert cli.main(["doctor"]) == 2
    error, hint, *more = capsys.readouterr().err.splitlines()
    assert error == "error: internal KeyError: 'conv1'"
    assert hint.startswith("hint: FCDEPLOY_DEBUG=1 shows the traceback")
    assert not more


@pytest.mark.parametrize(("stops", "code"), [(KeyboardInterrupt, 130), (click.Abort, 130)])
def test_interrupted(stops: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise stops

    replace_command(monkeypatch, interrupted)
    assert cli.main(["doctor"]) == code


def test_the_answer_no_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fcdeploy import console
    from fcdeploy.records.report import Report

    replace_command(monkeypatch, lambda: console.show(Report("doctor", {}, lines=("no",), passed=False), as_json=False))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr() == ("no\n", "")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`fcdeploy doctor | true`: the pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stdout:
        ended = subprocess.run(
            [sys.executable, "-c", RUN, "doctor"],
            cwd=ROOT,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_shared_options_give_what_they_say() -> None:
    from fcdeploy.cli import options

    @click.command()
    @options.model_argument
    @options.data_options()
    @options.output_option("where")
    @options.force_option
    @options.json_option
    def command(**given: Any) -> dict[str, Any]:
        return given

    line = "m.onnx --data d.npz --samples 3 --seed 4 --preprocess p.toml -o out --force --json"
    assert command.main(line.split(), standalone_mode=False) == {
        "model": Path("m.onnx"),
        "data": "d.npz",
        "samples": 3,
        "seed": 4,
        "preprocess": "p.toml",
        "classes": None,
        "label": None,
        "output": Path("out"),
        "force": True,
        "as_json": True,
    }
    with pytest.raises(click.BadParameter, match="0 is not in the range"):
        command.main(["m.onnx", "--data", "d", "--samples", "0"], standalone_mode=False)


def test_ctrl_c_says_what_was_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a calibration its progress; else that nothing was changed."""

    def interrupted() -> None:
        raise KeyboardInterrupt("m.calib.progress holds what was done")

    replace_command(monkeypatch, interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err.lstrip() == "interrupted: m.calib.progress holds what was done\n"
