"""Caveats about a model's quantization, where it is not int8 on both sides of an integer kernel."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import attribute_of, producer_of
from fcdeploy.records import origin
from fcdeploy.runtime import options
from fcdeploy.runtime.cpu import detect_target, read_cpu_flags
from fcdeploy.tables.targets import TARGETS
from fcdeploy.wording import say_count

WIDE = {ir.DataType.INT16, ir.DataType.UINT16}
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
DYNAMIC = {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "DynamicQuantizeLinear"}


def list_caveats(model: ir.Model) -> tuple[str, ...]:
    """Sentences on 16-bit integers, weights in blocks and dynamic activations; none for float and int8 models."""
    caveats = []
    wide = sum(node.op_type in LAYERS and any(map(_is_wide, node.inputs)) for node in model.graph)
    if wide:
        caveats.append(
            f"{say_count(wide, 'layer')} "
            "of 16 bits: for accuracy, DSPs and NPUs; onnxruntime has no integer kernel for 16 bits and "
            f"computes in float"
        )

    # weights in blocks: what the kernel does with activations depends on the accuracy level
    blocks = [node for node in model.graph if node.op_type == "MatMulNBits"]
    rounding = sum(attribute_of(node, "accuracy_level", 0) == 4 for node in blocks)
    if rounding:
        caveats.append(
            f"{say_count(rounding, 'layer')} "
            "in blocks: the kernel, MatMulNBits, rounds activations to bytes by itself, row by row "
            f"and block by block (accuracy_level 4)"
        )
    if len(blocks) > rounding:
        caveats.append(
            f"{say_count(len(blocks) - rounding, 'layer')} in blocks, computed in float (MatMulNBits, accuracy_level below 4)"
        )

    dynamic = sum(node.op_type in DYNAMIC for node in model.graph)
    if dynamic:
        caveats.append(
            f"{say_count(dynamic, 'layer')} "
            "with dynamic activations: all of a run share one scale, so a sample's answer depends on "
            f"the batch it is in"
        )
    return tuple(caveats)


def warn_of_other_cpu(model: ir.Model) -> tuple[str, ...]:
    """What is said of a file whose pairs overflow on this CPU, so that it adds in 32 bits by an option: it is slow here."""
    if options.PRECISION not in options.select_for_cpu(options.read_options(model), read_cpu_flags()):
        return ()
    try:
        target = TARGETS[origin.read(model.metadata_props, "")["target"]].name
    except (KeyError, FcdeployError):  # of another tool, or edited
        target = "other CPUs"
    return (
        f"made for {target}, and this one is {detect_target().name}: here it adds in 32 bits by {options.PRECISION}, with the "
        f"same results and in more time than on {target}",
    )


def _is_wide(value: ir.Value | None) -> bool:
    """Whether a tensor is read back from integers of 16 bits."""
    node = producer_of(value)
    if node is None or node.op_type != "DequantizeLinear":
        return False
    return any(v is not None and v.dtype in WIDE for v in (node.inputs[0], *node.inputs[2:]))
