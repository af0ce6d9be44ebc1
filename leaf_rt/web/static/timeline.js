// One row per person: which expression was shown when. Now is at the right.

import { make, setText } from "./dom.js";
import { duration, inkOn, percent, UNCERTAIN } from "./text.js";

const ROW = 30; // px
const BAR = 22; // px
const AXIS = 20; // px
const STEPS = { 60: 10, 300: 60, 600: 120 }; // s between two marks

export class Timeline {
  #box;
  #info;
  #onMoment;
  #canvas = make("canvas", { "aria-hidden": "true" });
  #words = make("ul", { class: "spoken" });
  #tip = make("p", { class: "tip", hidden: true });
  #view = { now: 0, range: 60, moment: null };
  #history = null;
  #left = 0;

  /** `onMoment` is called with the chosen time in s before now, or null for now. */
  constructor(box, info, onMoment) {
    this.#box = box;
    this.#info = info;
    this.#onMoment = onMoment;
    box.append(this.#canvas, this.#words, this.#tip);
    box.addEventListener("pointermove", (event) => this.#point(event));
    box.addEventListener("pointerleave", () => onMoment(null));
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("blur", () => onMoment(null));
    box.addEventListener("scroll", () => this.#history && this.draw(this.#history, this.#view));
  }

  /** Draw all rows. `view` is {now, range, moment, isLive}. */
  draw(history, view) {
    this.#history = history;
    this.#view = view;
    const begin = view.now - view.range;
    const people = [...history.people.values()].filter((person) => person.last >= begin);
    const rows = Math.max(1, people.length);
    const width = this.#box.clientWidth;
    const height = rows * ROW + AXIS;
    const density = window.devicePixelRatio || 1;
    const canvas = this.#canvas;
    if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.#box);
    const [ink, line] = [style.getPropertyValue("--quiet"), style.getPropertyValue("--line")];
    pen.font = `13px ${style.fontFamily}`;
    this.#left = width < 600 ? 34 : 84;
    const x = (t) => this.#left + ((t - begin) / view.range) * (width - this.#left);
    this.#grid(pen, x, rows * ROW, width, line);
    people.forEach((person, i) => this.#row(pen, person, i * ROW, x, begin, width, ink));
    // The times stay in sight while the rows scroll.
    const axis = Math.min(rows * ROW, this.#box.scrollTop + this.#box.clientHeight - AXIS);
    pen.fillStyle = style.getPropertyValue("--panel");
    pen.fillRect(0, axis, width, AXIS);
    this.#axis(pen, x, axis, width, ink);
    if (view.moment !== null) {
      pen.fillStyle = style.getPropertyValue("--ink");
      pen.fillRect(Math.round(x(view.moment)), 0, 1.5, rows * ROW);
    }
    this.#describe(people, begin);
    this.#writeTip(people, x, width);
  }

  #grid(pen, x, bottom, width, line) {
    const { now, range } = this.#view;
    pen.fillStyle = line;
    for (let before = 0; before <= range; before += STEPS[range]) {
      pen.fillRect(Math.min(Math.round(x(now - before)), width - 1), 0, 1, bottom);
    }
  }

  #axis(pen, x, top, width, ink) {
    const { now, range } = this.#view;
    pen.textBaseline = "middle";
    pen.fillStyle = ink;
    for (let before = 0; before <= range; before += STEPS[range]) {
      const at = Math.round(x(now - before));
      pen.textAlign = before === 0 ? "right" : before === range ? "left" : "center";
      const narrow = width < 600 && (before / STEPS[range]) % 2 === 1;
      if (!narrow) pen.fillText(before === 0 ? "now" : `${duration(before)} ago`, at, top + AXIS / 2 + 2);
    }
  }

  #row(pen, person, top, x, begin, width, ink) {
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.fillStyle = ink;
    pen.fillText(this.#left > 50 ? `Person ${person.number}` : String(person.number), 2, top + ROW / 2);
    for (const { emotion, start, end } of person.stretches(begin)) {
      const [a, b] = [Math.max(this.#left, x(start)), Math.max(x(end), x(start) + 1)];
      const y = top + (ROW - BAR) / 2;
      const color = this.#info.colors[emotion] ?? "#888888";
      pen.fillStyle = color;
      pen.fillRect(a, y, b - a, BAR);
      if (emotion === UNCERTAIN) hatch(pen, a, y, b - a, BAR);
      if (pen.measureText(emotion).width + 10 < b - a) {
        pen.fillStyle = inkOn(color);
        pen.fillText(emotion, a + 5, top + ROW / 2 + 0.5);
      }
    }
  }

  /** The same for people who do not see the picture: one line per person. */
  #describe(people, begin) {
    const lines = people.map((person) => {
      const shown = person.stretches(begin).slice(-4).map(({ emotion, start, end }) => `${emotion} ${duration(end - start)}`);
      return `Person ${person.number}: ${shown.join(", then ")}`;
    });
    while (this.#words.childElementCount < lines.length) this.#words.append(make("li"));
    while (this.#words.childElementCount > lines.length) this.#words.lastChild.remove();
    lines.forEach((text, i) => setText(this.#words.children[i], text));
  }

  #writeTip(people, x, width) {
    const { moment, now, isLive } = this.#view;
    this.#tip.hidden = moment === null;
    this.#tip.style.bottom = `${-this.#box.scrollTop}px`;
    if (moment === null) return;
    const clock = isLive ? new Date(moment * 1000).toLocaleTimeString() : `${moment.toFixed(1)} s`;
    const shown = people.flatMap((person) => {
      const sample = person.at(moment);
      if (!sample) return [];
      return [`${person.number} ${sample.emotion}${sample.emotion === UNCERTAIN ? "" : ` ${percent(sample.share)}`}`];
    });
    setText(this.#tip, [`${clock}, ${duration(now - moment)} ago`, ...shown].join(" · "));
    const room = Math.max(0, width - this.#tip.offsetWidth);
    this.#tip.style.transform = `translate(${Math.min(room, Math.max(0, x(moment) - this.#tip.offsetWidth / 2))}px, 0)`;
  }

  #point(event) {
    const { left, width } = this.#box.getBoundingClientRect();
    const at = (event.clientX - left - this.#left) / (width - this.#left);
    this.#onMoment(at < 0 || at > 1 ? null : (1 - at) * this.#view.range);
  }

  #key(event) {
    const step = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
    if (event.key === "Escape") this.#onMoment(null);
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const { now, range, moment } = this.#view;
    const before = Math.max(0, (moment === null ? 0 : now - moment) + (step * range) / 60);
    this.#onMoment(before < 0.5 ? null : Math.min(before, range));
  }
}

function hatch(pen, x, y, width, height) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, width, height);
  pen.clip();
  pen.strokeStyle = "rgba(0, 0, 0, 0.35)";
  pen.lineWidth = 1;
  pen.beginPath();
  for (let at = x - height; at < x + width; at += 6) {
    pen.moveTo(at, y + height);
    pen.lineTo(at + height, y);
  }
  pen.stroke();
  pen.restore();
}
