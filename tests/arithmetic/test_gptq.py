"""Rounding that compensates, against the paper's own procedure, brute force on small layers, and error sums written out."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdeploy.arithmetic.weights.gptq import (
    DAMPING,
    compute_gram,
    factor_gram,
    round_blocks_by_gptq,
    round_by_gptq,
    search_block_scales,
)

Array = np.ndarray


def inputs(seed: int, rows: int, columns: int) -> Array:
    """Correlated activations, none below zero, as a layer behind a Relu reads them."""
    random = np.random.default_rng(seed)
    mixture = np.eye(columns) + 0.3 * random.normal(size=(columns, columns))
    return np.maximum(random.normal(size=(rows, columns)) @ mixture, 0)


def damped(H: Array) -> Array:
    return H + DAMPING * np.diag(H).mean() * np.eye(len(H))


def as_published(W: Array, H: Array, scale: Array, top: float) -> Array:
    """The paper's procedure, column by column: the error over the diagonal of the inverse's factor goes to the rest."""
    W, Q = W.copy(), np.zeros_like(W)
    upper = np.linalg.cholesky(np.linalg.inv(damped(H))).T
    for k in range(W.shape[1]):
        Q[:, k] = np.clip(np.rint(W[:, k] / scale), -top, top)
        error = (W[:, k] - Q[:, k] * scale) / upper[k, k]
        W[:, k:] -= np.outer(error, upper[k, k:])
    return Q


def output_error(W: Array, real: Array, H: Array) -> Array:
    """tr of E H E^T, row by row."""
    return np.einsum("ok,kl,ol->o", W - real, H, W - real)


@pytest.mark.parametrize(("out", "columns"), [(5, 1), (7, 3), (6, 64), (4, 130)])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_it_is_the_published_procedure(out, columns, dtype) -> None:
    H = compute_gram([inputs(columns, 3 * columns + 8, columns)])
    W = np.random.default_rng(1).normal(size=(out, columns))
    top = 127.0 if dtype == "int8" else 7.0
    scale = np.abs(W).max(axis=1) / top
    np.testing.assert_array_equal(round_by_gptq(W, H, scale, dtype=dtype), as_published(W, H, scale, top))


def test_the_layers_error_is_smaller_than_that_of_nearest_rounding() -> None:
    X = inputs(0, 500, 96)
    W = np.random.default_rng(2).normal(size=(20, 96))
    scale = np.abs(W).max(axis=1) / 7
    found = round_by_gptq(W, compute_gram([X]), scale, dtype="int4") * scale[:, None]
    nearest = np.rint(W / scale[:, None]) * scale[:, None]
    held_out = inputs(0, 4000, 96)[500:]  # the same mixture, other rows of it
    for rows in (X, held_out):
        assert np.square(rows @ (W - found).T).sum() < 0.7 * np.square(rows @ (W - nearest).T).sum()


def test_inputs_without_correlation_leave_nearest_rounding() -> None:
    W = np.random.default_rng(3).normal(size=(9, 40))
    scale = np.abs(W).max(axis=1) / 127
    diagonal = np.diag(np.random.default_rng(4).uniform(0.1, 5, 40))
    np.testing.assert_array_equal(round_by_gptq(W, diagonal, scale), np.rint(W / scale[:, None]))
    np.testing.assert_array_equal(round_by_gptq(W, np.zeros((40, 40)), scale), np.rint(W / scale[:, None]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([127, 128, 140]))
def test_a_pair_beyond_the_limit_becomes_the_best_pair_on_it(seed, limit) -> None:
    """Two columns, every pair of integers of the line tried: none is better by the damped Gram matrix."""
    random = np.random.default_rng(seed)
    W = random.uniform(0.3, 1, size=(30, 2)) * random.choice([-1, 1], size=(30, 1))
    H = compute_gram([random.normal(size=(20, 2)) @ random.normal(size=(2, 2)) + 1])
    scale = np.full(30, 1 / 127)
    free, kept = round_by_gptq(W, H, scale), round_by_gptq(W, H, scale, pair_limit=limit)
    over = np.abs(free).sum(axis=1) > limit
    np.testing.assert_array_equal(kept[~over], free[~over])
    first = np.arange(limit - 127, 128)
    for w, q in zip(W[over] * 127, kept[over], strict=True):
        sign = np.sign(w[0])
        line = sign * np.stack([first, limit - first], axis=1)
        errors = output_error(np.broadcast_to(w, line.shape), line, damped(H))
        assert output_error(w[None], q[None], damped(H))[0] <= errors.min() * (1 + 1e-9)
    assert (np.abs(kept).sum(axis=1) <= limit).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 140))
def test_every_pair_of_every_row_keeps_the_limit(seed, columns) -> None:
    random = np.random.default_rng(seed)
    W = np.abs(random.normal(size=(6, columns))) * random.choice([-1.0, 1.0, 1.0], size=(6, columns))
    H = compute_gram([inputs(seed, 50, columns)])
    scale = np.abs(W).max(axis=1) / 127
    q = round_by_gptq(W, H, scale, pair_limit=128)
    assert np.abs(q).max() <= 127
    even, odd = q[:, 0 : columns // 2 * 2 : 2], q[:, 1::2]
    assert ((even * odd <= 0) | (np.abs(even + odd) <= 128)).all()


def test_what_a_repaired_pair_leaves_over_is_made_up_for() -> None:
    X = inputs(5, 300, 64)
    W = np.abs(np.random.default_rng(6).normal(size=(12, 64)))
    scale = np.abs(W).max(axis=1) / 127
    H = compute_gram([X])
    first_only = round_by_gptq(W, np.diag(np.diag(H)), scale, pair_limit=128)
    together = round_by_gptq(W, H, scale, pair_limit=128)
    errors = [output_error(W, q * scale[:, None], H).sum() for q in (together, first_only)]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize(("columns", "block"), [(64, 32), (70, 32), (31, 32), (1, 16), (130, 64)])
def test_blocks_are_the_published_procedure_at_their_own_scales(columns, block) -> None:
    """Given the scales that were found, each integer is what the paper's procedure rounds to."""
    H = compute_gram([inputs(columns, 400, columns)])
    W = np.random.default_rng(7).normal(size=(5, columns))
    q, scale = round_blocks_by_gptq(W, H, block)
    assert q.shape == (5, columns)
    assert scale.shape == (5, -(-columns // block))
    assert q.min() >= -8
    assert q.max() <= 7
    upper = np.linalg.cholesky(np.linalg.inv(damped(H))).T
    left = W.copy()
    for k in range(columns):
        s = scale[:, k // block]
        np.testing.assert_array_equal(q[:, k], np.clip(np.rint(left[:, k] / s), -8, 7))
        left[:, k:] -= np.outer((left[:, k] - q[:, k] * s) / upper[k, k], upper[k, k:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_blocks_scale_is_hardly_worse_than_the_best_of_a_thousand(seed) -> None:
    random = np.random.default_rng(seed)
    block, h = random.normal(size=(32, 1)), random.uniform(0.1, 2, 32)

    def error(scale: float) -> float:
        return float(h @ (block[:, 0] - scale * np.clip(np.rint(block[:, 0] / scale), -8, 7)) ** 2)

    found = float(search_block_scales(block, h, "int4")[0])
    assert found == np.float32(found)
    most = np.abs(block).max()
    tried = [sign * s for s in np.linspace(0.3, 1.1, 500) * most / 7 for sign in (1, -1)]
    assert error(found) <= 1.25 * min(error(s) for s in tried)
    assert error(found) <= error(most / 7) * (1 + 1e-6)


def test_blocks_of_zeros_stay_zero() -> None:
    W = np.zeros((3, 64))
    W[1, 40] = 2.5
    q, scale = round_blocks_by_gptq(W, np.eye(64), 32)
    np.testing.assert_allclose(q * np.repeat(scale, 32, axis=1), W, rtol=1e-6)
    assert np.isfinite(scale).all()
    assert (scale != 0).all()


def test_a_gram_matrix_does_not_depend_on_how_rows_come() -> None:
    X = inputs(8, 60, 17).astype(np.float32)
    exact = X.astype(np.float64).T @ X
    whole, shuffled = compute_gram([X]), compute_gram([X[40:], X[:7], X[7:40]])
    assert whole.tobytes() == shuffled.tobytes()
    np.testing.assert_allclose(whole / np.trace(whole), exact / np.trace(exact), atol=1e-5)
    np.testing.assert_array_equal(compute_gram([np.zeros((4, 3), np.float32)]), np.zeros((3, 3)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_the_factors_multiply_to_the_damped_matrix(seed, columns) -> None:
    H = compute_gram([inputs(seed, 20, columns)])  # fewer rows than columns: singular until damped
    U, D = factor_gram(H)
    assert (D > 0).all()
    assert not np.tril(U).any()
    unit = U + np.eye(columns)
    np.testing.assert_allclose(
        (unit * D) @ unit.T, damped(H) if H.any() else DAMPING * np.eye(columns), rtol=1e-9, atol=1e-9 * np.abs(H).max()
    )


def test_the_number_of_threads_changes_no_bit() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from fcdeploy.arithmetic.weights.gptq import compute_gram, factor_gram, round_blocks_by_gptq\n"
        "random = np.random.default_rng(0)\n"
        "H = compute_gram([np.maximum(random.normal(size=(300, 700)), 0)])\n"
        "q, s = round_blocks_by_gptq(random.normal(size=(90, 700)), H, 64)\n"
        "U, D = factor_gram(H)  # a last bit of it moves hardly a weight, and some day one\n"
        "print(hashlib.sha256(q.tobytes() + s.tobytes() + U.tobytes() + D.tobytes()).hexdigest())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert found[0] == found[1]
