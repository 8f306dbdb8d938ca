"""What is read of the reports that a page is made of, with its types: their files may have been edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fcdeploy.errors import FcdeployError

NUMBER = "a number"
COUNT = "a whole number"
TEXT = "text"
TRUTH = "true or false"
TYPES: Mapping[str, tuple[type, ...]] = {NUMBER: (int, float), COUNT: (int,), TEXT: (str,), TRUTH: (bool,)}

LAYER = {"node!": TEXT, "sqnr_db": NUMBER, "fall_db": NUMBER}
MATRIX = [[NUMBER]]
REPORTS: Mapping[str, Mapping[str, Any]] = {
    "validate": {
        "hashes!": {"int8!": TEXT}, "samples!": COUNT, "passed!": TRUTH, "metric": TEXT, "advice": TEXT,
        **dict.fromkeys(("drop", "drop_low", "drop_high", "max_drop", "float", "int8", "agreement", "sqnr_db"), NUMBER),
        "drop_unit": TEXT, "classes": [TEXT], "layers": [LAYER], "confusion": {"float!": MATRIX, "int8!": MATRIX},
    },
    "bench": {
        "hashes": {"int8": TEXT}, "threads!": COUNT, "conclusive": TRUTH,
        **dict.fromkeys(("ratio", "ratio_low", "ratio_high", "float_ms", "int8_ms", "float_p99_ms", "p99_ms"), NUMBER),
        **dict.fromkeys(("bytes_float", "float_model_mb", "model_mb"), NUMBER),
        "per_node": {
            "matched": [{"node!": TEXT, "float_us": NUMBER, "int8_us": NUMBER}], "int8_only": [{"node!": TEXT, "us": NUMBER}],
        },
    },
    "quantize": {"output": TEXT, "bytes_float": NUMBER, "nodes_float": [{"node!": TEXT, "why!": TEXT}]},
}  # fmt: skip
"""Report -> key -> what lies there: a type, an object's keys, or a list of such. With ! it must be there; null is no value."""


def check_report(kind: str, content: Mapping[str, Any], source: str, hint: str) -> None:
    """Raise FcdeployError, naming the key, the value and what was expected, where a report does not hold what is read of it."""
    _check(content, REPORTS[kind], f"{source}: ", hint)
    if kind == "validate" and content.get("drop") is not None:
        _check(content, {"drop_unit!": TEXT}, f"{source}: ", hint)
    if kind == "bench" and content.get("ratio") is not None:
        _check(content, {"ratio_low!": NUMBER, "ratio_high!": NUMBER}, f"{source}: ", hint)


def _check(value: Any, wanted: Any, where: str, hint: str) -> None:
    if isinstance(wanted, str):
        fits = isinstance(value, TYPES[wanted]) and (wanted == TRUTH or not isinstance(value, bool))
        expected = wanted
    else:
        fits, expected = isinstance(value, type(wanted)), "a list" if isinstance(wanted, list) else "an object"
    if not fits:
        raise FcdeployError(f"{where}is {str(value)[:40]!r}, expected {expected}", hint)
    if isinstance(wanted, list):
        for index, each in enumerate(value):
            _check(each, wanted[0], f"{where.removesuffix(' ')}[{index}] ", hint)
    if isinstance(wanted, dict):
        for key, each in wanted.items():
            name = key.removesuffix("!")
            if value.get(name) is not None:
                _check(value[name], each, f"{where}{name} ", hint)
            elif key != name:
                raise FcdeployError(f"{where}has no {name!r}", hint)
