// The timeline, a curve per person, and their common zoom.

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
  stroke: () => theme().dim, grid: { stroke: () => theme().grid, width: 1 }, ticks: { show: false }, size: 28, gap: 8,
  font: "12px system-ui, sans-serif", space: 70,
  incrs: [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200],
  values: (_, splits, __, ___, step) => splits.map((t) => clock(t, step < 0.1 ? 2 : step < 1 ? 1 : 0)),
});
const drawCuts = (u, top, height) => { // cuts, as dashed lines
  const { ctx } = u, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = theme().ink;
  ctx.lineWidth = ratio;
  ctx.setLineDash([4 * ratio, 3 * ratio]);
  for (const t of cuts) {
    if (t < state.min || t > state.max) continue;
    const x = u.valToPos(t, "x", true);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
  }
  ctx.restore();
};
const segments = (u, list, top, height, withText) => {
  const { ctx } = u, look = theme(), paint = fills(ctx, look), ratio = devicePixelRatio || 1;
  const { left, width } = u.bbox;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.font = `${12 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  ctx.setLineDash([]); // in print, the lines before this are dashed
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
const axisSize = (room) => Math.min(84, Math.max(72, room / 10));

const addLanes = () => {
  const place = $("lanes");
  if (!place || !people.length) return;
  const lanes = people.slice(0, data.lanes), lane = lanes.length > 12 ? 26 : 34;
  addChart(place, lanes.length * lane + 30, {
    padding: [2, 22, 0, 0],
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
        drawCuts(u, u.bbox.top, u.bbox.height);
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
    padding: [14, 22, 0, 0],
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
        drawCuts(u, u.bbox.top, u.bbox.height);
        if (state.print) nameLines(u, t, mean, ratio);
      }],
    },
  }, [t, ...mean, ...low.flatMap((_, label) => [high[label], low[label]])]);
};
const nameLines = (u, t, mean, ratio) => { // in print, colors do not tell the lines apart
  const { ctx } = u, taken = [];
  ctx.save();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
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
