"""The keys of a JSON object that someone else may have written."""

from __future__ import annotations

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
