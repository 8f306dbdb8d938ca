"""What is in a model: its layers, what each costs, and which kernel of onnxruntime runs each node here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import TensorSpec, files_of, input_specs, is_quantized, measure_size, output_specs, read_model
from fcdeploy.graph.nodes import subgraphs_of
from fcdeploy.prepare import activation_memory, cost_model
from fcdeploy.prepare.cost_model import LayerCost
from fcdeploy.preprocessing.read import Given
from fcdeploy.proof.exact import Exactness, LayerExactness, check_exactness, describe_exactness
from fcdeploy.proof.saturation import SaturationProof, prove_no_saturation
from fcdeploy.records.data_format import choose_format, from_metadata, to_json
from fcdeploy.records.progress import OnStep
from fcdeploy.records.report import Report, Table
from fcdeploy.reporting.runtimes import describe_runtimes
from fcdeploy.reporting.saturation import describe_saturation
from fcdeploy.runtime.caveats import list_caveats
from fcdeploy.runtime.feeds import fix_shapes
from fcdeploy.runtime.trust import refuse_untrusted
from fcdeploy.samples.kinds import open_source
from fcdeploy.samples.source import choose_batch_size, make_batches
from fcdeploy.transform.repair import warn_of_faults

FEW = 4  # samples that --exact looks at, and the most it runs at once: all their activations are held
TYPICALLY_INTEGER = ("Conv", "Gemm", "MatMul", "Add")  # what the last line counts, where the model has it


def inspect(
    model: Path | str,
    *,
    kernels: bool = False,
    saturation: bool = False,
    exact: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
    runtimes: bool = False,
    data: Path | str | None = None,
    samples: int | None = None,
    preprocess: Given = None,
    on_step: OnStep | None = None,
) -> Report:
    """Parameters, multiply-accumulates and memory of every layer at batch 1; with `kernels`, the kernel of every node.

    `shapes` by name are those of inputs with free axes to count at; without, what depends on them stays unknown.
    With `saturation`, which layers of a quantized model can overflow on CPUs that add pairs of products in 16 bits.
    With `exact`, whether its kernels compute on this CPU what exact arithmetic does, on the first `samples` (4 unless
    given, or the model's batch) of `data`; the report passes when they do.
    With `runtimes`, which other runtimes than onnxruntime would refuse the model, or compute it otherwise, and why.

    Works on float and on int8 models; the model runs only where the shape of a tensor cannot be inferred otherwise.
    Raises FcdeployError when the file is not a model, with `kernels` when onnxruntime cannot load it, with
    `saturation` and `exact` when it is not quantized.
    """
    path = Path(model)
    if exact != (data is not None):
        raise FcdeployError(
            "--exact runs the model on samples, and there is no --data" if exact else "--data is for --exact alone",
            f"fcdeploy inspect {path} --exact --data DATA",
        )
    if not exact and (samples is not None or preprocess is not None):
        option = "--samples" if samples is not None else "--preprocess"
        raise FcdeployError(f"{option} is for --exact alone", f"fcdeploy inspect {path} --exact --data DATA")

    network = read_model(path)
    if shapes:
        cost_model.count_at(network, {s.name: s.shape for s in fix_shapes(input_specs(network), None, shapes)})
    untrusted = (*refuse_untrusted(network, str(path)), *warn_of_faults(network))
    inputs = input_specs(network)
    known = from_metadata(network.metadata_props, str(path))
    proofs = _prove_layers(network, path) if saturation else None
    compared = _compare_exactly(network, path, data, samples, preprocess, on_step) if data is not None else None
    assignments = _read_kernels(path) if kernels else []
    values, tables, lines, unclear = _describe_contents(network, path, inputs, assignments)
    if kernels:
        values["kernels"] = assignments
        lines += _count_kernels(assignments)

    lines += list_caveats(network)
    lines += known.describe()
    lines.append(f"{values['parameters']:,} parameters, {format_count(values['macs'])} multiply-accumulates at batch 1")

    if proofs is not None:
        rows, table, sentence = describe_saturation(proofs)
        values |= {"saturation": rows, "safe": all(row.safe for row in proofs)}
        tables.append(table)
        lines.append(sentence)
    if compared is not None:
        values |= {
            "exact": [_describe_exactness(row) for row in compared.rows],
            "exact_floats": [_describe_exactness(row) for row in compared.floats],
            "exact_passed": compared.passed,
        }
        tables += _make_exact_tables(compared)
        lines.append(describe_exactness(compared))

    if runtimes:
        values["runtimes"], table, sentence = describe_runtimes(network)
        tables.append(table)
        lines.append(sentence)

    passed = compared is None or compared.passed
    values["format"] = to_json(known)
    return Report("inspect", values, tuple(tables), tuple(lines), passed=passed, warnings=(*untrusted, *unclear))


def _describe_contents(
    network: ir.Model, path: Path, inputs: list[TensorSpec], kernels: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[Table], list[str], list[str]]:
    """What the file holds: values, tables, lines, warnings. The leading axis of `network` is fixed to 1 on the way."""
    outputs = output_specs(network)
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
    return (
        values,
        [_make_signature_table(inputs, outputs), _make_layer_table(rows, kernels)],
        lines,
        _warn(inputs, network, rows),
    )


def format_size(number: int) -> str:
    """Bytes for people: 512 B, 17.4 kB, 1.08 MB."""
    scaled, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    return f"{number} B" if units[0] == "B" else f"{scaled:.3g} {units[0]}"


def format_count(number: int | None) -> str:
    """A count for people: 9,216, 40.6 million."""
    if number is None:
        return "an unknown number of"
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"


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


def _make_signature_table(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Table:
    rows = [
        (kind, spec.name, str(spec.dtype), _format_shape(spec.shape))
        for kind, specs in (("input", inputs), ("output", outputs))
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
        row.node: (row.op, "?" if row.shape is None else _format_shape(row.shape), _format_macs(row.macs))
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


def _format_shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("?" if n is None else str(n) for n in shape) or "one number"


def _read_kernels(path: Path) -> list[dict[str, Any]]:
    from fcdeploy.runtime.kernels import find_kernels

    return [
        {"node": row.node, "op": row.op, "kernel": row.kernel, "integer": row.integer, "note": row.note}
        for row in find_kernels(path)
    ]


def _count_kernels(found: list[dict[str, Any]]) -> list[str]:
    """'19 of 19 Conv, 9 of 9 Add in integer kernels', for the operators that integer kernels are about."""
    total, integer = Counter(row["op"] for row in found), Counter(row["op"] for row in found if row["integer"])
    ops = [op for op in total if op in TYPICALLY_INTEGER or integer[op]]
    return [", ".join(f"{integer[op]} of {total[op]} {op}" for op in ops) + " in integer kernels"] if ops else []


def _prove_layers(network: ir.Model, path: Path) -> list[SaturationProof]:
    """The worst layer first; those that add in 32 bits last."""
    _check_quantized(network, path, "--saturation")
    return sorted(prove_no_saturation(network), key=lambda row: math.inf if row.margin is None else row.margin)


def _check_quantized(network: ir.Model, path: Path, option: str) -> None:
    if not is_quantized(network):
        raise FcdeployError(
            f"model {str(path)!r} is not quantized: {option} is about sums of byte products, and it has none",
            f"fcdeploy quantize {path} --int8 --data DATA -o OUT, then inspect OUT",
        )


def _compare_exactly(
    network: ir.Model,
    path: Path,
    data: Path | str,
    samples: int | None,
    preprocess: Given,
    on_step: OnStep | None,
) -> Exactness:
    _check_quantized(network, path, "--exact")
    inputs = input_specs(network)
    limit = samples or choose_batch_size(inputs, FEW)
    recorded = from_metadata(network.metadata_props, str(path))
    source = open_source(data, inputs, limit=limit, format=choose_format(recorded, preprocess=preprocess))
    parts = make_batches(source, choose_batch_size(inputs, min(limit, FEW)))
    return check_exactness(network, (part.inputs for part in parts), on_step=on_step)


def _describe_exactness(row: LayerExactness) -> dict[str, Any]:
    return {
        "node": row.node,
        "op": row.op,
        "elements": row.elements,
        "of": row.of,
        "differ": row.differ,
        "share": row.share,
        "levels": row.levels,
    }


def _make_exact_cells(rows: Sequence[LayerExactness]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            row.node,
            row.op,
            f"{row.elements:,}" if row.elements == row.of else f"{row.elements:,} of {row.of:,}, drawn",
            f"{row.differ:,}",
            f"{100 * row.share:.3g} %",
            f"{row.levels:.3g}",
            "not exact" if not row.passed else "ties" if row.differ else "within 1e-5" if row.floats else "exact",
        )
        for row in rows
    )


def _make_exact_tables(found: Exactness) -> list[Table]:
    columns = ("layer", "op", "compared", "differ", "share", "levels", "")
    tables = [Table("What the kernels write here, against exact arithmetic", columns, _make_exact_cells(found.rows))]
    if found.floats:
        title = "Float nodes from the same integers, on every path through the runtime"
        tables.append(Table(title, columns, _make_exact_cells(found.floats)))
    if found.skipped:
        why = tuple((row.node, row.op, row.why) for row in found.skipped)
        tables.append(Table("Not compared", ("layer", "op", "why"), why))
    return tables


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
        warnings.append(f"sizes of {unknown} of {len(rows)} layers are unknown: {why}")
    inside = [node.name for node in network.graph if any(True for _ in subgraphs_of(node))]
    if inside:
        warnings.append(f"multiply-accumulates inside the subgraphs of {', '.join(map(repr, inside))} are not counted")
    return warnings
