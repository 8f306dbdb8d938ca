"""PyTorch module -> ONNX graph, through torch.onnx.export, with its traps handled.

The exporter writes opset 18 or above and silently something else when it cannot write what was asked; it always says
IR version 10; it leaves names like `getitem_36`, stack traces in every node, shapes of intermediate tensors that are
sometimes wrong, and it talks while it works.  What comes out of here has the names of the module's own layers, nothing
but the network in it, and the lowest opset and IR version that can say it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from torch import nn

from fcdeploy.errors import FcdeployError, first_line
from fcdeploy.graph import opset as sets
from fcdeploy.graph.nodes import name_of
from fcdeploy.pytorch.module import FinalError, Input, split_arguments
from fcdeploy.pytorch.recurrent import simplify_recurrent
from fcdeploy.pytorch.recurrent_tracing import shapes_alone
from fcdeploy.wording import say_count

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note on which modules a node was called through
PACKED = (
    "leave pack_padded_sequence out and mask by the lengths, an input: y, _ = self.lstm(x); "
    "return y * (torch.arange(y.shape[1]) < lengths[:, None])[..., None]"
)
HINT = "write that line without branches on values, or export the part of the network before it"


def to_onnx(module: nn.Module, inputs: Sequence[Input], outputs: Sequence[str], *, opset: int | None) -> ir.Model:
    """The module as a graph with these inputs and outputs; the examples' free axes are free.

    `opset` None is the lowest that works, 13 or above.  Raises FcdeployError when torch cannot export the module, or
    not in that opset.
    """
    asked = max(opset or 0, sets.TOP)
    program = _export(module, inputs, asked)
    model: ir.Model = program.model
    written = model.opset_imports[""]
    if written != asked:
        raise FinalError(
            f"opset {asked} was asked for and torch {torch.__version__} wrote {written}", "leave --opset out"
        )
    if len(model.graph.inputs) != len(inputs) or len(model.graph.outputs) != len(outputs):
        raise FcdeployError(
            f"the exported graph has {say_count(len(model.graph.inputs), 'input')} "
            f"and {say_count(len(model.graph.outputs), 'output')}, "
            f"the module {len(inputs)} and {len(outputs)}",
            "return each tensor once, and no constants",
        )

    simplify_recurrent(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    _rename(model, [item.name for item in inputs], outputs, set(module.state_dict()))
    _lower_opset(model, opset)
    _strip(model)
    return model


def set_shapes(values: Sequence[ir.Value], shapes: Sequence[Sequence[int | str | None]]) -> None:
    """Declare the shapes of graph inputs or outputs: a length, the name of a free one, or None."""
    for value, shape in zip(values, shapes, strict=True):
        value.shape = ir.Shape(shape)


def _export(module: nn.Module, inputs: Sequence[Input], opset: int) -> Any:
    """torch.onnx.export, silent. A failure is told in one line, with the user's line that it happened in."""
    args, kwargs = split_arguments(inputs, [item.example for item in inputs])
    free = torch.export.Dim.DYNAMIC
    axes, named_axes = split_arguments(inputs, [dict.fromkeys(item.free, free) for item in inputs])
    try:
        with _silence(), shapes_alone():
            return torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamic_shapes=named_axes or _as_signature(module, axes),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch raises many types, most of them internal: the first of the chain says why
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        where = _find_user_line(root, type(module).__module__)
        hint = PACKED if "pack_padded_sequence" in where or "pack_padded" in str(root) else HINT
        reason = " ".join(part.strip("- ") for part in str(root).strip().splitlines()[:2]) or first_line(root)
        raise FcdeployError(f"torch cannot export {type(module).__name__}{where}: {reason}", hint) from error


