// The list of sources with their states, and the figures of the selected one.

import { make, setText, show } from "./dom.js";
import { duration, milliseconds, stateText } from "./text.js";

const STAGES = ["decode", "detect", "track", "align", "infer", "smooth"];

export class SourceBar {
  #box;
  #onSelect;
  #buttons = new Map(); // id to {button, name, state}

  constructor(box, onSelect) {
    this.#box = box;
    this.#onSelect = onSelect;
  }

  /** Show all sources; `waited` is the time since the server told their states, s. */
  draw(sources, selected, waited) {
    for (const [id, { button }] of this.#buttons) {
      if (sources.has(id)) continue;
      button.remove();
      this.#buttons.delete(id);
    }
    for (const source of sources.values()) {
      const { button, name, state } = this.#buttons.get(source.id) ?? this.#add(source.id);
      setText(name, source.name);
      setText(state, stateText(source, waited));
      button.dataset.state = source.state;
      if (source.id === selected) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    show(this.#box, sources.size > 0);
  }

  #add(id) {
    const name = make("span", { class: "name" });
    const state = make("span", { class: "state" });
    const button = make("button", { type: "button", onclick: () => this.#onSelect(id) },
      make("span", { class: "dot", "aria-hidden": "true" }), make("span", { class: "words" }, name, state));
    const entry = { button, name, state };
    this.#buttons.set(id, entry);
    this.#box.append(button);
    return entry;
  }
}

/** Fill the <dl> with speed, delay, stage times and dropped frames. `latency` is that of the own camera, or null. */
export function drawFigures(list, source, latency, exact) {
  const figures = [];
  const live = source.state === "live" || source.state === "frozen";
  if (live) {
    const fps = source.processed_fps.toFixed(0);
    figures.push(["speed", `${fps} of ${source.capture_fps.toFixed(0)} fps`, "Frames finished and frames captured per second"]);
  }
  if (latency !== null) {
    const name = exact ? "glass to glass" : "picture to answer";
    const help = exact
      ? "Median time from the moment the camera took a picture to the moment its answer was drawn. The delay of the screen itself is not in it."
      : "Median time from a picture's arrival in this page to its answer. This browser does not say when the camera took it.";
    figures.push([name, milliseconds(latency), help]);
  } else if (live && source.latency_ms.p50 > 0) {
    const { p50, p95 } = source.latency_ms;
    figures.push(["capture to answer", `${milliseconds(p50)}, 95 % under ${milliseconds(p95)}`, "On the server, without the way to this page"]);
  }
  figures.push(["dropped", `${source.dropped} frames`, "Frames that were skipped because a newer one had come"]);
  for (const stage of live ? STAGES : []) {
    const value = source.stages_ms?.[stage] ?? 0;
    if (value >= 0.05) figures.push([stage, milliseconds(value), "Mean time of this step per frame, over the newest frames of all sources"]);
  }
  if (source.width) figures.push(["size", `${source.width} × ${source.height}`, "Pixels of the source"]);
  const key = figures.map(([name]) => name).join();
  if (list.dataset.names !== key) {
    list.replaceChildren(...figures.map(([name, , help]) =>
      make("div", { title: help }, make("dt", {}, name), make("dd", {}))));
    list.dataset.names = key;
  }
  figures.forEach(([, value], i) => setText(list.children[i].lastChild, value));
}

/** What to say over a picture that is not live, or "" if it is. `age`: s since the newest frame. */
export function staleText(source, waited, age) {
  if (source.state !== "live") return stateText(source, waited);
  return age > 2 ? `no picture for ${duration(age)}` : "";
}
