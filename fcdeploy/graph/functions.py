"""Functions that a model defines itself, put where they are called, so that every tool sees plain operators."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.errors import FcdeployError

DEEPEST = 100  # calls within calls
MOST_NODES = 1_000_000  # a file of kilobytes can call functions that call functions that ...


def inline_functions(model: ir.Model, name: str) -> None:
    """Replace every call by the body of its function, in place, where both are of the same operator sets.

    A call of a function of another operator set stays, and the runtime resolves it.  Raises FcdeployError for functions
    that call themselves, or that would take more than MOST_NODES nodes.
    """
    if not model.functions:
        return
    from onnx_ir.passes.common import InlinePass

    sets = model.graph.opset_imports
    fitting = {
        key
        for key, function in model.functions.items()
        if all(sets.get(domain, version) == version for domain, version in function.opset_imports.items())
    }
    _check_size(model, name)
    InlinePass(criteria=lambda function: function.identifier() in fitting)(model)
    for domain in {key[0] for key in fitting} - {key[0] for key in model.functions}:
        if not any(node.domain == domain for node in model.graph.all_nodes()):
            model.graph.opset_imports.pop(domain, None)


def _check_size(model: ir.Model, name: str) -> None:
    """Raise FcdeployError where calls go round in a circle, or multiply beyond MOST_NODES."""
    sizes: dict[ir.OperatorIdentifier, int] = {}
    open_calls: list[ir.OperatorIdentifier] = []

    def nodes_of(graph: ir.Graph | ir.Function) -> int:
        return sum(size_of(node.op_identifier()) for node in graph.all_nodes())

    def size_of(key: ir.OperatorIdentifier) -> int:
        if key not in model.functions:
            return 1
        if key in open_calls:
            raise FcdeployError(
                f"model {name!r} is broken: its function {key[1]!r} calls itself", "export the model again"
            )
        if len(open_calls) >= DEEPEST:
            raise FcdeployError(
                f"model {name!r}: its functions call each other {DEEPEST} deep and more", "export the model again"
            )
        if key not in sizes:
            open_calls.append(key)
            sizes[key] = nodes_of(model.functions[key])
            open_calls.pop()
        return sizes[key]

    total = nodes_of(model.graph)
    if total > MOST_NODES:
        raise FcdeployError(
            f"model {name!r}: its functions come to {total:,} nodes, expected {MOST_NODES:,} at most",
            "export the model again without functions",
        )
