"""The keys and numbers of a JSON object that someone else may have written."""

from __future__ import annotations

import sys
from collections.abc import Set
from typing import Any

from fcdeploy.errors import FcdeployError


def check_keys(row: Any, keys: Set[str], where: str, hint: str, *, optional: Set[str] = frozenset()) -> None:
    """Raise FcdeployError unless `row` is an object with these keys and no other; those of `optional` may be missing."""
    if not isinstance(row, dict):
        raise FcdeployError(f"{where} is {repr(row)[:60]}, expected an object", hint)
    if unknown := sorted(set(row) - keys):
        expected = ", ".join(sorted(keys))
        raise FcdeployError(f"{where} has the unknown key {unknown[0][:60]!r}, expected {expected}", hint)
    if missing := sorted(keys - set(row) - optional):
        raise FcdeployError(f"{where} has no {missing[0]!r}", hint)


def is_number(value: Any) -> bool:
    """A finite number: no truth, and no integer of hundreds of digits, which JSON may hold and a float not."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
