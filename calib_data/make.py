"""Make the calibration and evaluation sets of handwritten digits: `python -m calib_data.make`.

The images are scikit-learn's copy of the UCI digits.  The split is one permutation with a fixed seed: 997 images to
train on, 800 held out for evaluation.  The calibration set is the first 300 training images, so that no evaluation
image is ever seen before evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent
SEED = 0
TRAINING = 997
CALIBRATION = 300


@dataclass(frozen=True)
class Digits:
    """`pixels` (count, 64) float32 in [0, 1], 8x8 row by row; `label` (count,) int64 in 0..9."""

    pixels: np.ndarray
    label: np.ndarray

    def images(self) -> np.ndarray:
        """(count, 1, 32, 32): every pixel repeated 4x4, which invents no values and compresses well."""
        square = self.pixels.reshape(-1, 1, 8, 8)
        return square.repeat(4, axis=2).repeat(4, axis=3)

    def first(self, count: int) -> Digits:
        return Digits(self.pixels[:count], self.label[:count])


def split() -> tuple[Digits, Digits]:
    """Training and evaluation digits, in the permuted order."""
    data = load_digits()
    pixels = (data.data / 16).astype(np.float32)  # counts 0..16 become exact binary fractions
    label = data.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(label))
    train, held_out = order[:TRAINING], order[TRAINING:]
    return Digits(pixels[train], label[train]), Digits(pixels[held_out], label[held_out])


def main() -> None:
    training, evaluation = split()
    for kind, digits in {"calib": training.first(CALIBRATION), "eval": evaluation}.items():
        np.savez_compressed(FOLDER / f"digits.{kind}.npz", image=digits.images(), label=digits.label)
        np.savez_compressed(FOLDER / f"digits64.{kind}.npz", pixels=digits.pixels, label=digits.label)


if __name__ == "__main__":
    main()
