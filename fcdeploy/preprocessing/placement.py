"""Where each step of a preprocessing puts a picture: sizes and offsets alone, so that boxes found in a model's input can be
told in pixels of the picture.

A step scales the picture to `scaled` pixels, and lays it with its top left corner at (`left`, `top`) on `whole` pixels; what
lies outside is cut off, what stays free is filled.  Rounding is that of the original of each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fcdeploy.records.preprocessing import Preprocessing, PreprocessingStep

MOST_PIXELS = 1 << 25
"""What a step may make of a picture, since one of a single column asks for any number; of a request's pictures together, too:
33 million, 100 MB in three colours."""


class ImageSize(NamedTuple):
    """Of a picture, in pixels."""

    height: int
    width: int


class Placement(NamedTuple):
    """A picture scaled to `scaled`, and laid onto `whole` with its corner at `left` and `top`, which may be negative."""

    scaled: ImageSize
    left: int
    top: int
    whole: ImageSize


class Mapping2d(NamedTuple):
    """An input's coordinates of a picture's: x * scale_x + shift_x, y * scale_y + shift_y, in pixels of either."""

    scale_x: float
    shift_x: float
    scale_y: float
    shift_y: float


def place(size: ImageSize, step: PreprocessingStep) -> Placement:
    """What the step makes of a picture of this size. Raises ValueError where that is larger than anyone wants."""
    placed = PLACEMENTS[step.kind](size, step)
    for height, width in (placed.scaled, placed.whole):
        if height * width > MOST_PIXELS:
            raise ValueError(f"becomes {height} x {width} pixels when it is scaled, {MOST_PIXELS:,} at most")
    return placed


def count_pixels(how: Preprocessing, size: ImageSize) -> int:
    """The most pixels that a picture of this size has on the way to the model's input."""
    most = size.height * size.width
    for step in how.steps:
        scaled, _, _, size = place(size, step)
        most = max(most, scaled.height * scaled.width, size.height * size.width)
    return most


def map_to_input(how: Preprocessing, size: ImageSize) -> tuple[Mapping2d, ImageSize]:
    """Where a picture of this size (after turning) lies in the model's input, and the size of that."""
    x, y = (1.0, 0.0), (1.0, 0.0)
    for step in how.steps:
        scaled, left, top, whole = place(size, step)
        across, down = scaled.width / size.width, scaled.height / size.height
        x, y = (x[0] * across, x[1] * across + left), (y[0] * down, y[1] * down + top)
        size = whole
    if how.canvas:
        size = ImageSize(max(size.height, how.canvas[0]), max(size.width, how.canvas[1]))
    return Mapping2d(*x, *y), size


def _scale_to(height: float, width: float) -> Placement:
    """Scaled and nothing else; a side has a pixel at least."""
    size = ImageSize(max(int(height), 1), max(int(width), 1))
    return Placement(size, 0, 0, size)


def _place_shorter(size: ImageSize, step: PreprocessingStep) -> Placement:
    """torchvision's Resize with one number: the longer side is truncated, not rounded."""
    shorter, longer = sorted(size)
    short, long = step.size[0], int(step.size[0] * longer / shorter)
    if len(step.size) == 2 and long > step.size[1]:
        short, long = int(step.size[1] * short / long), step.size[1]
    return _scale_to(long, short) if size.height > size.width else _scale_to(short, long)


def _place_cover(size: ImageSize, step: PreprocessingStep) -> Placement:
    factor = max(step.size[0] / size.height, step.size[1] / size.width)
    return _scale_to(round(size.height * factor), round(size.width * factor))


def _place_longest_of(size: ImageSize, step: PreprocessingStep) -> Placement:
    """PaddleOCR's DetResizeForTest with limit_type 'max'."""
    most, multiple = step.size
    ratio = most / max(size) if max(size) > most else 1.0
    height, width = (max(int(round(int(side * ratio) / multiple) * multiple), multiple) for side in size)
    return _scale_to(height, width)


def _place_height(size: ImageSize, step: PreprocessingStep) -> Placement:
    """PaddleOCR's RecResizeImg: a line of text, as wide as its height asks for, up to a width."""
    return _scale_to(step.size[0], min(math.ceil(step.size[0] * (size.width / float(size.height))), step.size[1]))


def _place_letterbox(size: ImageSize, step: PreprocessingStep) -> Placement:
    """Ultralytics' LetterBox(auto=False), whose borders are rounded from halves minus and plus 0.1."""
    whole = ImageSize(*step.size)
    ratio = min(whole.height / size.height, whole.width / size.width)
    scaled = _scale_to(round(size.height * ratio), round(size.width * ratio)).scaled
    left, top = (
        round((all_ - part) / 2 - 0.1) for all_, part in ((whole.width, scaled.width), (whole.height, scaled.height))
    )
    return Placement(scaled, left, top, whole)


def _place_crop(size: ImageSize, step: PreprocessingStep) -> Placement:
    """torchvision's CenterCrop: halves are rounded to even, and a picture that is too small gets a border.

    Raises ValueError for one that is too small where nothing may be added.
    """
    height, width = step.size
    if step.fill is None and (size.height < height or size.width < width):
        raise ValueError(f"is {size.height} x {size.width} after scaling, too small to cut {height} x {width} out")
    # what is too small is first laid in the middle, then the middle is cut out
    left, top = (
        (wanted - given) // 2 if given < wanted else -round((given - wanted) / 2)
        for given, wanted in ((size.width, width), (size.height, height))
    )
    return Placement(size, left, top, ImageSize(height, width))


def _place_padded(size: ImageSize, step: PreprocessingStep) -> Placement:
    left, top, right, bottom = step.size
    return Placement(size, left, top, ImageSize(size.height + top + bottom, size.width + left + right))


PLACEMENTS: Mapping[str, Callable[[ImageSize, PreprocessingStep], Placement]] = {
    "turn": lambda size, _: Placement(size, 0, 0, size),  # first in a list, where the picture still has its metadata
    "gray": lambda size, _: Placement(size, 0, 0, size),
    "resize": lambda _, step: _scale_to(*step.size),
    "resize_shorter": _place_shorter,
    "resize_cover": _place_cover,
    "resize_longest_of": _place_longest_of,
    "resize_height": _place_height,
    "letterbox": _place_letterbox,
    "center_crop": _place_crop,
    "pad": _place_padded,
}
