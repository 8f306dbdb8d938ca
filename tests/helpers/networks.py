"""Random networks written in a few lines, and the whole line from one of them to its int8 form, for many test files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.graph.model import input_specs, name_everything
from fcdeploy.int8.calibrating.observe import observe
from fcdeploy.int8.planning.check_plan import check_plan
from fcdeploy.int8.planning.plan_graph import Overrides, plan_graph
from fcdeploy.int8.planning.stored_biases import shift_stored_biases
from fcdeploy.int8.planning.types import round_packed_layers
from fcdeploy.int8.planning.weights import RoundedLayer, round_layers
from fcdeploy.int8.refining.correct_layers import correct_layers
from fcdeploy.int8.writing.rewrite import rewrite
from fcdeploy.prepare.pipeline import prepare
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.runtime.session import Session
from fcdeploy.samples.source import Source
from fcdeploy.tables.targets import TARGETS
from fcdeploy.tables.types import INT8, Types

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
IR_VERSIONS = {13: 7, 17: 8, 18: 8, 21: 10}


class Net:
    """A graph as it is written down: every method adds nodes and returns the name of what they compute."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self.weights: list[onnx.TensorProto] = []

    def input(self, name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> str:
        """An input with a free leading axis in front of `shape`."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, ["n", *shape]))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"k{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def normal(self, *shape: int, size: float = 1.0) -> Array:
        return (self.random.normal(size=shape) * size).astype(np.float32)

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=1, name=name, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, name: str = "", **attributes: Any) -> list[str]:
        """A node named `name`; its results are named after it."""
        name = name or f"{kind.lower()}{len(self.nodes)}"
        written = [f"{name}_out{i}" if i else f"{name}_out" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), written, name, **attributes))
        return written

    def conv(
        self, x: str, read: int, write: int, kernel: Sequence[int] = (3, 3), *, group: int = 1, bias: bool = True,
        name: str = "", pad: bool = True, **attributes: Any,
    ) -> str:  # fmt: skip
        """A convolution that keeps the size of images and of activations."""
        fan = read // group * int(np.prod(kernel))
        tensors = [self.constant(self.normal(write, read // group, *kernel, size=np.sqrt(1.6 / fan)))]
        if bias:
            tensors.append(self.constant(self.normal(write, size=0.2)))
        if pad:
            attributes["pads"] = [k // 2 for k in kernel] * 2
        return self.op("Conv", x, *tensors, name=name, group=group, kernel_shape=list(kernel), **attributes)

    def dense(self, x: str, read: int, write: int, *, bias: bool = True, name: str = "", **attributes: Any) -> str:
        shape = (write, read) if attributes.get("transB") else (read, write)
        tensors = [self.constant(self.normal(*shape, size=np.sqrt(1.6 / read)))]
        if bias:
            tensors.append(self.constant(self.normal(write, size=0.2)))
        return self.op("Gemm", x, *tensors, name=name, **attributes)

    def output(self, *names: str) -> Net:
        self.outputs += names
        return self

    def model(self) -> onnx.ModelProto:
        """Checked; outputs have the shapes and types that inference gives them."""
        unknown = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, unknown, self.weights)
        version = IR_VERSIONS.get(self.opset, 8)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=version)
        made = onnx.shape_inference.infer_shapes(made)
        onnx.checker.check_model(made, full_check=True)
        return made

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path


def in_memory(data: Mapping[str, Array], model: ir.Model) -> Source:
    """These arrays (samples first) as a source of samples, without a file."""
    count = len(next(iter(data.values())))

    def read() -> Any:
        for i in range(count):
            yield f"sample {i}", partial(dict, {name: array[i] for name, array in data.items()})

    return Source("data", tuple(input_specs(model)), read, count, False)


@dataclass
class Line:
    """What every command made of a network."""

    float_model: onnx.ModelProto
    prepared: ir.Model
    calibration: Calibration
    plan: Plan
    layers: dict[str, RoundedLayer]
    int8: ir.Model
    data: Arrays
    kinds: dict[str, str] = field(default_factory=dict)

    def kinds_of(self, op: str) -> list[str]:
        return [decision.kind for decision in self.plan.nodes if decision.op == op]

    def outputs(self, *, optimize: bool = True, float_model: bool = False) -> list[Array]:
        model = self.float_model.SerializeToString() if float_model else self.int8
        return Session(model, threads=1, optimize=optimize).run(self.data)

    def sqnr(self) -> float:
        """Of the worst floating-point output; nine of ten integers of other outputs must be equal."""
        worst = np.inf
        for f, q in zip(self.outputs(float_model=True), self.outputs(), strict=True):
            assert f.shape == q.shape
            assert f.dtype == q.dtype
            if f.dtype.kind == "f":
                worst = min(worst, measure_fidelity(f, q).sqnr_db)
            else:
                assert np.mean(f == q) > 0.9
        return worst

    def kernel_sqnr(self) -> float:
        """Of the worst output: the file as the runtime optimizes it, against the same file taken literally."""
        pairs = zip(self.outputs(optimize=False), self.outputs(), strict=True)
        return min((measure_fidelity(a, b).sqnr_db for a, b in pairs if a.dtype.kind == "f"), default=np.inf)


def quantize_net(
    net: Net | onnx.ModelProto,
    data: Arrays,
    *,
    target: str = "portable",
    ranges: str = "mse",
    keep_float: Sequence[str] = (),
    correct: bool = False,
    edit: Any = None,
    types: Types = INT8,
    slow: Mapping[str, str] | None = None,
    moments: bool = True,
) -> Line:
    """The real line on a network: prepare, observe, plan, weights, rewrite; without `moments` as if none were recorded."""
    proto = net if isinstance(net, onnx.ModelProto) else net.model()
    prepared = ir.from_proto(proto)
    name_everything(prepared.graph)
    prepare(prepared)
    calibration = observe(prepared, in_memory(data, prepared), model_hash="test")
    if not moments:
        bare = {name: replace(record, moments=None) for name, record in calibration.tensors.items()}
        calibration = replace(calibration, tensors=bare)
    plan = plan_graph(
        prepared,
        calibration,
        TARGETS[target],
        ranges=ranges,
        keep_float=keep_float,
        types=types,
        overrides=Overrides(slow or {}),
    )
    if edit is not None:
        plan = edit(plan)
    check_plan(prepared.graph, plan, "the plan")
    layers = round_layers(prepared, plan, calibration, TARGETS[target].pair_limit, correctable=correct)
    others = round_packed_layers(prepared, plan, calibration, TARGETS[target].pair_limit)
    int8 = prepared.clone()
    shift_stored_biases(int8, plan, calibration)
    rewrite(int8, plan, {**layers, **others})
    if correct:
        correct_layers(prepared, int8, plan, calibration.kept, target=TARGETS[target])
    onnx.checker.check_model(ir.to_proto(int8), full_check=True)
    return Line(proto, prepared, calibration, plan, layers, int8, data, dict(plan.kinds))


def random_data(seed: int, n: int, **shapes: Sequence[int]) -> Arrays:
    random = np.random.default_rng(1000 + seed)
    return {name: random.normal(size=(n, *shape)).astype(np.float32) for name, shape in shapes.items()}


def quantize_residual() -> Line:
    """Two convolutions whose results are added, a pool and a dense layer: what native code is made of in tests."""
    net = Net()
    x = net.input("image", 3, 8, 8)
    y = net.op("Relu", net.conv(x, 3, 8, name="first"))
    y = net.op("Relu", net.op("Add", y, net.conv(y, 8, 8, name="second"), name="sum"))
    net.output(net.dense(net.op("Flatten", net.op("GlobalAveragePool", y)), 8, 4, name="last"))
    return quantize_net(net, random_data(0, 6, image=(3, 8, 8)))
