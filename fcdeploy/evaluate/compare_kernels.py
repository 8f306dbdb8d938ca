"""What integer kernels change: the same file run in several ways."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fcdeploy.arithmetic.metrics import Fidelity
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.compare import add_sums
from fcdeploy.evaluate.run_models import run_model
from fcdeploy.records.progress import OnStep
from fcdeploy.runtime.open_engine import open_engine
from fcdeploy.runtime.session import Session
from fcdeploy.samples.source import Batch


def compare_kernels(
    int8: Path, data: Iterable[Batch], on_step: OnStep, total: int | None, runs: Path | None = None
) -> tuple[dict[str, Fidelity], str]:
    """Measure what integer kernels change: the same file without optimization, and with exact byte products,
    against its defaults, or against `runs`, code that was made from it.  The worse of both per output; outputs that are not
    floating point are left out.

    With it why exact byte products are not among them, where onnxruntime cannot run the file so; else an empty text.
    """
    usual, plain = open_engine(runs or int8), Session(int8, optimize=False)
    precise, why_not = _open_precise(int8)
    sums: list[dict[str, Fidelity]] = [{}, {}]
    done = 0
    for batch in data:
        q = run_model(usual, batch, "int8")
        if precise is not None and done == 0:
            try:
                precise.run(batch.inputs)
            except FcdeployError as error:
                precise, why_not = None, error.message
        for index, session in enumerate((plain, precise)):
            f = {} if session is None else run_model(session, batch, "int8")
            for name in f:
                if f[name].dtype.kind == "f" and f[name].shape == q[name].shape:
                    sums[index][name] = add_sums(sums[index].get(name), f[name], q[name], len(batch))
        done += len(batch)
        on_step("kernels", done, total)
    seen = {name: [each[name] for each in sums if name in each] for name in sums[0]}
    return {name: min(differences, key=lambda one: one.sqnr_db) for name, differences in seen.items()}, why_not


def _open_precise(int8: Path) -> tuple[Session | None, str]:
    """A session that adds byte products in 32 bits; None and the reason where there is none: some files do not load so."""
    try:
        return Session(int8, precise=True), ""
    except FcdeployError as error:
        return None, error.message
