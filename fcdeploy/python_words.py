"""What errors say to a shell, said to Python: options become parameters, and commands become calls.

Messages and hints are written as the command line has them.  The public functions raise them in their own words: an
option is read by the parameter it stands for, a command by the function of its name, and both as click would read them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, ParamSpec, TypeVar

from fcdeploy.errors import FcdeployError
from fcdeploy.installed import explain_missing

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Parameters = Mapping[str, inspect.Parameter]

WORD = re.compile(r"(\s*)([(`]*)(\.{3}|'[^']*'\S*?|\S+?)([,.;:)`]*)(?=\s|$)")  # with what stands before and behind it
VALUE = re.compile(
    r"-?\d[\w.,]*|-?inf|nan|\.{3}|[A-Z]\w*|(?!-)[\w-]*[.:/=][\w.:/=,'-]*[\w']|'.*'.*"
    r"|u?int\d+\w*"
)
"""What can be nothing but a value: a number, a placeholder, a path, a shape, a pair, something quoted, a type."""
SETTINGS = (
    ("arithmetic.ranges.methods", "METHODS"), ("records.plan", "EFFORTS"), ("int8.timing.costs", "NAMES"),
    ("tables.types", "WEIGHTS"), ("tables.types", "ACTIVATIONS"), ("tables.targets", "TARGETS"),
    ("tables.devices", "DEVICES"), ("runtime.engine", "ENGINES"),
)  # fmt: skip
"""Where the words are that settings take, which can be nothing but values behind an option either."""
PARAMETERS = {
    "-o": "output", "--shape": "shapes", "--input": "inputs", "--csv": "csv_file", "--all-tensors": "everything",
    "--batch-axis": "batch_axes", "--library": "libraries", "--for": "runtimes", "--state": "states",
}  # fmt: skip
"""Option -> parameter, where they have other names."""
FUNCTIONS = {"serve": "start_server"}
"""Command -> function, likewise."""
GROUPS = {"transform", "calibration"}
IMPLIED = {"--int8"}  # options that say what the function does anyway
SIZES = {"KB": 10, "MB": 20, "GB": 30}  # and the power of two that they are


class Word(NamedTuple):
    """A word of a text between the white space and punctuation around it."""

    space: str
    opening: str
    text: str
    closing: str

    def __str__(self) -> str:
        return "".join(self)


def in_python_words(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function; its errors name its parameters instead of the command line's options."""

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return function(*arguments, **options)
        except FcdeployError as error:
            raise restate(error, inspect.signature(function).parameters)  # noqa: B904  (it is the same error)
        except ModuleNotFoundError as error:
            parameters = inspect.signature(function).parameters
            missing = explain_missing(error, f"fcdeploy.{function.__name__}", native="engine" in parameters)
            if missing is None:
                raise
            raise restate(missing, parameters) from error

    return call


def restate(error: FcdeployError, parameters: Parameters, edit: Callable[[str], str] = str) -> FcdeployError:
    """The error in Python's words, `edit`ed, for whoever called a function with these parameters.

    Its hint is a note, which a traceback shows, and the traceback begins anew: our own lines say nothing of a mistake of the
    caller's, and they hold the options of the shell.
    """
    error.message, error.hint = (edit(speak_python(text, parameters)) for text in (error.message, error.hint))
    error.args = (error.message,)
    error.add_note(f"hint: {error.hint}")
    return error.with_traceback(None)


def speak_python(text: str, parameters: Parameters) -> str:
    """A message or hint, written for the shell, for whoever called a function with these parameters.

    `--max-drop 1` becomes `max_drop=1`, `--force` `force=True`, and `fcdeploy inspect MODEL` `fcdeploy.inspect(MODEL)`.
    An option that the function has not is read as that of the first function that has it.  Commands that are no function,
    and options that only the shell has, stay as they are.
    """
    words = [Word(*parts) for parts in WORD.findall(text)]
    alone = _holds_options_alone(words)
    said, at, list_goes_on = list[str](), 0, False
    while at < len(words):
        first = words[at]
        if first.text == "fcdeploy" and at + 1 < len(words):
            read = _read_command(words, at)
            if read is None:  # its options are none of ours
                return "".join([*said, *map(str, words[at:])])
        else:
            read = _read_option(words, at, parameters, any_value=alone) or _read_foreign_option(words, at, alone)
        count, spoken = read or (1, first.text)
        comma = "," if list_goes_on and read and not first.opening else ""
        said.append(f"{comma}{first.space}{first.opening}{spoken}{words[at + count - 1].closing}")
        list_goes_on = "=" in spoken and read is not None and not words[at + count - 1].closing
        at += count
    return "".join(said)


