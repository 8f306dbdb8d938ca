"""Names and other text of a model as text of C. A model is not trusted: nothing it says ends what it stands in."""

from __future__ import annotations

import re

PARAMETERS = "const void *const *inputs, void *const *outputs, void *arena"  # of each function that runs steps


def make_identifier(name: str) -> str:
    """A name that C takes."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"n{cleaned}"


def make_comment(text: str) -> str:
    """A comment of one line; what could end it or be a trigraph, and what is no printable ASCII, is _ in it."""
    return "/* " + re.sub(r"[^ -~]|[*?\\]", "_", text) + " */"


def make_literal(text: str) -> str:
    """A string literal of UTF-8 bytes; what could end it or be a trigraph, and what is no printable ASCII, is octal."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
