"""The whole sensitivity analysis: which roundings cost most, what leaving them out recovers, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.compare import Choose
from fcdeploy.evaluate.compare_layers import LayerSums
from fcdeploy.evaluate.rounding_error import RoundingError
from fcdeploy.graph.model import input_specs
from fcdeploy.int8.judging.fidelity import measure_sqnr
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.proof.saturation import SaturationProof, prove_no_saturation
from fcdeploy.records import origin
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.samples.kept_samples import split_into_chunks
from fcdeploy.samples.source import Batch, get_fixed_batch
from fcdeploy.sensitivity.advice import EXACT_ENOUGH_DB, NO_CHANGE, STANDS_OUT, advise
from fcdeploy.sensitivity.error_sources import ErrorSource, find_sources
from fcdeploy.sensitivity.groups import Remedy, choose_groups, measure_remedies
from fcdeploy.sensitivity.rank import Ranking, rank_sources

MOST, LEAST = 64, 8  # samples for the ranking: errors are sums over many values
WORK = 1.5e11  # multiplications for it: some seconds
SECONDS = 60.0  # after which the ranking stops, on a machine that is slower than that
GROUPS = 4  # measured on all samples, and timed
POOR_DB = 30.0  # of the outputs: below it a look while quantizing is worth its time, whatever the effort
BRIEF_SECONDS = 2.0  # for that look
BRIEF_WORK, BRIEF_GUESS = 2e9, 2  # multiplications of one run on its samples, and samples of the guess
Read = Callable[[int | None], Iterable[Batch]]
"""Batches of the first so many samples, of all with None."""


@dataclass(frozen=True)
class Sensitivity:
    """The ranking, the groups measured, what rounding alone does to tensors, and the proof of pair sums by node."""

    ranking: Ranking
    rows: tuple[Remedy, ...]
    ranges: Mapping[ErrorSource, RoundingError]
    proofs: Mapping[str, SaturationProof]

    @property
    def safe(self) -> bool:
        """Whether no pair sum can overflow on x86."""
        return all(proof.exact_on_x86 for proof in self.proofs.values())


def analyze_sensitivity(
    int8: ir.Model,
    floats: Sequence[ir.Model],
    read: Read,
    choose: Choose | None,
    layers: LayerSums | None = None,
    *,
    timed: bool = True,
    on_step: OnStep | None = None,
    total: int | None = None,
) -> Sensitivity:
    """Rank all sources on a few samples, by the metric and then by the outputs' error, and measure the dearest groups on all.

    The few are as many as WORK allows, so the same on every machine.  `floats` and `choose` as for `rank_sources`; `layers`
    has what rounding does to tensors, where that was looked at.
    """
    every = find_sources(int8)
    work = max(sum(count_macs_by_node(int8).values()), 1) * max(len(every), 1)
    few = max(LEAST, min(MOST, int(WORK / work)))
    ranking = rank_sources(int8, floats, read(few), choose, seconds=SECONDS, on_step=on_step)
    wanted = choose_groups(ranking, every, GROUPS)
    rows = measure_remedies(int8, floats, wanted, read(None), choose, timed=timed, on_step=on_step, total=total)
    ranges = (
        {} if layers is None else {s: layers.ranges[s.integers[0]] for s in every if s.integers[0] in layers.ranges}
    )
    return Sensitivity(ranking, tuple(rows), ranges, {proof.node: proof for proof in prove_no_saturation(int8)})


def read_effort(int8: ir.Model) -> str | None:
    """With which effort fcdeploy quantized a model, from its metadata; None where they do not say."""
    try:
        return origin.read(int8.metadata_props, "").get("effort")
    except FcdeployError:
        return None


def add_advice(
    report: Report, int8: ir.Model, graph: ir.Model, samples: Arrays, effort: str, judged_db: float | None = None
) -> Report:
    """The report of a model that was just quantized, with what to do about the error of its outputs on the samples.

    `graph` is the prepared float model.  A model that was judged, by more samples than are run here, is as near to float as
    `judged_db` says, where that is less.  Outputs that are near enough are left at that; where they are poor, or with effort
    `best`, sources of error are ranked for BRIEF_SECONDS, and only what was tried is spoken of.
    """
    if not samples or not any(node.op_type == "QuantizeLinear" for node in int8.graph):
        return report
    work = max(sum(count_macs_by_node(int8).values()), 1)
    few = max(LEAST, min(MOST, int(BRIEF_WORK / work)), get_fixed_batch(input_specs(graph)) or 0)
    some = {name: array[:few] for name, array in samples.items()}
    db = min(measure_sqnr(graph, int8, some), default=None)
    if db is None:
        return report
    db = db if judged_db is None else min(db, judged_db)
    text = f"{NO_CHANGE}the outputs match float's to {db:.1f} dB"
    if db < POOR_DB or (db < EXACT_ENOUGH_DB and effort == "best"):
        text = _advise_briefly(int8, graph, some, effort, db)
    elif db < EXACT_ENOUGH_DB:
        text = f"the outputs match float's to {db:.1f} dB; fcdeploy validate --layers tells what it costs, and which layers"
    return replace(report, advice=text, values={**report.values, "advice": text, "sqnr_db": db})


def _advise_briefly(int8: ir.Model, graph: ir.Model, samples: Arrays, effort: str, db: float) -> str:
    specs = tuple(input_specs(graph))
    batches = [Batch(("a sample",) * count, part, {}, specs) for count, part in split_into_chunks(graph, samples)]
    every = find_sources(int8)
    ranking = rank_sources(int8, [graph], batches, seconds=BRIEF_SECONDS, guessed_on=BRIEF_GUESS)
    if not ranking.costs:
        return f"the outputs match float's to {db:.1f} dB"
    best = ranking.costs[0]
    stands_out = best.share >= STANDS_OUT and best.low >= STANDS_OUT / 2
    if ranking.left and not stands_out:
        tried = f"{len(ranking.costs)} of {len(every)} roundings were left out one at a time, and none stands out"
        return f"the outputs match float's to {db:.1f} dB: {tried}; fcdeploy validate --layers looks at all"
    rows = measure_remedies(int8, [graph], choose_groups(ranking, every, 1) if stands_out else [], batches, timed=False)
    return advise(answers=None, loss=None, sqnr_db=db, ranking=ranking, rows=rows,
                  ranges=ranking.guesses, effort=effort).text  # fmt: skip
