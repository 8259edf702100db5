// A job among those that it waits for, to its left, and those that wait for it.

import { h, inline, s } from "./dom.js";
import { jobUrl, shortId, sign } from "./parts.js";

const BOX = { width: 184, height: 46, right: 36, below: 12 };

function parentsOf(job) {
  return [...job.after, ...job.after_any];
}

// Puts each job one column behind the last of its parents.
function columnsOf(jobs) {
  const found = new Map();
  const column = (job) => {
    if (!found.has(job.id)) {
      found.set(job.id, 0); // Nobody waits for himself; but nothing here relies on that.
      const before = parentsOf(job)
        .map((id) => jobs.get(id))
        .filter(Boolean)
        .map(column);
      found.set(job.id, before.length ? Math.max(...before) + 1 : 0);
    }
    return found.get(job.id);
  };
  [...jobs.values()].forEach(column);
  return found;
}

function place(jobs) {
  const columns = columnsOf(jobs);
  const filled = [];
  const places = new Map();
  for (const job of jobs.values()) {
    const at = columns.get(job.id);
    filled[at] ??= 0;
    places.set(job.id, {
      x: at * (BOX.width + BOX.right) + 2,
      y: filled[at] * (BOX.height + BOX.below) + 2,
    });
    filled[at] += 1;
  }
  const tall = Math.max(...filled.map((count) => count ?? 0));
  return {
    places,
    width: filled.length * (BOX.width + BOX.right) - BOX.right + 4,
    height: tall * (BOX.height + BOX.below) - BOX.below + 4,
  };
}

function clip(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

function box(job, { x, y }, isSelf) {
  const text = inline(job.command);
  const mark = sign(job.state);
  mark.setAttribute("x", x + 10);
  mark.setAttribute("y", y + 8);
  return s(
    "a",
    {
      href: jobUrl(job.id),
      class: `node ${job.state}${isSelf ? " self" : ""}`,
      "data-key": job.id,
      "aria-label": `${clip(shortId(job.id), 20)} ${clip(text, 24)}, ${job.state}`,
      "aria-current": isSelf ? "true" : null,
    },
    s("rect", { x, y, width: BOX.width, height: BOX.height, rx: 6 }),
    mark,
    s("text", { class: "name", x: x + 30, y: y + 19 }, clip(shortId(job.id), 20)),
    s("text", { class: "what", x: x + 10, y: y + 36 }, clip(text, 24)),
  );
}

function edge(from, to, isSoft) {
  const [x1, y1] = [from.x + BOX.width, from.y + BOX.height / 2];
  const [x2, y2] = [to.x, to.y + BOX.height / 2];
  const middle = x1 + (x2 - x1) / 2;
  return s("path", {
    class: isSoft ? "edge soft" : "edge",
    d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2 - 8} ${y2}`,
  });
}

export function graph(told, id) {
  const jobs = new Map(told.jobs.map((job) => [job.id, job]));
  const notes = [
    told.missing.length
      ? h("p", { class: "hint" }, `Purged meanwhile: ${told.missing.map(shortId).join(", ")}.`)
      : null,
    told.more ? h("p", { class: "hint" }, "There are more than are shown.") : null,
  ];
  if (jobs.size < 2) {
    return notes;
  }
  const { places, width, height } = place(jobs);
  const edges = told.jobs.flatMap((job) =>
    parentsOf(job)
      .filter((parent) => jobs.has(parent))
      .map((parent) =>
        edge(places.get(parent), places.get(job.id), job.after_any.includes(parent)),
      ),
  );
  return [
    h(
      "div",
      { class: "scroll" },
      s(
        "svg",
        {
          class: "graph",
          width,
          height,
          viewBox: `0 0 ${width} ${height}`,
          role: "group",
          "aria-label":
            "Jobs that depend on each other: those to the right wait for those to the left",
        },
        s(
          "defs",
          {},
          s(
            "marker",
            {
              id: "arrow",
              viewBox: "0 0 8 8",
              refX: 0,
              refY: 4,
              markerWidth: 8,
              markerHeight: 8,
              markerUnits: "userSpaceOnUse",
              orient: "auto",
            },
            s("path", { d: "M0 0l8 4-8 4z" }),
          ),
        ),
        edges,
        told.jobs.map((job) => box(job, places.get(job.id), job.id === id)),
      ),
    ),
    told.jobs.some((job) => job.after_any.length)
      ? h("p", { class: "hint" }, "A dashed line: it waits until the other ended, however.")
      : null,
    notes,
  ];
}
