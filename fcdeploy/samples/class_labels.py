"""Labels that are words: they become the numbers of classes, in the order of the classes' names.

Where no names are known, the classes are the words that occur, sorted, as class folders are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError, quote_names, suggest_name
from fcdeploy.samples.checks import is_label
from fcdeploy.samples.source import FromFile, Load, Source

MOST_CLASSES = 10_000


def number_labels(source: Source) -> Source:
    """The source with numbers for labels that are words; as it is where its first sample has none."""
    if not source.labelled:
        return source
    if not any(map(_find_words, islice(_load_all(source), 1))):
        return source
    classes = source.format.classes or collect_classes(_read_words(source), source.name)

    def read() -> Iterator[tuple[str, Load]]:
        for place, load in source.read():
            numbered = partial(_number_words, load, classes, f"{source.name}: {place}")
            yield place, FromFile(load.file, numbered) if isinstance(load, FromFile) else numbered

    return replace(source, read=read, format=replace(source.format, classes=classes))


def collect_classes(words: Iterable[str], where: str) -> tuple[str, ...]:
    """The classes that words are, sorted; none where the first is a number. Raises FcdeployError where they are too many."""
    seen: set[str] = set()
    for word in words:
        if not seen and is_numeral(word):
            return ()
        seen.add(word)
        if len(seen) > MOST_CLASSES:
            raise FcdeployError(
                f"{where} has more than {MOST_CLASSES} different words for labels, expected classes",
                "label samples by the names of classes, or by their numbers",
            )
    return tuple(sorted(seen))


def find_class(word: str, classes: Sequence[str], where: str) -> int:
    """The number of the class that a word names; a numeral that names none is a number. Raises FcdeployError."""
    if word in classes:
        return classes.index(word)
    if is_numeral(word) and float(word).is_integer():
        return int(float(word))
    raise FcdeployError(
        f"{where} is {word!r}, expected one of the {len(classes)} classes: {quote_names(classes)}",
        suggest_name(word, classes, "correct the label, or give --classes FILE"),
    )


def is_numeral(word: str) -> bool:
    """Whether a word is a finite number, or could be meant as one."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _load_all(source: Source) -> Iterator[Arrays]:
    """Each sample's arrays, none of one that cannot be loaded: what is wrong is said where it is read."""
    for _, load in source.read():
        try:
            yield load()
        except FcdeployError:
            yield {}


def _find_words(sample: Arrays) -> dict[str, Any]:
    """The labels of a sample that are text."""
    labels = {name: np.asarray(value) for name, value in sample.items() if is_label(name)}
    return {name: value for name, value in labels.items() if value.dtype.kind == "U" or _holds_texts(value)}


def _holds_texts(value: Any) -> bool:
    return value.dtype.kind == "O" and value.size > 0 and all(isinstance(word, str) for word in value.flat)


def _read_words(source: Source) -> Iterator[str]:
    for sample in _load_all(source):
        for labels in _find_words(sample).values():
            yield from map(str, labels.flat)


def _number_words(load: Load, classes: Sequence[str], where: str) -> Arrays:
    sample = dict(load())
    for name, words in _find_words(sample).items():
        numbers = [find_class(str(word), classes, f"{where}: {name!r}") for word in words.flat]
        sample[name] = np.array(numbers, np.int64).reshape(words.shape)
    return sample
