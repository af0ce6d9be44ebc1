// Legend, keys, video and print; starts the page.

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
