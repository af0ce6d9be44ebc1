// @vladmandic/human on its WebAssembly back end, with only what expressions need switched on.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { cut, packageFolder, require, run, tf } from './peer.mjs';

await run(async () => {
  const folder = packageFolder('@vladmandic/human');
  const { Human } = require(path.join(folder, 'dist', 'human.node-wasm.js'));
  // On this back end it fetches its models over HTTP.
  const server = createServer(async (request, response) => {
    try {
      response.end(await readFile(path.join(folder, 'models', path.basename(request.url))));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const base = `http://127.0.0.1:${server.address().port}/`;
  const off = { enabled: false };
  const human = new Human({
    backend: 'wasm',
    wasmPath: path.join(packageFolder('@tensorflow/tfjs-backend-wasm'), 'dist') + path.sep,
    modelBasePath: base,
    cacheSensitivity: 0,
    face: { enabled: true, detector: { maxDetected: 20 }, mesh: { enabled: true }, iris: off, description: off, emotion: { enabled: true, minConfidence: 0, skipTime: 0, skipFrames: 0 } },
    filter: off, body: off, hand: off, object: off, gesture: off, segmentation: off,
  });
  await human.load();
  const scoresOf = (emotions) => Object.fromEntries(emotions.map((e) => [e.emotion, e.score]));
  // Its API classifies only faces that it has found itself, so the network is run here as its source does.
  const network = await human.tf.loadGraphModel(`${base}emotion.json`);
  const names = ['angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral'];
  return {
    frame: async (tensor) => (await human.detect(tensor)).face.map((face) => scoresOf(face.emotion ?? [])),
    face: async (tensor, box) => {
      const part = cut(tensor, box);
      const output = human.tf.tidy(() => {
        const pixels = human.tf.tensor(part.dataSync(), [1, ...part.shape]).div(255);
        const small = human.tf.image.resizeBilinear(pixels, [64, 64], false);
        const grey = small.mul([0.2989, 0.587, 0.114]).sum(3, true);
        return network.execute(grey.sub(0.5).mul(2));
      });
      const scores = await output.data();
      tf.dispose(part);
      human.tf.dispose(output);
      return Object.fromEntries(names.map((name, i) => [name, scores[i]]));
    },
  };
});
