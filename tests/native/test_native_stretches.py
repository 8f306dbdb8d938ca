"""A file that is cut at its bytes: equal to its program but for ties, and not to a program that something was changed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from networks import Line, quantize_residual

from fcdeploy.arrays import Arrays
from fcdeploy.bundles.golden import DIFFERENT, OutputDifference
from fcdeploy.native.build import build
from fcdeploy.native.program.layers import Layer
from fcdeploy.native.program.steps import Program
from fcdeploy.native.prove import AS_IT_IS, Proof
from fcdeploy.native.reading.operators import read_program
from fcdeploy.native.stretches import StretchProof, prove_stretches
from fcdeploy.reporting.compilation import format_proof
from fcdeploy.runtime.session import Session


@pytest.fixture(scope="module")
def line() -> Line:
    return quantize_residual()


@pytest.fixture(scope="module")
def program(line: Line) -> Program:
    return build(
        read_program(line.int8.clone(), "net")
    ).program  # with the sum in the layer before it, as it is compiled


def open_plain(model: ir.Model) -> Callable[[Arrays], Arrays]:
    session = Session(model, threads=1, optimize=False)
    return lambda sample: dict(zip(session.outputs, session.run(sample), strict=True))


def list_samples(line: Line) -> list[Arrays]:
    return [{name: array[at : at + 1] for name, array in line.data.items()} for at in range(3)]


def test_every_stretch_is_the_program_s_but_for_ties(line: Line, program: Program) -> None:
    before = ir.to_proto(line.int8).SerializeToString()
    found = prove_stretches(line.int8, program, list_samples(line), open_plain)
    assert found.passed
    assert found.tensors >= 4
    assert found.ties <= 0.002 * found.elements
    assert ir.to_proto(line.int8).SerializeToString() == before  # the model is left as it was


@pytest.mark.parametrize("at", range(3))
def test_a_layer_that_was_read_wrongly_is_named(line: Line, program: Program, at: int) -> None:
    layers = [step for step in program.steps if isinstance(step, Layer)]
    wrong = replace(layers[at], bias=layers[at].bias + 40 * np.abs(layers[at].bias).max())
    other = replace(program, steps=tuple(wrong if step is layers[at] else step for step in program.steps))
    found = prove_stretches(line.int8, other, list_samples(line), open_plain)
    assert not found.passed
    assert len(found.wrong) == 1, "what reads its bytes is given the program's"


def test_outputs_that_differ_pass_where_each_stretch_does() -> None:
    apart = OutputDifference("y", DIFFERENT, 10, 9, 1.0, 12.0, 20.0)
    proof = Proof((), ("plain",), (), (apart,), AS_IT_IS, 1)
    assert not proof.passed
    assert format_proof(proof)[-1] == "9 of 10 outputs differ from onnxruntime, by more than rounding ties"
    added = replace(proof, stretches=StretchProof(20, 4000, 2, ()))
    assert added.passed
    assert format_proof(added)[-1].endswith(
        "as they add up: the file cut at 20 tensors of bytes, 2 of 4,000 are one level off, all others equal"
    )
    for bad in (StretchProof(20, 4000, 2, ("b",)), StretchProof(0, 0, 0, ())):
        assert not replace(proof, stretches=bad).passed
    assert format_proof(replace(proof, stretches=StretchProof(20, 4000, 2, ("b",))))[-1].endswith(
        "b is not the program's"
    )
