// The binary messages of leaf_rt/web/PROTOCOL.md.

const decoder = new TextDecoder();

/** Split a frame message into its header and the bytes of the JPEG (maybe empty). */
export function readFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, length)));
  return { header, jpeg: new Uint8Array(buffer, 4 + length) };
}

/** Build a camera message: the time of the picture, ms, and its JPEG. */
export async function cameraMessage(time, blob) {
  const message = new Uint8Array(8 + blob.size);
  new DataView(message.buffer).setFloat64(0, time, true);
  message.set(new Uint8Array(await blob.arrayBuffer()), 8);
  return message;
}

/** The address of a WebSocket of this server. */
export const socketUrl = (path) => new URL(path, location.href.replace(/^http/, "ws")).href;
