"""Where data come from: every source yields one sample at a time, checked against the model's inputs.

| DATA | samples |
|---|---|
| `FILE.npz` | input name -> array with a leading sample axis; `label` or `label.<output>` |
| `FILE.npy`, a folder of `.npy` | one file per input, or one file per sample |
| a folder of images | one file per sample; class sub-folders, sorted, are labels 0, 1, ... |
| `FILE.csv` | one line per sample, a header row; column `label` |
| `FILE.py:FUNCTION` | a function that yields dicts |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec
from fcdeploy.samples import checks, csv, generator, images, listing, npy, npz
from fcdeploy.samples.source import Bad, Batch, Sample, Source, batch_size, batches, fixed_batch

__all__ = ["Bad", "Batch", "Sample", "Source", "batch_size", "batches", "open_source"]

KINDS = "DATA is an .npz, a folder of .npy files, a folder of images, a .csv, or FILE.py:FUNCTION"


def open_source(
    data: str | Path,
    inputs: Sequence[TensorSpec],
    *,
    limit: int | None = None,
    seed: int | None = None,
    preprocess: Path | None = None,
) -> Source:
    """Open a source of samples for a model with these inputs.

    `limit` takes the first so many samples, or with `seed` so many drawn from all; `preprocess` is a TOML file and
    belongs to pictures.  Everything that can be checked without reading the samples is checked here.  Raises
    FcdeployError.
    """
    if limit is not None and limit < 1:
        raise FcdeployError(f"number of samples {limit} is not positive, expected 1 or more", "--samples 512")
    if seed is not None and limit is None:
        raise FcdeployError(f"seed {seed} draws samples, but not how many", f"--samples 512 --seed {seed}")
    source = _open(data, inputs, preprocess)
    if limit is not None:
        source = source.first(limit) if seed is None else source.drawn(limit, seed)
    batch = fixed_batch(inputs)
    if batch and source.count is not None and source.count % batch:
        raise checks.ragged(batch, source.count, source.count % batch, source.name)
    return source


def _open(data: str | Path, inputs: Sequence[TensorSpec], preprocess: Path | None) -> Source:
    path = Path(data)
    if path.is_dir() and not listing.holds(path, {".npy"}):
        return images.open_images(path, inputs, preprocess)
    if preprocess is not None:
        raise FcdeployError(
            f"--preprocess {str(preprocess)!r} is for a folder of images, and {str(data)!r} is none",
            "leave --preprocess out",
        )
    if generator.FORM.match(str(data)):
        return generator.open_generator(str(data), inputs)
    if not path.exists():
        raise FcdeployError(f"data {str(data)!r} does not exist", KINDS)
    if path.is_dir():
        return npy.open_npy(path, inputs)
    openers = {".npz": npz.open_npz, ".npy": npy.open_npy, ".csv": csv.open_csv}
    if path.suffix.lower() not in openers:
        raise FcdeployError(f"data {str(data)!r} is of no kind that can be read", KINDS)
    return openers[path.suffix.lower()](path, inputs)
