"""The command line: which commands there are, and what becomes of a mistake.

A command's module is imported when the command runs, so that `fcdeploy --help` answers at once.
Exit codes: 0 good, 1 the command ran and the answer is no, 2 it could not run, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from fcdeploy import __version__, console
from fcdeploy.errors import MORE_FILES, TOO_MANY, FcdeployError, find_close
from fcdeploy.installed import explain_missing
from fcdeploy.wording import quote_path

COMMANDS = {
    "export": "PyTorch module to checked float ONNX model",
    "inspect": "layers, parameters and multiplications of a model; which kernel each node gets",
    "doctor": "this CPU, the runtime and the extras, and what follows for int8",
    "calibrate": "run a model on samples once and record the range of every tensor",
    "calibration": "calibration files: merge them, look into them, convert them for other tools and back",
    "quantize": "float ONNX model to int8 ONNX model",
    "validate": "compare an int8 model with the float model it was made from",
    "bench": "time a model, or two against each other",
    "report": "what is known of int8 models as one HTML page to show, or as a model card",
    "deploy": "all steps in one command: from a model and two sets of samples to a bundle",
    "transform": "dense layers as convolutions and back; one model as two, for a device and a server",
    "bundle": "model, manifest, reports and golden samples in one folder or zip to deploy",
    "compile": "int8 model to native code that needs no runtime: a shared library or C files",
    "verify": "check a bundle's hashes and its golden samples on this CPU",
    "serve": "answer requests over HTTP and gRPC: Open Inference Protocol v2",
    "demo": "all steps on three networks that come with fcdeploy",
}
"""Command -> its line in `fcdeploy --help`. Module `fcdeploy.cli.<command>` defines the click command `command`."""

BUNDLED_ENGINE = ("verify", "serve")  # commands whose --engine native needs no onnxruntime


class Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    epilog="fcdeploy COMMAND --help lists the options of a command.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="%(prog)s %(version)s")
def fcdeploy() -> None:
    """A trained network goes in; an int8 ONNX model comes out, small, fast, and proven against the float one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    try:
        code = fcdeploy.main(arguments, prog_name="fcdeploy", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as shown:
        print(shown.format_message(), file=sys.stderr)  # noqa: T201
        return 2
    except click.ClickException as mistake:
        return _report_failure(_explain_usage(mistake))
    except (click.Abort, KeyboardInterrupt) as stop:
        said = (stop.__cause__ or stop).args  # click raises its own, from that of the command
        console.say(f"interrupted: {' '.join(map(str, said)) or 'files are as they were before'}")
        return 130
    except BrokenPipeError:
        console.quiet_stdout()
        return 0
    except FcdeployError as mistake:
        return _report_failure(mistake)
    except OSError as mistake:
        return _report_failure(_explain_os_error(mistake))
    except MemoryError:
        return _report_failure(
            FcdeployError("out of memory", "a machine with more, a smaller model, or a smaller --batch")
        )
    except Exception as defect:
        if (cause := _find_exhaustion(defect)) is not None:
            return _report_failure(_explain_os_error(cause))
        given = sys.argv[1:] if arguments is None else arguments
        if isinstance(defect, ModuleNotFoundError):
            asker = given[0] if given else "fcdeploy"
            missing = explain_missing(defect, asker, native=asker in BUNDLED_ENGINE)
            return _report_failure(missing or _explain_defect(defect))
        return _report_failure(_find_broken_model(given) or _explain_defect(defect))
    return code if isinstance(code, int) else 0


def _report_failure(problem: FcdeployError) -> int:
    if os.environ.get("FCDEPLOY_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    console.show_error(problem)
    return 2


def _explain_os_error(trouble: OSError) -> FcdeployError:
    """A file that the system does not give, for whatever reason: a full disk, no permission, a name too long."""
    if trouble.strerror is None:
        return _explain_defect(trouble)
    if trouble.errno in TOO_MANY:
        return FcdeployError("too many files are open for this process", MORE_FILES)
    if trouble.filename is None:  # of reading and writing the system does not say where
        return FcdeployError(
            f"a file could not be read or written: {trouble.strerror}", "df -h shows full disks; run the command again"
        )
    name = str(trouble.filename)
    return FcdeployError(
        f"{name if len(name) < 100 else name[:97] + '...'!r}: {trouble.strerror}", f"ls -l {quote_path(name[:100])}"
    )


def _find_exhaustion(defect: BaseException) -> OSError | None:
    """The lack of descriptors that something else failed behind: an event loop, for one, cannot even be closed then."""
    before = defect.__cause__ or defect.__context__
    while before is not None:
        if isinstance(before, OSError) and before.errno in TOO_MANY:
            return before
        before = before.__cause__ or before.__context__
    return None


def _explain_defect(defect: Exception) -> FcdeployError:
    """Something that is no user's mistake, or that we failed to foresee as one."""
    text = f"internal {type(defect).__name__}: {defect}"
    return FcdeployError(text, "FCDEPLOY_DEBUG=1 shows the traceback; please report it with the command")


def _find_broken_model(arguments: Sequence[str]) -> FcdeployError | None:
    """What is wrong with a model of the command line; a file may be wrong in ways that nobody foresaw."""
    from fcdeploy.runtime.broken_model import explain_broken_model

    for name in arguments:
        if name.endswith(".onnx") and os.path.isfile(name) and (why := explain_broken_model(name)):  # noqa: PTH113
            return FcdeployError(f"model {name!r} is broken: {why}", "write it again where it came from")
    return None


def _explain_usage(mistake: click.ClickException) -> FcdeployError:
    """What click finds wrong with the command line, in the words and form of all other errors."""
    context = mistake.ctx if isinstance(mistake, click.UsageError) else None
    path = context.command_path if context else "fcdeploy"
    see = f"{path} --help"
    if isinstance(mistake, click.NoSuchOption):
        there = [word for option in context.command.params for word in option.opts] if context else []
        return FcdeployError(
            f"{path}: unknown option {mistake.option_name!r}", _suggest(mistake.option_name, there, see)
        )
    if isinstance(mistake, click.exceptions.NoSuchCommand):
        there = context.command.list_commands(context) if context and isinstance(context.command, click.Group) else []
        return FcdeployError(
            f"unknown command {mistake.command_name!r}, expected one of {', '.join(there)}",
            _suggest(mistake.command_name, there, see),
        )
    text = mistake.format_message().strip().removesuffix(".")
    return FcdeployError(f"{path}: {text[:1].lower()}{text[1:]}", see)


def _suggest(name: str, there: list[str], see: str) -> str:
    close = find_close(name, there)
    return f"{see} lists all" if close is None else f"did you mean {close!r}? {see} lists all"
