"""The one exception a user's mistake becomes.

Messages and hints name the options of the command line.  The public functions of the package raise them in Python's words
instead (`fcdeploy.python_words`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from itertools import islice

TOO_MANY = (errno.EMFILE, errno.ENFILE)  # files that are open at once
MORE_FILES = "ulimit -n $(ulimit -Hn)"
MOST_COMPARED = 1000  # names, and letters of one, among which one of a similar name is looked for
SHORTEST_START = 4  # letters by which a longer name is known


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
    """A model that onnxruntime does not load, or not run; `node` is the one at which it failed, where it says that."""

    def __init__(self, message: str, hint: str, node: str | None = None) -> None:
        super().__init__(message, hint)
        self.node = node


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
