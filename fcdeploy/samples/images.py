"""A folder of images: one sample a file, in the order of their names; class sub-folders, sorted, are labels 0, 1, ...

Transparency is dropped.  How pictures become numbers is for the preprocessing to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError, quote_names, suggest_name
from fcdeploy.graph.model import TensorSpec
from fcdeploy.preprocessing.apply import import_pillow, read_picture
from fcdeploy.preprocessing.read import read_preprocessing
from fcdeploy.records.data_format import DataFormat
from fcdeploy.records.preprocessing import Preprocessing
from fcdeploy.samples import checks, listing
from fcdeploy.samples.source import FromFile, Load, Source
from fcdeploy.wording import quote_path

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def is_images(folder: Path) -> bool:
    """Does the folder, or a folder in it, hold an image?"""
    return listing.has_files(folder, SUFFIXES) or any(
        listing.has_files(folder / name, SUFFIXES) for name in listing.list_folders(folder)
    )


def open_images(folder: Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    """List the images and read the preprocessing; pictures are decoded one at a time.

    Where `format` has the names of classes, folders are labels by their names, whichever of them are there.
    """
    folders = _count_classes(folder)
    spec = checks.get_only_input(inputs, f"{str(folder)!r}: images")
    import_pillow()
    how = read_preprocessing(format.preprocess, spec)
    names = tuple(name for name, _ in folders if name)
    known = format.classes or names
    labels = _find_labels(names, known, folder)

    def read() -> Iterator[tuple[str, Load]]:
        index = -1
        for name, count in folders:
            files = listing.list_names(folder / name, SUFFIXES)
            if len(files) != count:
                raise FcdeployError(
                    f"{str(folder / name)!r} held {count} images and now holds {len(files)}", "run the command again"
                )
            inside = f"{name}/" if name else ""
            for index, file in enumerate(listing.decode_names(files), index + 1):  # noqa: B020 - counts on
                path = folder / name / file
                load = partial(_load_arrays, path, labels.get(name), how, spec)
                yield f"sample {index} ({inside}{file})", FromFile(path, load)

    total = sum(count for _, count in folders)
    return Source(folder.name, (spec,), read, total, bool(names), format=replace(format, preprocess=how, classes=known))


def _find_labels(folders: Sequence[str], classes: Sequence[str], place: Path) -> dict[str, int]:
    """The number of each class folder: its place among the classes. Raises FcdeployError for one that is no class.

    Folders that are numbers stand for themselves where the classes have other names.
    """
    numbers = {name: at for at, name in enumerate(classes)}
    if all(name.isdecimal() and int(name) < len(classes) for name in folders) and not set(folders) & set(numbers):
        return {name: int(name) for name in folders}
    odd = [name for name in folders if name not in numbers]
    if odd:
        raise FcdeployError(
            f"class folder {odd[0]!r} in {str(place)!r} is none of the {len(classes)} classes: {quote_names(classes)}",
            suggest_name(odd[0], classes, "name folders as the classes are, or give --classes FILE"),
        )
    return {name: numbers[name] for name in folders}


def _load_arrays(file: Path, label: int | None, how: Preprocessing, spec: TensorSpec) -> Arrays:
    try:
        array, _ = read_picture(file, how, spec)
    except ValueError as error:
        raise FcdeployError(f"image {str(file)!r} cannot be read: {error}", "repair it, or remove it") from error
    return {spec.name: array} if label is None else {spec.name: array, "label": np.asarray(label)}


def _count_classes(folder: Path) -> list[tuple[str, int]]:
    """Class folders, sorted, and how many images each holds; `("", count)` when they lie in the folder itself."""
    flat = listing.count_files(folder, SUFFIXES)
    counts = [(name, listing.count_files(folder / name, SUFFIXES)) for name in listing.list_folders(folder)]
    classes = [name for name, count in counts if count]
    if flat and classes:
        raise FcdeployError(
            f"{str(folder)!r} holds images and also sub-folders of images: {quote_names(classes)}",
            "move every image into the sub-folder of its class",
        )
    empty = [name for name, count in counts if not count]
    if classes and empty:  # leaving it out would shift the labels of all classes after it
        raise FcdeployError(
            f"class folder {empty[0]!r} in {str(folder)!r} holds no image", f"rmdir {quote_path(folder / empty[0])}"
        )
    return [("", flat)] if flat else counts
