"""Values and pictures to a page, by the templates beside this file. The page asks for nothing: style and script are inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from typing import Any

from fcdeploy.errors import FcdeployError
from fcdeploy.reporting import units
from fcdeploy.reporting.page import drawing
from fcdeploy.reporting.page.layers import LayerRow

BREAKS = dict.fromkeys((*range(32), 127, 133, 8232, 8233), " ")
TEMPLATES = {"html": "report.html.j2", "markdown": "model_card.md.j2"}
DASH = "–"


@dataclass(frozen=True)
class Pictures:
    """What is drawn of one model."""

    histograms: dict[str, drawing.HistogramPicture]
    graph: drawing.GraphPicture
    interval: drawing.IntervalPicture | None
    front: list[tuple[float, float]]
    memory: str
    samples: list[str]


def draw(values: Mapping[str, Any], rows: Sequence[LayerRow], samples: Sequence[str]) -> Pictures:
    """The pictures of one model from its values, and the histograms that its calibration has; `samples` are drawn already."""
    histograms = {
        row.node: picture
        for row in rows
        if row.histogram is not None and (picture := drawing.draw_histogram(row.histogram, row.ends)) is not None
    }
    validate, front = values["validate"] or {}, list_front(values)
    low, middle, high = (validate.get(key) for key in ("drop_low", "drop", "drop_high"))
    interval = None
    if low is not None and middle is not None and high is not None:
        interval = drawing.draw_interval(low, middle, high, validate.get("max_drop"))
    points = drawing.draw_points([(row["ratio"], row["drop"]) for row in front]) if front else []
    graph = drawing.draw_graph({row.node: row.inputs for row in rows})
    memory = drawing.draw_memory([row["bytes"] for row in values["memory"]])
    return Pictures(histograms, graph, interval, points, memory, list(samples))


def list_front(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The measured steps of a search: those that have both a time and a drop."""
    steps = (values["quantize"] or {}).get("path", [])
    return [row for row in steps if row.get("ratio") is not None and row.get("drop") is not None]


def render(
    kind: str, title: str, values: Sequence[Mapping[str, Any]], pictures: Sequence[Pictures], version: str
) -> str:
    """The page of these models. Raises FcdeployError without the extra `report`."""
    if find_spec("jinja2") is None:
        raise FcdeployError("a report needs 'jinja2', which is not installed", "pip install 'fcdeploy[report]'")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fcdeploy.reporting.page"), autoescape=kind == "html", undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=None if kind == "html" else keep_in_line,
    )  # fmt: skip
    environment.filters |= {"fixed": format_fixed, "size": format_size, "count": format_count, "shade": find_shade}
    environment.globals |= {"get": get, "steps": list_front, "shortened": shorten}
    page = environment.get_template(TEMPLATES[kind])
    return page.render(title=title, models=list(zip(values, pictures, strict=True)), version=version) + "\n"


def keep_in_line(value: Any) -> Any:
    """A name as text that ends neither a line of Markdown nor a piece of code in it: names are anything that a file says."""
    return value.replace("`", "'").translate(BREAKS) if isinstance(value, str) else value


def get(values: Any, key: str) -> Any:
    """`validate.drop` of nested values, None where any part is missing."""

    def step(value: Any, part: str) -> Any:
        if isinstance(value, list):
            return value[int(part)] if int(part) < len(value) else None
        return value.get(part) if isinstance(value, Mapping) else None

    return reduce(step, key.split("."), values)


def format_fixed(value: float | None, digits: int = 2, unit: str = "", factor: float = 1.0) -> str:
    """A number and its unit, which a line break may not part."""
    return DASH if value is None else f"{factor * value:,.{digits}f}" + (f"\u00a0{unit}" if unit else "")


def format_size(value: float | None) -> str:
    """Bytes and their unit, which a line break may not part."""
    return DASH if value is None else units.format_size(value).replace(" ", "\u00a0")


def format_count(value: float | None) -> str:
    """A count with its thousands."""
    return format_fixed(value, 0)


def find_shade(value: float | None, values: Sequence[float | None]) -> int:
    """0 to 4: where a number lies between the least and the largest; -1 where it is not known."""
    known = [one for one in values if one is not None]
    if value is None:
        return -1
    least, most = min(known), max(known)
    return 0 if most == least else min(4, int(5 * (value - least) / (most - least)))


def shorten(text: str, length: int) -> str:
    """At most so many letters, the middle left out."""
    keep = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - keep]}…{text[-keep:]}"
