// Dialogs, the message at the foot of the page, and the panel over an empty picture.

import { byId, make, show } from "./dom.js";

let hiding = 0;

/** Show one sentence at the foot of the page for some seconds. */
export function say(sentence) {
  const toast = byId("toast");
  toast.textContent = sentence;
  show(toast, true);
  clearTimeout(hiding);
  hiding = setTimeout(() => show(toast, false), 8000);
}

/** Make the dialogs work. `add` receives target and name and may reject; `sample` starts the sample clip. */
export function prepareDialogs({ add, sample }) {
  const [dialog, form, error] = [byId("add-dialog"), byId("add-form"), byId("add-error")];
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    show(error, false);
    const submit = form.querySelector("[type=submit]");
    submit.disabled = true;
    try {
      await add(byId("target").value.trim(), byId("source-name").value.trim());
      form.reset();
      dialog.close();
    } catch (problem) {
      error.textContent = problem.message;
      show(error, true);
      byId("target").focus();
    }
    submit.disabled = false;
  });
  byId("play-sample").addEventListener("click", () => {
    dialog.close();
    sample();
  });
}

export function openDialog(id) {
  const dialog = byId(id);
  if (!dialog.open) dialog.showModal();
}

export const dialogIsOpen = () => document.querySelector("dialog[open]") !== null;

/**
 * The panel over an empty picture.
 *
 * @param content null hides it; else {title, text, alert, buttons: [{label, act, primary}]}
 */
export function setNotice(content) {
  const box = byId("notice");
  const key = content === null ? "" : `${content.title}|${content.text}|${content.buttons.map((b) => b.label)}`;
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  show(box, content !== null);
  if (content === null) return box.replaceChildren();
  const buttons = content.buttons.map(({ label, act, primary }) =>
    make("button", { type: "button", class: primary ? "primary large" : "large", onclick: act }, label));
  box.replaceChildren(make("div", { role: content.alert ? "alert" : null },
    make("h2", {}, content.title), make("p", {}, content.text)), make("div", { class: "choices" }, ...buttons));
}
