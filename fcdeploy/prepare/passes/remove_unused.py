"""Remove what no output depends on."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.edit import Changes, remove_dead


def remove_unused(model: ir.Model) -> Changes:
    """Drop nodes whose outputs nobody reads, then initializers nobody reads. Graph inputs always stay."""
    return Changes("remove_unused", remove_dead(model.graph))
