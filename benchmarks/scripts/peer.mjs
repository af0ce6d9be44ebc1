// What the scripts of the Node.js peers share; see peer.py. Runs in the folder of the peer's packages.
//
// A script gives `run` a function that loads the peer. What it returns has
// - frame(tensor): resolves to one object of label to score per face found, as the peer's README shows;
// - face(tensor, box): the same for one given box, by the peer's recognizer alone.
// Tensors are int32 [height, width, 3], RGB.

import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const job = JSON.parse(readFileSync(process.argv[2], 'utf-8'));
export const require = createRequire(path.join(process.cwd(), 'package.json'));
export const tf = require('@tensorflow/tfjs');
const seconds = () => Number(process.hrtime.bigint()) / 1e9; // the clock of Python's time.monotonic()
const cpuSeconds = () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6;

export function packageFolder(name) {
  return path.join(process.cwd(), 'node_modules', ...name.split('/'));
}

export async function run(load) {
  const wasm = require('@tensorflow/tfjs-backend-wasm');
  wasm.setWasmPaths(path.join(packageFolder('@tensorflow/tfjs-backend-wasm'), 'dist') + path.sep);
  await tf.setBackend('wasm');
  await tf.ready();
  const recognizer = await load(job.options);
  const result = job.task === 'clip' ? await runClip(recognizer) : await runPictures(recognizer);
  writeFileSync(job.result, JSON.stringify(result));
  process.exit(0);
}

function peakMemory() {
  return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf-8'))[1]) / 1024;
}

// Yields each frame as bytes. `after` gets the processor time of the decoder.
async function* frames(after) {
  const child = spawn(job.decoder[0], [...job.decoder.slice(1), job.clip], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stderr.on('data', (data) => { text += data; });
  const ended = new Promise((resolve) => { child.on('close', resolve); });
  let shape;
  let chunks = [];
  let size = 0;
  try {
    for await (const chunk of child.stdout) {
      chunks.push(chunk);
      size += chunk.length;
      while (chunks.length > 0 && (!shape || size >= shape.bytes)) {
        let all = chunks.length > 1 ? Buffer.concat(chunks) : chunks[0];
        if (!shape) {
          const end = all.indexOf(10);
          if (end < 0) break;
          shape = JSON.parse(all.subarray(0, end).toString());
          shape.bytes = shape.width * shape.height * 3;
          all = all.subarray(end + 1);
        } else {
          yield { data: all.subarray(0, shape.bytes), width: shape.width, height: shape.height };
          all = all.subarray(shape.bytes);
        }
        chunks = all.length > 0 ? [all] : [];
        size = all.length;
      }
    }
  } finally {
    child.stdout.destroy();
    await ended;
    if (after) after(Number(text.trim().split('\n').pop()) || 0);
  }
}

const tensorOf = (frame) => tf.tensor3d(Int32Array.from(frame.data), [frame.height, frame.width, 3], 'int32');

async function runClip(recognizer) {
  let [count, faces, first, decoder, cpu, begin] = [0, 0, null, 0, 0, 0];
  for await (const frame of frames((spent) => { decoder = spent; })) {
    const tensor = tensorOf(frame);
    const found = await recognizer.frame(tensor);
    tf.dispose(tensor);
    count += 1;
    faces += found.length;
    if (first === null && found.length > 0) first = seconds() - job.started;
    if (count === 1) [begin, cpu] = [seconds(), cpuSeconds()]; // the first frame may still load things
    if (seconds() - begin >= job.seconds) break;
  }
  if (count === 0) throw new Error(`${job.clip}: no frame was read`);
  const [wall, memory] = [seconds() - begin, peakMemory()];
  const spent = cpuSeconds() - cpu + decoder;
  let [alone, aloneFaces, index] = [0, 0, 0];
  const last = Math.max(-1, ...Object.keys(job.boxes).map(Number));
  for await (const frame of frames()) {
    if (index > last) break;
    const rows = job.boxes[index];
    index += 1;
    if (!rows) continue;
    const tensor = tensorOf(frame);
    if (aloneFaces === 0) await recognizer.face(tensor, rows.boxes[0]); // the first call may set things up
    const start = seconds();
    for (const box of rows.boxes) await recognizer.face(tensor, box);
    alone += seconds() - start;
    aloneFaces += rows.boxes.length;
    tf.dispose(tensor);
  }
  return {
    frames: count, faces, wall_s: wall, cpu_s: spent, first_s: first, peak_mb: memory, alone_s: alone, alone_faces: aloneFaces,
  };
}

// Reads a binary PPM file, as OpenCV writes it.
function readPpm(file) {
  const bytes = readFileSync(file);
  const [head, width, height] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 40).toString('latin1'));
  return { data: bytes.subarray(head.length), width: Number(width), height: Number(height) };
}

async function runPictures(recognizer) {
  const scores = [];
  let [spent, count] = [0, 0];
  for (const picture of job.pictures) {
    const tensor = tensorOf(readPpm(picture.file));
    const answers = [];
    for (const box of picture.boxes) {
      const begin = seconds();
      answers.push(await recognizer.face(tensor, box));
      spent += seconds() - begin;
      count += 1;
    }
    scores.push(answers);
    tf.dispose(tensor);
  }
  return { scores, ms_per_face: (1e3 * spent) / Math.max(count, 1), peak_mb: peakMemory() };
}

// The part of a picture inside a box [left, top, right, bottom].
export function cut(tensor, box) {
  const [height, width] = tensor.shape;
  const left = Math.max(0, Math.min(Math.round(box[0]), width - 2));
  const top = Math.max(0, Math.min(Math.round(box[1]), height - 2));
  const right = Math.min(width, Math.max(Math.round(box[2]), left + 2));
  const bottom = Math.min(height, Math.max(Math.round(box[3]), top + 2));
  return tf.slice(tensor, [top, left, 0], [bottom - top, right - left, 3]);
}
