"""A classifier's dense head as convolutions, and back: proven by a run before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError, LoadError
from fcdeploy.graph.edit import Changes
from fcdeploy.graph.model import (
    TensorSpec,
    output_specs,
    refuse_unsupported,
    save_model,
)
from fcdeploy.graph.nodes import name_of
from fcdeploy.prepare.activation_memory import measure_peak
from fcdeploy.prepare.passes.drop_identities import drop_identities
from fcdeploy.prepare.passes.fold_constants import fold_constants
from fcdeploy.prepare.passes.fold_shapes import fold_shapes
from fcdeploy.prepare.passes.form_global_average_pool import form_global_average_pool
from fcdeploy.prepare.passes.lift_constants import lift_constants
from fcdeploy.prepare.passes.raise_opset import raise_opset
from fcdeploy.prepare.passes.remove_unused import remove_unused
from fcdeploy.prepare.shape_inference import infer_shapes
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.sample_axes import declare_samples, parse_axes
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.records.signature import format_axes
from fcdeploy.reporting.units import format_size
from fcdeploy.runtime import feeds
from fcdeploy.samples.states import parse_states
from fcdeploy.transform import conv_to_dense as back
from fcdeploy.transform import dense_to_conv as forth
from fcdeploy.transform.equality import (
    Comparison,
    Equality,
    Run,
    compare,
    describe_equality,
    load_once,
    open_samples,
    read_to_transform,
    refuse_different,
)
from fcdeploy.transform.slide import find_strides, find_wider_views
from fcdeploy.wording import list_some, quote_path, say_count

SIMPLER = (lift_constants, fold_shapes, remove_unused, fold_constants, drop_identities, form_global_average_pool)
LARGEST = 1 << 29  # bytes at once, beyond which a larger image is not tried
ROUNDS = 3  # of these passes; shape arithmetic takes two
AXES = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
SHOWN = 3  # names in a line


@dataclass(frozen=True)
class SlidingRun:
    """A run on images of twice the size: the shapes of the answers, and the worst window against the model before."""

    shapes: list[list[int]]
    step: tuple[int, ...] | None
    window: float
    more: list[str]


def dense_to_conv(
    model: Path | str,
    *,
    output: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Path | str | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the model with its dense head as convolutions, so that it answers for every window of a larger image.

    Outputs (N, K) become maps (N, K, h, w), 1x1 at the original size; the spatial axes of inputs and outputs are free,
    which is all that becomes of a network without dense layers.
    Where a layer behind the head cannot be turned, the sizes stay as they were.  `shapes` gives inputs whose axes are
    free a size, by name; answers are compared on `samples` of `data`, with `preprocess`, else on numbers drawn with a seed.
    Raises FcdeployError where no layer can be turned, or answers differ.
    """
    on = Comparison(shapes, data, samples, preprocess, batch_axes, states)
    return _transform("dense-to-conv", forth.dense_to_conv, Path(model), Path(output), on, force, on_step)


def conv_to_dense(
    model: Path | str,
    *,
    output: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Path | str | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    batch_axes: Sequence[str] = (),
    states: Sequence[str] = (),
    force: bool = False,
    on_step: OnStep | None = None,
) -> Report:
    """Write the model with convolutions that cover their whole input as dense layers; outputs of 1x1 become (N, K).

    The sizes of the inputs are fixed, but for the batch.  All else is as for `dense_to_conv`.
    """
    on = Comparison(shapes, data, samples, preprocess, batch_axes, states)
    return _transform("conv-to-dense", back.conv_to_dense, Path(model), Path(output), on, force, on_step)


