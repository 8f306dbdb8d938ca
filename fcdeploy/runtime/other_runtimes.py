"""Which other runtimes than onnxruntime take a model, by what each was seen to refuse: tables/other_runtimes.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.forms import list_forms
from fcdeploy.tables.oldest import OLDEST
from fcdeploy.tables.other_runtimes import TITLES, UNTAKEN


@dataclass(frozen=True)
class Untaken:
    """A form of a model that a runtime does not take: the nodes that have it, and what becomes of the file."""

    runtime: str
    form: str
    places: tuple[str, ...]
    why: str

    def describe(self) -> str:
        where = f" at {self.places[0]!r}" if self.places else ""
        return f"{TITLES[self.runtime]} {self.why}: {self.form}{where}"


def find_untaken(model: ir.Model, runtimes: Sequence[str]) -> list[Untaken]:
    """What of a model these runtimes do not take. The types of its tensors were inferred."""
    forms = list_forms(model)
    return [
        Untaken(runtime, form, tuple(forms[form]), why)
        for runtime in runtimes
        for form, why in UNTAKEN[runtime].items()
        if form in forms
    ]


def find_untried(model: ir.Model) -> tuple[dict[str, list[str]], list[str]]:
    """The operators that no runtime was tried with, and where; and the forms of others that none was tried with."""
    known = {*OLDEST, *(form for forms in UNTAKEN.values() for form in forms)}
    known_operators = {form.partition(",")[0] for form in known}
    untried = {form: places for form, places in list_forms(model).items() if form not in known}
    operators = {form: places for form, places in untried.items() if form.partition(",")[0] not in known_operators}
    return operators, [form for form in untried if form not in operators]


def find_runtimes(names: str | None) -> tuple[str, ...]:
    """Runtimes by a list of names, such as "openvino,web"; "opencv" is all its versions, None is none. Raises FcdeployError."""
    if names is None:
        return ()
    found: list[str] = []
    for name in (part.strip() for part in names.split(",")):
        if not name:
            raise FcdeployError(f"--for {names!r} names nothing in one place", "--for openvino,web,tract")
        wanted = [key for key in TITLES if key == name or key.rstrip("0123456789") == name]
        if not wanted:
            known = sorted({*TITLES, *(key.rstrip("0123456789") for key in TITLES)})
            raise FcdeployError(f"runtime {name!r} is unknown, expected {', '.join(known)}", "--for openvino,web,tract")
        found += wanted
    return tuple(dict.fromkeys(found))
