// Puts the page together: connection, picture, cards, timeline, camera and keys.

import { Announcer } from "./announcer.js";
import { addSource, getInfo, getRecords, recordsPath, removeSource, setSourceState } from "./api.js";
import { BrowserCamera } from "./camera.js";
import { Cards } from "./cards.js";
import { openDialog, prepareDialogs, say, setNotice } from "./dialogs.js";
import { byId, download, make, setText, show } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { Live } from "./live.js";
import { drawFigures, SourceBar, staleText } from "./sourcebar.js";
import { Stage } from "./stage.js";
import { State } from "./state.js";
import { duration } from "./text.js";
import { Timeline } from "./timeline.js";

const RANGES = { 60: "1 min", 300: "5 min", 600: "10 min" };
const WRITE_EVERY = 250; // ms between two changes of numbers
// Key in the session storage, set while the own camera runs: the server forgets this source when the page is reloaded,
// so its last minute of shares waits here for the next page. No picture does.
const REMEMBERED = "leaf-rt camera";

class App {
  #info;
  #state;
  #stage;
  #cards;
  #timeline;
  #bar = new SourceBar(byId("sources"), (id) => this.select(id));
  #announcer = new Announcer(byId("spoken"));
  #camera = new BrowserCamera(byId("camera-view"));
  #live = new Live();
  #exact = false; // whether the delay of the own camera is glass to glass
  #problem = null; // CameraProblem that is shown
  #told = false; // whether the server has told its sources
  #resuming = false; // whether the own camera is about to go on after a reload
  #endedCamera = null; // id of the own camera that ended last, until the server has noticed it

  constructor(info) {
    this.#info = info;
    this.#state = new State(info.labels);
    this.#stage = new Stage(info.colors);
    const choose = (before) => this.choose(before);
    this.#cards = new Cards(byId("cards"), info, choose);
    this.#timeline = new Timeline(byId("rows"), info, choose);
    this.#prepare();
    this.#listen();
    setInterval(() => this.#write(), WRITE_EVERY);
    if (sessionStorage.getItem(REMEMBERED)) this.#resumeCamera();
  }

  /** Show a source. */
  select(id) {
    const { cameraId, selected } = this.#state;
    if (id === selected) return;
    this.#state.selected = id;
    this.#state.moment = null;
    this.#state.frameSeen = performance.now();
    this.#problem = null;
    history.replaceState(null, "", id === null ? location.pathname : `#${encodeURIComponent(id)}`);
    this.#cards.clear();
    this.#announcer.clear();
    this.#stage.reset(id !== null && id === cameraId);
    this.#live.watch(id === cameraId ? null : id);
    if (id !== null) this.#restore(id);
    this.#write();
  }

  /** Show the moment `before` s before now on all panels; null returns to now. */
  choose(before) {
    const now = this.#state.selected === null ? null : this.#state.history().now();
    this.#state.moment = before === null || now === null ? null : now - before;
    this.#write();
  }

  async startCamera() {
    this.#problem = null;
    if (this.#camera.running) return this.#state.cameraId && this.select(this.#state.cameraId);
    try {
      await this.#camera.start("Camera of the browser");
    } catch (problem) {
      this.#problem = problem;
      this.#write();
    }
  }

  async #resumeCamera() {
    this.#resuming = true;
    try {
      const permission = await navigator.permissions?.query({ name: "camera" }).catch(() => null);
      if (permission?.state === "granted") await this.startCamera();
    } finally {
      this.#resuming = false;
    }
  }

  async playSample() {
    this.#problem = null;
    await this.#attempt(async () => this.#added(await addSource("sample")));
  }

  #added(source) {
    this.#state.sources.set(source.id, source);
    this.select(source.id);
  }

  async #restore(id) {
    if (id === this.#state.cameraId) return; // this page has seen every answer of its own camera
    try {
      this.#state.history(id).restore(await getRecords(id, this.#state.range));
    } catch (error) {
      if (error.status !== 404) say(`The last minutes could not be loaded: ${error.message}`);
    }
    this.#write();
  }

