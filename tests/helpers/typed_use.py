"""A user's script that touches every public function. It is not run: mypy checks it, strictly and without Any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fcdeploy
from fcdeploy.api.inputs import TorchModule
from fcdeploy.arrays import Array


def samples() -> Iterator[dict[str, Array]]:
    """Whatever the user has, one sample after the other."""
    yield {}


def watch(label: str, done: int, total: int | None) -> None:
    """Progress."""
    print(label, done, total)


def make(module: TorchModule, images: Array, labels: Array) -> None:
    """From a module to a served bundle."""
    exported: fcdeploy.ExportResult = fcdeploy.export(module, output="m.onnx", inputs=[(1, 3, 32, 32)])
    shape: tuple[int | None, ...] = exported.inputs[0].shape
    recorded = fcdeploy.calibrate(exported.output, data=samples(), output="m.calib")
    low: float = recorded.tensors[0].min
    plan = fcdeploy.quantize(module, data=images, dry_run=True)
    why: str = plan.nodes[0].why
    made = fcdeploy.quantize(module, data=images, output="int8.onnx", on_step=watch)
    assert made.output is not None
    size: int | None = made.bytes_int8
    reason: str = made.nodes_float[0].why
    found = fcdeploy.validate(made.output, against=module, data=(images, labels), max_drop=0.5)
    drop: float | None = found.drop
    bound: float | None = found.drop_high
    timed = fcdeploy.bench(made.output, against=exported.output.read_bytes())
    ratio: float | None = timed.ratio
    looked = fcdeploy.inspect(made.output, kernels=True)
    kernel: str = looked.kernels[0].kernel
    print(shape, low, why, size, reason, drop, bound, ratio, kernel, made.passed, made.warnings, str(made))


def deploy(int8: Path) -> None:
    """Bundles, native code, other shapes, a server."""
    bundled = fcdeploy.bundle(int8, output="m.fcd")
    checked = fcdeploy.verify("m.fcd")
    verdict: str = fcdeploy.report(["m.fcd"], output="m.html").models[0].verdict
    compiled = fcdeploy.compile(int8, output="m.so")
    turned = fcdeploy.dense_to_conv(int8, output="c.onnx")
    back = fcdeploy.conv_to_dense(turned.output, output="d.onnx")
    cut = fcdeploy.split(int8, output="s.onnx", memory=1 << 18)
    machine = fcdeploy.doctor()
    loaded = fcdeploy.load_bundle("m.fcd", threads=1)
    native = fcdeploy.load_native("m.so")
    with fcdeploy.start_server(int8, port=0) as server:
        address: str = server.address
    try:
        fcdeploy.verify("nothing")
    except fcdeploy.FcdeployError as error:
        print(error.message, error.hint)
    print(
        verdict,
        bundled.files,
        checked.golden,
        compiled.arena_bytes,
        back.equal,
        cut.first,
        machine.host,
        address,
        loaded,
        native,
    )