def _holds_options_alone(words: list[Word]) -> bool:
    """Whether there is nothing between options but their values, so that any word behind one is its value."""
    options = [word.text.startswith("-") for word in words]
    pairs = zip(options, [*options[1:], True], strict=True)
    return options[:1] == [True] and all(map(any, pairs)) and not any(word.closing for word in words)


def _read_option(
    words: list[Word], at: int, parameters: Parameters, *, any_value: bool = False
) -> tuple[int, str] | None:
    """How many words from here on are an option of these parameters, and what they are in Python; None for no option."""
    option = words[at].text
    name = _find_parameter(option, parameters)
    if name is None:
        return None
    parameter = parameters[name]
    if isinstance(parameter.default, bool):
        return 1, f"{name}=True"
    following = words[at + 1] if at + 1 < len(words) and not words[at].closing else None
    if following is None or following.opening or not (any_value or _is_value(following.text)):
        return 1, name
    return 2, f"{name}={_write_value(following.text, name, str(parameter.annotation))}"


def _read_foreign_option(words: list[Word], at: int, alone: bool) -> tuple[int, str] | None:
    """The same of the first function that has such an option."""
    if not words[at].text.startswith("-"):
        return None
    package = importlib.import_module("fcdeploy")
    known = filter(None, map(_find_function, package.FUNCTIONS))
    return next(filter(None, (_read_option(words, at, each, any_value=alone) for each in known)), None)


@functools.cache
def _list_settings() -> frozenset[str]:
    """The words of all SETTINGS, but for those that need what is not installed: their functions are not called then."""
    words = set[str]()
    for module, name in SETTINGS:
        with suppress(ImportError):  # by name: this layer lies below theirs, and most errors need none of them
            words.update(getattr(importlib.import_module(f"fcdeploy.{module}"), name))
    return frozenset(words - {""})


def _is_value(text: str) -> bool:
    return VALUE.fullmatch(text) is not None or text in _list_settings()


def _find_parameter(option: str, parameters: Parameters) -> str | None:
    """The parameter that an option of the shell stands for."""
    if not option.startswith("-"):
        return None
    plain = option.removeprefix("--").replace("-", "_")
    for name in ("limit" if plain == "samples" else plain, PARAMETERS.get(option), plain):
        if name in parameters:
            return name
    return None


def _write_value(text: str, name: str, annotation: str) -> str:
    """A value of the shell as Python writes it. Placeholders stay."""
    number, unit = text[:-2], text[-2:]
    if annotation.startswith("int") and number.isdigit() and unit in SIZES:
        return f"{number} << {SIZES[unit]}"
    if text == "..." or (text.isupper() and text.isidentifier()):
        return text
    if name == "shapes":
        key, _, lengths = text.rpartition(":")
        return f"{{{key!r}: ({lengths.replace(',', ', ')})}}"
    if not text.startswith("'"):
        try:
            float(text)
        except ValueError:
            pass
        else:
            return text
    plain = repr(text.replace("'", ""))
    return f"[{plain}]" if annotation.startswith("Sequence[") else plain


def _read_command(words: list[Word], at: int) -> tuple[int, str] | None:
    """How many words from here on are a command, and the call that it stands for; None for what has no function."""
    if words[at].text != "fcdeploy" or words[at].closing or at + 1 == len(words):
        return None
    end = at + 2
    name = words[at + 1].text
    if name in GROUPS and end < len(words) and not words[at + 1].closing:
        name, end = words[end].text.replace("-", "_"), end + 1
    name = FUNCTIONS.get(name, name)
    parameters = _find_function(name)
    if parameters is None:
        return None

    given = list[str]()
    needed = [key for key, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    while end < len(words) and not words[end - 1].closing and not words[end].opening:
        word = words[end].text
        if word in IMPLIED:
            end += 1
        elif word.startswith("-"):
            read = _read_option(words, end, parameters, any_value=True)
            if read is None:
                return None  # it asks for what only the shell has
            end += read[0]
            given.append(read[1] if "=" in read[1] else f"{read[1]}=...")
        elif needed and (_is_value(word) or end + 1 == len(words)):
            first = needed.pop(0)
            given.append(_write_value(word, first, str(parameters[first].annotation)))
            end += 1
        else:
            break
    return end - at, f"fcdeploy.{name}({', '.join(['...'] * len(needed) + given)})"


@functools.cache
def _find_function(name: str) -> Parameters | None:
    """The parameters of a public function; None where there is none, or what it needs is not installed."""
    package = importlib.import_module("fcdeploy")
    try:
        return inspect.signature(getattr(package, name)).parameters if name in package.FUNCTIONS else None
    except ImportError:
        return None