  async #attempt(work) {
    try {
      return await work();
    } catch (error) {
      return say(error.message);
    }
  }

  #prepare() {
    const info = this.#info;
    setText(byId("model"), `${info.model.name} on ${info.backend}`);
    byId("model").title = info.reason ?? "";
    if (info.notice) setText(byId("law"), info.notice);
    setText(byId("stored"), info.stored?.length ? `Stored: ${info.stored.join(", ")}` : "Nothing is stored.");
    show(byId("play-sample"), info.sample);
    const chips = Object.entries(info.colors).map(([label, color]) => {
      const swatch = make("span", { class: label === "uncertain" ? "swatch hatched" : "swatch" });
      swatch.style.backgroundColor = color;
      return make("li", {}, swatch, label);
    });
    byId("legend").append(...chips);
    for (const [seconds, text] of Object.entries(RANGES)) {
      const range = Number(seconds);
      const button = make("button", { type: "button", "aria-pressed": String(range === this.#state.range) }, text);
      button.addEventListener("click", () => {
        this.#state.range = range;
        if (this.#state.selected !== null) this.#restore(this.#state.selected);
        for (const other of byId("ranges").children) other.setAttribute("aria-pressed", String(other === button));
        this.#write();
      });
      byId("ranges").append(button);
    }
    prepareDialogs({
      add: async (target, name) => this.#added(await addSource(target, name)),
      sample: () => this.playSample(),
    });
  }

  #listen() {
    const click = (id, act) => byId(id).addEventListener("click", act);
    click("use-camera", () => (this.#camera.running && this.#state.ownCamera ? this.#camera.stop() : this.startCamera()));
    click("add-source", () => openDialog("add-dialog"));
    click("show-keys", () => openDialog("keys-dialog"));
    click("pause", () => this.#pause());
    click("snapshot", () => this.#snapshot());
    click("toggle-source", () => this.#toggleSource());
    click("remove-source", () => this.#removeSource());
    listenToKeys({
      " ": () => this.#pause(),
      s: () => this.#snapshot(),
      ArrowLeft: () => this.#step(-1),
      ArrowRight: () => this.#step(1),
      "?": () => openDialog("keys-dialog"),
      Escape: () => this.choose(null),
    });
    document.addEventListener("click", ({ target }) => {
      const menu = byId("records");
      if (menu.open && (!menu.contains(target) || target.closest("a"))) menu.open = false;
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#state.selected !== null) this.#restore(this.#state.selected);
    });
    window.addEventListener("pagehide", () => {
      const people = this.#state.cameraId === null ? null : this.#state.history(this.#state.cameraId).save(60);
      if (people) sessionStorage.setItem(REMEMBERED, JSON.stringify(people));
    });
    this.#live.addEventListener("sources", ({ detail }) => this.#takeSources(detail));
    this.#live.addEventListener("frame", ({ detail }) => this.#takeFrame(detail));
    this.#live.addEventListener("up", () => this.#state.selected && this.#restore(this.#state.selected));
    this.#live.addEventListener("refused", ({ detail }) => say(detail));
    this.#camera.addEventListener("source", ({ detail }) => {
      this.#state.cameraId = detail;
      const before = sessionStorage.getItem(REMEMBERED);
      sessionStorage.setItem(REMEMBERED, "[]");
      this.#state.history(detail).load(JSON.parse(before ?? "[]"));
      this.select(detail);
    });
    this.#camera.addEventListener("answer", ({ detail }) => this.#takeAnswer(detail));
    this.#camera.addEventListener("ended", ({ detail }) => this.#cameraEnded(detail));
  }

  #takeSources(all) {
    // The server may not have noticed yet that this page's camera has ended; its records cannot be asked for any more.
    const list = all.filter(({ id }) => id !== this.#endedCamera);
    if (list.length === all.length) this.#endedCamera = null;
    if (this.#state.setSources(list)) this.select(null);
    // After a reload the camera of the page before is in the list for a moment: wait for this page's own.
    if (this.#resuming) return this.#write();
    const first = !this.#told;
    this.#told = true;
    if (this.#state.selected === null && !this.#camera.running && list.length) {
      const wanted = decodeURIComponent(location.hash.slice(1));
      const best = list.find(({ id }) => first && id === wanted) ?? list.find(({ state }) => state === "live") ?? list[0];
      if (!this.#problem) this.select(best.id);
    }
    this.#write();
  }

  async #takeFrame({ header, jpeg, done }) {
    try {
      if (header.source !== this.#state.selected) return;
      this.#state.frameSeen = performance.now();
      this.#state.history().addFrame(header);
      await this.#stage.showFrame(header, jpeg);
      if (this.#state.moment === null) this.#cards.moveBars(this.#state.history());
    } finally {
      done();
    }
  }

  #takeAnswer({ header, exact }) {
    const id = this.#state.cameraId;
    if (id === null) return;
    this.#exact = exact;
    this.#state.history(id).addFrame(header);
    if (!this.#state.ownCamera) return;
    this.#state.frameSeen = performance.now();
    this.#stage.showAnswer(header);
    if (this.#state.moment === null) this.#cards.moveBars(this.#state.history());
  }

  #cameraEnded(problem) {
    const own = this.#state.ownCamera;
    this.#endedCamera = this.#state.cameraId;
    this.#state.sources.delete(this.#state.cameraId);
    this.#state.cameraId = null;
    sessionStorage.removeItem(REMEMBERED);
    if (own) this.select(null);
    this.#problem = problem;
    this.#write();
  }

  #pause() {
    if (this.#state.selected === null) return;
    this.#stage.setPaused(!this.#stage.paused);
    this.#write();
  }

  async #snapshot() {
    await this.#attempt(async () => {
      const blob = await this.#stage.snapshot();
      const url = URL.createObjectURL(blob);
      const name = (this.#state.source?.name ?? "picture").replace(/[^\w.-]+/g, "-");
      download(url, `leaf-rt-${name}-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.png`);
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
      say("The picture was saved with its labels.");
    });
  }

  #step(step) {
    const id = this.#state.neighbor(step);
    if (id !== null) this.select(id);
  }

  async #toggleSource() {
    const { source, ownCamera } = this.#state;
    if (ownCamera) return this.#camera.stop();
    if (!source) return;
    const stopped = ["stopped", "ended", "refused"].includes(source.state);
    await this.#attempt(async () => {
      this.#state.sources.set(source.id, await setSourceState(source.id, stopped ? "running" : "stopped"));
      this.#write();
    });
  }

  async #removeSource() {
    const { source, ownCamera } = this.#state;
    if (ownCamera) return this.#camera.stop();
    if (!source) return;
    await this.#attempt(async () => {
      await removeSource(source.id);
      this.#state.sources.delete(source.id);
      const other = this.#state.sources.keys().next().value ?? null;
      this.select(other);
    });
  }

  /** Bring everything that people read up to date. */
  #write() {
    const state = this.#state;
    const { source, selected, waited, ownCamera } = state;
    this.#bar.draw(state.sources, selected, waited);
    this.#writeOutage();
    this.#writeStage(source, waited);
    this.#writeTools(source);
    const past = selected === null ? null : state.history();
    const now = past?.now() ?? null;
    const view = { now: now ?? 0, range: state.range, moment: state.moment, isLive: past?.isLive ?? false };
    const there = now === null ? 0 : this.#cards.write(past, view, byId("picture"), source ?? { width: 1 });
    const ago = state.moment === null ? "" : `${duration(view.now - state.moment)} ago`;
    setText(byId("moment"), ago);
    setText(byId("nobody"), selected === null ? "People appear here." : there || ago ? "" : source?.state === "live" || ownCamera ? "Nobody is in the picture." : "No picture.");
    if (past) this.#timeline.draw(past, view);
    show(byId("timeline"), past !== null);
    show(byId("earlier"), past?.hasEarlier ?? false);
    if (past && now !== null) this.#announcer.update(past, now);
  }

  #writeOutage() {
    const outage = this.#live.outage;
    const banner = byId("banner");
    show(banner, outage !== null && outage.since > 0.5);
    if (outage === null) return;
    const next = outage.nextTry > 0.5 ? `next try in ${duration(outage.nextTry)}` : "trying now";
    setText(banner, `No connection to leaf-rt for ${duration(outage.since)}, ${next}.`);
  }

  #writeStage(source, waited) {
    const { selected, ownCamera, frameSeen } = this.#state;
    const age = (performance.now() - frameSeen) / 1000;
    const lost = this.#live.outage !== null && !ownCamera;
    let stale = "";
    if (lost) stale = "no connection to leaf-rt";
    else if (selected !== null) stale = ownCamera ? (age > 2 ? `no answer for ${duration(age)}` : "") : source ? staleText(source, waited, age) : "";
    this.#stage.setStale(stale !== "");
    const reason = !lost && source?.state === "offline" ? source.reason : "";
    this.#stage.setBadge(stale || (this.#stage.paused ? "picture paused" : ""), reason);
    document.body.classList.toggle("empty", selected === null);
    setNotice(this.#notice());
  }

  #notice() {
    const sample = { label: "Play the sample clip", act: () => this.playSample() };
    const add = { label: "Add a source", act: () => openDialog("add-dialog") };
    const others = [...(this.#info.add_sources ? [add] : []), ...(this.#info.sample ? [sample] : [])];
    if (this.#problem) {
      const again = { label: "Try again", act: () => this.startCamera(), primary: true };
      return { title: this.#problem.message, text: this.#problem.step ?? "", alert: true, buttons: [again, ...others] };
    }
    if (this.#state.selected !== null || !this.#told) return null;
    const camera = { label: "Use this computer's camera", act: () => this.startCamera(), primary: true };
    return {
      title: "See what a face shows, live",
      text: "The pictures of your camera are sent to this leaf-rt server only. It does not store them.",
      alert: false,
      buttons: [...(this.#info.camera ? [camera] : []), ...others],
    };
  }

  #writeTools(source) {
    const { ownCamera, selected } = this.#state;
    show(byId("tools"), selected !== null);
    show(byId("figures"), source !== null);
    byId("pause").setAttribute("aria-pressed", String(this.#stage.paused));
    setText(byId("use-camera"), ownCamera ? "Stop the camera" : "Use this computer's camera");
    show(byId("use-camera"), this.#info.camera && selected !== null);
    show(byId("add-source"), this.#info.add_sources && selected !== null);
    if (!source) return;
    drawFigures(byId("figures"), source, ownCamera ? this.#stage.latency : null, this.#exact);
    const stopped = ["stopped", "ended", "refused"].includes(source.state);
    setText(byId("toggle-source"), stopped ? "Start source" : "Stop source");
    show(byId("toggle-source"), !ownCamera && source.kind !== "browser");
    show(byId("remove-source"), !ownCamera && this.#info.add_sources);
    const links = byId("record-links");
    if (links.dataset.source === source.id) return;
    links.dataset.source = source.id;
    const formats = [["json", "JSON"], ["jsonl", "JSON Lines"], ["csv", "CSV"]];
    links.replaceChildren(make("p", { class: "quiet" }, "The last 10 minutes"), ...formats.map(([format, name]) =>
      make("a", { href: recordsPath(source.id, 600, format), download: `leaf-rt-${source.id}.${format}` }, name)));
  }
}

async function begin() {
  try {
    new App(await getInfo());
  } catch (error) {
    setText(byId("banner"), `${error.message} Reload the page to try again.`);
    show(byId("banner"), true);
  }
}

begin();
