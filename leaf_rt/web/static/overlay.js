// Draws boxes and labels as vectors over the picture, as leaf_rt/render/overlay.py draws them into videos.
// Everything is set by attributes, so that the same drawing can be saved into a snapshot without a style sheet.

import { makeSvg } from "./dom.js";
import { Layout, shortened } from "./placement.js";
import { inkOn, percent, UNCERTAIN } from "./text.js";

const INK = "#181818";
const PADDING = 0.55; // of the text size, left and right of a text
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

const ruler = document.createElement("canvas").getContext("2d");

function textWidth(text, size) {
  ruler.font = `600 ${size}px ${FONT}`;
  return ruler.measureText(text).width;
}

/**
 * Draw faces into an <svg>, in place of what is there.
 *
 * @param svg the element
 * @param faces list of {number, emotion, share, poor, box: [x0, y0, x1, y1]} in px of the view
 * @param view {width, height, scale}: size in px, and how much larger than on a screen text and lines are
 * @param colors label to "#rrggbb"
 * @param layout where labels were before, so that they do not jump; a new one for a single picture
 */
export function drawFaces(svg, faces, view, colors, layout = new Layout()) {
  const { width, height, scale } = view;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const seen = faces.map((face) => ({ ...face, box: clip(face.box, width, height) }));
  const visible = seen.filter(({ box: [x0, y0, x1, y1] }) => x1 - x0 >= 2 && y1 - y0 >= 2);
  const labels = visible.map((face) => labelOf(face, scale));
  const sizes = { width, height, line: 2 * scale, stripe: 0 };
  const places = layout.arrange(labels, sizes, performance.now() / 1000);
  const tags = visible.map((face, i) => tag(face, labels[i].size, places[i], scale, colors[face.emotion]));
  svg.replaceChildren(
    hatch(scale),
    ...visible.flatMap((face) => brackets(face, scale, colors[face.emotion])),
    ...tags,
  );
}

function clip([x0, y0, x1, y1], width, height) {
  return [Math.max(1, x0), Math.max(1, y0), Math.min(width - 1, x1), Math.min(height - 1, y1)];
}

function hatch(scale) {
  const lines = makeSvg("pattern", {
    id: "hatch", width: 6 * scale, height: 6 * scale, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
  });
  lines.append(makeSvg("rect", { width: 6 * scale, height: 6 * scale, fill: "#d4d4d4" }));
  lines.append(makeSvg("rect", { width: 1.5 * scale, height: 6 * scale, fill: "#a9a9a9" }));
  return makeSvg("defs", {}, lines);
}

/** The four rounded corners of a box, with a dark edge that keeps them visible on any picture. */
function brackets(face, scale, color) {
  const [x0, y0, x1, y1] = face.box;
  const arm = Math.max(4 * scale, Math.min(Math.min(x1 - x0, y1 - y0) * 0.22, 60 * scale));
  const r = Math.min(arm / 2, 8 * scale);
  const corner = (x, y, sx, sy) =>
    `M${x} ${y + sy * arm}V${y + sy * r}Q${x} ${y} ${x + sx * r} ${y}H${x + sx * arm}`;
  const d = corner(x0, y0, 1, 1) + corner(x1, y0, -1, 1) + corner(x1, y1, -1, -1) + corner(x0, y1, 1, -1);
  const line = (face.poor ? 1.25 : 2.5) * scale;
  const dashes = face.emotion === UNCERTAIN ? `${5 * scale} ${4 * scale}` : null;
  const stroke = { d, fill: "none", "stroke-linecap": "round", "stroke-dasharray": dashes };
  return [
    makeSvg("path", { ...stroke, stroke: INK, "stroke-opacity": 0.75, "stroke-width": line + 2.5 * scale }),
    makeSvg("path", { ...stroke, stroke: color, "stroke-width": line }),
  ];
}

/** What the label of a face may say, longest first, and how large it is: what the layout needs to know. */
function labelOf(face, scale) {
  const width = (face.box[2] - face.box[0]) / scale;
  const size = Math.max(12, Math.min(17, width / 8)) * scale;
  const named = `${face.number}\u2002${face.emotion}`;
  const large = face.emotion !== UNCERTAIN && width >= 64;
  const full = large ? `${named} ${percent(face.share)}` : named;
  // Always four texts, some of them equal, so that a label is as long after a change as it was before.
  const texts = [full, named, `${face.number}\u2002${shortened(face.emotion)}`, `${face.number}`];
  return {
    number: face.number, box: face.box, size, texts,
    textWidth: (text) => textWidth(text, size) + 2 * size * PADDING, textHeight: size * 1.65,
  };
}

/** A label at its place. Hatched for "uncertain"; hollow with a thin outline for a face of low quality. */
function tag(face, size, { text, tag: [x, y, right, bottom] }, scale, color) {
  const uncertain = face.emotion === UNCERTAIN;
  const plate = { x, y, width: right - x, height: bottom - y, rx: size * 0.4 };
  const group = makeSvg("g", {});
  if (face.poor) {
    group.append(makeSvg("rect", { ...plate, fill: INK, "fill-opacity": 0.78, stroke: color, "stroke-width": scale }));
  } else {
    group.append(makeSvg("rect", { ...plate, fill: uncertain ? "url(#hatch)" : color }));
  }
  const label = {
    x: x + size * PADDING, y: y + size * 1.18, "font-family": FONT, "font-size": size, "font-weight": 600,
    fill: face.poor ? "#ffffff" : uncertain ? "#000000" : inkOn(color),
  };
  group.append(makeSvg("text", label, text));
  return group;
}

/** Where a box is by now: moved on with the speed of its last two answers, for at most one answer. */
export function moved(answer, before, now) {
  if (!before || answer.time <= before.time) return answer.box;
  const interval = answer.time - before.time;
  const part = Math.max(0, Math.min((now - answer.time) / interval, 1));
  return answer.box.map((value, i) => value + (value - before.box[i]) * part);
}
