"""Which other runtimes take a model, as a table and a sentence."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.records.report import Section, Table
from fcdeploy.runtime.other_runtimes import find_untaken, find_untried
from fcdeploy.tables.other_runtimes import NEAREST, TITLES

COLUMNS = ("runtime", "takes it", "because of", "at", "what it says")


def describe_runtimes(model: ir.Model) -> Section:
    """For programs a row for each thing that a runtime does not take; for readers the table and what follows."""
    typed = model.clone()
    infer_shapes(typed)
    found, untried = find_untaken(typed, tuple(TITLES)), find_untried(typed)
    values = [{"runtime": row.runtime, "form": row.form, "nodes": [*row.places], "why": row.why} for row in found]
    cells = []
    for runtime, title in TITLES.items():
        rows = [row for row in found if row.runtime == runtime]
        cells += [(title, "no", row.form, next(iter(row.places), ""), row.why) for row in rows] or [
            (title, "yes", "", "", f"SQNR of its answers to onnxruntime's: {NEAREST[runtime]} dB at least")
        ]
    taking = len(TITLES) - len({row.runtime for row in found})
    sentence = f"{taking} of {len(TITLES)} other runtimes take it"
    if untried:
        sentence += f", as far as is known: none was tried with {', '.join(untried)}"
    return Section({"runtimes": values}, (Table("Other runtimes", COLUMNS, tuple(cells)),), (sentence,))
