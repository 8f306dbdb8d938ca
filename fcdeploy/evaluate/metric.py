"""What counts as a right answer: from a model's outputs and the labels to one row of figures per sample.

| metric | labels | output | figures of a sample | summary |
|---|---|---|---|---|
| `top1`, `top5` | class index (n,) | scores (n, classes), one score, or the class | right or wrong | share |
| `tokens` | class indices (n, ...), -100 not counted | an axis of scores more, or classes | right, counted | share |
| `regression` | numbers | numbers of the same shape | squared and absolute errors | RMSE |
| `iou` | boxes (n, ..., 4) | boxes x1, y1, x2, y2 | summed overlap, boxes | mean |
| `miou` | class indices (n, ...), -100 not counted | an axis of scores more | overlap and area, by class | mean |
| `text` | letters (n, length), -100 at the end | steps of scores, or letters | letters less edit distance, letters | share |
| `agreement`, `boxes`, `cosine`; `miou` and `text` too | none | | those of the float model's answers: `between_models.py` | |
| `FILE.py:FUNCTION` | whatever it reads | all of them | its score | mean |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fcdeploy.arithmetic.set_metrics import mean_class_iou
from fcdeploy.arrays import Array, Arrays, Float64
from fcdeploy.evaluate.between_models import BetweenModels
from fcdeploy.evaluate.decision import Decision
from fcdeploy.records.signature import format_shape

IGNORED = -100  # PyTorch's ignore_index: a padded position
SHARE, ERROR, SCORE = "points", "unit of the labels", "unit of the score"


@dataclass(frozen=True)
class Metric:
    """One way to score: `figures(outputs, labels, names)` gives (n, k) per sample, `summary` takes means (..., k).

    Without labels there are no figures of one model, but some `between` two; then it is `relative`.
    """

    name: str
    output: str
    why: str
    unit: str
    figures: Callable[[Arrays, Arrays, tuple[str, ...]], Float64] | None
    summary: Callable[[Float64], Float64]
    decision: Decision | None = None
    label: str | None = None
    between: BetweenModels | None = None
    relative: bool = False

    def count(self, figures: Float64) -> float:
        """How many positions, boxes or letters the figures (n, k) are of; of metrics that score whole samples, the samples."""
        if self.summary is mean_class_iou:
            return float(np.split(figures, 2, axis=-1)[1].sum())
        return float(figures[:, 1].sum()) if self.summary is take_ratio else float(len(figures))

    @property
    def takes_any_shape(self) -> bool:
        """Whether both models' answers may have different shapes: boxes, rows and texts are as many as were found."""
        free = self.decision is not None and (self.decision.rows or self.decision.blank is not None)
        return free or self.name == "boxes" or (self.unit == SCORE and not self.relative)


def take_mean(figures: Float64) -> Float64:
    return figures[..., 0]


def take_ratio(figures: Float64) -> Float64:
    equal, count = figures[..., 0], figures[..., 1]
    return np.divide(equal, count, out=np.ones_like(equal), where=count > 0)  # a resample may have none that count


def find_summary(name: str) -> Callable[[Float64], Float64]:
    """How means of figures by position, box, letter or class become one number; of `cosine`, which scores samples, their mean."""
    return {"miou": mean_class_iou, "cosine": take_mean}.get(name, take_ratio)


def format_rows(array: Array) -> str:
    return format_shape(("n", *array.shape[1:]))