def _transform(
    name: str,
    turn: Callable[[ir.Model], Changes],
    path: Path,
    output: Path,
    on: Comparison,
    force: bool,
    on_step: OnStep | None,
) -> Report:
    network = read_to_transform(path, [output], on, force=force)
    refuse_unsupported(network, str(path))
    declare_samples(path, network, on.choose_samples(), parse_axes(on.batch_axes), parse_states(on.states))
    compared = open_samples(path, network, on)

    before_outputs = output_specs(network)
    _fix_sizes(network, compared.sizes)
    _simplify(network)
    changes = turn(network)
    headless = name == "dense-to-conv" and not changes.count and not changes.declined
    if headless:  # sizes that stand in no layer need only be free
        network = read_to_transform(path, [output], on, force=force)
    _forget_shapes(network)

    before = load_once(path)
    slides, why = (None, "") if name != "dense-to-conv" else _try_sliding(network, before, compared.sizes)
    if not changes.count and (slides is None or not headless):
        reasons = _give_reasons(changes) + (f", and its sizes stay fixed: {why}" if headless else "")
        raise FcdeployError(
            f"{name} turns no layer of {str(path)!r}: {reasons}", f"fcdeploy inspect {quote_path(path)}"
        )
    with replace_file(output, force=force) as aside:
        save_model(network, aside)
        equality = compare(before, load_once(aside), compared.feeds, axes=compared.axes, on_step=on_step)
        refuse_different(equality, f"{name} of {str(path)!r}")
    ends = list(zip(before_outputs, output_specs(network), strict=True))
    return _make_report(
        name, changes, describe_equality(equality, compared.source), equality, slides, why, ends, output
    )


def _fix_sizes(model: ir.Model, sizes: Sequence[TensorSpec]) -> None:
    """Give every input axis but the batch its length."""
    lengths = {spec.name: spec.shape for spec in sizes}
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) and value.name in lengths:
            value.shape = ir.Shape([value.shape[0], *lengths[value.name][1:]])
    _forget_shapes(model)


def _simplify(model: ir.Model) -> None:
    """Shape arithmetic to constants, identities dropped: what stands between a map and its dense layer is then one node."""
    raise_opset(model)
    for _ in range(ROUNDS):
        infer_shapes(model)
        if not sum(run(model).count for run in SIMPLER):
            break
    infer_shapes(model)


def _forget_shapes(model: ir.Model) -> None:
    """What lies between inputs and outputs is inferred again by whoever reads the model."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def _try_sliding(model: ir.Model, before: Run, sizes: Sequence[TensorSpec]) -> tuple[SlidingRun | None, str]:
    """Free the spatial axes, in place, and run the model on images of twice the size; or say why it cannot slide."""
    outputs = list(model.graph.outputs)
    flat = next((value.name for value in outputs if value.shape is None or len(value.shape) < 3), None)
    if flat is not None:
        return None, f"output {flat!r} is no map"

    ends = [*model.graph.inputs, *outputs]
    shapes = [value.shape for value in ends]
    _free_axes(list(model.graph.inputs), outputs)
    large = [replace(size, shape=(*size.shape[:2], *(2 * (n or 0) for n in size.shape[2:]))) for size in sizes]
    if why := _find_too_large(model, large):
        _give_shapes(ends, shapes)
        return None, why
    images = feeds.draw_feeds(large)
    cut = {size.name: np.ascontiguousarray(images[size.name][tuple(slice(0, n) for n in size.shape)]) for size in sizes}
    try:
        maps = load_once(model)(images)
    except FcdeployError as error:
        _give_shapes(ends, shapes)
        failed = isinstance(error, LoadError) and error.node  # the error's own line is too long to be read
        return None, f"{failed} fails on images of twice the size" if failed else error.message

    whole = before(cut)
    for value, small, wide in zip(outputs, whole, maps, strict=True):
        if small.ndim == wide.ndim and not all(a < b for a, b in zip(small.shape[2:], wide.shape[2:], strict=True)):
            _give_shapes(ends, shapes)
            return None, f"output {value.name!r} is no larger for images of twice the size"
    window = _compare_window(maps, whole, cut)
    return SlidingRun(
        [list(item.shape) for item in maps],
        find_strides(model.graph, outputs[0]),
        window,
        find_wider_views(model.graph),
    ), ""


def _find_too_large(model: ir.Model, sizes: Sequence[TensorSpec]) -> str:
    """Why a run on inputs of these sizes takes too much memory; "" where it does not, or that is not known before."""
    given = {size.name: size.shape for size in sizes}
    before = {value: value.shape for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in model.graph.inputs:
        value.shape = ir.Shape(given[name_of(value)])
    for value in model.graph.outputs:
        value.shape = None
    try:
        infer_shapes(model)
        peak = measure_peak(model) or 0
    except FcdeployError as error:  # one tensor alone
        return error.message
    finally:
        _forget_shapes(model)
        _give_shapes(list(before), list(before.values()))
    most = format_size(LARGEST)
    return (
        f"images of twice the size take {format_size(peak)} in a run, expected at most {most}" if peak > LARGEST else ""
    )


def _give_shapes(values: Sequence[ir.Value], shapes: Sequence[ir.Shape | None]) -> None:
    for value, shape in zip(values, shapes, strict=True):
        value.shape = shape


def _compare_window(maps: Sequence[Array], whole: Sequence[Array], image: Arrays) -> float:
    """How far the first window's answers are from those on the image cut out, relative to their largest."""
    corner = [item[(slice(None), slice(None), *[slice(0, 1)] * (item.ndim - 2))] for item in maps]
    pairs = [(f, q) for f, q in zip(whole, corner, strict=True) if f.ndim == 2]
    return compare(lambda _: [f for f, _ in pairs], lambda _: [q for _, q in pairs], [image]).relative


