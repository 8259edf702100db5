// What several views are made of.

import { h, inline, s, visible } from "./dom.js";

export const STATES = ["pending", "processing", "completed", "failed", "dead", "cancelled"];
export const MEANS = {
  pending: "waits for a worker",
  processing: "runs",
  completed: "ended with success",
  failed: "waits for its next attempt",
  dead: "given up: in the dead letter queue",
  cancelled: "cancelled before it completed",
};

// Each state has a form of its own, so that none is told by its colour alone.
const SIGNS = {
  pending: ["circle", { cx: 8, cy: 8, r: 5.5 }, "M8 5v3l2 1.5"],
  processing: [
    "circle",
    { cx: 8, cy: 8, r: 5.5, "stroke-dasharray": "24 11" },
    "M6.8 5.800v4.400l3.4-2.200z",
  ],
  completed: ["circle", { cx: 8, cy: 8, r: 6 }, "M5.3 8.200l1.9 1.9 3.6-4"],
  failed: ["path", { d: "M13 8a5 5 0 1 1-1.5-3.5" }, "M12 1.800v3h-3"],
  dead: [
    "rect",
    { x: 2.5, y: 2.5, width: 11, height: 11, rx: 2 },
    "M5.8 5.800l4.4 4.400M10.2 5.800l-4.4 4.4",
  ],
  cancelled: ["circle", { cx: 8, cy: 8, r: 5.5 }, "M4.2 11.800l7.6-7.6"],
};

export function sign(state) {
  const [shape, attributes, path] = SIGNS[state] ?? SIGNS.cancelled;
  return s(
    "svg",
    {
      class: "sign",
      viewBox: "0 0 16 16",
      width: 14,
      height: 14,
      "aria-hidden": "true",
      focusable: "false",
    },
    s(shape, attributes),
    s("path", { d: path }),
  );
}

export function stateOf(job) {
  const word = job.cancel_requested && job.state === "processing" ? "cancelling" : job.state;
  return h("span", { class: `state ${job.state}`, title: MEANS[job.state] }, sign(job.state), word);
}

export function jobUrl(id) {
  return `#/jobs/${encodeURIComponent(id)}`;
}

export function shortId(id) {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-4/.test(id) ? id.slice(0, 8) : id;
}

export function command(job) {
  const text = inline(job.command);
  const shown = text.length > 300 ? `${text.slice(0, 300)}…` : text;
  return h("a", { class: "command", href: jobUrl(job.id) }, h("bdi", {}, shown));
}

// The command of a job, its id, and what else tells it from others.
export function naming(job, { labels = true } = {}) {
  return h(
    "div",
    { class: "naming" },
    command(job),
    h(
      "div",
      { class: "under" },
      h("span", { class: "id", title: job.id }, shortId(job.id)),
      job.queue === "default"
        ? null
        : h(
            "a",
            { class: "tag", href: `#/jobs?queue=${encodeURIComponent(job.queue)}`, title: "Queue" },
            job.queue,
          ),
      labels
        ? job.labels.map((label) =>
            h(
              "a",
              {
                class: "tag label",
                href: `#/jobs?label=${encodeURIComponent(label)}`,
                title: "Label",
              },
              h("bdi", {}, inline(label)),
            ),
          )
        : null,
    ),
  );
}

export function problemText(text) {
  return h("bdi", { class: "error", title: visible(text) }, inline(text));
}

// A button that asks for something to be done: `actions.js` knows what.
export function button(action, text, attributes = {}, id = "") {
  return h(
    "button",
    {
      type: "button",
      "data-action": action,
      "data-id": id || null,
      "aria-label": id ? `${text} job ${id}` : null,
      ...attributes,
    },
    text,
  );
}

// The roles are said because a narrow window shows rows as blocks, which would else be no table.
export function table(caption, columns, rows) {
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { role: "table", "aria-label": caption },
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          columns.map(([title, kind]) =>
            h(
              "th",
              { role: "columnheader", scope: "col", class: kind },
              title || h("span", { class: "unseen" }, "Actions"),
            ),
          ),
        ),
      ),
      h("tbody", { role: "rowgroup" }, rows),
    ),
  );
}

export function row(key, columns, cells) {
  return h(
    "tr",
    { role: "row", "data-key": key },
    cells.map((cell, at) => h("td", { role: "cell", class: columns[at][1] }, cell)),
  );
}

export function empty(text, more = null) {
  return h("p", { class: "empty" }, text, more ? [" ", more] : null);
}

export function card(title, ...children) {
  return h(
    "section",
    { class: "card", "data-key": title, "aria-label": title },
    h("h2", {}, title),
    children,
  );
}

export function number(value) {
  return value.toLocaleString("en").replaceAll(",", "\u202f");
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}
