"""Why a request gets no answer: an HTTP status, which other protocols translate, and one line for the client."""

from __future__ import annotations


class RefusedError(Exception):
    """`status` is 4xx for the client's mistakes, 503 when the queue is full (then with seconds to wait), 504 too late."""

    def __init__(self, status: int, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())
        self.retry_after = retry_after


def explain_json_error(error: Exception) -> str:
    """What is wrong with text that simdjson refuses; its own sentences speak of its tape."""
    code, _, _ = str(error).partition(":")
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    if code == "EMPTY":
        return "is empty"
    if code in ("NUMBER_ERROR", "BIGINT_ERROR") or isinstance(error, RuntimeError):
        return "holds a number that JSON has not, or that takes more than 64 bits"
    return "is not JSON"
