"""A command's report as a typed value: fields are read by name, and what lies in them by their types."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fcdeploy.api.results import PlanResult, Result
from fcdeploy.records.report import Report

Value = TypeVar("Value")
Made = TypeVar("Made", bound=Result)


def build_result(kind: type[Made], report: Report) -> Made:
    """The report as a value of this class. A key that the class requires and the report lacks is a defect of ours."""
    values = report.values["plan"] | {"seconds": report.values["seconds"]} if kind is PlanResult else report.values
    return _build(kind, {**values, "report": report})


@cache
def _types_of(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: type[Value], values: Mapping[str, Any]) -> Value:
    assert is_dataclass(kind)
    types_of, given = _types_of(kind), {}
    for row in fields(kind):
        if row.name in values:
            given[row.name] = _convert(types_of[row.name], values[row.name])
        else:
            assert row.default is not MISSING, f"{kind.__name__}: the report has no {row.name!r}"
    made: Value = kind(**given)
    return made


def _convert(wanted: Any, value: Any) -> Any:
    """JSON's value in the wanted type: a path from its text, a tuple from a list, a row from an object."""
    if isinstance(value, Report) or value is None:
        return value
    if get_origin(wanted) in (Union, types.UnionType):
        (inner,) = (one for one in get_args(wanted) if one is not type(None))
        return _convert(inner, value)
    if get_origin(wanted) is tuple:
        return tuple(_convert(get_args(wanted)[0], item) for item in value)
    if is_dataclass(wanted):
        return _build(wanted, value)  # type: ignore[arg-type]
    return wanted(value) if wanted in (Path, float) else value
