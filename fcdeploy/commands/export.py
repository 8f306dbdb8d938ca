"""export: a PyTorch module becomes a float ONNX model that is proven to compute the same.

The written file is run in onnxruntime against torch, at batch 1 and at a larger one, on random inputs and on samples
when they are given.  The difference of an output is the largest |torch - onnx| of its elements; relative is that over
the largest |torch|.  A model that differs by more than the tolerance is not written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.evaluate.free_axes import list_lengths
from fcdeploy.files import check_output
from fcdeploy.graph import opset as sets
from fcdeploy.graph.external_data import weights_path
from fcdeploy.graph.model import (
    TensorSpec,
    files_of,
    input_specs,
    measure_size,
    output_specs,
    read_model,
    replace_model,
    write_model,
)
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.runtime.session import Session

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fcdeploy.pytorch.module import Input

TORCH = "2.13.0"  # the exporter changes with every release; this one is tested
BATCH = "batch"
LARGER_BATCH = 3  # neither 1 nor the 2 that a free axis is exported with
SAMPLES = 256
LARGEST = 2**31 - 2**20  # bytes; protobuf ends at 2 GiB, and the graph takes some


@dataclass(frozen=True)
class TorchDifference:
    """How far an output of the file is from torch's."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class ComparisonInputs:
    """Inputs to compare on, and what to call them in an error; `as_exported` when they have the sizes torch traced."""

    name: str
    tensors: list[torch.Tensor]
    as_exported: bool = False


def export(
    module: str | nn.Module,
    *,
    output: str | Path,
    state: str | Path | None = None,
    inputs: Sequence[str | Sequence[int] | torch.Tensor] = (),
    data: str | Path | None = None,
    opset: int | None = None,
    force: bool = False,
    tolerance: float = 1e-4,
    on_step: OnStep | None = None,
) -> Report:
    """Write a PyTorch module as a float ONNX model and prove that both compute the same.

    `module` is "FILE.py:FUNCTION", a function without arguments that returns an nn.Module, or the module itself (whose
    weights `state` replaces).  `inputs` are shapes ("1,3,32,32", "tokens:1,16:int64", (1, 3, 32, 32)) or tensors, one
    for each input; without them FILE.py's `example_inputs()` is called.  The first axis of every input is the batch,
    and of any length.  `state` is a .safetensors or torch.save file of weights, FILE or FILE:KEY; `data` is samples to
    compare on besides random inputs; `opset` None writes the lowest that can say the network, 13 or above.

    Raises FcdeployError for a mistake in any of these, and when an output differs from torch's by more than
    `tolerance`, relative to its largest element; nothing is written then.
    """
    started = time.perf_counter()
    step = on_step or (lambda *_: None)
    path = Path(output)
    sources = [Path(given) for given in (module, state, data) if isinstance(given, str | Path)]
    check_output(path, force=force, inputs=tuple(sources))
    _check_opset(opset)
    warning = _require_torch()
    from fcdeploy.pytorch import module as torch_module

    step("load the module", 0, 3)
    built, namespace = torch_module.build_module(module) if isinstance(module, str) else (module, None)
    chosen = torch_module.load_state(built, Path(state)) if state is not None else ""
    if sum(tensor.numel() * tensor.element_size() for tensor in built.state_dict().values()) > LARGEST:
        check_output(weights_path(path), force=force)

    with _eval_mode(built), replace_model(path, force=force) as aside:
        examples = torch_module.read_inputs(built, inputs, namespace)
        differences, fixed, lengths = _write(built, examples, aside, data, opset, tolerance, step)
        written = read_model(aside)
        size = measure_size(files_of(written, aside))
    step("done", 3, 3)

    values = _describe_file(written, differences) | {
        "output": str(path),
        "bytes": size,
        "parameters": sum(parameter.numel() for parameter in built.parameters()),
        "tolerance": tolerance,
        "seconds": time.perf_counter() - started,
    }
    return _make_report(values, lengths, tuple(text for text in (warning, chosen, fixed) if text))


