"""export: a PyTorch module becomes a float ONNX model that is proven to compute the same.

The written file is run in onnxruntime against torch, at batch 1 and at a larger one, on random inputs and on samples
when they are given.  The difference of an output is the largest |torch - onnx| of its elements; relative is that over
the largest |torch|.  A model that differs by more than the tolerance is not written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.atomic_files import replace_file
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
    save_model,
)
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.reporting.units import format_lengths

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fcdeploy.pytorch.compare import TorchDifference
    from fcdeploy.pytorch.module import Input

TORCH = "2.13.0"  # the exporter changes with every release; this one is tested
STEPS = 4  # that `on_step` counts
BATCH = "batch"
LARGER_BATCH = 3  # neither 1 nor the 2 that a free axis is exported with
LARGEST = 2**31 - 2**20  # bytes; protobuf ends at 2 GiB, and the graph takes some


def export(
    module: str | nn.Module,
    *,
    output: str | Path,
    state: str | Path | None = None,
    inputs: Sequence[str | Sequence[int] | torch.Tensor | Array] = (),
    data: str | Path | None = None,
    opset: int | None = None,
    force: bool = False,
    tolerance: float = 1e-4,
    on_step: OnStep | None = None,
) -> Report:
    """Write a PyTorch module as a float ONNX model and prove that both compute the same.

    `module` is "FILE.py:FUNCTION", a function without arguments that returns an nn.Module, or the module itself (whose
    weights `state` replaces).  `inputs` are shapes ("1,3,32,32", "tokens:1,16:int64", (1, 3, 32, 32)), tensors or arrays, one
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
    step("import torch", 0, STEPS)
    warning = _require_torch()
    from fcdeploy.pytorch import module as torch_module

    step("load the module", 1, STEPS)
    built, namespace = torch_module.build_module(module) if isinstance(module, str) else (module, None)
    chosen = torch_module.load_state(built, Path(state)) if state is not None else ""
    if sum(tensor.numel() * tensor.element_size() for tensor in built.state_dict().values()) > LARGEST:
        check_output(weights_path(path), force=force)

    with _eval_mode(built), replace_file(path, force=force) as aside:
        examples = torch_module.read_inputs(built, inputs, namespace)
        differences, fixed, lengths = _write(built, examples, aside, data, opset, tolerance, step)
        written = read_model(aside)
        size = measure_size(files_of(written, aside))
    step("done", STEPS, STEPS)

    values = _describe_file(written, differences) | {
        "output": str(path),
        "bytes": size,
        "parameters": sum(parameter.numel() for parameter in built.parameters()),
        "tolerance": tolerance,
        "seconds": time.perf_counter() - started,
    }
    if isinstance(module, str) and state is None and values["parameters"]:
        lengths = (*lengths, f"weights are those that {module!r} made: no --state was given")
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
    if version == TORCH:
        return ""
    return (
        f"torch {version} is installed, fcdeploy is tested with {TORCH}; the file was compared with torch all the same"
    )


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
    from fcdeploy.pytorch.compare import TorchComparison, draw_trials, read_trials
    from fcdeploy.pytorch.module import FinalError, lengths_of

    freed = any(len(item.free) > 1 for item in inputs)
    fixed = tuple(replace(item, free={}) for item in inputs)
    reason = ""
    lengths: tuple[str, ...] = ()
    for candidate in (inputs,) if freed else (inputs, fixed):
        try:
            step("export to ONNX", 2, STEPS)
            sizes = _write_model(module, candidate, aside, opset)
            step("compare with torch", 3, STEPS)
            comparison = TorchComparison(module, candidate, aside, tolerance)
            comparison.run(draw_trials(candidate, sizes))
            lengths = comparison.try_lengths(list_lengths(lengths_of(candidate)), BATCH) if freed else ()
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
        comparison.run(read_trials(candidate, aside, data))
    return comparison.differences, warning, lengths


def _list_freed(inputs: Sequence[Input]) -> str:
    names = [name for item in inputs for axis, name in item.free.items() if axis]
    return " and ".join(map(repr, dict.fromkeys(names)))


def _write_fixed(inputs: Sequence[Input]) -> str:
    """The inputs as options that name no axis."""
    return " --input ".join(",".join(map(str, item.example.shape)) for item in inputs)


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
    save_model(model, aside, largest=LARGEST)
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


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}


def _make_report(values: dict[str, Any], lengths: tuple[str, ...], warnings: tuple[str, ...]) -> Report:
    rows = [("input", spec["name"], spec["dtype"], format_lengths(spec["shape"]), "", "") for spec in values["inputs"]]
    for spec in values["outputs"]:
        shape = format_lengths(spec["shape"])
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
