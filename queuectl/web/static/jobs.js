// The list of jobs: a page of it, with what is looked for in the address.

import { get, jobPath, query } from "./api.js";
import { h } from "./dom.js";
import {
  button,
  empty,
  naming,
  number,
  plural,
  row,
  sign,
  STATES,
  stateOf,
  table,
} from "./parts.js";
import { counts, known, mayChange, queueNames } from "./state.js";
import { ago, took } from "./times.js";

const COLUMNS = [
  ["State", ""],
  ["Job", ""],
  ["Attempts", "num wide"],
  ["Took", "num wide"],
  ["Changed", "num"],
  ["", "act"],
];
const PAGE = 50;
const ID = /^[A-Za-z0-9._-]{4,64}$/;

function address(values) {
  return `#/jobs${query(values)}`;
}

function asked() {
  return Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? ""));
}

let typing = null;

// What is typed goes into the address without a step for each letter; everything else is a step
// that Back undoes.
function find(form, isTyping) {
  const values = {
    ...asked(),
    q: form.q.value.trim(),
    queue: form.queue.value,
    label: form.label.value.trim(),
  };
  delete values.cursor;
  clearTimeout(typing);
  if (!isTyping) {
    location.hash = address(values);
    return;
  }
  typing = setTimeout(() => {
    if (!form.isConnected) {
      // Whoever typed has left.
      return;
    }
    history.replaceState(null, "", address(values));
    dispatchEvent(new HashChangeEvent("hashchange"));
  }, 250);
}

function filters(said) {
  const queues = [...new Set([...queueNames(), ...(said.queue ? [said.queue] : [])])];
  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Jobs" },
    h("label", { class: "unseen", for: "q" }, "Search in commands, or an id"),
    h("input", {
      id: "q",
      name: "q",
      type: "search",
      placeholder: "Search in commands, or an id",
      value: said.q ?? "",
      "aria-keyshortcuts": "/",
      autocomplete: "off",
      spellcheck: "false",
    }),
    h("label", { class: "unseen", for: "queue" }, "Queue"),
    h(
      "select",
      { id: "queue", name: "queue" },
      h("option", { value: "", selected: !said.queue }, "Any queue"),
      queues.map((name) =>
        h("option", { "data-key": name, value: name, selected: said.queue === name }, name),
      ),
    ),
    h("label", { class: "unseen", for: "label" }, "Label"),
    h("input", {
      id: "label",
      name: "label",
      placeholder: "Label",
      value: said.label ?? "",
      autocomplete: "off",
      spellcheck: "false",
    }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find(form, false);
  });
  form.addEventListener("change", (event) => event.target.name === "q" || find(form, false));
  form.addEventListener("input", (event) => event.target.name === "q" && find(form, true));
  return form;
}

function chips(said) {
  const all = counts();
  const chip = (state, text, count) =>
    h(
      "a",
      {
        class: "chip",
        href: address({ ...said, state, cursor: "" }),
        "aria-current": (said.state ?? "") === state ? "true" : null,
      },
      state ? sign(state) : null,
      text,
      h("span", { class: "count" }, known.changed === null ? "" : number(count)),
    );
  const sum = STATES.reduce((so, state) => so + (all[state] ?? 0), 0);
  return h(
    "nav",
    { class: "chips", "aria-label": "States" },
    chip("", "all", sum),
    STATES.map((state) => chip(state, state, all[state] ?? 0)),
  );
}

export function actionOf(job) {
  if (!mayChange()) {
    return null;
  }
  if (["dead", "cancelled", "failed"].includes(job.state)) {
    return button("retry", "Retry", {}, job.id);
  }
  return job.state === "completed" || job.cancel_requested
    ? null
    : button("cancel", "Cancel", {}, job.id);
}

function rows(jobs) {
  return jobs.map((job) =>
    row(job.id, COLUMNS, [
      stateOf(job),
      naming(job),
      `${job.attempts} / ${Math.max(job.max_retries, 1)}`,
      took(job),
      ago(job.updated_at),
      actionOf(job),
    ]),
  );
}

function nothing(said) {
  if (said.q || said.queue || said.label || said.state) {
    return empty("No job is like that.", h("a", { href: "#/jobs" }, "Show all"));
  }
  return empty(
    "There are no jobs yet.",
    mayChange() ? h("a", { href: "#/enqueue" }, "Enqueue the first") : null,
  );
}

export function jobsView(said) {
  let page = null;
  return {
    title: "Jobs",
    async refresh() {
      const values = {
        state: said.state,
        queue: said.queue,
        label: said.label,
        grep: said.q,
        cursor: said.cursor,
        limit: PAGE,
      };
      page = await get(`/jobs${query(values)}`);
      if (page.jobs.length === 0 && ID.test(said.q ?? "")) {
        page.jobs = await get(jobPath(said.q)).then(
          (job) => [job],
          () => [],
        );
      }
    },
    render() {
      const next = page?.next;
      return [
        h("h1", { tabindex: -1 }, "Jobs"),
        filters(said),
        chips(said),
        h(
          "p",
          { class: "unseen", role: "status" },
          page === null
            ? ""
            : `${plural(page.jobs.length, "job")} shown${next ? ", and there are more" : ""}`,
        ),
        h(
          "section",
          { class: "card", "aria-label": "Found jobs", "aria-busy": page === null ? "true" : null },
          page === null
            ? empty("Looking…")
            : page.jobs.length
              ? table("Jobs, the newest first", COLUMNS, rows(page.jobs))
              : nothing(said),
        ),
        said.cursor || next
          ? h(
              "nav",
              { class: "pages", "aria-label": "Pages" },
              said.cursor
                ? h("a", { class: "button", href: address({ ...said, cursor: "" }) }, "Newest")
                : null,
              next
                ? h("a", { class: "button", href: address({ ...said, cursor: next }) }, "Older")
                : null,
            )
          : null,
      ];
    },
  };
}