def _describe_file(written: ir.Model, differences: dict[str, TorchDifference]) -> dict[str, Any]:
    """What the file says of itself, and how far each output is from torch's."""
    return {
        "opset": written.opset_imports[""],
        "ir_version": written.ir_version,
        "free_batch": all(spec.shape[0] is None for spec in input_specs(written)),
        "inputs": [_describe(spec) for spec in input_specs(written)],
        "outputs": [
            {**_describe(spec), "max_abs": differences[spec.name].absolute, "max_rel": differences[spec.name].relative}
            for spec in output_specs(written)
        ],
    }


def _check_opset(opset: int | None) -> None:
    if opset is not None and opset < sets.LOWEST:
        raise FcdeployError(
            f"opset {opset} is below {sets.LOWEST}, the first with int8 scales per channel", "leave --opset out"
        )


def _require_torch() -> str:
    """A warning when torch is another release than the one that is tested, an error when there is none."""
    try:
        import torch
    except ImportError as error:
        raise FcdeployError(
            "export needs PyTorch, which is not installed",
            f"pip install 'fcdeploy[export]', or pip install torch=={TORCH}",
        ) from error
    version = str(torch.__version__).partition("+")[0]
    return "" if version == TORCH else f"torch {version} is installed, fcdeploy is tested with {TORCH}"


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode; a module that the caller goes on training is given back as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _write(
    module: nn.Module,
    inputs: tuple[Input, ...],
    aside: Path,
    data: str | Path | None,
    opset: int | None,
    tolerance: float,
    step: OnStep,
) -> tuple[dict[str, TorchDifference], str, tuple[str, ...]]:
    """Write and prove the model with its free axes: differences, a warning, and a line on the lengths that were tried.

    Where only the batch is free and the module takes no other, it is written for the example's; lengths that were asked to
    be free are, or nothing is written.
    """
    from fcdeploy.pytorch.module import FinalError

    freed = any(len(item.free) > 1 for item in inputs)
    fixed = tuple(replace(item, free={}) for item in inputs)
    reason = ""
    lengths: tuple[str, ...] = ()
    for candidate in (inputs,) if freed else (inputs, fixed):
        try:
            step("export to ONNX", 1, 3)
            sizes = _write_model(module, candidate, aside, opset)
            step("compare with torch", 2, 3)
            differences = _compare(module, candidate, aside, _make_comparisons(candidate, sizes), tolerance, {})
            lengths = _compare_lengths(module, candidate, aside, tolerance, differences) if freed else ()
            warning = reason and f"the exported model takes no other batch: {reason}"
            break
        except FinalError:
            raise
        except FcdeployError as error:
            if freed:
                raise FcdeployError(
                    f"the exported model does not take every length of {_list_freed(inputs)}: {error.message}",
                    f"give the lengths as numbers, --input {_write_fixed(inputs)}, or compute sizes from x.shape",
                ) from error
            reason = reason or error.message
            if candidate is fixed:
                raise
    if data is not None:
        differences = _compare(module, candidate, aside, _read_samples(candidate, aside, data), tolerance, differences)
    return differences, warning, lengths


def _list_freed(inputs: Sequence[Input]) -> str:
    names = [name for item in inputs for axis, name in item.free.items() if axis]
    return " and ".join(map(repr, dict.fromkeys(names)))


def _write_fixed(inputs: Sequence[Input]) -> str:
    """The inputs as options that name no axis."""
    return " --input ".join(",".join(map(str, item.example.shape)) for item in inputs)


def _compare_lengths(
    module: nn.Module, inputs: tuple[Input, ...], aside: Path, tolerance: float, found: dict[str, TorchDifference]
) -> tuple[str, ...]:
    """Run every free axis at lengths of its own, an odd one, a smaller and a larger one; what the module itself refuses is said.

    `found` is brought up to date.  Raises FcdeployError where torch takes lengths that the model does not.
    """
    import torch

    from fcdeploy.pytorch import module as torch_module

    generator = torch.Generator().manual_seed(2)
    taken, refused = [], []
    for lengths in list_lengths(torch_module.lengths_of(inputs)):
        tensors = [_draw_like(item.resize(lengths), generator) for item in inputs]
        said = ", ".join(f"{name} {length}" for name, length in lengths.items() if name != BATCH)
        try:
            _run_torch(module, inputs, tensors)
        except FcdeployError:
            refused.append(said)
            continue
        trial = ComparisonInputs(f"random inputs of {said}", tensors)
        found.update(_compare(module, inputs, aside, [trial], tolerance, found))
        taken.append(said)
    lines = [f"also tried, and the same as torch: {'; '.join(taken)}"] if taken else []
    return (*lines, *([f"the module itself does not take {'; '.join(refused)}"] if refused else []))


