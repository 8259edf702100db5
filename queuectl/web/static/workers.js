// Who works on the store, and on what.

import { get } from "./api.js";
import { h, inline } from "./dom.js";
import { empty, jobUrl, number, plural, row, shortId, table } from "./parts.js";
import { ago, since } from "./times.js";

const MACHINES = [
  ["Machine", ""],
  ["Busy", "num"],
  ["Heard of", "num"],
];
const BRIEFLY = [
  ["Worker", ""],
  ["Runs", "num"],
];
const COLUMNS = [
  ["Worker", ""],
  ["Job", ""],
  ["Machine", "wide"],
  ["Process", "num wide"],
  ["Started", "num"],
];

const MOST = 6;

export function machines(nodes, workers) {
  if (nodes.length === 0) {
    return empty("No worker is running:", h("code", {}, "queuectl start"));
  }
  const rows = nodes
    .slice(0, MOST)
    .map((node) =>
      row(node.host, MACHINES, [
        h("bdi", {}, inline(node.host)),
        `${node.running} / ${node.workers}`,
        ago(node.heard_at),
      ]),
    );
  const briefly = workers
    .slice(0, MOST)
    .map((worker) => row(worker.id, BRIEFLY, [inline(worker.name), work(worker)]));
  return [
    table("Machines", MACHINES, rows),
    table("Workers", BRIEFLY, briefly),
    h(
      "p",
      { class: "more" },
      h("a", { href: "#/workers" }, `All ${plural(workers.length, "worker")}`),
    ),
  ];
}

function work(worker) {
  return worker.job === null
    ? h("span", { class: "hint" }, "idle")
    : h("a", { class: "id", href: jobUrl(worker.job) }, shortId(worker.job));
}

export function workersView() {
  let told = null;
  return {
    title: "Workers",
    every: 10000,
    async refresh() {
      const [workers, nodes] = await Promise.all([get("/workers"), get("/nodes")]);
      told = { workers: workers.workers, nodes: nodes.nodes };
    },
    render() {
      if (told === null) {
        return null;
      }
      const rows = told.workers
        .slice(0, 200)
        .map((worker) =>
          row(worker.id, COLUMNS, [
            h("span", { title: worker.id }, inline(worker.name)),
            work(worker),
            h("bdi", {}, inline(worker.host)),
            String(worker.pid),
            since(worker.started_at),
          ]),
        );
      const nodes = told.nodes.map((node) =>
        h(
          "li",
          { "data-key": node.host },
          h("b", {}, h("bdi", {}, inline(node.host))),
          h("span", {}, `${node.running} of ${plural(node.workers, "worker")} busy`),
          h("span", { class: "hint" }, `version ${node.version}, heard of `, ago(node.heard_at)),
        ),
      );
      return [
        h("h1", { tabindex: -1 }, "Workers"),
        nodes.length ? h("ul", { class: "machines", "aria-label": "Machines" }, nodes) : null,
        h(
          "section",
          { class: "card", "aria-label": "Workers" },
          rows.length
            ? table("Workers", COLUMNS, rows)
            : empty(
                "No worker is running. Start some with",
                h("code", {}, "queuectl start --count 4"),
              ),
        ),
        told.workers.length > rows.length
          ? h("p", { class: "hint" }, `The first ${rows.length} of ${number(told.workers.length)}.`)
          : null,
      ];
    },
  };
}
