"""GPTQ: the weights of a layer rounded one after the other, each making up for the errors of those before it.

Elias Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv:2210.17323, in the equal form that needs no inverse (Jerry Chee et al., "QuIP", arXiv:2307.13304, theorem 6).

For weights W (out, K), integers Q, errors E = W - Q and inputs X (n, K), the layer's squared error is tr(E H E^T) with
the Gram matrix H = X^T X.  With H = (U + I) D (U + I)^T, U strictly upper triangular and D diagonal, that is

    sum_k D_k |w_k + E_<k U_<k,k - q_k|^2

so that column k is best rounded as w_k + E_<k U_<k,k: to its own value and what the columns before it left over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import LIMITS, SMALLEST_SCALE
from fcdeploy.arithmetic.weights.products import multiply
from fcdeploy.arrays import Float64

# Of the mean diagonal, added to it.  The paper's 0.01 trusts H too far where samples are fewer than inputs: with 256 for
# 4096 inputs, 0.1 to 0.2 leave 0.5 dB more on other samples, and with 1024 1.1 dB.
DAMPING = 0.1
GRID = 2.0**15  # an activation is rounded to one of as many steps on either side of zero before it is summed
PANEL = 64  # columns rounded in one go; what they leave to all later ones is then a matrix product
SHRINK = np.linspace(0.6, 1.0, 17)  # of the scale that clips nothing, for blocks of few bits


def compute_gram(parts: Iterable[NDArray[np.floating]]) -> Float64:
    """X^T X over all rows of all parts, each (rows, K), up to a factor: the same bits whatever their order and number.

    Activations are rounded to a power of two that 15 bits of their largest reach, so that every sum is one of integers
    below 2^53, which float64 adds exactly (up to 2^23 rows).
    """
    held = list(parts)
    largest = max((float(np.abs(x).max(initial=0.0)) for x in held), default=0.0)
    step = 2.0 ** np.ceil(np.log2(largest / GRID)) if largest > 0 else 1.0
    total = np.zeros((held[0].shape[1],) * 2)
    for x in held:
        integers = np.rint(x.astype(np.float64) / step)
        total += integers.T @ integers
    return total


def round_by_gptq(
    weight: Float64,
    gram: Float64,
    scale: Float64,
    *,
    dtype: str = "int8",
    pair_limit: int | None = None,
    damping: float = DAMPING,
) -> Float64:
    """Integers for `weight` (out, K) at one `scale` (out,) each, by the Gram matrix (K, K) of the layer's inputs.

    Symmetric: the lowest integer of `dtype` is not used.  With `pair_limit`, columns 2k and 2k + 1 of one sign keep
    |q1| + |q2| <= pair_limit, which is at least 127: the best point of that line is taken (see pair_bound.py).
    """
    top = float(LIMITS[dtype][1])
    w = weight.T / scale  # (K, out), in steps of the scale
    U, D = factor_gram(gram, damping)

    def panel(begin: int, wanted: Float64) -> Float64:
        u, d = U[begin : begin + PANEL, begin : begin + PANEL], D[begin : begin + PANEL]
        return _round_columns(w[begin : begin + PANEL], wanted, u, d, (-top, top), pair_limit)

    return np.ascontiguousarray(_round_panels(w, U, PANEL, panel).T)


def round_blocks_by_gptq(
    weight: Float64, gram: Float64, block: int, *, dtype: str = "int4", damping: float = DAMPING
) -> tuple[Float64, Float64]:
    """Integers (out, K) and scales (out, blocks) for `weight` (out, K); `block` neighbours of a row share a scale.

    A block's scale is searched when its turn comes, for what is wanted of it then.  The scale may be negative, so that
    the one integer more that `dtype` has below zero serves whichever side needs it.
    """
    w = np.ascontiguousarray(weight.T)
    U, D = factor_gram(gram, damping)
    low, high = LIMITS[dtype]
    scales = []

    def panel(begin: int, wanted: Float64) -> Float64:
        u, d = U[begin : begin + block, begin : begin + block], D[begin : begin + block]
        s = search_block_scales(wanted, d, dtype)
        scales.append(s)
        return s * _round_columns(w[begin : begin + block] / s, wanted / s, u, d, (low, high), None)

    rounded = _round_panels(w, U, block, panel)
    all_scales = np.stack(scales, axis=1)  # (out, blocks)
    return np.rint(rounded.T / np.repeat(all_scales, block, axis=1)[:, : len(w)]), all_scales


def round_blocks_to_nearest(
    weight: Float64, importance: Float64, block: int, *, dtype: str = "int4"
) -> tuple[Float64, Float64]:
    """As `round_blocks_by_gptq`, each weight rounded by itself; `importance` is E[x^2] of the inputs, (K,)."""
    low, high = LIMITS[dtype]
    columns = [slice(begin, begin + block) for begin in range(0, weight.shape[1], block)]
    scales = np.stack([search_block_scales(weight[:, c].T, importance[c], dtype) for c in columns], axis=1)
    exact = weight / np.repeat(scales, block, axis=1)[:, : weight.shape[1]]
    return np.clip(np.rint(exact), low, high), scales


def search_block_scales(weight: Float64, importance: Float64, dtype: str) -> Float64:
    """The scale of each column of `weight` (block, out) with the least sum of importance (block,) * error^2, as float32."""
    low, high = LIMITS[dtype]
    extreme = np.take_along_axis(weight, np.abs(weight).argmax(axis=0)[None], axis=0)[0]
    full = np.where(np.abs(extreme) < SMALLEST_SCALE * high, 1.0, extreme / low)  # the largest becomes `low`
    best, least = full, np.full(weight.shape[1], np.inf)
    for candidate in (base * factor for base in (full, np.abs(extreme) / high) for factor in SHRINK):
        s = candidate.astype(np.float32).astype(np.float64)
        s = np.where(np.abs(s) < SMALLEST_SCALE, 1.0, s)
        error = (importance[:, None] * (weight - s * np.clip(np.rint(weight / s), low, high)) ** 2).sum(axis=0)
        best, least = np.where(error < least, s, best), np.minimum(error, least)
    return best.astype(np.float32).astype(np.float64)


def factor_gram(gram: Float64, damping: float = DAMPING) -> tuple[Float64, Float64]:
    """U and D of H + damping = (U + I) D (U + I)^T: U strictly upper triangular (K, K), D (K,)."""
    level = float(np.diagonal(gram).mean()) or 1.0
    flipped = gram[::-1, ::-1] / level + damping * np.eye(len(gram))
    R = _cholesky(flipped)[::-1, ::-1]  # H = R R^T, R upper triangular
    diagonal = np.diagonal(R).copy()
    return np.triu(R / diagonal, 1), level * diagonal**2


def _cholesky(a: Float64) -> Float64:
    """Lower triangular L, L L^T = a, panel by panel.

    LAPACK's own differs in its last bits with the number of threads, and with it the weights: a panel is eliminated
    column by column, and what it leaves to the others is a product that does not.
    """
    L = np.tril(a)
    for at in range(0, len(a), PANEL):
        panel = L[at:, at : at + PANEL].T.copy()  # a column of it lies in one piece
        for k in range(len(panel)):
            panel[k, k:] /= np.sqrt(panel[k, k])
            panel[k + 1 :, k + 1 :] -= np.multiply.outer(panel[k, k + 1 : len(panel)], panel[k, k + 1 :])
        L[at:, at : at + PANEL] = panel.T
        below, rest = panel[:, PANEL:], L[at + PANEL :, at + PANEL :]
        for strip in range(0, below.shape[1], 8 * PANEL):  # the lower triangle alone, in strips
            end = strip + 8 * PANEL
            rest[strip:end, :end] -= multiply(below[:, strip:end].T, below[:, :end])
    return np.tril(L)


def _round_panels(w: Float64, U: Float64, width: int, panel: Callable[[int, Float64], Float64]) -> Float64:
    """Round `w` (K, out) panel by panel; `panel` is given what is wanted of its columns, and returns their values."""
    values, errors = np.empty_like(w), np.empty_like(w)
    for begin in range(0, len(w), width):
        columns = slice(begin, begin + width)
        values[columns] = panel(begin, w[columns] + multiply(U[:begin, columns].T, errors[:begin]))
        errors[columns] = w[columns] - values[columns]
    return values


def _round_columns(
    w: Float64, wanted: Float64, u: Float64, d: Float64, limits: tuple[float, float], pair_limit: int | None
) -> Float64:
    """Integers for the columns of one panel, both (columns, out) in steps of the scale, each passing its error on."""
    wanted, q = wanted.copy(), np.empty_like(w)
    for k in range(len(w)):
        q[k] = np.clip(np.rint(wanted[k]), *limits)
        if pair_limit is not None and k % 2:
            _enforce_pair_limit(q[k - 1 : k + 1], wanted[k - 1 : k + 1], u[k - 1, k], d[k - 1 : k + 1], pair_limit)
            # the first of the two may have changed, and with it what it leaves to the later ones
            wanted[k + 1 :] += np.outer(u[k - 1, k + 1 :], w[k - 1] - q[k - 1])
        if pair_limit is not None and k % 2 == 0 and k + 1 < len(w):
            wanted[k + 1] += u[k, k + 1] * (w[k] - q[k])
        else:
            wanted[k + 1 :] += np.outer(u[k, k + 1 :], w[k] - q[k])
    return q


def _enforce_pair_limit(q: Float64, wanted: Float64, u: float, d: Float64, limit: int) -> None:
    """Move pairs `q` (2, out) beyond the limit to the best integers on q1 + q2 = +-limit, in place.

    Their cost is d1 (t1 - q1)^2 + d2 (t2 + u (w1 - q1) - q2)^2, where `wanted` holds t1, and t2 with u (w1 - q1) added.
    """
    over = np.flatnonzero(np.abs(q[0] + q[1]) > limit)  # of opposite signs, no sum exceeds 127 and so the limit
    if not len(over):
        return
    sign = np.sign(q[0, over])
    rest = wanted[1, over] + u * q[0, over] - sign * limit  # t2 + u w1 -+ limit
    best = (d[0] * wanted[0, over] - d[1] * (1 - u) * rest) / (d[0] + d[1] * (1 - u) ** 2)
    size = np.clip(np.rint(sign * best), limit - 127, 127)
    q[0, over], q[1, over] = sign * size, sign * (limit - size)
