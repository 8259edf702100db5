// The dead letter queue.

import { get, query } from "./api.js";
import { h } from "./dom.js";
import { button, empty, naming, problemText, row, table } from "./parts.js";
import { mayChange } from "./state.js";
import { ago } from "./times.js";

const COLUMNS = [
  ["Job", ""],
  ["Last error", "grow"],
  ["Attempts", "num wide"],
  ["Died", "num wide"],
  ["", "act"],
];

export function dlqView(said) {
  let page = null;
  return {
    title: "Dead letters",
    async refresh() {
      page = await get(`/dlq${query({ cursor: said.cursor, limit: 50 })}`);
    },
    render() {
      if (page === null) {
        return null;
      }
      const rows = page.jobs.map((job) =>
        row(job.id, COLUMNS, [
          naming(job),
          problemText(job.last_error ?? ""),
          `${job.attempts} / ${Math.max(job.max_retries, 1)}`,
          ago(job.finished_at),
          mayChange()
            ? [
                button("retry", "Retry", {}, job.id),
                button("purge", "Delete", { class: "danger" }, job.id),
              ]
            : null,
        ]),
      );
      return [
        h(
          "div",
          { class: "row" },
          h("h1", { tabindex: -1 }, "Dead letters"),
          rows.length && mayChange()
            ? h(
                "div",
                { class: "row end" },
                button("retry-all", "Retry all…"),
                button("purge-all", "Delete all…", { class: "danger" }),
              )
            : null,
        ),
        h(
          "p",
          { class: "hint" },
          "Jobs that failed as often as they may. A retry gives them all their attempts again.",
        ),
        h(
          "section",
          { class: "card", "aria-label": "Dead jobs" },
          rows.length ? table("Dead jobs", COLUMNS, rows) : empty("Nothing was given up."),
        ),
        said.cursor || page.next
          ? h(
              "nav",
              { class: "pages", "aria-label": "Pages" },
              said.cursor ? h("a", { class: "button", href: "#/dlq" }, "Newest") : null,
              page.next
                ? h("a", { class: "button", href: `#/dlq${query({ cursor: page.next })}` }, "Older")
                : null,
            )
          : null,
      ];
    },
  };
}
