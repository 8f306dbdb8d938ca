"""What is in a model: its layers, what each costs, and which kernel of onnxruntime runs each node here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.graph import work
from fcdeploy.graph.model import TensorSpec, input_specs, output_specs, read_model
from fcdeploy.graph.work import Layer
from fcdeploy.records.report import Report, Table

TYPICALLY_INTEGER = ("Conv", "Gemm", "MatMul", "Add")  # what the last line counts, where the model has it


def inspect(model: Path | str, *, kernels: bool = False) -> Report:
    """Parameters, multiply-accumulates and memory of every layer at batch 1; with `kernels`, the kernel of every node.

    Works on float and on int8 models; the model runs only where the shape of a tensor cannot be inferred otherwise.
    Raises FcdeployError when the file is not a model, or with `kernels` when onnxruntime cannot load it.
    """
    path = Path(model)
    network = read_model(path)
    inputs, outputs = input_specs(network), output_specs(network)
    stored = path.stat().st_size + _external_bytes(network, path.parent)
    weights = work.weight_bytes(network)
    work.fix_leading_axis(network)
    rows = work.layers(network)
    macs = _total([row.macs for row in rows])
    peak = work.peak_activation_bytes(network)
    values: dict[str, Any] = {
        "model": str(path),
        "opset": network.opset_imports.get("", 0),
        "ir_version": network.ir_version,
        "producer": " ".join(str(part) for part in (network.producer_name, network.producer_version) if part),
        "inputs": [_spec(spec) for spec in inputs],
        "outputs": [_spec(spec) for spec in outputs],
        "bytes": stored,
        "weight_bytes": weights,
        "parameters": sum(row.parameters for row in rows),
        "macs": macs,
        "peak_activation_bytes": peak,
        "layers": [_layer(row) for row in rows],
    }
    tables = [_ends(inputs, outputs), _layer_table(rows)]
    lines = [
        f"opset {values['opset']}, IR version {values['ir_version']}"
        + (f", written by {values['producer']}" if values["producer"] else ""),
        f"{size(stored)} on disk, {size(weights)} of it constants; "
        f"at most {size(peak) if peak is not None else '?'} of activations alive at batch 1",
    ]
    if kernels:
        found = _kernels(path)
        values["kernels"] = found
        tables.append(_kernel_table(found))
        lines += _kernel_lines(found)
    lines.append(f"{values['parameters']:,} parameters, {count(macs)} multiply-accumulates at batch 1")
    return Report("inspect", values, tuple(tables), tuple(lines), warnings=tuple(_warnings(inputs, network, rows)))


def size(number: int) -> str:
    """Bytes for people: 512 B, 17.4 kB, 1.08 MB."""
    scaled, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    return f"{number} B" if units[0] == "B" else f"{scaled:.3g} {units[0]}"


def count(number: int | None) -> str:
    """A count for people: 9,216, 40.6 million."""
    if number is None:
        return "an unknown number of"
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"


def _total(parts: list[int | None]) -> int | None:
    return None if None in parts else sum(part for part in parts if part is not None)


def _external_bytes(network: ir.Model, folder: Path) -> int:
    """Bytes of the weight files beside the model."""
    tensors = [value.const_value for value in network.graph.initializers.values()]
    files = {folder / tensor.location for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    return sum(file.stat().st_size for file in files)


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": list(spec.shape)}


def _layer(row: Layer) -> dict[str, Any]:
    return {
        "node": row.node,
        "op": row.op,
        "shape": None if row.shape is None else list(row.shape),
        "parameters": row.parameters,
        "macs": row.macs,
        "weight_bytes": row.weight_bytes,
        "activation_bytes": row.activation_bytes,
    }


def _ends(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Table:
    rows = [
        (kind, spec.name, str(spec.dtype), _shape(spec.shape))
        for kind, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    ]
    return Table("Inputs and outputs", ("", "name", "type", "shape"), tuple(rows))


def _layer_table(rows: list[Layer]) -> Table:
    cells = tuple(
        (
            row.node,
            row.op,
            "?" if row.shape is None else _shape(row.shape),
            f"{row.parameters:,}" if row.parameters else "-",
            "?" if row.macs is None else f"{row.macs:,}" if row.macs else "-",
            "?" if row.activation_bytes is None else size(row.activation_bytes),
        )
        for row in rows
    )
    return Table("Layers", ("layer", "op", "output", "parameters", "MACs", "activations"), cells)


def _shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("?" if n is None else str(n) for n in shape) or "one number"


def _kernels(path: Path) -> list[dict[str, Any]]:
    from fcdeploy.graph.kernels import kernels_of

    return [
        {"node": row.node, "op": row.op, "kernel": row.kernel, "integer": row.integer, "note": row.note}
        for row in kernels_of(path)
    ]


def _kernel_table(found: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (row["node"], row["op"], row["kernel"], "int" if row["integer"] else "float", row["note"]) for row in found
    )
    return Table("Kernels on this CPU", ("node", "op", "kernel", "computes in", "note"), rows)


def _kernel_lines(found: list[dict[str, Any]]) -> list[str]:
    """'19 of 19 Conv, 9 of 9 Add in integer kernels', for the operators that integer kernels are about."""
    total, integer = Counter(row["op"] for row in found), Counter(row["op"] for row in found if row["integer"])
    ops = [op for op in total if op in TYPICALLY_INTEGER or integer[op]]
    return [", ".join(f"{integer[op]} of {total[op]} {op}" for op in ops) + " in integer kernels"] if ops else []


def _warnings(inputs: list[TensorSpec], network: ir.Model, rows: list[Layer]) -> list[str]:
    warnings = []
    unknown = sum(row.shape is None for row in rows)
    if unknown:
        free = [str(spec) for spec in inputs if None in spec.shape[1:]]
        why = (
            f"input {', '.join(free)} leaves more than its batch open"
            if free
            else "their shapes are computed from data"
        )
        warnings.append(f"sizes of {unknown} of {len(rows)} layers are unknown: {why}")
    inside = [node.name for node in network.graph if _has_subgraph(node)]
    if inside:
        warnings.append(f"multiply-accumulates inside the subgraphs of {', '.join(map(repr, inside))} are not counted")
    return warnings


def _has_subgraph(node: ir.Node) -> bool:
    return any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())
