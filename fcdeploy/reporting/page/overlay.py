"""What is known of each node as node data of Model Explorer (google-ai-edge/model-explorer), one file a figure.

A file maps the graph's name to {"name": ..., "results": {node: {"value": number or text}}, "gradient": [...]}; nodes go by the
names that they have in the ONNX file, as the adapter model-explorer-onnx calls them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fcdeploy.reporting.page.layers import LayerRow

Value = float | str | None


class Figure(NamedTuple):
    """One file: what it is called there, the value of a node, and the colours of the least and the largest number."""

    title: str
    read: Callable[[LayerRow], Value]
    colours: tuple[str, str] = ("#ffffff", "#e0722f")


FIGURES: Mapping[str, Figure] = {
    "kernel": Figure("kernel", lambda row: row.kernel if row.integer else f"float: {row.why or row.kernel}"),
    "sqnr": Figure("SQNR in dB, float against int8", lambda row: row.sqnr_db, ("#d64545", "#ffffff")),
    "time": Figure("time in microseconds", lambda row: row.int8_us),
    "macs": Figure("multiplications", lambda row: row.macs),
    "weights": Figure("bytes of weights", lambda row: row.weight_bytes or None),
    "activations": Figure("bytes of output", lambda row: row.activation_bytes),
}
INTEGER, FLOAT = "#cde8d6", "#f6d9c4"


def make_overlays(graph: str, rows: Sequence[LayerRow]) -> dict[str, str]:
    """Figure -> the text of its file; figures that no node has are left out."""
    files = {}
    for name, figure in FIGURES.items():
        results = {row.node: _format(row, value) for row in rows if (value := figure.read(row)) is not None}
        if not results:
            continue
        numbers = all(isinstance(result["value"], int | float) for result in results.values())
        stops = [{"stop": stop, "bgColor": colour} for stop, colour in enumerate(figure.colours)] if numbers else []
        data = {"name": figure.title, "results": results, **({"gradient": stops} if stops else {})}
        files[name] = json.dumps({graph: data}, indent=1, ensure_ascii=False) + "\n"
    return files


def _format(row: LayerRow, value: Value) -> dict[str, Value]:
    if isinstance(value, str):
        return {"value": value, "bgColor": INTEGER if row.integer else FLOAT}
    return {"value": value}
