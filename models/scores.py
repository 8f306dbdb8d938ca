"""Scores that `fcdeploy validate --metric FILE.py:FUNCTION` takes, and one of a whole set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def mask_iou(outputs: Arrays, labels: Arrays) -> np.ndarray:
    """Intersection over union of each mask (logit above 0) with the true one: (n,)."""
    count = len(labels["label"])
    found, true = outputs["output"].reshape(count, -1) > 0, labels["label"].reshape(count, -1) > 0
    return (found & true).sum(axis=1) / np.maximum((found | true).sum(axis=1), 1)


def box_iou(outputs: Arrays, labels: Arrays) -> np.ndarray:
    """Intersection over union of each box with the true one: (n,)."""
    a, b = outputs["box"], labels["label.box"]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = sides.clip(0).prod(axis=1)
    areas = sum((box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (a, b))
    return common / (areas - common)


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """How often a positive sample scores above a negative one, ties counted half (H. Mann, D. Whitney, 1947)."""
    p, n = scores[positive], np.sort(scores[~positive])
    below, up_to = np.searchsorted(n, p, side="left"), np.searchsorted(n, p, side="right")
    return float((below + up_to).sum() / 2 / (len(p) * len(n)))
