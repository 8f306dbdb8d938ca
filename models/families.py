"""The trained networks but for those of the digits: which data each learns, is calibrated and is judged on, and how.

Training, calibration and evaluation samples are drawn apart, from three seeds.  A few families learn from digits, which
are split once and for all (calib_data/make.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import drawn
import numpy as np
from drawn import Arrays

from fcdeploy.user_code import load_function

TRAINING, CALIBRATION, EVALUATION = 0, 1000, 2000  # seeds


@dataclass(frozen=True)
class Family:
    """One trained network: `source` is its FILE.py:FUNCTION in models/, `name`.safetensors holds its weights.

    `draw(count, seed)` makes samples, `train`, `calib` and `evaluate` are how many.  `rate` is the highest learning rate
    of the one-cycle schedule (L. Smith, arXiv:1708.07120).  `metric` is what `fcdeploy validate` is given, by default
    what fits the labels; `auc` and `detection` (class and box) take more than one figure a sample.  `input` is what
    `fcdeploy export` is given where the time axis is free, and `shape` what the network is timed with then.
    """

    name: str
    task: str
    draw: Callable[[int, int], Arrays]
    train: int
    epochs: int
    rate: float
    source: str = ""
    metric: str = ""
    input: str = ""
    shape: str = ""
    calib: int = 200
    evaluate: int = 1000

    @property
    def function(self) -> str:
        return f"models/{self.source or f'{self.name}.py:{self.name}'}"

    @property
    def weights(self) -> str:
        return f"models/{self.name}.safetensors"

    def calibration(self) -> Arrays:
        return self.draw(self.calib, CALIBRATION)

    def evaluation(self) -> Arrays:
        return self.draw(self.evaluate, EVALUATION)


def large_digits(count: int, seed: int) -> Arrays:
    """`pixels` (count, 784): the digits of calib_data, enlarged to 28x28 between the pixels' centres."""
    split, _ = load_function(str(Path(__file__).parent.parent / "calib_data" / "make.py") + ":split")
    training, evaluation = split()
    digits = (evaluation if seed == EVALUATION else training).first(count)
    at = ((np.arange(28) + 0.5) * 8 / 28 - 0.5).clip(0, 7)
    low = np.minimum(at.astype(int), 6)
    enlarge = np.zeros((28, 8), np.float32)
    enlarge[np.arange(28), low] = 1 - (at - low)
    enlarge[np.arange(28), low + 1] = at - low
    images = np.einsum("ai,nij,bj->nab", enlarge, digits.pixels.reshape(-1, 8, 8), enlarge)
    return {"pixels": drawn.f32(images.reshape(len(images), -1)), "label": digits.label}


def hums(count: int, seed: int) -> Arrays:
    """Machines, all of them as they should be but for the evaluation."""
    return drawn.machines(count, seed, anomalies=seed == EVALUATION)


MASKS = "models/scores.py:mask_iou"
SHAPES = "10 kinds of coloured shapes"
FAMILIES = {
    family.name: family
    for family in (
        Family("even_odd", "a noisy 4-bit number, even or odd", drawn.even_odd, 1000, 60, 2e-2, calib=1000),
        Family("tiny_dense", "4 classes of 8 features", drawn.clusters, 2000, 40, 3e-2),
        Family("dropout_dense", "digits, 10 classes", large_digits, 997, 40, 5e-3, calib=300, evaluate=800),
        Family("arm", "where an arm's hand is, 3 numbers", drawn.arm, 4000, 60, 1e-2),
        Family("anomalies", "which machine sounds unusual", hums, 2000, 30, 1e-2, source="autoencoder.py:autoencoder",
               metric="auc"),
        Family("cnn", SHAPES, drawn.coloured_shapes, 4000, 20, 4e-3),
        Family("cnn10", SHAPES, drawn.coloured_shapes, 3000, 8, 5e-3),
        Family("persons", "a person or another shape", drawn.persons, 1000, 6, 5e-3, evaluate=500,
               source="mobilenet_v1_025.py:mobilenet_v1_025"),
        Family("mobilenet_v2_small", SHAPES, partial(drawn.coloured_shapes, size=64), 2000, 8, 1e-2, evaluate=500),
        Family("keywords", "12 drawn words", drawn.keywords, 3000, 8, 1e-2, source="ds_cnn.py:ds_cnn"),
        Family("inception", SHAPES, drawn.coloured_shapes, 2500, 8, 1e-2),
        Family("unet", "the mask of a shape", drawn.masks, 1000, 12, 1e-2, metric=MASKS, evaluate=300),
        Family("unet_resize", "the mask of a shape", drawn.masks, 1000, 12, 1e-2, metric=MASKS, evaluate=300,
               source="unet.py:unet_resize"),
        Family("detector", "which shape, and its box", drawn.boxes, 3000, 12, 5e-3, metric="detection"),
        Family("lstm_tagger", "what each word of a request is for", drawn.sentences, 1200, 6, 1e-2, evaluate=500,
               input="tokens:1,time=20:int64", shape="tokens:1,20"),
        Family("gru_classifier", "5 kinds of waves", drawn.waves, 2000, 6, 1e-2, input="1,time=60,3",
               shape="signal:1,60,3"),
        Family("cldnn", "12 drawn words", partial(drawn.keywords, times=60, bands=40, channel=False), 2000, 8, 5e-3,
               evaluate=800, input="1,time=60,40", shape="features:1,60,40"),
        Family("graph_filter", "what becomes of quantities on a graph", drawn.flows, 4000, 30, 1e-2),
    )
}  # fmt: skip
