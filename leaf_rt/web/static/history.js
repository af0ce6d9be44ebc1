// What was shown by whom, for one source: the last ten minutes of records, thinned to ten per second and person.

import { UNCERTAIN } from "./text.js";

const KEPT = 600; // s
const STEP = 0.09; // s between two samples of a person, unless the expression changes
export const GAP = 1; // s; a person who was away for longer leaves a gap

/** Time of a record, s: wall clock for live sources, media time for files. */
const timeOf = (record) => (record.captured_at === null ? record.pts_s : Date.parse(record.captured_at) / 1000);

/** One person: number, samples {t, emotion, share, shares, poor} in order of time, and when they were seen last. */
class Person {
  constructor(number, t) {
    Object.assign(this, { number, samples: [], first: t, last: t, newest: null });
  }

  add(record, t, labels) {
    const shares = labels.map((label) => record.smoothed[label] ?? 0);
    const share = record.emotion === UNCERTAIN ? Math.max(...shares) : (record.smoothed[record.emotion] ?? 0);
    const sample = { t, emotion: record.emotion, share, shares, poor: record.poor };
    const before = this.samples.at(-1);
    this.last = t;
    this.newest = { ...sample, box: record.box };
    if (!before || t - before.t >= STEP || before.emotion !== sample.emotion) this.samples.push(sample);
  }

  /** Take from `other`, the same person, the samples that came before and after these. */
  join(other) {
    const [begin, end] = [this.samples[0].t, this.last];
    const before = other.samples.filter(({ t }) => t < begin);
    const after = other.samples.filter(({ t }) => t > end);
    this.samples = [...before, ...this.samples, ...after];
    this.first = Math.min(this.first, other.first);
    if (other.last > this.last) Object.assign(this, { last: other.last, newest: other.newest });
  }

  /** Forget samples from before `t`. */
  trim(t) {
    const keep = this.samples.findIndex((sample) => sample.t >= t);
    if (keep > 0) this.samples.splice(0, keep);
    if (keep < 0) this.samples = [];
  }

  /** The sample that was shown at `t`, or null. */
  at(t) {
    const list = this.samples;
    let [low, high] = [0, list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].t <= t) low = middle + 1;
      else high = middle;
    }
    const sample = list[low - 1];
    return sample && t - sample.t <= GAP ? sample : null;
  }

  /** Stretches {emotion, start, end} with one expression, from `begin` on. */
  stretches(begin) {
    const found = [];
    for (const sample of this.samples) {
      if (sample.t < begin) continue;
      const open = found.at(-1);
      const joins = open && sample.t - open.end <= GAP;
      if (joins) open.end = sample.t;
      if (!joins || open.emotion !== sample.emotion) found.push({ emotion: sample.emotion, start: sample.t, end: sample.t });
    }
    if (found.length) found.at(-1).end = Math.max(found.at(-1).end, this.last);
    return found;
  }

  /** Seconds for which each expression was shown since `begin`: Map from label. */
  timeShown(begin) {
    const seconds = new Map();
    for (const { emotion, start, end } of this.stretches(begin)) {
      seconds.set(emotion, (seconds.get(emotion) ?? 0) + end - start);
    }
    return seconds;
  }
}

/** The people of one source. */
export class History {
  people = new Map();
  #labels;
  #end = null; // time of the newest frame, s
  #endSeen = 0; // when it came, ms
  #live = false;

  constructor(labels) {
    this.#labels = labels;
  }

  /** Add the frame of a header of the protocol. Frames from before the newest one are left out. */
  addFrame(header) {
    const t = timeOf(header);
    if (this.#end !== null && t <= this.#end) return;
    this.#add(header.records, t);
    this.#note(t, header.captured_at !== null);
    for (const person of this.people.values()) person.trim(t - KEPT);
    for (const [key, person] of this.people) if (person.last < t - KEPT) this.people.delete(key);
  }

  /** Put in the newest records that the server remembers, between what is already here. */
  restore(records) {
    if (!records.length) return;
    const kept = this.people;
    this.people = new Map();
    for (const record of records) this.#add([record], timeOf(record));
    const newest = records.at(-1);
    if (this.#end === null || timeOf(newest) > this.#end) this.#note(timeOf(newest), newest.captured_at !== null);
    for (const [key, person] of kept) {
      const restored = this.people.get(key);
      if (restored) restored.join(person);
      else this.people.set(key, person);
    }
  }

  /** Whether there are people from before a reload of the page. */
  get hasEarlier() {
    return [...this.people.values()].some(({ number }) => String(number).endsWith("*"));
  }

  /** The last `seconds` of live samples as plain data, to be kept over a reload; null if there are none. */
  save(seconds) {
    if (!this.#live || !this.people.size) return null;
    const people = [...this.people.values()].map(({ number, samples }) => ({
      number: String(number),
      samples: samples.filter(({ t }) => t > this.#end - seconds),
    }));
    return people.filter(({ samples }) => samples.length);
  }

  /** Put back what `save` returned. These people are other rows than the new ones, who are counted anew. */
  load(people) {
    for (const { number, samples } of people) {
      const person = new Person(number.endsWith("*") ? number : `${number}*`, samples[0].t);
      Object.assign(person, { samples, last: samples.at(-1).t });
      this.people.set(`before ${samples[0].t} ${number}`, person);
    }
  }

  /** The time at the right edge, s. It moves on between frames; for files only a little. null before the first frame. */
  now() {
    if (this.#end === null) return null;
    const waited = (performance.now() - this.#endSeen) / 1000;
    return this.#end + (this.#live ? waited : Math.min(waited, 0.5));
  }

  /** Whether times are wall-clock times. */
  get isLive() {
    return this.#live;
  }

  #note(t, live) {
    this.#end = t;
    this.#endSeen = performance.now();
    this.#live = live;
  }

  #add(records, t) {
    for (const record of records) {
      const key = record.person_id ?? record.track_id;
      let person = this.people.get(key);
      if (!person) this.people.set(key, (person = new Person(key, t)));
      person.add(record, t, this.#labels);
    }
  }
}
