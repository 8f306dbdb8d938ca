"""Where samples lie in what a model takes and gives: along which axis of each input, or one a run.

Samples are arrays without an axis for them.  An input's `TensorSpec.sample_axis` says where a run stacks them: 0 for most
models, another axis for states (layers, samples, units), None where the model has no such axis and a run takes one sample
as it is.  Where an input is `alone`, a run takes one sample whatever its axis: samples are not known to be independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fcdeploy.arrays import Array, Arrays
from fcdeploy.records.signature import TensorSpec


def list_axes(inputs: Sequence[TensorSpec]) -> dict[str, int | None]:
    """The axes of samples of the inputs that data hold, where they are not the leading one."""
    return {spec.name: spec.sample_axis for spec in inputs if spec.sample_axis != 0 and not spec.state}


def runs_alone(inputs: Sequence[TensorSpec]) -> bool:
    """Whether a run takes a single sample."""
    return any(spec.alone or spec.sample_axis is None for spec in inputs)


def stack_samples(samples: Sequence[Arrays], inputs: Sequence[TensorSpec]) -> Arrays:
    """One run's inputs, as the model takes them, from samples of equal shapes."""
    axes = {spec.name: spec.sample_axis for spec in inputs}
    return {name: _stack([sample[name] for sample in samples], axes.get(name, 0)) for name in samples[0]}


def unstack_sample(feeds: Arrays, inputs: Sequence[TensorSpec], index: int) -> Arrays:
    """One sample of a run's inputs."""
    axes = {spec.name: spec.sample_axis for spec in inputs}
    return {
        # with its dtype: of one text a sample, an element is a bare string
        name: array
        if (axis := axes.get(name, 0)) is None
        else np.asarray(np.take(array, index, axis=axis), array.dtype)
        for name, array in feeds.items()
    }


def take_first(feeds: Mapping[str, Array], inputs: Sequence[TensorSpec], count: int) -> Arrays:
    """A run's inputs with its first `count` samples."""
    axes = {spec.name: spec.sample_axis for spec in inputs}
    return {
        name: array if (axis := axes.get(name, 0)) is None else np.take(array, range(count), axis=axis)
        for name, array in feeds.items()
    }


def arrange_samples(stacked: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> Arrays:
    """One run's inputs, as the model takes them, from arrays (samples, ...)."""
    axes = {spec.name: spec.sample_axis for spec in inputs}
    return {
        name: array[0, ...]
        if (axis := axes.get(name, 0)) is None
        else np.ascontiguousarray(np.moveaxis(array, 0, axis))
        for name, array in stacked.items()
    }


def lead_with_samples(
    outputs: Mapping[str, Array], samples: int, *, alone: bool, run_first: Callable[[], Mapping[str, Array]] | None
) -> Arrays:
    """Outputs (samples, ...): recurrent networks give (steps, samples, ...), and one without an axis for one sample gets it.

    Of as many steps as samples a shape tells nothing: then `run_first` gives the outputs for the first sample alone; None of
    a model that takes no sample alone.
    """
    alike = samples > 1 and any(
        output.ndim == 3 and output.shape[:2] == (samples, samples) for output in outputs.values()
    )
    first = run_first() if alike and run_first is not None else {}
    return {name: _lead_with_samples(output, samples, first.get(name), alone) for name, output in outputs.items()}


def _lead_with_samples(output: Array, samples: int, first: Array | None, alone: bool) -> Array:
    steps_first = output.ndim == 3 and output.shape[1] == samples and len(output) != samples
    if steps_first or (first is not None and first.ndim == 3 and first.shape[:2] == (samples, 1)):
        return np.moveaxis(output, 1, 0)
    return output[None] if alone and not (output.ndim and len(output) == 1) else output


def _stack(arrays: list[Array], axis: int | None) -> Array:
    if axis is None:
        assert len(arrays) == 1
        return np.asarray(arrays[0])
    return np.stack(arrays, axis=axis)
