// The picture of the selected source, with its faces drawn over it. Shows a stream from the server or the own camera.

import { byId, setText, show } from "./dom.js";
import { drawFaces, moved } from "./overlay.js";
import { Layout } from "./placement.js";
import { UNCERTAIN } from "./text.js";

const LATENCIES = 40; // newest answers whose median latency is shown

export class Stage {
  #colors;
  #screen = byId("screen");
  #canvas = byId("picture");
  #video = byId("camera-view");
  #svg = byId("overlay");
  #faces = new Map(); // number to {answer, before}
  #layout = new Layout();
  #size = { width: 640, height: 360 };
  #camera = false; // whether the own camera is shown
  #paused = false;
  #stale = false;
  #painted = false; // whether the canvas shows a picture of the selected source
  #drawing = 0;
  #turn = 0; // grows when another source is shown
  #unseen = null; // time of the picture whose answer is not on the screen yet, ms
  #latencies = [];

  constructor(colors) {
    this.#colors = colors;
    new ResizeObserver(() => this.#request()).observe(this.#screen);
  }

  /** Forget the picture: another source comes. `camera`: it is the own camera. */
  reset(camera) {
    this.#turn += 1;
    this.#camera = camera;
    this.#faces = new Map();
    this.#layout = new Layout();
    this.#latencies = [];
    this.#canvas.getContext("2d").clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#painted = false;
    this.setPaused(false);
    this.setStale(false);
    this.#request();
  }

  get hasPicture() {
    return !this.#canvas.hidden || this.#video.videoWidth > 0;
  }

  get paused() {
    return this.#paused;
  }

  /** Median time from the picture to its answer on the screen, ms; null without the own camera. */
  get latency() {
    if (!this.#latencies.length) return null;
    return [...this.#latencies].sort((a, b) => a - b)[this.#latencies.length >> 1];
  }

  /** Hold the picture with its labels, or let it go on. */
  setPaused(paused) {
    if (paused && this.#camera) {
      this.#paint(this.#video, this.#video.videoWidth, this.#video.videoHeight);
    }
    this.#paused = paused;
    const live = this.#camera && !paused;
    show(this.#video, this.#camera);
    show(this.#canvas, !live);
    this.#screen.classList.toggle("mirrored", this.#camera);
    this.#screen.classList.toggle("paused", paused);
  }

  /** Dim the picture and drop the labels: it is not live. */
  setStale(stale) {
    if (this.#stale === stale) return;
    this.#stale = stale;
    this.#screen.classList.toggle("stale", stale);
    this.#request();
  }

  /** Write over the picture why it is not live: the state, and below it the reason. An empty `text` hides both. */
  setBadge(text, reason = "") {
    setText(byId("badge-state"), text);
    setText(byId("badge-reason"), reason);
    show(byId("badge"), text !== "");
  }

  /** Show a frame of the stream. */
  async showFrame(header, jpeg) {
    const turn = this.#turn;
    if (this.#paused || document.hidden) return;
    if (jpeg.length) {
      const image = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      if (turn === this.#turn && !this.#paused) {
        this.#paint(image, image.width, image.height);
        this.#answer(header, performance.now());
      }
      image.close();
    } else {
      this.#answer(header, performance.now());
    }
  }

  /** Show an answer for a picture of the own camera. */
  showAnswer(header) {
    if (this.#paused) return;
    this.#unseen = header.client_time_ms;
    this.#answer(header, header.client_time_ms);
  }

  #paint(image, width, height) {
    if (!width || !height) return;
    if (this.#canvas.width !== width || this.#canvas.height !== height) Object.assign(this.#canvas, { width, height });
    this.#canvas.getContext("2d").drawImage(image, 0, 0);
    this.#painted = true;
  }

  #answer(header, time) {
    this.#size = { width: header.width, height: header.height };
    this.#screen.style.setProperty("--ratio", `${header.width} / ${header.height}`);
    const seen = new Map();
    for (const record of header.records) {
      const number = record.person_id ?? record.track_id;
      const { emotion, poor, box, smoothed } = record;
      const share = emotion === UNCERTAIN ? 0 : (smoothed[emotion] ?? 0);
      const answer = { time, number, emotion, share, poor, box };
      seen.set(number, { answer, before: this.#faces.get(number)?.answer });
    }
    this.#faces = seen;
    this.#request();
  }

  #request() {
    if (!this.#drawing) this.#drawing = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawing = 0;
    drawFaces(this.#svg, this.#placed(), this.#view(), this.#colors, this.#layout);
    if (this.#unseen !== null) {
      this.#latencies.push(performance.now() - this.#unseen);
      if (this.#latencies.length > LATENCIES) this.#latencies.shift();
      this.#unseen = null;
    }
    if (this.#camera && !this.#paused && this.#faces.size) this.#request();
  }

  #view() {
    const { width, height } = this.#size;
    const { clientWidth, clientHeight } = this.#screen;
    return { width, height, scale: Math.max(width / (clientWidth || 1), height / (clientHeight || 1)) };
  }

  /** The faces at the places where they are by now. */
  #placed() {
    if (this.#stale) return [];
    const now = performance.now();
    return [...this.#faces.values()].map(({ answer, before }) => {
      const box = this.#camera && !this.#paused ? moved(answer, before, now) : answer.box;
      return { ...answer, box: this.#camera ? mirrored(box, this.#size.width) : box };
    });
  }

  /** The picture with its vectors as a PNG blob. Rejects if there is no picture. */
  async snapshot() {
    const fromVideo = this.#camera && !this.#paused;
    const source = fromVideo ? this.#video : this.#canvas;
    const width = fromVideo ? source.videoWidth : source.width;
    const height = fromVideo ? source.videoHeight : source.height;
    if (!width || (!fromVideo && !this.#painted)) throw new Error("There is no picture to save yet.");
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const pen = canvas.getContext("2d");
    if (this.#camera) pen.setTransform(-1, 0, 0, 1, width, 0);
    pen.drawImage(source, 0, 0, width, height);
    pen.resetTransform();
    const drawing = this.#svg.cloneNode(false);
    const scale = this.#size.width / Math.min(width, 960);
    drawFaces(drawing, this.#placed(), { ...this.#size, scale }, this.#colors);
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", height);
    const url = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(drawing)], { type: "image/svg+xml" }));
    try {
      const image = new Image(width, height);
      image.src = url;
      await image.decode();
      pen.drawImage(image, 0, 0, width, height);
    } finally {
      URL.revokeObjectURL(url);
    }
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}

function mirrored([x0, y0, x1, y1], width) {
  return [width - x1, y0, width - x0, y1];
}
