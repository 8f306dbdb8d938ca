"""Along which axis of each input a model takes samples, and whether a run may take several: proven, or found by running.

| inputs | axis of samples |
|---|---|
| leading axes free, and samples proven independent | 0 |
| leading axes of one fixed length | 0, whole batches |
| a sample of as many axes as the input has | none: a run takes one as it is |
| an axis named as the leading one of another input | that axis |
| otherwise | the one axis that a sample has not, the leading one first, then one of length 1 |

Several samples share a run where `batch_independence` proves that they do not meet, or where two of them, run together,
answer what each does alone.  Otherwise each runs by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.light_reader import Outline, read_outline
from fcdeploy.graph.model import input_specs, output_specs
from fcdeploy.graph.nodes import name_of
from fcdeploy.proof.batch_independence import explain_dependence
from fcdeploy.records.sample_layout import KEY, SampleLayout
from fcdeploy.records.signature import TensorSpec, format_shape, is_shape_alike
from fcdeploy.runtime.session import Session
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.layout import runs_alone, stack_samples
from fcdeploy.samples.states import check_states

APART = 1e-3  # of the largest answer: float kernels add in other orders for other batches, and no more
NONE = "none"
CARRIED = "states are carried from each to the next"


def declare_samples(
    path: Path,
    model: ir.Model,
    data: Samples | Arrays | None,
    axes: Mapping[str, int | None] | None = None,
    states: Mapping[str, str] | None = None,
) -> list[str]:
    """Write into a model's metadata where samples lie, unless it says so already; lines for the reader where they run alone.

    `data` are samples, or arrays (samples, ...) of them; `axes` and `states` (input: the output that it is carried from) are
    what the user said.  Raises FcdeployError for axes, inputs and outputs that the model does not have.
    """
    given = dict(axes or {})
    _check_given(given, input_specs(model))
    if not given and not states and KEY in model.metadata_props:
        return []
    if states:
        check_states(states, input_specs(model), output_specs(model))
        layout = _lay_out_stream(model, data, given, states)
    else:
        layout = find_layout(path, model, data, given)
    if layout:
        model.metadata_props[KEY] = layout.to_text()
    if not layout.alone:
        return []
    return [f"samples run one at a time: {layout.alone}"]


def _lay_out_stream(
    model: ir.Model, data: Samples | Arrays | None, given: Mapping[str, int | None], states: Mapping[str, str]
) -> SampleLayout:
    """Of a model whose states are carried: a run takes the states as they are, and one step of the other inputs."""
    inputs = input_specs(model)
    others = [spec for spec in inputs if spec.name not in states]
    samples = _peek(data, others)
    named = {name_of(value): _name_axes(value) for value in model.graph.inputs}
    axes: dict[str, int | None] = dict.fromkeys(states)
    for spec in others:
        whole = not spec.shape or (bool(samples) and samples[0][spec.name].ndim > len(spec.shape))
        axis = None if whole else _choose_axis(spec, named.get(spec.name, []), _find_batch_names(named), None)
        axes[spec.name] = given.get(spec.name, axis)
    return SampleLayout({name: axis for name, axis in axes.items() if axis != 0}, CARRIED, states)


def share_layout(models: Sequence[ir.Model]) -> None:
    """Give models of the same inputs what the first of them says of where samples lie."""
    known = next((model.metadata_props[KEY] for model in models if KEY in model.metadata_props), None)
    if known is not None:
        for model in models:
            model.metadata_props.setdefault(KEY, known)


def check_batch(model: ir.Model, batch: int | None, name: str) -> None:
    """Raise FcdeployError where a run takes one sample of the model called `name`, and more are wanted."""
    layout = SampleLayout.from_text(model.metadata_props.get(KEY, ""))
    if layout.alone and batch not in (None, 1):
        raise FcdeployError(f"--batch {batch}: samples of {name!r} run one at a time: {layout.alone}", "--batch 1")


def parse_axes(texts: Sequence[str]) -> dict[str, int | None]:
    """`NAME=1` or `NAME=none` each."""
    axes: dict[str, int | None] = {}
    for text in texts:
        name, _, axis = text.rpartition("=")
        if not name or not (axis == NONE or axis.isdecimal()):
            raise FcdeployError(
                f"--batch-axis {text!r} is not NAME=AXIS, the axis a number from 0 or none", "--batch-axis cache=1"
            )
        axes[name] = None if axis == NONE else int(axis)
    return axes


def find_layout(
    path: Path, model: ir.Model, data: Samples | Arrays | None, given: Mapping[str, int | None]
) -> SampleLayout:
    """Where the samples of `data` lie in the inputs of a model, whose file is `path`."""
    inputs = input_specs(model)
    leading = {spec.shape[0] if spec.shape else 0 for spec in inputs}
    if not given and (not inputs or (len(leading) == 1 and 0 not in leading and None not in leading)):
        return SampleLayout()  # one fixed batch
    outline = _read_outline(path)
    reason = _explain(outline)
    if not given and not reason:
        return SampleLayout()

    samples = _peek(data, inputs)
    axes = _settle(outline, inputs, samples, _choose_axes(model, inputs, samples, given), given)
    others = {name: axis for name, axis in axes.items() if axis != 0}
    if not _explain(outline, axes):
        reason = ""
    return SampleLayout(others, _why_alone(path, inputs, samples, axes, reason))


def _why_alone(
    path: Path, inputs: Sequence[TensorSpec], samples: Sequence[Arrays], axes: Mapping[str, int | None], reason: str
) -> str:
    """Why a run takes one sample; '' where it may take several. `reason` is why they may meet along these axes, if they may."""
    placed = [replace(spec, sample_axis=axes[spec.name]) for spec in inputs]
    whole = [name for name, axis in axes.items() if axis is None]
    if whole:
        return f"input {whole[0]!r} has no axis of samples"
    lengths = {spec.shape[axis] for spec in placed if (axis := spec.sample_axis) is not None and spec.shape}
    if None not in lengths:
        return ""  # a fixed batch, or lengths that disagree, which is said where they are read
    if lengths != {None}:
        return "some inputs take one sample and others any number"
    return "" if not (reason and samples) or _run_alike(path, placed, samples) else reason


def _read_outline(path: Path) -> Outline | None:
    try:
        return read_outline(path)
    except FcdeployError:
        return None


def _explain(outline: Outline | None, axes: Mapping[str, int | None] | None = None) -> str:
    """Why samples may depend on each other; '' where it is proven that they do not."""
    return "its graph cannot be followed" if outline is None else explain_dependence(outline, axes)


def _check_given(given: Mapping[str, int | None], inputs: Sequence[TensorSpec]) -> None:
    known = {spec.name: spec for spec in inputs}
    for name, axis in given.items():
        if name not in known:
            raise FcdeployError(
                f"--batch-axis names {name!r}, which is no input of the model; it has {', '.join(map(repr, known))}",
                f"--batch-axis {next(iter(known), 'NAME')}=1",
            )
        if axis is not None and known[name].shape and axis >= len(known[name].shape):
            raise FcdeployError(
                f"--batch-axis {name}={axis}: input {name!r} has shape {format_shape(known[name].shape)}, "
                f"expected an axis from 0 to {len(known[name].shape) - 1}",
                "fcdeploy inspect MODEL shows the inputs",
            )


def _peek(data: Samples | Arrays | None, inputs: Sequence[TensorSpec]) -> list[Arrays]:
    """The first two samples, whatever their shapes; none where they have to be fitted to the model to be read."""
    if data is None:
        return []
    if not isinstance(data, Samples):
        count = min(2, *(len(array) for array in data.values())) if data else 0
        return [{name: array[i, ...] for name, array in data.items()} for i in range(count)]
    try:
        source = data.open([replace(spec, shape=()) for spec in inputs])
        samples = [sample.inputs for sample in islice(iter(source), 2)]
    except (FcdeployError, IndexError):
        return []
    if source.format.columns:  # a row of a table is a sample: of an input [n], one cell without an axis
        flat = {spec.name for spec in inputs if len(spec.shape) == 1}
        samples = [
            {name: value.reshape(()) if name in flat and value.size == 1 else value for name, value in sample.items()}
            for sample in samples
        ]
    return samples


def _choose_axes(
    model: ir.Model, inputs: Sequence[TensorSpec], samples: Sequence[Arrays], given: Mapping[str, int | None]
) -> dict[str, int | None]:
    named = {name_of(value): _name_axes(value) for value in model.graph.inputs}
    chosen: dict[str, int | None] = {}
    for spec in inputs:
        # of time-first inputs (steps, samples, ...) the leading axis is called as that of no other
        others = _find_batch_names({name: axes for name, axes in named.items() if name != spec.name})
        batch = others if others & set(named.get(spec.name, [])) else _find_batch_names(named)
        shape = samples[0][spec.name].shape if samples else None
        chosen[spec.name] = (
            given[spec.name] if spec.name in given else (_choose_axis(spec, named.get(spec.name, []), batch, shape))
        )
    return chosen


def _find_batch_names(named: Mapping[str, Sequence[str]]) -> set[str]:
    """What leading axes are called."""
    return {axes[0] for axes in named.values() if axes and axes[0]}


def _choose_axis(spec: TensorSpec, names: Sequence[str], batch: set[str], sample: tuple[int, ...] | None) -> int | None:
    if not spec.shape:
        return None if sample is None or sample == () else 0
    rank = len(spec.shape)
    if sample is None:
        by_name = [axis for axis in range(rank) if axis < len(names) and names[axis] in batch]
        return by_name[0] if by_name else 0
    if len(sample) == rank:
        return None
    fitting = _find_fitting(spec, sample)
    if not fitting:
        return 0  # a sample of another shape: refused where it is read

    def preference(axis: int) -> tuple[bool, bool, bool, int]:
        return (axis < len(names) and names[axis] in batch, spec.shape[axis] is None, spec.shape[axis] == 1, -axis)

    return max(fitting, key=preference)


def _find_fitting(spec: TensorSpec, sample: tuple[int, ...]) -> list[int]:
    """The axes of an input that a sample of it may lack."""
    fitting = [
        axis for axis in range(len(spec.shape))
        if is_shape_alike((*spec.shape[:axis], *spec.shape[axis + 1 :]), sample)
    ]  # fmt: skip
    if spec.shape[:1] == (None,):  # a fixed length elsewhere holds no samples: such data have another shape
        fitting = [axis for axis in fitting if spec.shape[axis] in (None, 1)]
    return fitting


def _settle(
    outline: Outline | None,
    inputs: Sequence[TensorSpec],
    samples: Sequence[Arrays],
    axes: Mapping[str, int | None],
    given: Mapping[str, int | None],
) -> dict[str, int | None]:
    """Where several axes fit a sample, as with steps first, those along which samples are proven not to meet.

    The same axis of all inputs that leave a choice comes first, then another one of a single input.
    """
    if outline is None or not samples or not explain_dependence(outline, axes, leading=False):
        return dict(axes)
    fitting = {spec.name: _find_fitting(spec, samples[0][spec.name].shape) for spec in inputs if spec.name not in given}
    several = {name: found for name, found in fitting.items() if len(found) > 1}
    common = [
        {name: axis for name, found in several.items() if axis in found}
        for axis in sorted({axis for found in several.values() for axis in found})
    ]
    single = [{name: axis} for name, found in several.items() for axis in found]
    tried: list[dict[str, int | None]] = [dict(axes)]
    for change in [*common, *single]:
        trial = {**axes, **change}
        if trial not in tried and not explain_dependence(outline, trial, leading=False):  # they do not meet
            return trial
        tried.append(trial)
    return dict(axes)


def _name_axes(value: ir.Value) -> list[str]:
    """Names of axes of any length; empty for the others."""
    return ["" if isinstance(n, int) else str(n.value or "") for n in value.shape] if value.shape is not None else []


def _run_alike(path: Path, inputs: Sequence[TensorSpec], samples: Sequence[Arrays]) -> bool:
    """Whether two samples together are answered as each is alone; leading axes of the answers count them."""
    one, other = samples[0], samples[-1]
    if any(one[name].shape != other[name].shape for name in one):
        other = one
    assert not runs_alone(inputs)
    try:
        session = Session(path, threads=1)
        alone = [session.run(stack_samples([sample], inputs)) for sample in (one, other)]
        together = session.run(stack_samples([one, other], inputs))
    except FcdeployError:
        return False
    return all(_is_same(pair, both) for *pair, both in zip(*alone, together, strict=True))


def _is_same(alone: Sequence[Array], together: Array) -> bool:
    if together.ndim == 0 or any(one.shape != (1, *together.shape[1:]) for one in alone) or len(together) != 2:
        return False
    apart = np.concatenate(alone)
    if apart.dtype.kind != "f":
        return bool((apart == together).all())
    size = float(np.abs(apart).max(initial=0.0))
    return bool(np.abs(apart.astype(np.float64) - together).max(initial=0.0) <= APART * size)
