"""Ranges that were measured elsewhere, and ours taken there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from conftest import fails
from networks import Net, in_memory, random_data

from fcdeploy.graph.model import name_everything
from fcdeploy.int8.observe import observe
from fcdeploy.int8.planning import plan_graph
from fcdeploy.prepare import prepare
from fcdeploy.records.calibration import Calibration, Histogram
from fcdeploy.records.plan import Plan
from fcdeploy.tables.targets import TARGETS


def network(seed: int = 0) -> Net:
    """Convolution, clip, convolution, dense: every name the model has is one that preparing keeps."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", 3, 6, 6), 3, 8, name="first"), name="relu")
    y = net.op("GlobalAveragePool", net.conv(x, 8, 8, name="second"), name="pool")
    return net.output(net.dense(net.op("Flatten", y, name="flat"), 8, 4, name="last"))


def prepared(net: Net) -> ir.Model:
    model = ir.from_proto(net.model())
    name_everything(model.graph)
    prepare(model)
    return model


def ends_only(calibration: Calibration) -> Calibration:
    """The same ranges, as another tool would have measured them."""
    nothing = np.zeros(0, np.uint16), np.zeros(0, np.int64)
    return replace(
        calibration,
        tensors={
            name: replace(r, moments=None, histogram=Histogram(*nothing, r.histogram.low, r.histogram.high))
            for name, r in calibration.tensors.items()
        },
    )


def planned(model: ir.Model, calibration: Calibration, ranges: str = "minmax") -> Plan:
    return plan_graph(model, calibration, TARGETS["portable"], ranges=ranges)


def test_ends_alone_plan_as_minmax_does() -> None:
    model = prepared(network())
    own = observe(model, in_memory(random_data(0, 4, x=(3, 6, 6)), model), model_hash="m")
    bare = ends_only(own)
    assert all(record.histogram.ends_only for record in bare.tensors.values())
    assert not any(record.histogram.ends_only for record in own.tensors.values())
    mine, theirs = planned(model, own), planned(model, bare)
    assert theirs.nodes == mine.nodes
    activations = {name: q for name, q in mine.tensors.items() if q.axis is None}
    assert len(activations) > 4
    assert {name: theirs.tensors[name] for name in activations} == activations


@pytest.mark.parametrize("ranges", ["mse", "percentile", "entropy"])
def test_ends_alone_have_no_histogram(ranges: str) -> None:
    model = prepared(network())
    own = observe(model, in_memory(random_data(0, 4, x=(3, 6, 6)), model), model_hash="m")
    with fails(
        "was measured elsewhere and has no histogram, which every range method but minmax needs", "--ranges min"
    ):
        planned(model, ends_only(own), ranges)


def test_a_tensor_without_a_range_stays_float() -> None:
    model = prepared(network())
    own = ends_only(observe(model, in_memory(random_data(0, 4, x=(3, 6, 6)), model), model_hash="m"))
    less = {name: record for name, record in own.tensors.items() if name != "pool_out"}
    found = {d.node: d for d in planned(model, replace(own, tensors=less)).nodes}
    assert (found["pool"].kind, found["second"].kind) == ("float", "int8")
    assert "tensor 'pool_out'" in found["pool"].why
