"""The whole look for blame: which roundings cost most, what leaving them brings back, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.prepare.work import multiplications_of
from fcdeploy.proof.blame import Ranking, rank
from fcdeploy.proof.compare import Choose, LayerSums
from fcdeploy.proof.groups import Remedy, groups, remedies
from fcdeploy.proof.local import Local
from fcdeploy.proof.saturation import Proof, prove
from fcdeploy.proof.sources import Source, sources
from fcdeploy.records.progress import OnStep
from fcdeploy.samples import Batch

MOST, LEAST = 64, 8  # samples for the ranking: errors are sums over many values
WORK = 1.5e11  # multiplications for it: some seconds
SECONDS = 60.0  # after which the ranking stops, on a machine that is slower than that
GROUPS = 4  # measured on all samples, and timed
Read = Callable[[int | None], Iterable[Batch]]
"""Batches of the first so many samples, of all with None."""


@dataclass(frozen=True)
class Findings:
    """The ranking, the groups measured, what rounding alone does to tensors, and the proof of pair sums by node."""

    ranking: Ranking
    rows: tuple[Remedy, ...]
    ranges: Mapping[Source, Local]
    proofs: Mapping[str, Proof]

    @property
    def safe(self) -> bool:
        """Whether no pair sum can overflow."""
        return all(proof.safe for proof in self.proofs.values())


def findings(
    int8: ir.Model,
    floats: Sequence[ir.Model],
    read: Read,
    choose: Choose | None,
    found: LayerSums | None = None,
    *,
    seconds: float = SECONDS,
    timed: bool = True,
    on_step: OnStep | None = None,
    total: int | None = None,
) -> Findings:
    """Rank all sources by the output's error on a few samples, then measure the dearest groups on all.

    The few are as many as WORK allows, so the same on every machine.  `floats` and `choose` as for `blame.rank`; `found`
    has what rounding does to tensors, where that was looked at.
    """
    every = sources(int8)
    work = max(sum(multiplications_of(int8).values()), 1) * max(len(every), 1)
    few = max(LEAST, min(MOST, int(WORK / work)))
    ranking = rank(int8, floats, read(few), seconds=seconds, on_step=on_step)
    wanted = groups(ranking, every, GROUPS)
    rows = remedies(int8, floats, wanted, read(None), choose, timed=timed, on_step=on_step, total=total)
    ranges = {} if found is None else {s: found.ranges[s.integers[0]] for s in every if s.integers[0] in found.ranges}
    return Findings(ranking, tuple(rows), ranges, {proof.node: proof for proof in prove(int8)})


def effort_of(int8: ir.Model) -> str | None:
    """With which effort fcdeploy quantized a model, from its metadata; None where they do not say."""
    try:
        made = json.loads(int8.metadata_props.get("fcdeploy", "{}"))
    except (ValueError, RecursionError):
        return None
    effort = made.get("effort") if isinstance(made, dict) else None
    return effort if isinstance(effort, str) else None
