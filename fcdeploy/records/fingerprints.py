"""Which samples a model was calibrated on: small enough for its metadata, enough to recognise them again.

Under `fcdeploy.samples` an int8 model carries a JSON object: `samples`, how many different ones there were, and
`smallest`, the smallest of their content hashes, ascending, the upper 40 bits of each, big end first, in base64.  Their
number grows with the model, LEAST to MOST, so that they are no more than about a hundredth of it.  Where that is not
all of them, each sample has the same chance to be among them: calibrated on 10,000 samples, a model of 700 kB holds 1,000
hashes, and of 50 samples that return in an evaluation one at least is recognised in 99 % of all cases.  What share of the
others returns is then known too: as large a one as of those below the largest hash.
"""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fcdeploy.errors import FcdeployError

KEY = "fcdeploy.samples"
BYTES = 5  # of each hash: among 10,000 samples against 50,000 others, one in 2,000 evaluations meets another's hash
SHIFT = 64 - 8 * BYTES
LEAST, MOST = 64, 4096  # hashes: 0.5 to 28 kB
SHARE = 700  # bytes of model for each


@dataclass(frozen=True)
class Sketch:
    """How many samples there were, and the smallest hashes of them."""

    samples: int
    smallest: frozenset[int]

    @property
    def complete(self) -> bool:
        """Whether every sample is in it."""
        return len(self.smallest) == self.samples

    @cached_property
    def _largest(self) -> int:
        return max(self.smallest)

    def contains(self, number: int) -> bool:
        """Whether the sample with this 64-bit content hash is one of them."""
        return number >> SHIFT in self.smallest

    def decides(self, number: int) -> bool:
        """Whether this says of the sample that it is one of them or not: above the largest hash it cannot."""
        return self.complete or number >> SHIFT <= self._largest


def to_text(hashes: NDArray[np.uint64], model_bytes: int) -> str:
    """The metadata of a calibration on samples with these 64-bit content hashes, in any order."""
    different = np.unique(hashes >> np.uint64(SHIFT))
    smallest = different[: min(MOST, max(LEAST, model_bytes // SHARE))]
    packed = smallest.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - BYTES :].tobytes()
    document = {"samples": len(different), "smallest": base64.b64encode(packed).decode()}
    return json.dumps(document, separators=(",", ":"))


def from_text(text: str, source: str) -> Sketch:
    """Read the metadata back; `source` names the model. Raises FcdeployError where it is damaged."""
    damaged = FcdeployError(
        f"{source}: metadata {KEY!r} is damaged: {text[:60]!r}", "--same-data does not look at it, or quantize again"
    )
    try:
        document = json.loads(text)
        samples, packed = document["samples"], base64.b64decode(document["smallest"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged from error
    count = len(packed) // BYTES
    if type(samples) is not int or len(packed) % BYTES or not 0 < count <= min(samples, MOST):
        raise damaged
    numbers = [int.from_bytes(packed[at : at + BYTES], "big") for at in range(0, len(packed), BYTES)]
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise damaged
    return Sketch(samples, frozenset(numbers))
