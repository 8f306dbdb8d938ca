"""The one exception a user's mistake becomes, in the words of whoever made it.

Messages and hints name the options of the command line.  The public functions of the package raise them with the names
of their own parameters instead (`speak_python`).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

OPTION = r"(?<![\w-])(--[a-z][a-z0-9-]+|-o)(?: (%s))?"
VALUE = r"-?\d[\w.]*|-?inf\b|nan\b|[A-Z]\w*\b|\w*[.:/][\w.:/,]*\w"  # number, placeholder, path or shape: no word
ONLY_OPTIONS = re.compile(r"(?:(?:--[a-z][a-z0-9-]+|-o) \S+ ?)+")
COMMAND = re.compile(r"((?:fcdeploy [a-z]+|merge) .*)")
MOST_COMPARED = 1000  # names, and letters of one, among which one of a similar name is looked for
SHORTEST_START = 4  # letters by which a longer name is known
RENAMED = {
    "-o": "output", "--shape": "shapes", "--input": "inputs", "--csv": "csv_file", "--all-tensors": "everything",
    "--batch-axis": "batch_axes", "--library": "libraries", "--for": "runtimes",
    "--state": "states",
}  # fmt: skip


class FcdeployError(Exception):
    """A mistake in what was given: a file, a value, an option.

    `message` names the thing, the value and what was expected, in one line; `hint` says what to do, with a command
    where there is one.  The command line prints both and exits 2.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LoadError(FcdeployError):
    """A model that onnxruntime does not load, or not run."""


class NoMemoryError(LoadError):
    """A run for which there is no memory now: the same may go well later."""


def quote_names(names: Iterable[str]) -> str:
    """Quote and join names; of more than eight, the rest is counted."""
    all_names = [repr(name) for name in names]
    more = [f"{len(all_names) - 8} more"] if len(all_names) > 8 else []
    return ", ".join(all_names[:8] + more)


def suggest_name(name: str, known: Iterable[str], otherwise: str) -> str:
    """A hint at the known name that a mistyped one was meant to be; `otherwise` where none looks like it."""
    close = find_close(name, known)
    return otherwise if close is None else f"did you mean {close!r}?"


def find_close(name: str, known: Iterable[str]) -> str | None:
    """The known name, of the first thousand, that this one is but for a slip or two, or is the beginning of.

    Other letters than a slip of one in seven are another word: a wrong guess sends people the wrong way.
    """
    import difflib  # here, as only mistakes need it

    wanted = _strip_name(name[:MOST_COMPARED])
    few = {one: _strip_name(one) for one in islice(known, MOST_COMPARED) if len(one) < MOST_COMPARED}
    longer = [one for one, text in few.items() if len(wanted) >= SHORTEST_START and text.startswith(wanted)]
    if len(longer) == 1:
        return longer[0]
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
    found: list[tuple[float, str]] = []
    for one, text in few.items():
        most = max(len(text), len(wanted))
        matcher.set_seq1(text)
        for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio):  # the cheap bounds first
            slips = most - ratio() * (len(text) + len(wanted)) / 2
            if slips > 1 + most // 8 or slips == most:
                break
        else:
            found.append((slips, one))
    return min(found)[1] if found else None


def _strip_name(name: str) -> str:
    """Without what all options share, and capitals."""
    return name.lstrip("-").casefold()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without onnxruntime's code prefix."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.removeprefix("[ONNXRuntimeError] : ").strip()


def in_python_words(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function; its errors name its parameters instead of the command line's options."""

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return function(*arguments, **options)
        except FcdeployError as error:
            raise restate(error, inspect.signature(function).parameters)  # noqa: B904  (it is the same error)

    return call


def restate(
    error: FcdeployError, parameters: Mapping[str, inspect.Parameter], edit: Callable[[str], str] = str
) -> FcdeployError:
    """The error in Python's words, `edit`ed, for whoever called a function with these parameters.

    Its hint is a note, which a traceback shows, and the traceback begins anew: our own lines say nothing of a mistake of the
    caller's, and they hold the options of the shell.
    """
    error.message, error.hint = (edit(speak_python(text, parameters)) for text in (error.message, error.hint))
    error.args = (error.message,)
    error.add_note(f"hint: {error.hint}")
    return error.with_traceback(None)


def speak_python(text: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    """A message or hint, written for the shell, for whoever called a function with these parameters.

    `--max-drop 1` becomes `max_drop=1`, and `--force` `force=True`.  Whole commands, and options of other functions, stay.
    """
    text, command = [*COMMAND.split(text, maxsplit=1), ""][:2]
    pattern = OPTION % (r"\S+" if ONLY_OPTIONS.fullmatch(text) else VALUE)

    def translate(match: re.Match[str]) -> str:
        option, given = match[1], match[2]
        name = RENAMED.get(option, option[2:].replace("-", "_"))
        name = name if name in parameters else option[2:].replace("-", "_")  # export's --state is `state`
        name = "limit" if name == "samples" and "limit" in parameters else name
        if name not in parameters:
            return match[0]
        if isinstance(parameters[name].default, bool):
            return f"{name}=True" + (f" {given}" if given else "")
        if given is None:
            return name
        if name == "shapes":
            key, _, lengths = given.rpartition(":")
            return f"shapes={{{key!r}: ({lengths.replace(',', ', ')})}}"
        return f"{name}={given if given.isupper() or _is_number(given) else repr(given)}"

    return re.sub(r"(=\S+) (?=\w+=)", r"\1, ", re.sub(pattern, translate, text)) + command


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
