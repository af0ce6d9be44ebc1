// @vladmandic/face-api on its WebAssembly back end, the one that needs no download outside npm.

import path from 'node:path';
import { cut, packageFolder, require, run, tf } from './peer.mjs';

await run(async () => {
  const folder = packageFolder('@vladmandic/face-api');
  const faceapi = require(path.join(folder, 'dist', 'face-api.node-wasm.js'));
  const models = path.join(folder, 'model');
  await faceapi.nets.ssdMobilenetv1.loadFromDisk(models);
  await faceapi.nets.faceExpressionNet.loadFromDisk(models);
  const options = new faceapi.SsdMobilenetv1Options();
  return {
    frame: async (tensor) => (await faceapi.detectAllFaces(tensor, options).withFaceExpressions()).map((face) => face.expressions),
    face: async (tensor, box) => {
      const part = cut(tensor, box);
      const scores = await faceapi.nets.faceExpressionNet.predictExpressions(part);
      tf.dispose(part);
      return { ...scores };
    },
  };
});
