// All that is known of a job.

import { get, jobPath, logsUrl } from "./api.js";
import { graph } from "./graph.js";
import { h, inline, visible } from "./dom.js";
import { Output } from "./output.js";
import { button, card, empty, jobUrl, plural, problemText, shortId, stateOf } from "./parts.js";
import { mayChange } from "./state.js";
import { ago, took } from "./times.js";

const MOST_RUNS = 30;
const IN_WORDS = {
  scheduled: (what) => ["It is not to start yet: ", ago(what), "."],
  retry: (what) => ["Its next attempt is due ", ago(what), "."],
  after: (what, state) => [
    `It waits until job `,
    h("a", { href: jobUrl(what) }, shortId(what)),
    ` completes, which is ${state}.`,
  ],
  after_any: (what, state) => [
    "It waits until job ",
    h("a", { href: jobUrl(what) }, shortId(what)),
    ` ends, which is ${state}.`,
  ],
  paused: (what) => ["Its queue ", h("a", { href: "#/queues" }, what), " is paused."],
  full: (what) => [
    "Of its queue ",
    h("a", { href: "#/queues" }, what),
    " as many jobs run as may at once.",
  ],
  unserved: (what) => [`No worker serves its queue ${what}.`],
  no_worker: () => ["No worker is running: ", h("code", {}, "queuectl start")],
};

function reasons(job, why) {
  if (!["pending", "failed"].includes(job.state)) {
    return null;
  }
  return h(
    "div",
    { class: "note", "data-key": "why" },
    h("h2", {}, "Why it waits"),
    why.waiting_for.length === 0
      ? h("p", {}, "Nothing keeps it: the next free worker may take it.")
      : h(
          "ul",
          {},
          why.waiting_for.map(({ kind, what, state }) =>
            h(
              "li",
              { "data-key": `${kind} ${what}` },
              IN_WORDS[kind]?.(what, state) ?? `${kind} ${what}`,
            ),
          ),
        ),
  );
}

function ending(job) {
  if (job.signal !== null) {
    return `signal ${job.signal}`;
  }
  return job.exit_code === null ? null : `exit code ${job.exit_code}`;
}

function facts(job) {
  const told = [
    ["Attempts", `${job.attempts} of ${Math.max(job.max_retries, 1)}`],
    [
      "Runs",
      job.interruptions
        ? `${job.runs}, ${plural(job.interruptions, "interruption")}`
        : String(job.runs),
    ],
    ["Last run took", took(job)],
    ["Ended with", job.timed_out ? `${ending(job) ?? ""} (its time was over)` : ending(job)],
    ["Queue", h("a", { href: `#/jobs?queue=${encodeURIComponent(job.queue)}` }, job.queue)],
    ["Priority", String(job.priority)],
    [
      "Labels",
      job.labels.length
        ? job.labels.map((label) => [
            h(
              "a",
              { class: "tag label", href: `#/jobs?label=${encodeURIComponent(label)}` },
              h("bdi", {}, inline(label)),
            ),
            " ",
          ])
        : null,
    ],
    ["Enqueued", ago(job.created_at)],
    ["Not before", job.run_at ? ago(job.run_at) : null],
    ["Started", job.started_at ? ago(job.started_at) : null],
    ["Finished", job.finished_at ? ago(job.finished_at) : null],
    ["Timeout", job.timeout === null ? null : `${job.timeout} s`],
    ["Folder", h("bdi", { class: "mono" }, inline(job.cwd))],
    ["Worker", job.worker ? h("span", { class: "mono" }, inline(job.worker)) : null],
    ["Unique key", job.unique === null ? null : h("bdi", { class: "mono" }, inline(job.unique))],
    [
      "Variables",
      Object.keys(job.env).length
        ? h("span", { class: "mono" }, Object.keys(job.env).map(inline).join(", "))
        : null,
    ],
    ["Id", h("span", { class: "mono" }, job.id)],
  ];
  return h(
    "dl",
    { class: "told" },
    told
      .filter(([, value]) => value !== null)
      .map(([name, value]) =>
        h("div", { "data-key": name }, h("dt", {}, name), h("dd", {}, value)),
      ),
  );
}

