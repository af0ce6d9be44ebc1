// The report's script: timeline, curves, the moment under the cursor, sorting, copies and downloads.
// Everything comes from the JSON in the page; nothing is loaded.
"use strict";
(() => {
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
  const people = numbers.people.map((p) => p.track_id);
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
    if (state.print) return { ink: "#000", dim: "#333", grid: "#ccc", ground: "#fff" };
    const style = getComputedStyle(root), read = (name) => style.getPropertyValue(name).trim();
    return { ink: read("--ink"), dim: read("--dim"), grid: read("--grid"), ground: read("--ground"),
      hatch: read("--hatch"), hatchLine: read("--hatch-line") };
  };
  const LINES = [null, [], [[0, 4, 8, 4]], [[4, 0, 4, 8]], [[0, 8, 8, 0]], [[0, 0, 8, 8]], [[0, 4, 8, 4], [4, 0, 4, 8]],
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
    if (state.print) {
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

  // Zoom: all charts share one range

  const setRange = (min, max) => {
    const span = Math.min(Math.max(max - min, MIN_SPAN), end - start);
    const from = Math.min(Math.max((min + max - span) / 2, start), end - span);
    [state.min, state.max] = [from, from + span];
    for (const { u } of state.charts) u.setScale("x", { min: state.min, max: state.max });
    placeHeads();
  };
  const zoom = (factor, about = (state.min + state.max) / 2) =>
    setRange(about - (about - state.min) * factor, about + (state.max - about) * factor);

  // Charts

  const axisX = () => ({
    stroke: () => theme().dim, grid: { stroke: () => theme().grid, width: 1 }, ticks: { show: false }, size: 26, gap: 4,
    font: "12px system-ui, sans-serif", space: 70,
    incrs: [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200],
    values: (_, splits, __, ___, step) => splits.map((t) => clock(t, step < 0.1 ? 2 : step < 1 ? 1 : 0)),
  });
  const segments = (u, list, top, height, withText) => {
    const { ctx } = u, look = theme(), paint = fills(ctx, look), ratio = devicePixelRatio || 1;
    const { left, width } = u.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    for (const [, label, from, to] of list) {
      if (to < state.min || from > state.max) continue;
      const x0 = u.valToPos(from, "x", true), x1 = Math.max(u.valToPos(to, "x", true), x0 + ratio);
      ctx.globalAlpha = state.chosen === null || state.chosen === label ? 1 : 0.18;
      ctx.fillStyle = paint[label];
      ctx.fillRect(x0, top, x1 - x0, height);
      if (state.print) { ctx.strokeStyle = "#000"; ctx.lineWidth = ratio; ctx.strokeRect(x0, top, x1 - x0, height); }
      const visible = [Math.max(x0, left), Math.min(x1, left + width)];
      const size = withText ? ctx.measureText(labels[label]).width : Infinity;
      if (size + 12 * ratio > visible[1] - visible[0]) continue;
      const middle = (visible[0] + visible[1]) / 2;
      if (state.print || label === UNCERTAIN) {
        ctx.fillStyle = look.ground;
        ctx.fillRect(middle - size / 2 - 4 * ratio, top + height / 2 - 8 * ratio, size + 8 * ratio, 16 * ratio);
        ctx.fillStyle = look.ink;
      } else ctx.fillStyle = isLight(colors[label]) ? "#16191d" : "#ffffff";
      ctx.fillText(labels[label], middle - size / 2, top + height / 2 + ratio);
    }
    ctx.restore();
  };
  const addChart = (place, height, options, rows) => {
    let from = null;
    const u = new uPlot({
      width: Math.max(place.clientWidth, 200), height, legend: { show: false },
      cursor: {
        y: false, points: { show: false }, drag: { x: true, y: false, setScale: false, dist: 4 },
        sync: { key: "leaf", setSeries: false, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
      },
      ...options,
      scales: { x: { time: false, range: () => [state.min, state.max] }, y: options.scales.y },
      hooks: {
        ...options.hooks,
        setCursor: [(chart) => {
          const { left } = chart.cursor;
          hover = left >= 0 ? chart.posToVal(left, "x") : null;
          refresh();
        }],
        setSelect: [(chart) => {
          const { left, width } = chart.select;
          if (width < 5) return;
          const range = [chart.posToVal(left, "x"), chart.posToVal(left + width, "x")];
          chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          setRange(...range);
        }],
      },
    }, rows, place);
    u.over.addEventListener("mousedown", (e) => { from = e.clientX; });
    u.over.addEventListener("click", (e) => {
      if (from === null || Math.abs(e.clientX - from) < 5) {
        choose(u.posToVal(e.clientX - u.over.getBoundingClientRect().left, "x"), true);
      }
    });
    u.over.addEventListener("dblclick", () => setRange(start, end));
    u.over.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey) return; // plain scrolling moves the page
      e.preventDefault();
      zoom(e.deltaY > 0 ? 1.25 : 0.8, u.posToVal(e.clientX - u.over.getBoundingClientRect().left, "x"));
    }, { passive: false });
    const head = element("div", { class: "playhead", hidden: "" });
    u.over.append(head);
    state.charts.push({ u, head, place, height });
    return u;
  };
  const axisSize = (room) => Math.min(78, Math.max(60, room / 10));

  const addLanes = () => {
    const place = $("lanes");
    if (!place || !people.length) return;
    const lanes = people.slice(0, data.lanes), lane = lanes.length > 12 ? 26 : 34;
    addChart(place, lanes.length * lane + 30, {
      padding: [2, 2, 0, 0],
      scales: { y: { range: () => [0, lanes.length] } },
      axes: [axisX(), {
        stroke: () => theme().ink, grid: { show: false }, ticks: { show: false }, size: axisSize(place.clientWidth), gap: 6,
        font: "13px system-ui, sans-serif", splits: () => lanes.map((_, row) => lanes.length - row - 0.5),
        values: () => lanes.map((id) => `Person ${id}`),
      }],
      series: [{}, { stroke: "transparent", points: { show: false } }],
      hooks: {
        drawSeries: [(u, number) => {
          if (number !== 1) return;
          lanes.forEach((id, row) => {
            const top = u.valToPos(lanes.length - row, "y", true), bottom = u.valToPos(lanes.length - row - 1, "y", true);
            const inset = (bottom - top) * 0.12;
            segments(u, byPerson.get(id), top + inset, bottom - top - 2 * inset, true);
          });
        }],
      },
    }, [[start, end], [null, null]]);
  };

  const withBreaks = (curve) => {
    const times = curve.t, at = [];
    for (let n = 1; n < times.length; n += 1) if (times[n] - times[n - 1] > GAP) at.push(n);
    const spread = (line, fill) => {
      if (!at.length) return line;
      const out = [];
      let next = 0;
      line.forEach((value, n) => {
        if (at[next] === n) { out.push(fill(n)); next += 1; }
        out.push(value);
      });
      return out;
    };
    return {
      t: spread(times, (n) => (times[n - 1] + times[n]) / 2),
      lines: ["mean", "low", "high"].map((name) => (curve[name] ?? []).map((line) => spread(line, () => null))),
    };
  };
  const addCurve = (place) => {
    const id = Number(place.dataset.person), curve = curveOf.get(id);
    if (!curve) return;
    const { t, lines: [mean, low, high] } = withBreaks(curve), classes = mean.length;
    const ink = (label, more = "") => () => {
      if (state.print) return more ? "rgba(0,0,0,.06)" : "#000";
      const faint = state.chosen !== null && state.chosen !== label;
      return colors[label] + (more ? (faint ? "06" : more) : faint ? "28" : "");
    };
    const line = (label) => ({ stroke: ink(label), width: 1.8, points: { show: t.length < 3 }, spanGaps: false });
    const hidden = () => ({ stroke: "transparent", width: 0, points: { show: false } });
    const bands = low.map((_, label) => ({
      series: [1 + classes + 2 * label, 2 + classes + 2 * label], fill: ink(label, "38"),
    }));
    addChart(place, 200, {
      padding: [14, 8, 0, 0],
      scales: { y: { range: () => [0, 1000] } },
      axes: [axisX(), {
        stroke: () => theme().dim, grid: { stroke: () => theme().grid, width: 1 }, ticks: { show: false }, size: 44, gap: 4,
        font: "12px system-ui, sans-serif", splits: () => [0, 250, 500, 750, 1000], values: (_, splits) => splits.map((v) => v / 10 + " %"),
      }],
      series: [{}, ...mean.map((_, label) => line(label)), ...low.flatMap(() => [hidden(), hidden()])],
      bands,
      hooks: {
        draw: [(u) => {
          const ratio = devicePixelRatio || 1;
          segments(u, byPerson.get(id), u.bbox.top - 11 * ratio, 7 * ratio, false);
          if (state.print) nameLines(u, t, mean, ratio);
        }],
      },
    }, [t, ...mean, ...low.flatMap((_, label) => [high[label], low[label]])]);
  };
  const nameLines = (u, t, mean, ratio) => { // in print, colors do not tell the lines apart
    const { ctx } = u, taken = [];
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    mean.forEach((line, label) => {
      let best = -1;
      line.forEach((value, n) => {
        if (value !== null && t[n] >= state.min && t[n] <= state.max && (best < 0 || value > line[best])) best = n;
      });
      if (best < 0 || line[best] < 150) return;
      const size = ctx.measureText(labels[label]).width;
      const x = Math.min(Math.max(u.valToPos(t[best], "x", true) - size / 2, u.bbox.left), u.bbox.left + u.bbox.width - size);
      let y = Math.max(u.valToPos(line[best], "y", true) - 4 * ratio, u.bbox.top + 11 * ratio);
      while (taken.some(([a, b, w]) => Math.abs(b - y) < 12 * ratio && a < x + size && x < a + w)) y += 12 * ratio;
      taken.push([x, y, size]);
      ctx.fillStyle = "#fff";
      ctx.fillRect(x - 2, y - 10 * ratio, size + 4, 12 * ratio);
      ctx.fillStyle = "#000";
      ctx.fillText(labels[label], x, y);
    });
    ctx.restore();
  };

  const redraw = () => { for (const { u } of state.charts) u.redraw(false, true); };
  const resize = () => {
    for (const { u, place, height } of state.charts) {
      const width = state.print ? Math.min(place.clientWidth, place.id === "lanes" ? 680 : 400) : place.clientWidth;
      if (width) u.setSize({ width: Math.max(width, 200), height });
    }
    placeHeads();
  };
  const setPrint = (on) => {
    if (state.print === on) return;
    state.print = on;
    if (on) drawAllCurves();
    for (const { u } of state.charts) {
      u.series.forEach((series, number) => { if (number && series.width) series.dash = on ? DASHES[(number - 1) % DASHES.length] : []; });
    }
    resize();
    redraw();
  };

  // Legend

  const legend = $("legend");
  const used = labels.map((_, label) => label)
    .filter((label) => label !== UNCERTAIN || events.some((event) => event[1] === UNCERTAIN));
  for (const label of legend ? used : []) {
    const button = element("button", { type: "button", "aria-pressed": "false" }, key(label), labels[label]);
    button.addEventListener("click", () => {
      state.chosen = state.chosen === label ? null : label;
      for (const other of legend.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button && state.chosen !== null));
      }
      redraw();
    });
    legend.append(element("li", {}, button));
  }

  // Keys, buttons, video

  $("zoom-in")?.addEventListener("click", () => zoom(0.5, state.moment ?? undefined));
  $("zoom-out")?.addEventListener("click", () => zoom(2));
  $("zoom-all")?.addEventListener("click", () => setRange(start, end));
  $("lanes")?.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const step = ((state.max - state.min) / 100) * (e.shiftKey ? 10 : 1), t = state.moment ?? state.min;
    const actions = {
      ArrowLeft: () => choose(t - step, false), ArrowRight: () => choose(t + step, false), Enter: () => choose(t, true),
      Home: () => choose(start, false), End: () => choose(end, false),
      "+": () => zoom(0.5, t), "=": () => zoom(0.5, t), "-": () => zoom(2, t), 0: () => setRange(start, end),
    };
    if (!actions[e.key]) return;
    e.preventDefault();
    actions[e.key]();
    if (e.key.startsWith("Arrow") && (state.moment < state.min || state.moment > state.max)) {
      const span = state.max - state.min;
      setRange(state.moment - span / 2, state.moment + span / 2);
    }
  });
  if (video) {
    const follow = () => { if (!video.seeking) { state.moment = video.currentTime + clip.start; refresh(); } };
    video.addEventListener("timeupdate", follow);
    video.addEventListener("seeked", follow);
    video.addEventListener("error", () => {
      const figure = video.closest("figure");
      const text = `The video ${decodeURIComponent(clip.url)} is not here, or this browser cannot play it; everything else works without it.`;
      figure.replaceWith(element("p", { class: "note", id: "video-note" }, text));
      refresh();
    });
    const smooth = () => { if (!video.paused) follow(); video.requestVideoFrameCallback?.(smooth); };
    video.requestVideoFrameCallback?.(smooth);
  }

  // Events

  const table = $("event-table"), order = { column: 2, down: false }, body = table?.tBodies[0];
  let limit = data.listed;
  const cells = (event) => [event[0], labels[event[1]], event[2], event[3], event[3] - event[2], event[4]];
  const sorted = () => {
    const rows = events.map((event) => [cells(event), event]);
    const { column, down } = order;
    rows.sort(([a], [b]) => (a[column] < b[column] ? -1 : a[column] > b[column] ? 1 : a[2] - b[2] || a[0] - b[0]));
    if (down) rows.reverse();
    return rows;
  };
  const listEvents = () => {
    const rows = sorted(), shown = rows.slice(0, limit);
    body.replaceChildren(...shown.map(([values, event]) => {
      const go = element("button", { type: "button", title: "Go to this moment" }, values[2].toFixed(2));
      go.addEventListener("click", () => choose(event[2], true));
      return element("tr", {}, element("td", {}, String(values[0])), element("td", {}, key(event[1]), values[1]),
        element("td", {}, go), ...[values[3], values[4]].map((v) => element("td", {}, v.toFixed(2))),
        element("td", {}, `${(100 * values[5]).toFixed(1)}%`));
    }));
    const count = $("event-count");
    count.replaceChildren(`${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} events `);
    if (shown.length < rows.length) {
      const more = element("button", { type: "button" }, "Show all");
      more.addEventListener("click", () => { limit = Infinity; listEvents(); });
      count.append(more);
    }
  };
  if (table) {
    for (const head of table.querySelectorAll("th")) {
      const column = Number(head.dataset.column), button = element("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        order.down = order.column === column && !order.down;
        order.column = column;
        for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
        listEvents();
      });
    }
    table.querySelectorAll("th")[2].setAttribute("aria-sort", "ascending");
    listEvents();
  }

  // Copies and downloads

  const eventRows = () => [["person", "expression", "start_s", "end_s", "dwell_s", "peak", "start_at"],
    ...sorted().map(([v, event]) => [v[0], v[1], v[2], v[3], Number(v[4].toFixed(6)), v[5], event[5] ?? ""])];
  const numberRows = () => {
    const fields = ["shown_s", "shares", "mean_share"];
    const head = ["person", "first_s", "last_s", "seconds", "changes", "longest_emotion", "longest_start_s", "longest_s",
      ...fields.flatMap((field) => (field === "mean_share" ? labels.slice(0, -1) : labels).map((label) => `${field}_${label}`))];
    return [head, ...numbers.people.map((p) => [p.track_id, p.first, p.last, p.seconds, p.changes, p.longest?.emotion ?? "",
      p.longest?.start_s ?? "", p.longest?.dwell_s ?? "",
      ...fields.flatMap((field) => (field === "mean_share" ? labels.slice(0, -1) : labels)
        .map((label) => p[field][label] ?? (field === "mean_share" ? "" : 0)))])];
  };
  const csv = (rows) => rows.map((row) => row.map((value) => {
    const text = typeof value === "string" && /^[=+\-@\t]/.test(value) ? `'${value}` : String(value); // no formulas
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",")).join("\r\n") + "\r\n";
  const save = (text, type, suffix) => {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const stem = numbers.source.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-") || "report";
    element("a", { href: url, download: `${stem}-${suffix}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  $("get-csv")?.addEventListener("click", () => save(csv(numberRows()), "text/csv", "numbers.csv"));
  $("get-json")?.addEventListener("click", () => save(JSON.stringify(numbers, null, 2) + "\n", "application/json", "numbers.json"));
  $("get-events")?.addEventListener("click", () => save(csv(eventRows()), "text/csv", "events.csv"));
  $("print")?.addEventListener("click", () => print());
  $("copy-events")?.addEventListener("click", async (e) => {
    const text = eventRows().map((row) => row.join("\t")).join("\n");
    const button = e.currentTarget;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = element("textarea", {});
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy"); // where the page has no access to the clipboard
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy table"; }, 1500);
  });

  // Start. Curves are drawn when they come into view, so that many people open fast.

  addLanes();
  const waiting = new Set(document.querySelectorAll(".curve"));
  const draw = (place) => { if (waiting.delete(place)) addCurve(place); };
  const drawAllCurves = () => { for (const place of [...waiting]) draw(place); };
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) { watcher.unobserve(target); draw(target); }
  }, { rootMargin: "300px" });
  for (const place of waiting) watcher.observe(place);
  addEventListener("resize", resize);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", (e) => (query === "print" ? setPrint(e.matches) : redraw()));
  }
  addEventListener("beforeprint", () => setPrint(true));
  addEventListener("afterprint", () => setPrint(false));
  refresh();
})();
