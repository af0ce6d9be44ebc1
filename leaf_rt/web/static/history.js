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

  /** Put in records that the server remembers. What is already here, which may be less, is replaced. */
  restore(records) {
    if (!records.length) return;
    const later = this.#end;
    const kept = this.people;
    this.people = new Map();
    for (const record of records) this.#add([record], timeOf(record));
    const newest = records.at(-1);
    if (later !== null && later > timeOf(newest)) {
      for (const [key, person] of kept) this.#append(key, person);
    } else {
      this.#note(timeOf(newest), newest.captured_at !== null);
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

  #append(key, person) {
    const restored = this.people.get(key);
    if (!restored) {
      this.people.set(key, person);
      return;
    }
    restored.samples.push(...person.samples.filter((sample) => sample.t > restored.last));
    restored.last = Math.max(restored.last, person.last);
    restored.newest = person.newest;
  }
}
