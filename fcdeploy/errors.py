"""The one exception a user's mistake becomes."""

from __future__ import annotations


class FcdeployError(Exception):
    """A mistake in what was given: a file, a value, an option.

    `message` names the thing, the value and what was expected, in one line; `hint` says what to do, with a command
    where there is one.  The command line prints both and exits 2.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without onnxruntime's code prefix."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.removeprefix("[ONNXRuntimeError] : ").strip()