def _write_model(module: nn.Module, inputs: tuple[Input, ...], aside: Path, opset: int | None) -> list[dict[str, int]]:
    """Write the model; return lengths of the free axes: as exported, at batch 1, and at a larger batch."""
    from fcdeploy.pytorch import export as torch_export
    from fcdeploy.pytorch import module as torch_module

    given = torch_module.lengths_of(inputs)
    small = {name: 1 if name == BATCH else length for name, length in given.items()}
    large = {name: LARGER_BATCH if name == BATCH else 2 * length for name, length in given.items()}
    traced = {name: 2 if name == BATCH else max(2, length) for name, length in given.items()}  # torch takes 1 for fixed
    ends = [
        torch_module.flatten_outputs(
            torch_module.call_module(module, inputs, [item.resize(lengths) for item in inputs])
        )
        for lengths in (small, large)
    ]
    names = _name_outputs([name for name, _ in ends[0]])
    sized = [replace(item, example=item.resize(traced)) for item in inputs]
    model = torch_export.to_onnx(module, sized, names, opset=opset)
    torch_export.set_shapes(
        model.graph.inputs,
        [[item.free.get(axis, length) for axis, length in enumerate(item.example.shape)] for item in inputs],
    )
    torch_export.set_shapes(
        model.graph.outputs,
        [_find_free_axes(a.shape, b.shape, small, large) for (_, a), (_, b) in zip(*ends, strict=True)],
    )
    write_model(model, aside, force=True, largest=LARGEST)
    return [traced, small, large]


def _name_outputs(paths: list[str]) -> list[str]:
    """`output` for one, `output_0` and on for a tuple's, the keys of a dict."""
    if not paths:
        raise FcdeployError("the module returns no tensor", "return a tensor, or a tuple or dict of tensors")
    names = [(f"output_{path}" if path[0].isdigit() else path) if path else "output" for path in paths]
    return names if paths != ["0"] else ["output"]


def _find_free_axes(
    first: Sequence[int], second: Sequence[int], small: dict[str, int], large: dict[str, int]
) -> list[int | str | None]:
    """An output's shape from two runs: an axis that changes is named after the free axis it changes with."""
    pairs = {(small[name], large[name]): name for name in small}
    return [a if a == b else pairs.get((a, b)) for a, b in zip(first, second, strict=True)]


def _compare(
    module: nn.Module,
    inputs: tuple[Input, ...],
    aside: Path,
    trials: Iterable[ComparisonInputs],
    tolerance: float,
    found: dict[str, TorchDifference],
) -> dict[str, TorchDifference]:
    """The largest difference of every output over the trials and what was found before."""
    session = Session(aside)
    worst = dict(found)
    for trial in trials:
        expected = _run_torch(module, inputs, trial.tensors)
        actual = session.run({item.name: tensor.numpy() for item, tensor in zip(inputs, trial.tensors, strict=True)})
        for name, a, b in zip(session.outputs, expected, actual, strict=True):
            now = _measure_difference(a, b, name, trial.name)
            if not now.relative <= tolerance:
                again = _run_torch(module, inputs, trial.tensors)
                same = all(np.array_equal(x, y, equal_nan=True) for x, y in zip(expected, again, strict=True))
                raise _make_difference_error(name, now, trial, tolerance, same)
            before = worst.get(name, now)
            worst[name] = TorchDifference(max(before.absolute, now.absolute), max(before.relative, now.relative))
    return worst


