"""A quantized model of another tool that onnxruntime does not run, or not under every option, as one that it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fcdeploy.arrays import Array, Arrays
from fcdeploy.atomic_files import replace_file
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import save_model
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.sample_axes import declare_samples, parse_axes
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report
from fcdeploy.samples.states import parse_states
from fcdeploy.transform.equality import (
    Comparison,
    compare,
    describe_equality,
    load_once,
    open_samples,
    read_to_transform,
    refuse_different,
)
from fcdeploy.transform.repair import repair as mend
from fcdeploy.wording import quote_path


def repair(
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
    """Write a quantized model without what onnxruntime does not run; taken literally it computes the same.

    `shapes` gives inputs whose axes are free a size, by name; answers are compared on `samples` of `data`, with
    `preprocess`, else on numbers drawn with a seed.  Raises FcdeployError where there is nothing to repair, or what was
    written fails.
    """
    path, target, on = Path(model), Path(output), Comparison(shapes, data, samples, preprocess, batch_axes, states)
    network = read_to_transform(path, [target], on, force=force)
    declare_samples(path, network, on.choose_samples(), parse_axes(on.batch_axes), parse_states(on.states))
    compared = open_samples(path, network, on)
    faults = mend(network)
    if not faults:
        raise FcdeployError(f"there is nothing to repair in {str(path)!r}", f"fcdeploy inspect {quote_path(path)}")
    with replace_file(target, force=force) as aside:
        save_model(network, aside)
        before, after = load_once(path, optimize=False), load_once(aside, optimize=False)
        ways = [load_once(aside), load_once(aside, precise=True)]

        def run_every_way(inputs: Arrays) -> Sequence[Array]:
            for way in ways:
                way(inputs)
            return after(inputs)

        equality = compare(before, run_every_way, compared.feeds, axes=compared.axes, on_step=on_step)
        refuse_different(equality, f"repair of {str(path)!r}")
    count = sum(len(fault.nodes) for fault in faults)
    values = {
        "repaired": {fault.fact: [node.name for node in fault.nodes] for fault in faults}, "samples": equality.samples,
        "max_rel": equality.relative, "equal": equality.equal, "output": str(target),
    }  # fmt: skip
    said = (
        f"{count} node{'' if count == 1 else 's'} repaired, {describe_equality(equality, compared.source)} -> {target}"
    )
    return Report("transform-repair", values, lines=(*(f"was: {fault.describe()}" for fault in faults), said))
