// How all is.

import { get, now } from "./api.js";
import { chart } from "./chart.js";
import { h } from "./dom.js";
import {
  button,
  card,
  empty,
  MEANS,
  naming,
  number,
  problemText,
  row,
  sign,
  STATES,
  stateOf,
  table,
} from "./parts.js";
import { counts, known, mayChange } from "./state.js";
import { ago, since } from "./times.js";
import { machines } from "./workers.js";

const RUNNING = [
  ["Job", ""],
  ["Running for", "num"],
  ["Attempt", "num wide"],
  ["", "act"],
];
const FAILURES = [
  ["Job", ""],
  ["Error", "grow wide"],
  ["State", ""],
  ["When", "num"],
  ["", "act"],
];

export const LINES = 12;

function tiles(all) {
  return h(
    "ul",
    { class: "tiles", "aria-label": "Jobs by state" },
    STATES.map((state) =>
      h(
        "li",
        {},
        h(
          "a",
          {
            href: state === "dead" ? "#/dlq" : `#/jobs?state=${state}`,
            class: `tile ${state}`,
            title: `${state}: ${MEANS[state]}`,
          },
          h("span", { class: "number" }, number(all[state] ?? 0)),
          h("span", { class: `state ${state}` }, sign(state), state),
        ),
      ),
    ),
  );
}

function fact(title, value, more) {
  return h(
    "div",
    {},
    h("dt", {}, title),
    h("dd", {}, value, more ? h("small", {}, " ", more) : null),
  );
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  const at = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 3);
  return `${(bytes / 1000 ** at).toFixed(at === 0 ? 0 : 1)} ${units[at]}`;
}

function facts(all, stats, history) {
  const waiting = (all.pending ?? 0) + (all.failed ?? 0);
  const oldest =
    stats.oldest > 0 ? since(new Date(now() - stats.oldest * 1000).toISOString()) : "–";
  const recent = history.minutes.slice(-6, -1).reduce((sum, minute) => sum + minute.completed, 0);
  return h(
    "dl",
    { class: "facts" },
    fact(
      "Waiting",
      number(waiting),
      all.delayed ? `${number(all.delayed)} of them scheduled` : null,
    ),
    fact("Oldest waiting", oldest, stats.oldest > 0 ? "for a worker" : null),
    fact("Throughput", number(Math.round((recent / 5) * 10) / 10), "a minute, of late"),
    fact("Workers", `${stats.busy} / ${stats.workers}`, "busy"),
    fact("Ever enqueued", number(stats.enqueued), stats.size === null ? null : size(stats.size)),
  );
}

function running(jobs) {
  const rows = jobs
    .slice(0, LINES)
    .map((job) =>
      row(job.id, RUNNING, [
        naming(job),
        since(job.started_at),
        `${job.attempts} / ${Math.max(job.max_retries, 1)}`,
        mayChange() && !job.cancel_requested
          ? button("cancel", "Cancel", {}, job.id)
          : job.cancel_requested
            ? h("span", { class: "hint" }, "cancelling")
            : null,
      ]),
    );
  return card(
    "Running now",
    jobs.length === 0 ? empty("Nothing runs.") : table("Running jobs", RUNNING, rows),
    jobs.length > LINES
      ? h(
          "p",
          { class: "more" },
          h("a", { href: "#/jobs?state=processing" }, `All ${number(jobs.length)} that run`),
        )
      : null,
  );
}

function failures(jobs) {
  const rows = jobs.map((job) =>
    row(job.id, FAILURES, [
      naming(job, { labels: false }),
      problemText(job.last_error ?? ""),
      stateOf(job),
      ago(job.updated_at),
      mayChange() ? button("retry", "Retry", {}, job.id) : null,
    ]),
  );
  return card(
    "Newest failures",
    jobs.length === 0 ? empty("Nothing has failed.") : table("Newest failures", FAILURES, rows),
  );
}

export function overview() {
  let told = null;
  return {
    title: "Overview",
    pace: 2000,
    every: 10000,
    async refresh() {
      const [stats, history, workers, nodes] = await Promise.all([
        get("/stats"),
        get("/history"),
        get("/workers"),
        get("/nodes"),
      ]);
      told = { stats, history, workers: workers.workers, nodes: nodes.nodes };
    },
    render() {
      if (told === null || known.changed === null) {
        return null;
      }
      const { stats } = known.changed;
      return [
        h("h1", { tabindex: -1 }, "Overview"),
        tiles(counts()),
        facts(counts(), { ...told.stats, ...stats, oldest: told.stats.oldest }, told.history),
        h(
          "div",
          { class: "columns" },
          card("Last hour", chart(told.history)),
          card("Workers", machines(told.nodes, told.workers)),
        ),
        running(known.changed.running),
        failures(known.changed.failures),
      ];
    },
  };
}