function everything(job) {
  const rows = Object.entries(job).map(([name, value]) =>
    h(
      "tr",
      { "data-key": name },
      h("th", { scope: "row" }, name),
      h(
        "td",
        {},
        h(
          "bdi",
          { class: "mono" },
          inline(typeof value === "string" ? value : JSON.stringify(value)),
        ),
      ),
    ),
  );
  return h(
    "details",
    { class: "card", "data-key": "everything" },
    h("summary", {}, "All fields"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "fields", "aria-label": "All fields of the job" },
        h(
          "thead",
          { class: "unseen" },
          h("tr", {}, h("th", { scope: "col" }, "Field"), h("th", { scope: "col" }, "Value")),
        ),
        h("tbody", {}, rows),
      ),
    ),
  );
}

function buttons(job) {
  if (!mayChange()) {
    return null;
  }
  const ended = ["completed", "dead", "cancelled"].includes(job.state);
  return h(
    "div",
    { class: "row end" },
    ["failed", "dead", "cancelled"].includes(job.state)
      ? button("retry", "Retry", { class: "primary" }, job.id)
      : null,
    !ended && !job.cancel_requested
      ? button("cancel", "Cancel…", { "aria-label": `Cancel job ${job.id}` }, job.id)
      : null,
    ended
      ? button(
          "purge",
          "Delete…",
          { class: "danger", "aria-label": `Delete job ${job.id}` },
          job.id,
        )
      : null,
  );
}

function output(job, run) {
  if (job.runs === 0) {
    return card("Output", empty("It has not run yet."));
  }
  const first = Math.max(job.runs - MOST_RUNS + 1, 1);
  const runs = Array.from({ length: job.runs - first + 1 }, (_, at) => job.runs - at);
  const link = (each) =>
    h(
      "a",
      {
        class: "chip",
        href: each === job.runs ? jobUrl(job.id) : `${jobUrl(job.id)}?run=${each}`,
        "aria-current": each === run ? "true" : null,
        "data-key": String(each),
      },
      `Run ${each}`,
    );
  return h(
    "section",
    { class: "card", "data-key": "output", "aria-label": "Output" },
    h(
      "div",
      { class: "row" },
      h("h2", {}, "Output"),
      h(
        "a",
        { class: "end", href: logsUrl(job.id, run), target: "_blank", rel: "noopener" },
        "All of it",
      ),
    ),
    job.runs > 1
      ? h(
          "nav",
          { class: "chips", "aria-label": "Runs" },
          runs.map(link),
          first > 1 ? h("span", { class: "hint" }, `and ${first - 1} before`) : null,
        )
      : null,
    h("div", { id: "output", "data-key": `run ${run}`, "data-kept": true }),
  );
}

export function jobView(said, again) {
  let told = null;
  let shown = null;
  const run = () => (said.run ? Number(said.run) : told.job.runs);
  return {
    get title() {
      return `Job ${inline(shortId(said.id))}`;
    },
    async refresh() {
      const [job, why] = await Promise.all([get(jobPath(said.id)), get(jobPath(said.id, "/why"))]);
      told = { job, why };
    },
    render() {
      if (told === null) {
        return null;
      }
      const { job, why } = told;
      const related = graph(why, job.id).filter(Boolean);
      return [
        h(
          "div",
          { class: "row head", "data-key": "head" },
          h(
            "h1",
            { tabindex: -1 },
            h("span", { class: "unseen" }, "Job "),
            h("span", { title: job.id }, shortId(job.id)),
          ),
          stateOf(job),
          buttons(job),
        ),
        h(
          "pre",
          {
            class: "shell",
            "data-key": "command",
            role: "region",
            "aria-label": "Command",
            tabindex: 0,
          },
          h("bdi", {}, visible(job.command)),
        ),
        job.last_error
          ? h(
              "p",
              { class: "note wrong", "data-key": "error" },
              h("b", {}, "Last error: "),
              problemText(job.last_error),
            )
          : null,
        h(
          "div",
          { class: "columns job", "data-key": "columns" },
          h(
            "div",
            { class: "stack" },
            reasons(job, why),
            output(job, run()),
            related.length || job.dependents
              ? card(
                  "Depends on each other",
                  related,
                  job.dependents
                    ? h(
                        "p",
                        { class: "hint" },
                        `${plural(job.dependents, "job was", "jobs were")} made to wait for it.`,
                      )
                    : null,
                )
              : null,
          ),
          h("div", { class: "stack" }, card("Facts", facts(job))),
        ),
        everything(job),
      ];
    },
    mounted() {
      const place = document.getElementById("output");
      if (place !== null && place.childElementCount === 0) {
        shown?.close();
        shown = new Output(place, told.job.id, run(), again);
      }
    },
    close() {
      shown?.close();
      document.getElementById("output")?.replaceChildren();
    },
  };
}
