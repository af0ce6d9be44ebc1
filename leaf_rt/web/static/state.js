// What the page shows: sources, the selected one, their histories, time range and chosen moment.

import { History } from "./history.js";

export class State {
  sources = new Map(); // id to source
  histories = new Map(); // id to History
  selected = null; // id
  cameraId = null; // id of the own camera's source
  range = 60; // s that curves and timeline show
  moment = null; // chosen time, s on the history's clock; null means now
  frameSeen = 0; // when the newest frame of the selected source came, ms
  #told = performance.now();
  #labels;

  constructor(labels) {
    this.#labels = labels;
  }

  /** Take the list of the server. Returns whether the selected source is gone. */
  setSources(list) {
    this.sources = new Map(list.map((source) => [source.id, source]));
    this.#told = performance.now();
    for (const id of this.histories.keys()) {
      if (!this.sources.has(id) && id !== this.cameraId) this.histories.delete(id);
    }
    return this.selected !== null && !this.sources.has(this.selected) && this.selected !== this.cameraId;
  }

  /** Seconds since the server reported the states. */
  get waited() {
    return (performance.now() - this.#told) / 1000;
  }

  get source() {
    return this.sources.get(this.selected) ?? null;
  }

  get ownCamera() {
    return this.selected !== null && this.selected === this.cameraId;
  }

  history(id = this.selected) {
    if (!this.histories.has(id)) this.histories.set(id, new History(this.#labels));
    return this.histories.get(id);
  }

  /** The id beside the selected one, `step` places on; null if there is no other. */
  neighbor(step) {
    const ids = [...this.sources.keys()];
    if (ids.length < 2) return null;
    return ids[(ids.indexOf(this.selected) + step + ids.length) % ids.length];
  }
}
