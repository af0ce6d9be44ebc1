// Keys that work anywhere on the page, except where one types or where a control needs the key itself.

import { dialogIsOpen } from "./dialogs.js";

/** `actions` maps a key to a function: " ", "s", "ArrowLeft", "ArrowRight", "?", "Escape". */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialogIsOpen()) return;
    const { target } = event;
    if (target.closest("input, textarea, select")) return;
    // The button of the selected source does nothing by itself: space right after choosing a source pauses.
    if (event.key === " " && target.closest("button:not([aria-current]), a, summary")) return;
    const action = actions[event.key === "S" ? "s" : event.key];
    if (!action) return;
    if (event.key !== "Escape") event.preventDefault();
    action();
  });
}
