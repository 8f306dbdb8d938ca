"""The kinds of DATA: `KINDS` alone says how each is recognised; the module in its row says what its samples are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec, make_no_inputs_error
from fcdeploy.records.data_format import UNSAID, DataFormat
from fcdeploy.samples import checks, cifar, columnar, csv, generator, idx, images, listing, npy, npz, npz_folder
from fcdeploy.samples.class_labels import number_labels
from fcdeploy.samples.source import Source, get_fixed_batch
from fcdeploy.samples.states import open_steps, without_states
from fcdeploy.wording import quote_path


class Kind(NamedTuple):
    """One kind of DATA: what it is called, how it is recognised, and who opens it."""

    name: str
    fits: Callable[[Path], bool]
    open: Callable[..., Source]  # (path, inputs), and for pictures and tables (path, inputs, format)
    pictures: bool = False
    table: bool = False


def _file(suffix: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix.lower() == suffix


KINDS = (  # the first that fits
    Kind("FILE.py:FUNCTION", lambda path: bool(generator.FORM.match(str(path))), generator.open_generator),
    Kind("an .npz", _file(".npz"), npz.open_npz),
    Kind("an .npy", _file(".npy"), npy.open_npy),
    Kind("a .csv or .tsv, plain or .gz", csv.is_csv, csv.open_csv, table=True),
    Kind("a .parquet, .arrow or .feather", columnar.is_columnar, columnar.open_columnar, table=True),
    Kind("a folder of .npy files", lambda path: path.is_dir() and listing.has_files(path, {".npy"}), npy.open_npy),
    Kind("MNIST idx files", idx.is_idx, idx.open_idx, pictures=True),
    Kind("CIFAR-10 binary batches", cifar.is_cifar, cifar.open_cifar, pictures=True),
    Kind(
        "a folder of images", lambda path: path.is_dir() and images.is_images(path), images.open_images, pictures=True
    ),
    Kind(
        "a folder of .npz files",
        lambda path: path.is_dir() and listing.has_files(path, {".npz"}),
        npz_folder.open_npz_folder,
    ),
)


@dataclass(frozen=True)
class Samples:
    """Which samples: all of `data`, its first `limit`, or with `seed` so many drawn; `format` is how they are read.

    `model` is the float file that carries states from one sample to the next, for models with inputs that are states.
    """

    data: str | Path
    limit: int | None = None
    seed: int | None = None
    format: DataFormat = UNSAID
    model: Path | None = None

    def open(self, inputs: Sequence[TensorSpec]) -> Source:
        """The source of them for a model with these inputs. Raises FcdeployError as `open_source` does."""
        return open_source(self.data, inputs, limit=self.limit, seed=self.seed, format=self.format, model=self.model)


def check_limit(limit: int | None) -> None:
    """Raise FcdeployError for a number of samples that is none, unless it was left out."""
    if limit is not None and limit < 1:
        raise FcdeployError(f"number of samples {limit} is not positive, expected 1 or more", "--samples 512")


def open_source(
    data: str | Path,
    inputs: Sequence[TensorSpec],
    *,
    limit: int | None = None,
    seed: int | None = None,
    format: DataFormat = UNSAID,
    model: Path | None = None,
) -> Source:
    """Open a source of samples for a model with these inputs.

    `limit` takes the first so many samples, or with `seed` so many drawn from all; `format` is how pictures and tables
    are read; `model` runs through them where some inputs are states.
    Everything that can be checked without reading the samples is checked here.  Raises FcdeployError.
    """
    if not inputs:
        raise make_no_inputs_error()
    check_limit(limit)
    if seed is not None and limit is None:
        raise FcdeployError(f"seed {seed} draws samples, but not how many", f"--samples 512 --seed {seed}")
    state = next((spec.name for spec in inputs if spec.state), None)
    if seed is not None and state is not None:
        raise FcdeployError(
            f"seed {seed} draws single samples, and input {state!r} is a state that goes from each to the next",
            f"--samples {limit} alone takes the first {limit}",
        )
    carried = state is not None and model is not None
    source = _open(data, without_states(inputs) if carried else inputs, format)
    if carried and model is not None:
        source = replace(open_steps(source, inputs, model), format=source.format)
    if limit is not None:
        source = source.first(limit) if seed is None else source.draw(limit, seed)
    batch = get_fixed_batch(inputs)
    if batch and source.count is not None and source.count % batch:
        raise checks.make_ragged_error(batch, source.count, source.count % batch, source.name)
    return source


def _open(data: str | Path, inputs: Sequence[TensorSpec], format: DataFormat) -> Source:
    path = Path(data)
    known = ", ".join(kind.name for kind in KINDS)
    if not path.exists() and not generator.FORM.match(str(path)):
        raise FcdeployError(f"data {str(data)!r} does not exist", f"DATA is one of: {known}")
    try:
        kind = next((kind for kind in KINDS if kind.fits(path)), None)
    except OSError as error:
        raise FcdeployError(
            f"data {str(data)!r} cannot be read: {error.strerror}", f"ls -l {quote_path(data)}"
        ) from error
    if kind is None:
        what = "folder" if path.is_dir() else "file"
        raise FcdeployError(f"{what} {str(data)!r} is no data of a kind that can be read", f"DATA is one of: {known}")
    if kind.pictures or kind.table:
        return kind.open(path, inputs, format)
    if format.preprocess is not None and format.preprocessing is None:
        pictures = ", ".join(kind.name for kind in KINDS if kind.pictures)
        raise FcdeployError(
            f"--preprocess {str(format.preprocess)!r} is for pictures ({pictures}), and {str(data)!r} is {kind.name}",
            "leave --preprocess out",
        )
    return number_labels(replace(kind.open(path, inputs), format=format))
