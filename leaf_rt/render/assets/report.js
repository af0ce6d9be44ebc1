// The report: data of the page, text, colors, and the moment that the charts and the video share.
// leaf_rt/render/report.py puts these files into one function: report.js, charts.js, controls.js, tables.js.

const data = JSON.parse(document.getElementById("data").textContent);
const { labels, colors, numbers, events, curves, clip } = data;
const UNCERTAIN = labels.length - 1;
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
root.classList.add("js");
const video = $("video");
const start = numbers.start, end = Math.max(numbers.end, numbers.start + 0.5);
const MIN_SPAN = 0.5; // s
const GAP = Math.max(1, 3 * data.step); // s; a curve breaks where the person was away for longer
const state = { min: start, max: end, moment: null, chosen: null, print: false, charts: [] };
const cuts = numbers.cuts ?? [];
const people = numbers.people.map((p) => p.person_id);
const byPerson = new Map(people.map((id) => [id, []]));
for (const event of events) byPerson.get(event[0])?.push(event);
const curveOf = new Map(curves.map((curve) => [curve.id, curve]));

// Text

const percent = (share) => `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`;
const two = (value) => String(value).padStart(2, "0");
const clock = (seconds, digits = 2) => {
  const sign = seconds < 0 ? "-" : "", scale = 10 ** digits, total = Math.round(Math.abs(seconds) * scale);
  const rest = total % (60 * scale), minutes = Math.floor(total / (60 * scale));
  const text = two(Math.floor(rest / scale)) + (digits ? "." + String(rest % scale).padStart(digits, "0") : "");
  const hours = Math.floor(minutes / 60);
  return sign + (hours ? `${hours}:${two(minutes % 60)}:` : `${minutes}:`) + text;
};
const element = (tag, attributes = {}, ...children) => {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
};
const svg = (tag, attributes, ...children) => {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
};
const key = (label) => svg("svg", { class: "key", viewBox: "0 0 10 10", "aria-hidden": "true" },
  svg("rect", { width: 10, height: 10, rx: 2, class: `f${label}` }));

// Colors and patterns

const theme = () => {
  if (state.print) return { ink: "#000", dim: "#333", grid: "#ccc", ground: "#fff", hatch: "#fff", hatchLine: "#888" };
  const style = getComputedStyle(root), read = (name) => style.getPropertyValue(name).trim();
  return { ink: read("--ink"), dim: read("--dim"), grid: read("--grid"), ground: read("--ground"),
    hatch: read("--hatch"), hatchLine: read("--hatch-line") };
};
const LINES = [[], null, [[0, 4, 8, 4]], [[4, 0, 4, 8]], [[0, 8, 8, 0]], [[0, 0, 8, 8]], [[0, 4, 8, 4], [4, 0, 4, 8]],
  [[0, 0, 8, 8], [0, 8, 8, 0]], [[2, 2, 3, 2], [6, 6, 7, 6]]]; // as the patterns of the page
const DASHES = [[], [10, 4], [2, 3], [10, 3, 2, 3], [5, 2], [14, 3], [2, 6], [8, 2, 2, 2, 2, 2]];
const tile = (context, size, draw) => {
  const canvas = document.createElement("canvas");
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(size * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(canvas.width / size, canvas.height / size);
  draw(pen);
  return context.createPattern(canvas, "repeat");
};
const stroke = (pen, lines, color, width) => {
  pen.strokeStyle = color;
  pen.lineWidth = width;
  pen.beginPath();
  for (const [x0, y0, x1, y1] of lines) { pen.moveTo(x0, y0); pen.lineTo(x1, y1); }
  pen.stroke();
};
const fills = (context, look) => labels.map((_, label) => {
  if (state.print && label !== UNCERTAIN) {
    const lines = LINES[label % LINES.length];
    return tile(context, 8, (pen) => {
      pen.fillStyle = lines ? "#fff" : "#333";
      pen.fillRect(0, 0, 8, 8);
      if (lines) stroke(pen, lines, "#222", 1.1);
    });
  }
  if (label !== UNCERTAIN) return colors[label];
  return tile(context, 8, (pen) => {
    pen.fillStyle = look.hatch;
    pen.fillRect(0, 0, 8, 8);
    stroke(pen, [[-2, 2, 2, -2], [0, 8, 8, 0], [6, 10, 10, 6]], look.hatchLine, 2);
  });
});
const isLight = (color) => {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 120;
};

// The moment: the time under the cursor, of the video, or chosen by key or click

const shownAt = (id, t) => {
  const list = byPerson.get(id);
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (list[middle][2] <= t) low = middle; else high = middle - 1;
  }
  const found = list[low];
  return found && found[2] <= t + 0.02 && t <= found[3] + 0.05 ? found : null;
};
const sharesAt = (id, t) => {
  const curve = curveOf.get(id);
  if (!curve) return null;
  const times = curve.t;
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < t) low = middle + 1; else high = middle;
  }
  if (low > 0 && t - times[low - 1] < times[low] - t) low -= 1;
  if (Math.abs(times[low] - t) > GAP) return null;
  return curve.mean.map((line) => line[low] / 1000);
};
const showMoment = (t) => {
  const panel = $("now");
  if (!panel || t === null) return;
  panel.replaceChildren(element("time", {}, clock(t)));
  let count = 0;
  for (const id of people) {
    const event = shownAt(id, t), shares = event && sharesAt(id, t);
    if (!shares) continue;
    if (++count > 6) continue;
    const order = shares.map((share, label) => [share, label]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const rows = order.map(([share, label]) => element("div", { class: "row", "data-label": labels[label] },
      element("span", {}, labels[label]),
      svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { class: "track", width: 100, height: 8 }),
        svg("rect", { class: `f${label}`, width: 100 * share, height: 8 })),
      element("span", {}, percent(share))));
    panel.append(element("div", { class: "who", "data-person": id },
      element("b", {}, `Person ${id}`, key(event[1]), labels[event[1]]), ...rows));
  }
  if (!count) panel.append(element("p", { class: "hint" }, "Nobody is on screen."));
  if (count > 6) panel.append(element("p", { class: "hint" }, `and ${count - 6} more`));
};
let hover = null, asked = false;
const current = () => hover ?? state.moment ?? (video && !video.error ? video.currentTime + clip.start : start);
const refresh = () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; showMoment(current()); placeHeads(); });
};
const placeHeads = () => {
  for (const { u, head } of state.charts) {
    const t = state.moment;
    head.hidden = t === null || t < state.min || t > state.max;
    if (!head.hidden) head.style.left = `${u.valToPos(t, "x")}px`;
  }
};
const choose = (t, seek) => {
  state.moment = Math.min(Math.max(t, start), end);
  if (seek && video && !video.error) video.currentTime = Math.max(0, state.moment - clip.start);
  refresh();
};