def _free_axes(inputs: list[ir.Value], outputs: list[ir.Value]) -> None:
    many = sum(len(value.shape or ()) > 2 for value in inputs) > 1
    for value in inputs:
        names = AXES.get(len(value.shape or ()), ())
        if names and value.shape is not None:
            free = [f"{value.name}.{name}" if many else name for name in names]
            value.shape = ir.Shape([*list(value.shape)[:2], *free])
    for value in outputs:
        assert value.shape is not None
        value.shape = ir.Shape([*list(value.shape)[:2], *[None] * (len(value.shape) - 2)])


def _give_reasons(changes: Changes) -> str:
    return list_some(changes.declined, 1, "; ") or "it has none"


def _make_report(
    name: str,
    changes: Changes,
    same: str,
    equality: Equality,
    slides: SlidingRun | None,
    why: str,
    ends: list[tuple[TensorSpec, TensorSpec]],
    output: Path,
) -> Report:
    values: dict[str, Any] = {
        "turned": changes.count, "declined": list(changes.declined), "samples": equality.samples,
        "max_rel": equality.relative, "equal": equality.equal, "slides": slides is not None,
        "step": list(slides.step) if slides and slides.step else None,
        "window_max_rel": slides.window if slides else None, "output": str(output),
    }  # fmt: skip
    lines = [f"{before.name}: {format_axes(before.shape)} -> {format_axes(after.shape)}" for before, after in ends]
    warnings = []
    if slides is not None:
        apart = f", an answer every {' x '.join(map(str, slides.step))} pixels" if slides.step else ""
        shapes = "; ".join(" x ".join(map(str, shape)) for shape in slides.shapes)
        lines.append(f"slides: twice the size gives {shapes}{apart}")
        lines += [_describe_window(slides)] if changes.count else []
    elif why:
        warnings.append(f"it does not slide over larger images, and its sizes stay fixed: {why}")
    turned = f"{say_count(changes.count, 'layer')} turned" if changes.count else "no layer to turn"
    lines.append(f"{turned}, {same} -> {output}")
    rows = tuple((text,) for text in changes.declined)
    return Report(f"transform-{name}", values, (Table("Not turned", ("why",), rows),), tuple(lines),
                  warnings=tuple(warnings))  # fmt: skip


def _describe_window(slides: SlidingRun) -> str:
    if not slides.more:
        return f"a window answers as the image cut out does, within {slides.window:.1e}"
    names = list_some(slides.more, SHOWN)
    return f"a window differs from the image cut out, by {slides.window:.1e} here: {names} see beyond its edge"
