// The connection that brings sources and frames. It reconnects by itself, and says when it is lost.

import { readFrame, socketUrl } from "./wire.js";

const FIRST_WAIT = 1000; // ms
const LONGEST_WAIT = 15000;
const SILENCE = 6000; // the server speaks once per second; after this long it is gone

/** Events: "sources" (detail: list), "frame" (detail: {header, jpeg, done}), "up", "down", "refused" (detail: sentence). */
export class Live extends EventTarget {
  #socket = null;
  #watched = null;
  #wait = FIRST_WAIT;
  #heard = 0;
  #lostAt = null;
  #retryAt = null;

  constructor() {
    super();
    setInterval(() => this.#check(), 1000);
    window.addEventListener("online", () => this.#open());
    this.#open();
  }

  /** Watch a source; null watches none. */
  watch(id) {
    this.#watched = id;
    this.#send({ type: "watch", source: id });
  }

  /** null while connected, else {since, nextTry} in seconds. */
  get outage() {
    if (this.#lostAt === null) return null;
    const now = performance.now();
    const nextTry = this.#retryAt === null ? 0 : Math.max(0, (this.#retryAt - now) / 1000);
    return { since: (now - this.#lostAt) / 1000, nextTry };
  }

  #open() {
    if (this.#socket !== null) return;
    this.#retryAt = null;
    const socket = new WebSocket(socketUrl("/v1/live"));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#heard = performance.now();
    socket.onopen = () => {
      this.#wait = FIRST_WAIT;
      this.#lostAt = null;
      this.dispatchEvent(new Event("up"));
      if (this.#watched !== null) this.watch(this.#watched);
    };
    socket.onmessage = (message) => this.#receive(message.data);
    socket.onclose = () => this.#lost(socket);
  }

  #receive(data) {
    this.#heard = performance.now();
    if (typeof data !== "string") {
      const done = () => this.#send({ type: "ack" });
      this.#tell("frame", { ...readFrame(data), done });
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "sources") this.#tell("sources", message.sources);
    if (message.type === "error") this.#tell("refused", message.message);
  }

  #lost(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    this.#lostAt ??= performance.now();
    this.#retryAt = performance.now() + this.#wait;
    setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
    this.dispatchEvent(new Event("down"));
  }

  #check() {
    const socket = this.#socket;
    if (socket === null || performance.now() - this.#heard < SILENCE) return;
    this.#lost(socket);
    socket.close();
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
