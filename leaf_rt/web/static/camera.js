// Sends the browser's own camera to the server and reports the answers.

import { cameraProblem, CameraProblem } from "./camera_problems.js";
import { cameraMessage, readFrame, socketUrl } from "./wire.js";

const SENT_WIDTH = 640; // px of the pictures that are sent
const QUALITY = 0.85; // of their JPEG
const IN_FLIGHT = 2; // pictures without an answer
const FORGET = 2000; // ms; after this long an answer will not come

/** Whether this browser gives a camera to this page at all. */
export const cameraExists = () => Boolean(navigator.mediaDevices?.getUserMedia);

/**
 * Events: "source" (detail: id), "answer" (detail: {header, exact}), "ended" (detail: CameraProblem or null).
 * `exact` says that `header.client_time_ms` is the time at which the camera took the picture, on performance.now()'s
 * clock; otherwise it is the time at which the page received it.
 */
export class BrowserCamera extends EventTarget {
  #video;
  #stream = null;
  #socket = null;
  #canvas = document.createElement("canvas");
  #waiting = []; // times of pictures without an answer: {time, sent}
  #busy = false;
  #exact = false;
  #loop = 0;

  /** @param video the element that shows the camera */
  constructor(video) {
    super();
    this.#video = video;
  }

  get running() {
    return this.#stream !== null;
  }

  /** Ask for the camera and begin. Rejects with a CameraProblem. */
  async start(name) {
    if (!cameraExists()) throw cameraProblem("insecure");
    const wish = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 }, facingMode: "user" };
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: wish, audio: false });
      this.#stream.getVideoTracks()[0].addEventListener("ended", () => this.stop(cameraProblem("lost")));
      this.#video.srcObject = this.#stream;
      await this.#video.play();
    } catch (error) {
      this.#release();
      throw cameraProblem(error);
    }
    this.#connect(name);
  }

  /** Stop the camera and tell why. */
  stop(problem = null) {
    if (!this.running) return;
    this.#release();
    this.dispatchEvent(new CustomEvent("ended", { detail: problem }));
  }

  #release() {
    this.#video.cancelVideoFrameCallback?.(this.#loop);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
    const socket = this.#socket;
    this.#socket = null;
    this.#waiting = [];
    this.#busy = false;
    socket?.close();
  }

  #connect(name) {
    const socket = new WebSocket(socketUrl("/v1/camera"));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let trouble = "The connection to leaf-rt was lost.";
    socket.onopen = () => {
      const [width, height] = this.#size();
      socket.send(JSON.stringify({ type: "hello", width, height, name }));
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      if (typeof data !== "string") return this.#answered(readFrame(data).header);
      const message = JSON.parse(data);
      if (message.type === "error") trouble = message.message;
      if (message.type === "source") {
        this.dispatchEvent(new CustomEvent("source", { detail: message.id }));
        this.#next();
      }
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.stop(new CameraProblem(trouble, "Start the camera again."));
    };
  }

  #size() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const scale = Math.min(1, SENT_WIDTH / width);
    return [Math.round(width * scale), Math.round(height * scale)];
  }

  #next() {
    if (this.#video.requestVideoFrameCallback) {
      this.#loop = this.#video.requestVideoFrameCallback((now, about) => {
        this.#picture(about.captureTime ?? now, about.captureTime !== undefined);
      });
    } else {
      setTimeout(() => this.#picture(performance.now(), false), 33);
    }
  }

  #picture(time, exact) {
    if (!this.running) return;
    this.#next();
    const now = performance.now();
    this.#waiting = this.#waiting.filter(({ sent }) => now - sent < FORGET);
    if (this.#busy || this.#waiting.length >= IN_FLIGHT || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#exact = exact;
    this.#send(time, now).catch(() => (this.#busy = false));
  }

  async #send(time, sent) {
    const socket = this.#socket;
    this.#busy = true;
    const [width, height] = this.#size();
    if (this.#canvas.width !== width || this.#canvas.height !== height) Object.assign(this.#canvas, { width, height });
    this.#canvas.getContext("2d").drawImage(this.#video, 0, 0, width, height);
    const blob = await new Promise((resolve) => this.#canvas.toBlob(resolve, "image/jpeg", QUALITY));
    const message = await cameraMessage(time, blob);
    if (socket !== this.#socket) return;
    this.#busy = false;
    if (socket.readyState !== WebSocket.OPEN) return;
    this.#waiting.push({ time, sent });
    socket.send(message);
  }

  #answered(header) {
    this.#waiting = this.#waiting.filter(({ time }) => time > header.client_time_ms);
    this.dispatchEvent(new CustomEvent("answer", { detail: { header, exact: this.#exact } }));
  }
}
