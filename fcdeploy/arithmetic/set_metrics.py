"""How near two answers are that are no arrays of one shape: sets of boxes, texts, maps of classes, sets of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.metrics import compute_box_iou
from fcdeploy.arrays import Array, Float64

MATCH_IOU = 0.5  # two boxes are of one object from there on: what PASCAL VOC and COCO's AP50 count as found


def collapse_steps(steps: Array, blank: int) -> list[int]:
    """What a text by CTC says (A. Graves et al., "Connectionist Temporal Classification", 2006): repeats are one letter."""
    changes = np.flatnonzero(np.diff(steps, prepend=-1))
    return [int(letter) for letter in steps[changes] if letter != blank]


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """The fewest letters to insert, drop or replace that make `one` to `other` (V. Levenshtein, 1965)."""
    target = np.asarray(other, np.int64)
    row = np.arange(len(target) + 1)
    for letter in one:
        best = np.minimum(row[1:] + 1, row[:-1] + (target != letter))
        best = np.concatenate([[row[0] + 1], best])
        # letters inserted: the least of all entries before, plus one for each step
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))
    return int(row[-1])


def count_class_overlap(one: Array, other: Array, classes: int, counted: Array | None = None) -> Float64:
    """Per sample (n, 2 * classes): positions that both maps (n, ...) give a class, then those that either does.

    `counted` (n, ...) leaves positions out.
    """
    rows = np.zeros((len(one), 2, classes))
    for i, (a, b) in enumerate(zip(one.reshape(len(one), -1), other.reshape(len(one), -1), strict=True)):
        if counted is not None:
            a, b = a[counted[i].reshape(-1)], b[counted[i].reshape(-1)]
        both = np.bincount(a[a == b], minlength=classes)
        rows[i] = both, np.bincount(a, minlength=classes) + np.bincount(b, minlength=classes) - both
    return rows.reshape(len(one), -1)


def mean_class_iou(sums: Float64) -> Float64:
    """Mean over classes of intersection over union, of sums or means (..., 2 * classes); classes that no map has are left out."""
    both, either = np.split(sums, 2, axis=-1)
    there = either > 0
    shares = np.divide(both, either, out=np.zeros_like(both), where=there)
    return np.asarray(shares.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))


def match_boxes(
    one: Array, other: Array, classes: Array, other_classes: Array, least: float = MATCH_IOU
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of boxes (k, 4) and (m, 4) of the same class that overlap by `least` or more, each in one pair: indices (pairs,).

    The pair that overlaps most goes first; equal ones in the order of `one`, then of `other`.
    """
    overlap = compute_box_iou(one[:, None], other[None])
    overlap = np.where(np.asarray(classes)[:, None] == np.asarray(other_classes)[None], overlap, -1.0)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for at in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = divmod(int(at), overlap.shape[1])
        if overlap[i, j] < least:
            break
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return np.array(list(pairs), np.intp), np.array(list(pairs.values()), np.intp)


def suppress_boxes(boxes: Array, classes: Array, overlap: float, most: int) -> NDArray[np.intp]:
    """Indices of at most so many boxes (k, 4), the best first, that no better one of their class (k,) overlaps by more.

    Greedy non-maximum suppression, as torchvision's `batched_nms`.
    """
    left, kept = np.arange(len(boxes)), list[int]()
    while left.size and len(kept) < most:
        first, rest = left[0], left[1:]
        kept.append(int(first))
        same = classes[rest] == classes[first]
        left = rest[~(same & (compute_box_iou(boxes[first], boxes[rest]) > overlap))]
    return np.array(kept, np.intp)


def count_equal_rows(one: Array, other: Array) -> tuple[int, int]:
    """Twice the rows that two arrays (k, ...) and (m, ...) share, in any order, and k + m: the parts of an F1."""
    a, b = ([tuple(row.reshape(-1).tolist()) for row in array] for array in (one, other))
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared, len(a) + len(b)


def find_nearest(embeddings: Float64) -> NDArray[np.intp]:
    """For each row (n, k) the other row of the largest cosine, the first of equal ones; n of at least 2."""
    norms = np.maximum(np.sqrt((embeddings**2).sum(axis=1, keepdims=True)), 1e-300)
    unit = embeddings / norms
    near = np.einsum("ik,jk->ij", unit, unit, optimize=False)
    np.fill_diagonal(near, -np.inf)
    return np.asarray(near.argmax(axis=1))
