"""`scripts/compat --portable`: whether int8 files give the same bytes here, in WebAssembly and on other CPUs.

Each MODEL=DATA runs sample by sample on this CPU, in onnxruntime-web where node is found, and by every --on NAME=COMMAND:
a Python with onnxruntime and NumPy of another CPU, such as an emulator's.  Outputs are compared bit by bit.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from fcdeploy.graph.model import input_specs, read_model
from fcdeploy.samples.kinds import Samples
from fcdeploy.samples.source import get_fixed_batch, make_batches

WEB = Path(__file__).parent.parent / ".compat" / "web"
WEB_VERSION = "1.30.0"
CHILD = """
import json, sys
import numpy as np, onnxruntime
folder, where = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
for job in json.load(open(f"{folder}/jobs.json")):
    session = onnxruntime.InferenceSession(f"{folder}/{job['name']}.onnx", options, providers=["CPUExecutionProvider"])
    files = [open(f"{folder}/{job['name']}.{where}.{i}", "wb") for i, _ in enumerate(session.get_outputs())]
    for run in range(job["runs"]):
        feeds = {each["name"]: np.fromfile(f"{folder}/{each['file']}.{run}", each["dtype"]).reshape(each["dims"][run])
                 for each in job["inputs"]}
        for file, array in zip(files, session.run(None, feeds)):
            file.write(np.asarray(array).tobytes())
"""
SCRIPT = """
const fs = require("fs"), [folder, modules] = process.argv.slice(1);
const ort = require(modules + "/onnxruntime-web");
const arrays = {float32: Float32Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array, int64: BigInt64Array};
ort.env.wasm.numThreads = 1; ort.env.logLevel = "fatal";
(async () => {
  for (const job of JSON.parse(fs.readFileSync(folder + "/jobs.json"))) {
    const session = await ort.InferenceSession.create(`${folder}/${job.name}.onnx`,
      {executionProviders: ["wasm"], logSeverityLevel: 4});
    const files = session.outputNames.map((_, i) => fs.openSync(`${folder}/${job.name}.web.${i}`, "w"));
    for (let run = 0; run < job.runs; run++) {
      const feeds = {};
      for (const each of job.inputs) {
        const bytes = fs.readFileSync(`${folder}/${each.file}.${run}`);
        const data = new arrays[each.dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
        feeds[each.name] = new ort.Tensor(each.dtype, data, each.dims[run]);
      }
      const outputs = await session.run(feeds);
      session.outputNames.forEach((name, i) => {
        const {buffer, byteOffset, byteLength} = outputs[name].data;
        fs.writeSync(files[i], new Uint8Array(buffer, byteOffset, byteLength));
      });
    }
    files.forEach((file) => fs.closeSync(file));
    await session.release();
  }
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""


@click.command()
@click.argument("pairs", nargs=-1, required=True, metavar="MODEL=DATA...")
@click.option("--samples", default=200, help="of each model; 200 unless given.")
@click.option("--on", multiple=True, metavar="NAME=COMMAND", help="a Python on another CPU, as often as wanted.")
def compat_portable(pairs: tuple[str, ...], samples: int, on: tuple[str, ...]) -> None:
    """Exit with 1 where an output differs in a bit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [prepare(folder, index, pair, samples) for index, pair in enumerate(pairs)]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        runners = {"here": [sys.executable, "-c", CHILD, name, "here"]}
        if shutil.which("node"):
            runners["web"] = ["node", "-e", SCRIPT, name, install_web()]
        for where, text in (each.split("=", 1) for each in on):
            runners[where] = [*shlex.split(text), "-c", CHILD, name, where]
        for runner in runners.values():
            subprocess.run(runner, check=True)
        same = [compare(folder, job, where) for job in jobs for where in runners if where != "here"]
    raise SystemExit(0 if all(same) else 1)


def prepare(folder: Path, index: int, pair: str, count: int) -> dict[str, object]:
    """Write a model and the inputs of its runs where the others find them."""
    file, data = pair.rsplit("=", 1)
    model = read_model(Path(file))
    specs = input_specs(model)
    shutil.copy(file, folder / f"{index}.onnx")
    dims: dict[str, list[list[int]]] = {spec.name: [] for spec in specs}
    types, runs = {}, 0
    for batch in make_batches(Samples(data, count).open(specs), get_fixed_batch(specs) or 1):
        for spec in specs:
            array = np.ascontiguousarray(batch.inputs[spec.name])
            array.tofile(folder / f"{index}.in.{spec.name}.{runs}")
            dims[spec.name].append(list(array.shape))
            types[spec.name] = str(array.dtype)
        runs += 1
    inputs = [{"name": n, "file": f"{index}.in.{n}", "dtype": types[n], "dims": dims[n]} for n in dims]
    return {"name": str(index), "label": Path(file).name, "runs": runs, "inputs": inputs}


def install_web() -> str:
    """The folder of onnxruntime-web, installed where it is missing."""
    modules = WEB / "node_modules"
    if not (modules / "onnxruntime-web").exists():
        WEB.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--prefix", str(WEB), f"onnxruntime-web@{WEB_VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(modules)


def compare(folder: Path, job: dict[str, object], where: str) -> bool:
    """Whether all outputs are those computed here, bit by bit; said with the largest difference."""
    words, differ, worst = 0, 0, 0.0
    for mine in sorted(folder.glob(f"{job['name']}.here.*")):
        a, b = (np.fromfile(file, np.uint32) for file in (mine, mine.with_name(mine.name.replace("here", where))))
        other = a != b if len(a) == len(b) else np.ones(len(a), bool)
        words, differ = words + len(a), differ + int(other.sum())
        if other.any() and len(a) == len(b):
            x, y = a.view(np.float32).astype(np.float64), b.view(np.float32).astype(np.float64)
            worst = max(worst, float(np.abs(x - y).max() / (np.abs(x).max() or 1)))
    runs = f"{job['runs']} samples, {words} outputs"
    click.echo(
        f"{job['label']:32} {where:12} {differ} differ of {runs}"
        + (f", by {worst:.1e} of the largest" if differ else "")
    )
    return not differ


if __name__ == "__main__":
    compat_portable()
