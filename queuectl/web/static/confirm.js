// Asks before something is done that cannot be undone; and says what became of what was done.

import { h } from "./dom.js";

const dialog = document.getElementById("dialog");
const toasts = document.getElementById("toasts");

const LASTS = 6000;
const LASTS_LONGER = 15000;

// Whether somebody who was asked said yes.
export function confirmed({ title, text, yes, danger = false }) {
  dialog.replaceChildren(
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "row end" },
        h("button", { value: "no", autofocus: true }, "Go back"),
        h("button", { value: "yes", class: danger ? "danger" : "primary" }, yes),
      ),
    ),
  );
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

export function toast(text, isWrong = false) {
  const close = h("button", { type: "button", class: "plain", "aria-label": "Dismiss" }, "×");
  const shown = h(
    "div",
    { class: isWrong ? "toast wrong" : "toast", role: isWrong ? "alert" : null },
    h("span", {}, text),
    close,
  );
  close.addEventListener("click", () => shown.remove());
  toasts.append(shown);
  while (toasts.children.length > 4) {
    toasts.firstChild.remove();
  }
  setTimeout(() => shown.remove(), isWrong ? LASTS_LONGER : LASTS);
}
