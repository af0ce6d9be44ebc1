// Speaks changes of the shown expressions to a screen reader, at most every 3 s.

import { setText } from "./dom.js";

const PAUSE = 3000; // ms

export class Announcer {
  #region;
  #spoken = new Map(); // person to the expression that was said last
  #next = 0;

  /** @param region an element with aria-live="polite" */
  constructor(region) {
    this.#region = region;
  }

  clear() {
    this.#spoken.clear();
    setText(this.#region, "");
  }

  /** Say what has changed for the people who are there now. */
  update(history, now) {
    const time = performance.now();
    if (time < this.#next) return;
    const sentences = [];
    for (const [key, { number, newest, last }] of history.people) {
      if (now - last > 1 || !newest || this.#spoken.get(key) === newest.emotion) continue;
      this.#spoken.set(key, newest.emotion);
      sentences.push(`Person ${number}: ${newest.emotion}.`);
    }
    if (!sentences.length) return;
    this.#next = time + PAUSE;
    setText(this.#region, sentences.join(" "));
  }
}
