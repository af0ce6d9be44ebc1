// Finds places for the labels of faces, by the same rule as leaf_rt/render/placement.py. tests/data/label_places.json
// holds both to the same places. Pure geometry: does not know pictures, fonts or colors. A box is [x0, y0, x1, y1].

const SETTLE = 1; // s for which a better place must have been free before a label moves back to it
const MEMORY = 1; // s for which the place of a face that is out of sight is kept
const TOLERANCE = 1e-6; // px, of sums of broken numbers

// Places of a label around its face, best first.
const NEAR = ["above-left", "above-right", "above-middle", "below-left", "below-right", "below-middle"];
const BESIDE = ["right-top", "left-top", "right-bottom", "left-bottom"];

/** Places labels so that they cover neither each other nor a face, and do not jump. One for all frames of a source. */
export class Layout {
  #known = new Map(); // number to {seen, spot: [form, place] or null, betterSince}

  /**
   * Place the labels of one frame. Faces choose in the order of their numbers. A label keeps its place while that is
   * free, and moves back to a better one only after that has been free for a second. A label that fits nowhere goes
   * where it covers least.
   *
   * @param faces list of {number, box, texts, textWidth, textHeight}: what the label may say, longest first, a
   *   function from a text to the width of the label, and its height
   * @param sizes {width, height, line, stripe}: of the picture, of the lines of a box, and of what is below a box or
   *   its label
   * @param time s
   * @returns one {text, tag} per face, in the same order; tag is the box of the label
   */
  arrange(faces, sizes, time) {
    for (const [number, { seen }] of this.#known) {
      if (!(time >= seen && time - seen <= MEMORY)) this.#known.delete(number);
    }
    for (const { number } of faces) {
      if (!this.#known.has(number)) this.#known.set(number, { spot: null, betterSince: null });
      this.#known.get(number).seen = time;
    }
    const edges = faces.map(({ box }) => withEdge(box, sizes));
    const labels = [];
    const places = new Array(faces.length);
    const order = faces.map((_, row) => row).sort((a, b) => faces[a].number - faces[b].number || a - b);
    for (const row of order) {
      const others = [...edges.filter((_, other) => other !== row), ...labels];
      places[row] = this.#place(faces[row], others, sizes, time);
      labels.push(withStripe(places[row].tag, faces[row].box, sizes));
    }
    return places;
  }

  #place(face, others, sizes, time) {
    const memory = this.#known.get(face.number);
    let kept = memory.spot && tryPlace(face, memory.spot, others, sizes);
    if (!kept && memory.spot) { // a shorter text moves less than another place does
      for (let form = 1 - face.texts.length; form < -1 && !kept; form += 1) {
        const shorter = [form, memory.spot[1]];
        kept = tryPlace(face, shorter, others, sizes);
        if (kept) memory.spot = shorter;
      }
    }
    for (const spot of spots(face)) {
      const held = isSame(spot, memory.spot);
      const found = held ? kept : tryPlace(face, spot, others, sizes);
      if (!found) continue;
      if (kept && !held) {
        memory.betterSince ??= time;
        if (time - memory.betterSince < SETTLE) return kept;
      }
      memory.spot = spot;
      memory.betterSince = null;
      return found;
    }
    memory.spot = null;
    memory.betterSince = null;
    return leastCovering(face, others, sizes);
  }
}

/** A name of at most four characters: its first three letters and a point, if it is longer. */
export function shortened(name) {
  return name.length <= 4 ? name : `${name.slice(0, 3)}.`;
}

/** All places, best first: index of the text from the end, and place. The number alone says least and comes last. */
function spots(face) {
  const last = face.texts.length - 1;
  const forms = face.texts.map((_, form) => form - face.texts.length).slice(0, last);
  const named = [NEAR, BESIDE].flatMap((places) => forms.flatMap((form) => places.map((place) => [form, place])));
  return [...named, ...[...NEAR, ...BESIDE].map((place) => [-1, place])];
}

function isSame(a, b) {
  return b !== null && a[0] === b[0] && a[1] === b[1];
}

/** The text and the box of a label at a place; null if it is not free. */
function tryPlace(face, [form, place], others, sizes) {
  if (-form > face.texts.length) return null;
  const text = face.texts.at(form);
  const tag = tagBox(face, text, place, sizes);
  return isFree(withStripe(tag, face.box, sizes), others, sizes) ? { text, tag } : null;
}

/** The box of a label at a place, moved into the picture from left and right. */
function tagBox(face, text, place, sizes) {
  const [x0, y0, x1, y1] = face.box;
  const { line } = sizes;
  const [width, height] = [face.textWidth(text), face.textHeight];
  const [side, anchor] = place.split("-");
  let left, top;
  if (side === "above" || side === "below") {
    top = side === "above" ? y0 - height - line - 2 : y1 + line + 3;
    const starts = { left: x0 - line, right: x1 + line - width, middle: Math.floor((x0 + x1 - width) / 2) };
    left = clip(starts[anchor], sizes.width - width);
  } else {
    left = side === "right" ? x1 + line + 3 : x0 - line - 3 - width;
    top = clip(anchor === "top" ? y0 : y1 - height, sizes.height - height);
  }
  return [left, top, left + width, top + height];
}

/** A label that has no room: inside the picture, covering least of the others. */
function leastCovering(face, others, sizes) {
  let best = null;
  for (const text of face.texts) {
    for (const place of ["below-left", "above-left"]) {
      const [left, y0, right, y1] = tagBox(face, text, place, sizes);
      const top = clip(y0, sizes.height - (y1 - y0));
      const tag = [left, top, right, top + y1 - y0];
      const area = covered(tag, others);
      if (best === null || area < best.area) best = { area, text, tag };
    }
  }
  return { text: best.text, tag: best.tag };
}

function isFree(box, others, sizes) {
  const [right, bottom] = [sizes.width + TOLERANCE, sizes.height + TOLERANCE];
  const inside = box[0] >= 0 && box[1] >= 0 && box[2] <= right && box[3] <= bottom;
  return inside && covered(box, others) === 0;
}

/** How much of the other boxes a box covers. */
function covered(box, others) {
  let area = 0;
  for (const other of others) {
    const width = Math.min(box[2], other[2]) - Math.max(box[0], other[0]);
    const height = Math.min(box[3], other[3]) - Math.max(box[1], other[1]);
    if (width > TOLERANCE && height > TOLERANCE) area += width * height;
  }
  return area;
}

/** What a face takes: its box with the lines around it and what is below. */
function withEdge([x0, y0, x1, y1], { line, stripe }) {
  return [x0 - line, y0 - line, x1 + line, y1 + line + 2 + stripe];
}

/** What a label takes: below a face, also what is below the label. */
function withStripe(tag, box, { stripe }) {
  return tag[1] >= box[3] ? [tag[0], tag[1], tag[2], tag[3] + 2 + stripe] : tag;
}

function clip(value, high) {
  return Math.max(0, Math.min(value, high));
}
