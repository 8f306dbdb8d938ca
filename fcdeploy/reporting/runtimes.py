"""Which other runtimes take a model, as a table and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from fcdeploy.graph.forms import list_forms
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.report import Section, Table
from fcdeploy.runtime.other_runtimes import find_untaken, find_untried
from fcdeploy.tables.other_runtimes import NEAREST, ROUNDED, TITLES

Row = tuple[str, str, str, str, str]
NOT_RUN = "no file with it was run there"
COLUMNS = ("runtime", "takes it", "because of", "at", "what it says")


def describe_runtimes(model: ir.Model) -> Section:
    """For programs a row for each thing that a runtime does not take; for readers the table and what follows."""
    typed = model.clone()
    infer_shapes(typed)
    found, (untried, details) = find_untaken(typed, tuple(TITLES)), find_untried(typed)
    values = [{"runtime": row.runtime, "form": row.form, "nodes": [*row.places], "why": row.why} for row in found]
    cells = []
    for runtime, title in TITLES.items():
        rows = [row for row in found if row.runtime == runtime]
        cells += [(title, "no", row.form, next(iter(row.places), ""), row.why) for row in rows] or [
            _describe_taken(typed, runtime, title, untried)
        ]
    refusing = len({row.runtime for row in found})
    sentence = f"{len(TITLES) - refusing} of {len(TITLES)} other runtimes take it"
    if untried:
        sentence = (
            f"other runtimes: no in {refusing} of {len(TITLES)}, never tried in the others with {', '.join(untried)}"
        )
    elif details:
        sentence += f", as far as is known: none was tried with {', '.join(details)}"
    return Section(
        {"runtimes": values, "never_tried": [*untried, *details]},
        (Table("Other runtimes", COLUMNS, tuple(cells)),),
        (sentence,),
    )


def _describe_taken(model: ir.Model, runtime: str, title: str, untried: Mapping[str, Sequence[str]]) -> Row:
    """The row of a runtime that refuses nothing that is known."""
    forms = list_forms(model)
    rounded = [(form, why) for form, why in ROUNDED.get(runtime, {}).items() if form in forms]
    if untried:
        form, places = next(iter(untried.items()))
        return title, "never tried", form, next(iter(places), ""), "; ".join([NOT_RUN, *(why for _, why in rounded)])
    near = f"the networks that were run: {NEAREST[runtime]} dB at least to onnxruntime's answers"
    for form, why in rounded:
        return title, "yes", form, next(iter(forms[form]), ""), f"{why}; {near}"
    return title, "yes", "", "", near
