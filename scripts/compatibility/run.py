"""Runs files in one runtime and keeps what comes out: a process that knows nothing of fcdeploy, for `scripts/compat`.

`python run.py RUNTIME FOLDER` reads jobs from stdin, a JSON object a line: `name`, `file`, `runs`, `inputs` (name,
dtype, shape of one run, and the file of its numbers) and `outputs` (names).  It writes FOLDER/NAME.N.bin for output N, all
runs one after the other, and a line of JSON to stdout: `name`, and either `outputs` (dtype and shape of one run) or `refused`
with what the runtime said.  Of a job with `beside`, another file of the same inputs, the line has `ratio`: the time of the
first over that of the other.  The first line, `ready`, says that the runtime is there.  run.mjs beside it does the
same in Node.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

PAIRS = 25
WARM = 3
LONGEST = 300  # characters of what a runtime says


class InOnnxruntime:
    """Where a job asks for its `graph`, that which runs is kept, as NAME.optimized.onnx."""

    def __init__(self, job):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        if job.get("graph"):
            options.optimized_model_filepath = str(Path(job["folder"]) / (job["name"] + ".optimized.onnx"))
        if not job["optimize"]:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.outputs = job["outputs"]
        self.session = onnxruntime.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])

    def run(self, feeds):
        return self.session.run(self.outputs, feeds)


class InOpenvino:
    """In float32 where it computes in float: unless told otherwise it takes bfloat16 on CPUs that have it."""

    def __init__(self, job):
        import openvino

        model = openvino.Core().read_model(job["file"])
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.compiled, self.outputs = openvino.compile_model(model, "CPU", options), job["outputs"]

    def run(self, feeds):
        answer = self.compiled(feeds)
        return [answer[name] for name in self.outputs]


class InOpencv:
    def __init__(self, job):
        import cv2

        cv2.setNumThreads(1)
        if hasattr(cv2, "utils"):
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self.net, self.outputs = cv2.dnn.readNetFromONNX(job["file"]), job["outputs"]

    def run(self, feeds):
        for name, array in feeds.items():
            self.net.setInput(array, name)
        if len(self.outputs) == 1:
            return [self.net.forward()]
        return list(self.net.forward(self.outputs))


class InTract:
    def __init__(self, job):
        import tract

        kinds = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "uint8": "u8", "int8": "i8"}
        model = tract.onnx().load(job["file"])
        given = {each["name"]: each for each in job["inputs"]}
        self.names = [model.input_name(index) for index in range(model.input_count())]
        for index, name in enumerate(self.names):
            shape = ",".join(map(str, given[name]["shape"]))
            model.set_input_fact(index, ",".join(filter(None, [shape, kinds[given[name]["dtype"]]])))
        self.runnable = model.into_model().into_runnable()

    def run(self, feeds):
        return [each.to_numpy() for each in self.runnable.run([feeds[name] for name in self.names])]


class InTvm:
    def __init__(self, job):
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        shapes = {each["name"]: list(each["shape"]) for each in job["inputs"]}
        kinds = {each["name"]: each["dtype"] for each in job["inputs"]}
        module = from_onnx(onnx.load(job["file"]), shapes, kinds)
        module = relax.transform.LegalizeOps()(relax.transform.DecomposeOpsForInference()(module))
        self.machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
        self.names, self.tvm = list(shapes), tvm

    def run(self, feeds):
        answer = self.machine["main"](*[self.tvm.runtime.tensor(feeds[name]) for name in self.names])
        answer = [answer] if hasattr(answer, "numpy") else answer
        return [each.numpy() for each in answer]


RUNTIMES = {  # name -> module, and what runs a file in it
    "onnxruntime": ("onnxruntime", InOnnxruntime),
    "openvino": ("openvino", InOpenvino),
    "opencv": ("cv2", InOpencv),
    "tract": ("tract", InTract),
    "tvm": ("tvm", InTvm),
}


def run_job(runtime, job, folder):
    """The line on it."""
    try:
        make = RUNTIMES[runtime][1]
        feeds = read_feeds(job)
        model = make({**job, "folder": str(folder)})
        if "beside" in job:
            other = make({**job, "file": job["beside"], "folder": str(folder)})
            return {"name": job["name"], "ratio": time_in_turn(model, other, feeds[0])}
        answers = [model.run(feed) for feed in feeds]
    except BaseException as error:  # runtimes raise what they like
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return {"name": job["name"], "refused": said[:LONGEST]}
    outputs = []
    for index in range(len(answers[0])):
        arrays = np.stack([np.asarray(answer[index]) for answer in answers])
        arrays.tofile(folder / f"{job['name']}.{index}.bin")
        outputs.append({"dtype": str(arrays.dtype), "shape": arrays.shape[1:]})
    return {"name": job["name"], "outputs": outputs}


def read_feeds(job):
    """Inputs by name, of each run."""
    stored = {each["name"]: np.fromfile(each["data"], each["dtype"]) for each in job["inputs"]}
    shaped = {e["name"]: stored[e["name"]].reshape([job["runs"], *e["shape"]]) for e in job["inputs"]}
    return [{name: array[index] for name, array in shaped.items()} for index in range(job["runs"])]


def time_in_turn(model, other, feed):
    """The median of the ratios of runs in pairs, after a few that warm up."""
    ratios = []
    for run in range(WARM + PAIRS):
        marks = [time.perf_counter()]
        for each in (model, other):
            each.run(feed)
            marks.append(time.perf_counter())
        if run >= WARM:
            ratios.append((marks[1] - marks[0]) / (marks[2] - marks[1]))
    return statistics.median(ratios)


def main():
    runtime, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what runtimes print is no answer
    __import__(RUNTIMES[runtime][0])
    answers.write('{"ready": true}\n')
    for line in sys.stdin:
        answers.write(json.dumps(run_job(runtime, json.loads(line), folder)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
