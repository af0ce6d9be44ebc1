// The shares of one person over the visible time, as lines. Draws with uPlot (window.uPlot).

import { GAP } from "./history.js";

/** A small chart without axes; `onMoment` is called with the pointed time in s before the right edge, or null. */
export class Curve {
  #plot;
  #count;
  #onMoment;
  #quiet = false; // true while the cursor is set by code

  constructor(parent, labels, colors, onMoment) {
    this.#count = labels.length;
    this.#onMoment = onMoment;
    const series = labels.map((label) => ({ label, stroke: colors[label], width: 1.75, points: { show: false } }));
    const options = {
      width: Math.max(120, parent.clientWidth),
      height: 64,
      padding: [4, 0, 2, 0],
      legend: { show: false },
      select: { show: false },
      axes: [{ show: false }, { show: false }],
      scales: { x: { time: false, range: () => [-this.range, 0] }, y: { range: [0, 1] } },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      series: [{}, ...series],
      hooks: { setCursor: [(plot) => this.#pointed(plot)] },
    };
    this.range = 60;
    this.#plot = new window.uPlot(options, this.#empty(), parent);
    this.observer = new ResizeObserver(() => {
      const width = Math.max(120, parent.clientWidth);
      if (width !== this.#plot.width) this.#plot.setSize({ width, height: 64 });
    });
    this.observer.observe(parent);
  }

  /** Draw the samples of the last `range` seconds before `now`, with the cursor at `moment` (s, or null). */
  draw(samples, now, range, moment) {
    this.range = range;
    const data = this.#empty();
    let last = null;
    for (const { t, shares } of samples) {
      if (t < now - range - GAP) continue;
      if (last !== null && t - last > GAP) this.#push(data, last + 0.01 - now, null);
      this.#push(data, t - now, shares);
      last = t;
    }
    this.#quiet = true;
    this.#plot.setData(data);
    const left = moment === null ? -10 : this.#plot.valToPos(moment - now, "x");
    this.#plot.setCursor({ left, top: moment === null ? -10 : 10 }, false);
    this.#quiet = false;
  }

  remove() {
    this.observer.disconnect();
    this.#plot.destroy();
  }

  #empty() {
    return Array.from({ length: this.#count + 1 }, () => []);
  }

  #push(data, x, shares) {
    data[0].push(x);
    for (let i = 0; i < this.#count; i++) data[i + 1].push(shares === null ? null : shares[i]);
  }

  #pointed(plot) {
    if (this.#quiet) return;
    const { left } = plot.cursor;
    this.#onMoment(left === null || left < 0 ? null : -plot.posToVal(left, "x"));
  }
}
