// The queues: how many jobs of each may run, and whether any may start.

import { ask, get } from "./api.js";
import { toast } from "./confirm.js";
import { h, inline } from "./dom.js";
import { button, number, row, table } from "./parts.js";
import { mayChange } from "./state.js";

const COLUMNS = [
  ["Queue", ""],
  ["Waiting", "num"],
  ["Running", "num"],
  ["Dead", "num wide"],
  ["Completed", "num wide"],
  ["At most at once", ""],
  ["", "act"],
];

function limit(queue, afterwards) {
  const said = queue.concurrency ?? "";
  if (!mayChange()) {
    return said === "" ? "no limit" : String(said);
  }
  const id = `limit-${queue.name}`;
  const form = h(
    "form",
    { class: "limit" },
    h(
      "label",
      { class: "unseen", for: id },
      `How many jobs of queue ${queue.name} run at most at once`,
    ),
    h("input", {
      id,
      name: "limit",
      type: "number",
      min: 1,
      max: 1000000,
      step: 1,
      placeholder: "no limit",
      value: said,
    }),
    h("button", { type: "submit", "aria-label": `Set the limit of queue ${queue.name}` }, "Set"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.limit.value;
    try {
      await ask("PUT", `/queues/${encodeURIComponent(queue.name)}`, {
        concurrency: text === "" ? null : Number(text),
      });
      toast(
        text === ""
          ? `Queue ${queue.name} has no limit.`
          : `Of queue ${queue.name} at most ${text} run at once.`,
      );
      afterwards();
    } catch (error) {
      toast(`That did not work: ${inline(error.message)}`, true);
    }
  });
  return form;
}

export function queuesView(said, again) {
  let queues = null;
  return {
    title: "Queues",
    every: 10000,
    async refresh() {
      queues = (await get("/queues")).queues;
    },
    render() {
      if (queues === null) {
        return null;
      }
      const link = (queue, state, word, count) =>
        h(
          "a",
          {
            href: `#/jobs?queue=${encodeURIComponent(queue.name)}&state=${state}`,
            "aria-label": `${count} ${word} in queue ${queue.name}`,
          },
          number(count),
          h("span", { class: "narrow" }, ` ${word}`),
        );
      const rows = queues.map((queue) =>
        row(queue.name, COLUMNS, [
          h(
            "div",
            { class: "naming" },
            h(
              "a",
              { class: "command", href: `#/jobs?queue=${encodeURIComponent(queue.name)}` },
              queue.name,
            ),
            queue.paused ? h("span", { class: "tag paused" }, "paused") : null,
          ),
          link(queue, "pending,failed", "waiting", queue.counts.pending + queue.counts.failed),
          link(queue, "processing", "running", queue.counts.processing),
          link(queue, "dead", "dead", queue.counts.dead),
          link(queue, "completed", "completed", queue.counts.completed),
          limit(queue, again),
          mayChange()
            ? queue.paused
              ? button(
                  "resume",
                  "Resume",
                  { "aria-label": `Resume queue ${queue.name}` },
                  queue.name,
                )
              : button("pause", "Pause", { "aria-label": `Pause queue ${queue.name}` }, queue.name)
            : null,
        ]),
      );
      return [
        h("h1", { tabindex: -1 }, "Queues"),
        h("section", { class: "card", "aria-label": "Queues" }, table("Queues", COLUMNS, rows)),
      ];
    },
  };
}
