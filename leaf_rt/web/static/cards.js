// One card per person: the expression, its shares as bars, the curve of the visible time, and the share of time.

import { Curve } from "./curve.js";
import { make, setText, show } from "./dom.js";
import { duration, inkOn, percent, UNCERTAIN } from "./text.js";

const STAYS = 3; // s for which a card stays after its person has left

class Card {
  #bars = new Map(); // label to {row, bar, number}
  #curve = null;

  constructor(person, info, onMoment) {
    this.number = person.number;
    this.info = info;
    this.badge = make("span", { class: "number" }, String(person.number));
    this.name = make("h3", {}, `Person ${person.number}`);
    this.seen = make("span", { class: "quiet" });
    this.face = info.thumbnails ? make("canvas", { class: "face", width: 96, height: 96, "aria-hidden": "true" }) : null;
    this.shown = make("strong", {});
    this.swatch = make("span", { class: "swatch" });
    const head = make("header", {}, this.face, this.badge, make("div", { class: "who" }, this.name, this.seen),
      make("p", { class: "shown" }, this.swatch, this.shown));
    const list = make("ul", { class: "bars" }, ...info.labels.map((label) => this.#row(label)));
    this.curveBox = make("div", { class: "curve", "aria-hidden": "true" });
    this.shares = make("div", { class: "shares", "aria-hidden": "true" });
    this.sharesText = make("p", { class: "quiet shares-text" });
    this.element = make("article", { class: "card", "data-person": person.number }, head, list, this.curveBox, this.shares,
      this.sharesText);
    this.onMoment = onMoment;
  }

  /** Move the bars to the newest answer. */
  moveBars(sample) {
    this.info.labels.forEach((label, i) => {
      const { row, bar } = this.#bars.get(label);
      bar.style.transform = `scaleX(${sample.shares[i].toFixed(3)})`;
      row.classList.toggle("is-shown", label === sample.emotion);
    });
  }

  /** Write the numbers, at most four times per second. */
  write(person, sample, view) {
    const { now, range, moment } = view;
    this.info.labels.forEach((label, i) => setText(this.#bars.get(label).number, percent(sample.shares[i])));
    const sure = sample.emotion !== UNCERTAIN;
    setText(this.shown, sure ? `${sample.emotion} ${percent(sample.share)}` : UNCERTAIN);
    this.element.dataset.emotion = sample.emotion;
    const color = this.info.colors[sample.emotion];
    for (const spot of [this.badge, this.swatch]) spot.style.backgroundColor = color;
    this.badge.style.color = inkOn(color);
    for (const spot of [this.badge, this.swatch]) spot.classList.toggle("hatched", !sure);
    this.element.classList.toggle("poor", sample.poor);
    const away = now - person.last;
    this.element.classList.toggle("gone", away > 1 && moment === null);
    const left = away > 1 ? `left ${duration(away)} ago` : `here for ${duration(now - person.first)}`;
    setText(this.seen, sample.poor ? `${left}, low quality` : left);
    this.#curve ??= new Curve(this.curveBox, this.info.labels, this.info.colors, (before) => this.onMoment(before));
    this.#curve.draw(person.samples, now, range, moment);
    this.#writeShares(person.timeShown(now - range), range);
  }

  /** Cut the face out of the newest picture; only where the server allows thumbnails. */
  drawFace(picture, size, box) {
    if (!this.face || !picture.width) return;
    const scale = picture.width / size.width;
    const side = Math.max(box[2] - box[0], box[3] - box[1]) * scale * 1.2;
    const [x, y] = [((box[0] + box[2]) / 2) * scale - side / 2, ((box[1] + box[3]) / 2) * scale - side / 2];
    this.face.getContext("2d").drawImage(picture, x, y, side, side, 0, 0, 96, 96);
  }

  remove() {
    this.#curve?.remove();
    this.element.remove();
  }

  #row(label) {
    const bar = make("span", { class: "bar" });
    bar.style.backgroundColor = this.info.colors[label];
    const number = make("span", { class: "value" });
    const row = make("li", { "data-label": label }, make("span", { class: "label" }, label),
      make("span", { class: "track" }, bar), number);
    this.#bars.set(label, { row, bar, number });
    return row;
  }

  #writeShares(seconds, range) {
    const total = [...seconds.values()].reduce((sum, value) => sum + value, 0);
    const sorted = [...seconds].filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]);
    while (this.shares.childElementCount < sorted.length) this.shares.append(make("span"));
    while (this.shares.childElementCount > sorted.length) this.shares.lastChild.remove();
    sorted.forEach(([label, value], i) => {
      const part = this.shares.children[i];
      part.style.flexGrow = String(value);
      part.style.backgroundColor = this.info.colors[label];
      part.classList.toggle("hatched", label === UNCERTAIN);
    });
    const words = sorted.slice(0, 3).map(([label, value]) => `${label} ${percent(value / total)}`);
    setText(this.sharesText, words.length ? `Last ${duration(range)}: ${words.join(", ")}` : "");
  }
}

/** The list of cards. Cards keep their place; the card of a person who left stays for 3 s. */
export class Cards {
  #cards = new Map();
  #box;
  #info;
  #onMoment;

  constructor(box, info, onMoment) {
    this.#box = box;
    this.#info = info;
    this.#onMoment = onMoment;
  }

  clear() {
    for (const card of this.#cards.values()) card.remove();
    this.#cards.clear();
  }

  /** Move the bars of everybody who is in the newest frame. */
  moveBars(history) {
    for (const [key, card] of this.#cards) {
      const newest = history.people.get(key)?.newest;
      if (newest) card.moveBars(newest);
    }
  }

  /** Bring all cards up to date. `view` is {now, range, moment}; returns the number of people who are there. */
  write(history, view, picture, size) {
    let there = 0;
    for (const [key, person] of history.people) {
      const sample = view.moment === null ? person.newest : person.at(view.moment);
      const wanted = view.moment === null ? view.now - person.last <= STAYS : sample !== null;
      if (view.moment === null && view.now - person.last <= 1) there += 1;
      let card = this.#cards.get(key);
      if (!wanted || !sample) continue;
      if (!card) {
        card = new Card(person, this.#info, this.#onMoment);
        this.#cards.set(key, card);
        this.#box.append(card.element);
        card.moveBars(sample);
      }
      if (view.moment !== null) card.moveBars(sample);
      card.write(person, sample, view);
      if (view.moment === null && view.now - person.last < 0.5) card.drawFace(picture, size, person.newest.box);
    }
    for (const [key, card] of this.#cards) {
      const person = history.people.get(key);
      const gone = !person || (view.moment === null && view.now - person.last > STAYS);
      if (gone) {
        card.remove();
        this.#cards.delete(key);
      } else show(card.element, view.moment === null || person.at(view.moment) !== null);
    }
    this.#box.classList.toggle("many", this.#cards.size > 2);
    return there;
  }
}