def _make_difference_error(
    name: str, found: TorchDifference, trial: ComparisonInputs, tolerance: float, repeatable: bool
) -> FcdeployError:
    from fcdeploy.pytorch.module import FinalError

    kind = FinalError if trial.as_exported else FcdeployError
    return kind(
        f"output {name!r} differs from torch's by {found.absolute:.2g}, {found.relative:.2g} of its largest value, "
        f"on {trial.name}; expected at most {tolerance:g}",
        "the module behaves otherwise when traced: look for branches on values, shapes or the exporter"
        if repeatable
        else "the module answers the same input differently each time: take random numbers out of forward",
    )


def _make_comparisons(inputs: tuple[Input, ...], sizes: list[dict[str, int]]) -> Iterator[ComparisonInputs]:
    """Random inputs of every size, the exported one first, and the example."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for index, size in enumerate(sizes):
        where = ", ".join(f"{name} {length}" for name, length in size.items())
        tensors = [_draw_like(item.resize(size), generator) for item in inputs]
        yield ComparisonInputs(f"random inputs{where and ' of ' + where}", tensors, as_exported=index == 0)
    yield ComparisonInputs("the example inputs", [item.example for item in inputs])


def _read_samples(inputs: tuple[Input, ...], aside: Path, data: str | Path) -> Iterator[ComparisonInputs]:
    import torch

    from fcdeploy.samples import choose_batch_size, make_batches, open_source

    specs = input_specs(read_model(aside))
    for batch in make_batches(open_source(data, specs, limit=SAMPLES), choose_batch_size(specs, 32)):
        yield ComparisonInputs(batch.names[0], [torch.from_numpy(batch.inputs[item.name]) for item in inputs])


def _draw_like(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers with the example's mean and deviation; integers and booleans are drawn from the example's."""
    import torch

    if example.is_floating_point():
        centre, spread = example.double().mean(), example.double().std(correction=0)
        normal = torch.randn(example.shape, generator=generator, dtype=torch.float64)
        return (normal * spread + centre).to(example.dtype)
    values = example.flatten()
    return values[torch.randint(len(values), example.shape, generator=generator)]


def _run_torch(module: nn.Module, inputs: tuple[Input, ...], tensors: list[torch.Tensor]) -> list[Array]:
    from fcdeploy.pytorch import module as torch_module

    outputs = torch_module.flatten_outputs(torch_module.call_module(module, inputs, tensors))
    return [tensor.numpy(force=True) for _, tensor in outputs]


def _measure_difference(expected: Array, actual: Array, name: str, what: str) -> TorchDifference:
    """Largest |expected - actual|, and that over the largest finite |expected|. NaN and infinity equal themselves."""
    if expected.shape != actual.shape:
        raise FcdeployError(
            f"output {name!r} has shape {list(actual.shape)} where torch's has {list(expected.shape)}, on {what}",
            "the module fixes a shape when traced: compute sizes from x.shape",
        )
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    absolute = float(np.nan_to_num(gap, nan=np.inf, posinf=np.inf).max(initial=0.0))
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return TorchDifference(absolute, absolute / scale if scale else absolute)


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}


def _make_report(values: dict[str, Any], lengths: tuple[str, ...], warnings: tuple[str, ...]) -> Report:
    rows = [("input", spec["name"], spec["dtype"], _format_shape(spec["shape"]), "", "") for spec in values["inputs"]]
    for spec in values["outputs"]:
        shape = _format_shape(spec["shape"])
        gaps = (f"{spec['max_abs']:.1e}", f"{spec['max_rel']:.1e}")
        rows.append(("output", spec["name"], spec["dtype"], shape, *gaps))
    table = Table("", ("", "name", "dtype", "shape", "differs from torch by", "relative"), tuple(rows))
    worst = max(spec["max_rel"] for spec in values["outputs"])
    lines = (
        *lengths,
        sets.describe_requirements(values["opset"], values["ir_version"]),
        f"{values['output']}: {values['parameters']:,} parameters, {values['bytes'] / 1000:,.0f} kB, "
        f"the same as torch within {worst:.1e}",
    )
    return Report("export", values, (table,), lines, warnings=warnings)


def _format_shape(lengths: Sequence[int | None]) -> str:
    return "x".join("?" if length is None else str(length) for length in lengths)