def _as_signature(module: nn.Module, axes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Free axes in the form of `forward`'s positional parameters; all those of *args are one."""
    code = getattr(type(module).forward, "__code__", None)
    named = code.co_argcount - 1 if code is not None else 0
    return (*axes[:named], axes[named:]) if len(axes) > named else axes


def _find_user_line(error: BaseException, module_name: str) -> str:
    """The last line of the user's own file that the error passed through."""
    file = getattr(sys.modules.get(module_name), "__file__", None)
    own = [line for line in traceback.extract_tb(error.__traceback__) if line.filename == file]
    return f" at {own[-1].filename}:{own[-1].lineno} `{own[-1].line}`" if own else ""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints, logs and warns about its own inner workings. What it raises is kept."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    quiet = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _lower_opset(model: ir.Model, asked: int | None) -> None:
    """To the opset asked for, or the lowest; the IR version follows."""
    lowest, why = sets.lowest_opset(model)
    if asked is not None and asked < lowest:
        raise FinalError(
            f"opset {asked} cannot say this network: {why} needs {lowest}", f"--opset {lowest}, or leave it out"
        )
    sets.lower_opset(model, min(asked or lowest, model.opset_imports[""]))
    for domain in {"", *(node.domain for node in model.graph.all_nodes())} ^ set(model.opset_imports):
        model.opset_imports.pop(domain, None)
    model.ir_version = sets.lowest_ir_version(model)


def _rename(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], weights: Collection[str]) -> None:
    """Names from the module: a layer with weights is its path (`stage1.0.conv1`), any other node path/Operator."""
    taken_nodes: set[str] = set()
    values = _name_ends(model, inputs, outputs)
    for node in model.graph.all_nodes():
        node.name = _unused(_name_for(node, weights), taken_nodes)
        for index, made in enumerate(node.outputs):
            if not made.is_graph_output():
                made.name = _unused(f"{node.name}.{index}" if index else node.name, values)
    named = set(weights)
    for node in model.graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and value.name not in named:
                value.name = _unused(f"{node.name}.{_formal_input_name(node, index)}", values)
                named.add(value.name)


def _name_ends(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> set[str]:
    """Name the graph's inputs and outputs; return the names that no other value may have."""
    weights = {value.name for value in model.graph.initializers.values()}
    ends = zip((*model.graph.inputs, *model.graph.outputs), (*inputs, *outputs), strict=True)
    for index, (end, name) in enumerate(ends):
        is_input = index < len(inputs)
        also = "a weight of the module" if name in weights else "an input" if not is_input and name in inputs else None
        if also is not None:
            hint = "--input NAME:SHAPE renames it" if is_input else "return it under another name"
            raise FcdeployError(f"{name!r} names an {'input' if is_input else 'output'} and also {also}", hint)
        end.name = name
    return {*inputs, *outputs, *model.graph.initializers}


def _name_for(node: ir.Node, weights: Collection[str]) -> str:
    for value in node.inputs:
        if value is not None and value.name in weights and name_of(value).endswith(".weight"):
            return str(value.name).removesuffix(".weight")
    try:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    except (ValueError, SyntaxError):
        scopes = []
    path = scopes[-2] if len(scopes) > 1 else ""
    return f"{path}/{node.op_type}" if path else node.op_type


def _formal_input_name(node: ir.Node, index: int) -> str:
    """What the operator's definition calls an input."""
    try:
        formal = onnx.defs.get_schema(node.op_type, sets.TOP, node.domain).inputs
    except onnx.defs.SchemaError:
        return str(index)
    return str(formal[index].name) if index < len(formal) else str(index)


def _unused(name: str, taken: set[str]) -> str:
    """The name, or with _2, _3, ... after it; it is taken from then on."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _strip(model: ir.Model) -> None:
    """Nothing but the network: no notes, no unused weights, no shapes of intermediate tensors."""
    passes.RemoveUnusedNodesPass()(model)  # axes that became attributes
    passes.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "fcdeploy", None
    inner = [value for node in model.graph.all_nodes() for value in node.outputs if not value.is_graph_output()]
    for value in (*inner, *model.graph.initializers.values()):
        value.shape, value.type = None, None
        value.metadata_props.clear()
    model.graph.name = "network"
