// Runs files in onnxruntime-web (WASM) or onnxruntime-node: as run.py beside it does, with its jobs and its answers.
//   node run.mjs onnxruntime-web FOLDER
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { join } from "node:path";

const [runtime, folder] = process.argv.slice(2);
const ort = createRequire(join(process.cwd(), "package.json"))(runtime);
if (ort.env.wasm) {
  ort.env.wasm.numThreads = 1;
}
ort.env.logLevel = "fatal";
const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array };
const PAIRS = 25;
const WARM = 3;
const LONGEST = 300;

function feedsOf(job) {
  const stored = job.inputs.map((each) => {
    const bytes = readFileSync(each.data);
    return new ARRAYS[each.dtype](bytes.buffer, bytes.byteOffset, bytes.byteLength / ARRAYS[each.dtype].BYTES_PER_ELEMENT);
  });
  return Array.from({ length: job.runs }, (_, run) =>
    Object.fromEntries(
      job.inputs.map((each, index) => {
        const size = stored[index].length / job.runs;
        return [each.name, new ort.Tensor(each.dtype, stored[index].slice(run * size, (run + 1) * size), each.shape)];
      }),
    ),
  );
}

async function runJob(job) {
  const options = { executionProviders: [runtime === "onnxruntime-web" ? "wasm" : "cpu"], intraOpNumThreads: 1, logSeverityLevel: 4 };
  const session = await ort.InferenceSession.create(job.file, options);
  const feeds = feedsOf(job);
  if (job.beside) {
    const other = await ort.InferenceSession.create(job.beside, options);
    const ratio = await timeInTurn(session, other, feeds[0]);
    await Promise.all([session.release(), other.release()]);
    return { name: job.name, ratio };
  }
  const answers = [];
  for (const feed of feeds) answers.push(await session.run(feed));
  const outputs = job.outputs.map((name, index) => {
    const parts = answers.map((answer) => Buffer.from(answer[name].data.buffer, answer[name].data.byteOffset, answer[name].data.byteLength));
    writeFileSync(join(folder, `${job.name}.${index}.bin`), Buffer.concat(parts));
    return { dtype: answers[0][name].type, shape: answers[0][name].dims };
  });
  await session.release();
  return { name: job.name, outputs };
}

async function timeInTurn(session, other, feed) {
  const ratios = [];
  for (let run = 0; run < WARM + PAIRS; run++) {
    const marks = [performance.now()];
    for (const each of [session, other]) {
      await each.run(feed);
      marks.push(performance.now());
    }
    if (run >= WARM) ratios.push((marks[1] - marks[0]) / (marks[2] - marks[1]));
  }
  return ratios.sort((a, b) => a - b)[(PAIRS - 1) / 2];
}

process.stdout.write('{"ready": true}\n');
for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  let answer;
  try {
    answer = await runJob(job);
  } catch (error) {
    answer = { name: job.name, refused: String(error?.message ?? error).replace(/\s+/g, " ").slice(0, LONGEST) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
