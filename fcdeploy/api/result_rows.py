"""Rows of results: what the public functions say of one tensor, node, layer or file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model; an axis of any length is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class ExportedTensor(TensorInfo):
    """An output of an exported model, and how far it is from torch's: at most, and of torch's largest element."""

    max_abs: float
    max_rel: float


@dataclass(frozen=True)
class TensorRange:
    """What was seen of one tensor. `fixed_point` is the fixed-point format that holds it."""

    layer: str
    tensor: str
    kind: str
    min: float
    max: float
    fixed_point: str
    elements: int


@dataclass(frozen=True)
class SkippedSample:
    """A sample that could not be used."""

    sample: str
    why: str


@dataclass(frozen=True)
class NodeKernel:
    """A node of the int8 model, and the integer kernel that runs it."""

    node: str
    op: str
    kernel: str


@dataclass(frozen=True)
class FloatNode:
    """A node that stays float, and why."""

    node: str
    op: str
    why: str


@dataclass(frozen=True)
class PlannedNode:
    """What a node becomes."""

    node: str
    op: str
    kind: str
    why: str


@dataclass(frozen=True)
class OutputError:
    """What an output is, how far that of the int8 model is from the float one's, and the share of its equal decisions.

    `miou`: mean overlap of the areas of its classes. `text`: letters that need no change. `nearest`: samples whose nearest
    other one is the same. `unequal_shapes`: samples on which both models gave different shapes.
    """

    name: str
    sqnr_db: float | None
    cosine: float | None
    largest_error: float | None
    kind: str = ""
    agreement: float | None = None
    miou: float | None = None
    text: float | None = None
    nearest: float | None = None
    unequal_shapes: int = 0


@dataclass(frozen=True)
class LayerError:
    """The error at a tensor, how much of it its layer adds, and what a quantized source alone would leave."""

    tensor: str
    node: str
    op: str
    sqnr_db: float | None
    fall_db: float | None
    source_db: float | None


@dataclass(frozen=True)
class Culprit:
    """The rounding that the advice names: of the weights of `node`, or of `tensor`, which `node` writes ("" for an input).

    `nodes` are those that undo it in float. `error` is the share of the outputs' error that goes with it, with its 95 %
    interval.
    """

    node: str
    op: str
    kind: str
    tensor: str
    nodes: tuple[str, ...]
    error: float
    error_low: float | None
    error_high: float | None


@dataclass(frozen=True)
class LayerInfo:
    """What a layer costs at batch 1."""

    node: str
    op: str
    shape: tuple[int | None, ...] | None
    parameters: int
    macs: int | None
    weight_bytes: int


@dataclass(frozen=True)
class CutPoint:
    """A place to cut a model: behind `node`, where `tensor` crosses, so many bytes a sample."""

    node: str
    tensor: str
    bytes: int | None
    macs: int | None
    memory: int | None


@dataclass(frozen=True)
class ReportedModel:
    """A model of a page, and what the page says of it in a sentence."""

    name: str
    verdict: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class StepEstimate:
    """A step of native code: `kernel` computes it, in about so many `instructions`."""

    node: str
    what: str
    kernel: str
    macs: int
    instructions: int


@dataclass(frozen=True)
class DeviceEstimate:
    """What native code takes on a device: bytes of flash and memory, instructions and milliseconds of a run.

    `ram_inputs_outputs` are inputs and outputs; `missed` names the limits that do not hold, of "ram", "flash" and "ms".
    """

    name: str
    core: str
    mhz: int
    flash: int
    flash_code: int
    flash_weights: int
    ram: int
    ram_arena: int
    ram_inputs_outputs: int
    ram_stack: int
    instructions: int
    ms_fast: float
    ms_slow: float
    limits: dict[str, float | None]
    missed: tuple[str, ...]
    steps: tuple[StepEstimate, ...]
