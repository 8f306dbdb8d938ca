"""What a shell completes behind an option, beyond the options themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from fcdeploy.errors import FcdeployError

# words of modules that import NumPy, without importing them: a shell waits for Tab (tests/cli/test_completion.py compares)
RANGES = ("mse", "mse-unweighted", "minmax", "percentile", "percentile-99.9", "entropy")
EFFORTS = ("fast", "balanced", "best")
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete(words: Sequence[str]) -> Complete:
    """The words that begin as what is typed."""
    return lambda _context, _option, typed: [CompletionItem(word) for word in words if word.startswith(typed)]


def complete_nodes(context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """The nodes of MODEL, where it was typed before, and `op:TYPE` of each of their operators."""
    model = context.params.get("model") or next(iter(context.args), None)  # click stops at the option without a value
    if model is None:
        return []
    from fcdeploy.graph.light_reader import read_outline

    try:
        nodes = read_outline(model).nodes
    except (FcdeployError, OSError):  # the command itself will say it
        return []
    words = [node.name for node in nodes if node.name] + sorted({f"op:{node.op}" for node in nodes})
    return [CompletionItem(word) for word in words if word.startswith(typed)]
