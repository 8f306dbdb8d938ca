"""What a model file holds, layer by layer, as tables and sentences: parameters, multiply-accumulates, memory, kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.errors import quote_names
from fcdeploy.graph.model import TensorSpec, files_of, input_specs, measure_size, name_axes, output_specs
from fcdeploy.graph.nodes import subgraphs_of
from fcdeploy.prepare import activation_memory, cost_model
from fcdeploy.prepare.cost_model import LayerCost
from fcdeploy.records.report import Section, Table
from fcdeploy.reporting.units import format_lengths, format_size
from fcdeploy.runtime.caveats import list_caveats
from fcdeploy.wording import say_count

TYPICALLY_INTEGER = ("Conv", "Gemm", "MatMul", "Add")  # what the line on kernels counts, where the model has it


def describe_contents(network: ir.Model, path: Path, kernels: list[dict[str, Any]] | None) -> Section:
    """What the file holds, and the kernel of every node where `kernels` are known. The batch of `network` becomes 1."""
    inputs, outputs = input_specs(network), output_specs(network)
    signature = _make_signature_table(network, inputs, outputs)
    stored = measure_size(files_of(network, path))
    weights = cost_model.weight_bytes(network)
    cost_model.fix_leading_axis(network)
    rows = cost_model.list_layer_costs(network)
    peak = activation_memory.measure_peak(network)

    values: dict[str, Any] = {
        "model": str(path),
        "opset": network.opset_imports.get("", 0),
        "ir_version": network.ir_version,
        "producer": " ".join(str(part) for part in (network.producer_name, network.producer_version) if part),
        "inputs": [_describe_spec(spec) for spec in inputs],
        "outputs": [_describe_spec(spec) for spec in outputs],
        "bytes": stored,
        "weight_bytes": weights,
        "parameters": sum(row.parameters for row in rows),
        "macs": _sum_known([row.macs for row in rows]),
        "peak_activation_bytes": peak,
        "layers": [_describe_layer(row) for row in rows],
    }

    lines = [
        f"opset {values['opset']}, IR version {values['ir_version']}"
        + (f", written by {values['producer']}" if values["producer"] else ""),
        f"{format_size(stored)} on disk, {format_size(weights)} of it constants; "
        f"at most {format_size(peak) if peak is not None else '?'} of activations alive at batch 1",
    ]
    if kernels is not None:
        values["kernels"] = kernels
        lines += _count_kernels(kernels)
    lines += list_caveats(network)
    tables = (signature, _make_layer_table(rows, kernels or []))
    return Section(values, tables, tuple(lines), tuple(_warn(inputs, network, rows)))


def _sum_known(parts: list[int | None]) -> int | None:
    return None if None in parts else sum(part for part in parts if part is not None)


def _describe_spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}


def _describe_layer(row: LayerCost) -> dict[str, Any]:
    return {
        "node": row.node,
        "op": row.op,
        "shape": None if row.shape is None else list(row.shape),
        "parameters": row.parameters,
        "macs": row.macs,
        "weight_bytes": row.weight_bytes,
        "activation_bytes": row.activation_bytes,
    }


def _make_signature_table(network: ir.Model, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Table:
    rows = [
        (kind, spec.name, str(spec.dtype), format_lengths(name_axes(values[spec.name])))
        for kind, specs, values in (
            ("input", inputs, {value.name: value for value in network.graph.inputs}),
            ("output", outputs, {value.name: value for value in network.graph.outputs}),
        )
        for spec in specs
    ]
    return Table("Inputs and outputs", ("", "name", "type", "shape"), tuple(rows))


def _make_layer_table(rows: list[LayerCost], kernels: list[dict[str, Any]]) -> Table:
    """A row a layer: what it takes, or where `kernels` are known, which of them runs it."""
    shapes = {row.node for row in rows if row.shapes_only}
    columns, cells = _list_kernels(rows, kernels) if kernels else _list_costs(rows)
    minor = frozenset(index for index, row in enumerate(cells) if row[0] in shapes)
    return Table("Layers, and the kernels that run them on this CPU" if kernels else "Layers", columns, cells, minor)


def _describe_rows(rows: list[LayerCost]) -> dict[str, tuple[str, str, str]]:
    """Operator, shape of the output and multiply-accumulates of each node."""
    return {
        row.node: (row.op, "?" if row.shape is None else format_lengths(row.shape), _format_macs(row.macs))
        for row in rows
    }


def _list_costs(rows: list[LayerCost]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    plain = _describe_rows(rows)
    cells = tuple(
        (
            row.node,
            *plain[row.node][:2],
            f"{row.parameters:,}" if row.parameters else "-",
            plain[row.node][2],
            "?" if row.activation_bytes is None else format_size(row.activation_bytes),
        )
        for row in rows
    )
    return ("layer", "op", "output", "parameters", "MACs", "activations"), cells


def _list_kernels(
    rows: list[LayerCost], kernels: list[dict[str, Any]]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    plain = _describe_rows(rows)
    runs = {row["node"]: (row["kernel"], "int" if row["integer"] else "float", row["note"]) for row in kernels}
    others = {row["node"]: (row["op"], "", "-") for row in kernels if row["node"] not in plain}
    joined = [(node, *cells, *runs.get(node, ("-", "-", ""))) for node, cells in {**plain, **others}.items()]
    columns = ("layer", "op", "output", "MACs", "kernel", "in", "note")
    used = len(columns) if any(row[-1] for row in joined) else -1
    return columns[:used], tuple(tuple(row[:used]) for row in joined)


def _format_macs(number: int | None) -> str:
    return "?" if number is None else f"{number:,}" if number else "-"


def _count_kernels(found: list[dict[str, Any]]) -> list[str]:
    """'19 of 19 Conv, 9 of 9 Add in integer kernels', for the operators that integer kernels are about."""
    total, integer = Counter(row["op"] for row in found), Counter(row["op"] for row in found if row["integer"])
    ops = [op for op in total if op in TYPICALLY_INTEGER or integer[op]]
    return [", ".join(f"{integer[op]} of {total[op]} {op}" for op in ops) + " in integer kernels"] if ops else []


def _warn(inputs: list[TensorSpec], network: ir.Model, rows: list[LayerCost]) -> list[str]:
    warnings = []
    unknown = sum(row.shape is None for row in rows)
    if unknown:
        free = [str(spec) for spec in inputs if None in spec.shape[1:]]
        why = (
            f"input {', '.join(free)} leaves more than its batch open; --shape says at which to count"
            if free
            else "their shapes are computed from data"
        )
        warnings.append(f"sizes of {unknown} of {say_count(len(rows), 'layer')} are unknown: {why}")
    inside = [node.name or "" for node in network.graph if any(True for _ in subgraphs_of(node))]
    if inside:
        warnings.append(f"multiply-accumulates inside the subgraphs of {quote_names(inside)} are not counted")
    return warnings
