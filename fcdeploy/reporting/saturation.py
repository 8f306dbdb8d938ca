"""Which layers can overflow on CPUs that add pairs of products in 16 bits, as a table and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcdeploy.proof.saturation import ELSEWHERE, SATURATES, UNPROVEN, WRAPS, SaturationProof
from fcdeploy.records.report import Section, Table
from fcdeploy.wording import say_count


def describe_saturation(proofs: Sequence[SaturationProof]) -> Section:
    """For programs a row a layer; for readers the table and what follows. The worst layer is first."""
    values = {"saturation": [_describe_proof(row) for row in proofs], "safe": all(row.safe for row in proofs)}
    return Section(values, (_make_saturation_table(proofs),), (_judge_saturation(proofs),))


def _describe_proof(row: SaturationProof) -> dict[str, Any]:
    return {
        "node": row.node,
        "op": row.op,
        "worst": row.worst,
        "limit": row.limit,
        "margin": row.margin,
        "channels": row.channels,
        "pairs": row.pairs,
        "safe": row.safe,
        "exact_on_x86": row.exact_on_x86,
        "wraps_on_arm": bool(row.wraps),
        "proven": row.proven,
        "why": row.why,
        "verdict": row.verdict,
    }


def _make_saturation_table(proofs: Sequence[SaturationProof]) -> Table:
    cells = tuple(
        (
            row.node,
            row.op,
            "-" if row.worst is None else f"{row.worst:,}",
            "-" if row.limit is None else f"{row.limit:,}",
            "-" if row.margin is None else f"{row.margin:.1f} %",
            str(row.channels or "-"),
            str(row.pairs or "-"),
            _name_verdict(row),
            row.why,
        )
        for row in proofs
    )
    columns = ("layer", "op", "worst pair", "limit", "margin", "channels over", "pairs over", "verdict", "why")
    return Table("Pairs of products in 16 bits", columns, cells)


def _name_verdict(row: SaturationProof) -> str:
    if not row.proven:
        return UNPROVEN
    found = [word for word, holds in (("saturates", not row.exact_on_x86), ("wraps on ARM", bool(row.wraps))) if holds]
    return ", ".join(found) or "exact"


def _judge_saturation(proofs: Sequence[SaturationProof]) -> str:
    if not proofs:
        return "no layer multiplies bytes: exact everywhere"
    over = [row for row in proofs if row.proven and not row.exact_on_x86]
    wrap = [row for row in proofs if row.wraps]
    layers = say_count(len(proofs), "layer")
    unknown = [row for row in proofs if not row.proven]
    if unknown and not over and not wrap:
        return f"not proven for {len(unknown)} of {layers}, the first {unknown[0].op} {unknown[0].node!r}: {unknown[0].why}"
    if over:
        worst = f"worst {over[0].node!r} with {over[0].worst:,} against {over[0].limit:,}"
        where = SATURATES + (f"; {WRAPS[wrap[0].wraps]}, first {wrap[0].node!r}" if wrap else ELSEWHERE)
        return f"{len(over)} of {layers} can overflow, {worst}: {where}"
    if wrap:
        twice = f"two products of -128 may meet in {wrap[0].op} {wrap[0].node!r}"
        return f"{len(wrap)} of {layers} can overflow, {twice}: {wrap[0].verdict}"
    pairs = [row for row in proofs if row.margin is not None]
    if not pairs:
        return f"no kernel adds pairs of products in 16 bits in {layers} of bytes: exact everywhere"
    return f"no pair of products can leave 16 bits in {layers}, least margin {pairs[0].margin:.1f} %: exact everywhere"
