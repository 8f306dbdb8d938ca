"""What is known of a float model's tensors before it is planned: from a calibration file, or recorded on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import hash_model
from fcdeploy.graph.weights import is_large
from fcdeploy.int8.calibrating.observe import make_calibration, observe
from fcdeploy.proof.sample_axes import declare_samples
from fcdeploy.records import calibration as calibrations
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.progress import OnStep
from fcdeploy.samples.kept_samples import SmallestSamples, hash_sample, keep_smallest, split_into_chunks
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.layout import list_axes
from fcdeploy.samples.source import Source
from fcdeploy.wording import quote_path, say_count

BESIDE_BYTES = 64 << 20  # of samples from DATA, which no file has to carry
PLENTY = 64  # samples: of as many, ranges with and without a third of them give that third the same figures
USUAL = 16  # samples; with fewer of them, what one happens to hold is half of a range


def warn_too_few(calibration: Calibration) -> list[str]:
    """What to say of a calibration on hardly any samples; ranges measured elsewhere come without."""
    if not 0 < calibration.samples < USUAL:
        return []
    return [
        f"calibrated on {say_count(calibration.samples, 'sample')}: others may leave these ranges, 100 to 500 are usual"
    ]


def declare_as_calibrated(
    path: Path,
    model: ir.Model,
    samples: Samples | None,
    calibration_file: str | Path | None,
    *,
    axes: Mapping[str, int | None],
    states: Mapping[str, str],
) -> None:
    """Write into a model's metadata where samples lie and which inputs are states: as given, else as it was calibrated.

    Raises FcdeployError for a calibration that cannot be read, and for inputs and outputs that the model does not have.
    """
    if calibration_file is None:
        declare_samples(path, model, samples, axes, states)
        return
    known = calibrations.read(Path(calibration_file))
    kept = next(iter(known.sample_groups), {})
    carried = states or (known.states if samples is None else {})
    declare_samples(path, model, samples or kept, axes or known.axes, carried)


def load_or_observe(
    model: ir.Model,
    files: tuple[Path, ...],
    source: Source | None,
    calibration_file: str | Path | None,
    on_step: OnStep | None,
) -> tuple[Calibration, tuple[Arrays, ...]]:
    """The calibration of a prepared model, read from `files`, and samples on which tools may run it, in groups of one shape.

    Of DATA beside a calibration there are more of them than a calibration keeps.  There are none of a model too large to run,
    or where they fill no batch that it takes; with neither source nor calibration both are empty.  Of fewer samples than PLENTY
    no tensor is recorded yet, since those that will be judged are to be in no range.  Raises FcdeployError for a calibration
    of another model.
    """
    path, content = files[0], hash_model(files)
    if calibration_file is not None:
        calibration = calibrations.read(Path(calibration_file))
        if calibration.model != content:
            raise FcdeployError(
                f"calibration {str(calibration_file)!r} was made from another model than {str(path)!r}",
                f"fcdeploy calibrate {quote_path(path)} --data DATA -o {quote_path(path.with_suffix('.calib').name)}",
            )
        if is_large(model):
            return calibration, ()
        kept = calibration.groups if source is None else keep_smallest(source, room=BESIDE_BYTES).groups()
        return calibration, _drop_if_no_batch(model, kept)
    if source is None:
        return Calibration(content, {}, np.zeros(0, np.uint64), {}, {}), ()
    states = {spec.name: spec.state for spec in source.inputs if spec.state}
    few = not states and source.count is not None and source.count < PLENTY
    seen = _list_samples(source, content) if few else observe(model, source, model_hash=content, on_step=on_step)
    calibration = replace(seen, format=source.format, states=states, axes=list_axes(source.inputs))
    return calibration, () if is_large(model) else _drop_if_no_batch(model, calibration.groups)


def _list_samples(source: Source, content: str) -> Calibration:
    """The hashes of all samples and those that are kept; no tensor."""
    hashes, smallest = list[int](), SmallestSamples()
    for sample in source:
        hashes.append(hash_sample(sample.inputs))
        smallest.offer(hashes[-1], sample.inputs)
    return make_calibration(content, {}, hashes, smallest)


def _drop_if_no_batch(model: ir.Model, groups: tuple[Arrays, ...]) -> tuple[Arrays, ...]:
    """The groups, unless a batch that the model insists on is larger than the first."""
    return groups if groups and any(True for _ in split_into_chunks(model, groups[0])) else ()
