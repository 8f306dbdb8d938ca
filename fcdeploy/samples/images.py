"""A folder of images: one sample a file, in the order of their names; class sub-folders, sorted, are labels 0, 1, ...

Pixels are as stored: no rotation by EXIF, transparency dropped.  How they become numbers is for `preprocess` to say.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import checks, listing
from fcdeploy.samples.preprocess import (
    Pixels,
    Preprocess,
    fit_picture,
    import_pillow,
    normalize_pixels,
    read_preprocess,
)
from fcdeploy.samples.source import FromFile, Load, Source

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
DEEP = ("I", "F")  # first letters of Pillow's modes with more than 8 bits, which it would clip without a word


def is_images(folder: Path) -> bool:
    """Does the folder, or a folder in it, hold an image?"""
    return listing.has_files(folder, SUFFIXES) or any(
        listing.has_files(folder / name, SUFFIXES) for name in listing.list_folders(folder)
    )


def open_images(folder: Path, inputs: Sequence[TensorSpec], preprocess: Path | None) -> Source:
    """List the images and read the preprocessing; pictures are decoded one at a time."""
    classes = _count_classes(folder)
    spec = checks.get_only_input(inputs, f"{str(folder)!r}: images")
    import_pillow()
    how = read_preprocess(preprocess, spec)

    def read() -> Iterator[tuple[str, Load]]:
        index = -1
        for label, (name, count) in enumerate(classes):
            files = listing.list_names(folder / name, SUFFIXES)
            if len(files) != count:
                raise FcdeployError(
                    f"{str(folder / name)!r} held {count} images and now holds {len(files)}", "run the command again"
                )
            inside = f"{name}/" if name else ""
            for index, file in enumerate(listing.decode_names(files), index + 1):  # noqa: B020 - counts on
                path = folder / name / file
                load = partial(_load_arrays, path, label if name else None, how, spec)
                yield f"sample {index} ({inside}{file})", FromFile(path, load)

    total = sum(count for _, count in classes)
    return Source(folder.name, (spec,), read, total, classes[0][0] != "")


def _load_arrays(file: Path, label: int | None, how: Preprocess, spec: TensorSpec) -> Arrays:
    array = normalize_pixels(decode(file, how), how, spec)
    return {spec.name: array} if label is None else {spec.name: array, "label": np.asarray(label)}


def decode(file: Path, how: Preprocess) -> Pixels:
    """Decode and resize. Raises with the file's name."""
    image_module = import_pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large pictures and odd metadata; that it decodes is what counts
            with image_module.open(file) as picture:
                if picture.mode.startswith(DEEP):
                    raise ValueError(f"has {picture.mode} pixels, expected 8 bits a channel")
                # by way of RGBA, which takes a palette with transparency without objection
                plain = picture.convert("RGBA").convert("RGB") if picture.mode == "P" else picture
                return fit_picture(plain, how)
    except Exception as error:  # a damaged picture raises whatever its decoder likes
        raise FcdeployError(f"image {str(file)!r} cannot be read: {error}", "repair it, or remove it") from error


def _count_classes(folder: Path) -> list[tuple[str, int]]:
    """Class folders, sorted, and how many images each holds; `("", count)` when they lie in the folder itself."""
    flat = listing.count_files(folder, SUFFIXES)
    counts = [(name, listing.count_files(folder / name, SUFFIXES)) for name in listing.list_folders(folder)]
    classes = [name for name, count in counts if count]
    if flat and classes:
        raise FcdeployError(
            f"{str(folder)!r} holds images and also sub-folders of images: {checks.quote_names(classes)}",
            "move every image into the sub-folder of its class",
        )
    empty = [name for name, count in counts if not count]
    if classes and empty:  # leaving it out would shift the labels of all classes after it
        raise FcdeployError(
            f"class folder {empty[0]!r} in {str(folder)!r} holds no image", f"rmdir {folder / empty[0]}"
        )
    return [("", flat)] if flat else counts
