// Which view is shown: the address tells, so it can be linked, reloaded and left with Back.

import { heedButtons } from "./actions.js";
import { get } from "./api.js";
import { dlqView } from "./dlq.js";
import { h, inline, morph } from "./dom.js";
import { enqueueView } from "./enqueue.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";
import { follow, paced } from "./live.js";
import { overview } from "./overview.js";
import { empty, number, STATES } from "./parts.js";
import { queuesView } from "./queues.js";
import { counts, known, mayChange, queueNames } from "./state.js";
import { workersView } from "./workers.js";

const VIEWS = {
  "": overview,
  jobs: jobsView,
  job: jobView,
  dlq: dlqView,
  queues: queuesView,
  workers: workersView,
  enqueue: enqueueView,
};

const main = document.getElementById("main");
let current = null;

function where() {
  const [path, text = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const said = Object.fromEntries(new URLSearchParams(text));
  const [name, id] = path.split("/");
  if (name === "jobs" && id) {
    try {
      return { name: "job", said: { ...said, id: decodeURIComponent(id) } };
    } catch {
      return { name: "nowhere", said };
    }
  }
  return { name, said };
}

function draw(view) {
  const isHeading = document.activeElement?.matches("main h1");
  const shown = view.problem ? null : view.render();
  if (shown !== null) {
    morph(main, shown);
    view.mounted?.();
  } else if (view.problem) {
    morph(main, [
      h("h1", { tabindex: -1 }, view.title),
      empty(view.problem, h("a", { href: "#/jobs" }, "All jobs")),
    ]);
  } else {
    morph(main, [h("h1", { tabindex: -1 }, view.title), empty("Looking…")]);
  }
  if (isHeading) {
    // Another element may be the heading now.
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

function drawAround() {
  const all = counts();
  const write = (id, count) => {
    document.getElementById(id).textContent = count ? number(count) : "";
  };
  write(
    "count-jobs",
    STATES.reduce((sum, state) => sum + (all[state] ?? 0), 0),
  );
  write("count-dlq", all.dead);
  write("count-queues", queueNames().length);
  write("count-workers", known.changed?.stats.workers);
  document.getElementById("new").hidden = !mayChange();
}

function drawSession() {
  const { session } = known;
  const store = document.getElementById("store");
  store.textContent = inline(session.store.split("/").filter(Boolean).slice(-2).join("/"));
  store.title = inline(session.store);
  document.getElementById("rights").textContent =
    `${mayChange() ? "" : "Read only · "}version ${session.version}`;
}

async function refresh(view) {
  try {
    await view.refresh();
    view.problem = null;
  } catch (error) {
    if (error.status === 0 || error.status === 401 || error.status === 503) {
      // The banner tells.
      return;
    }
    view.problem = `${inline(error.message)}.`;
  }
  if (view === current) {
    draw(view);
  }
}

function nowhere() {
  return {
    title: "Nothing is here",
    refresh: () => Promise.reject(new Error("There is no such page")),
    render: () => null,
  };
}

function markLink(name) {
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === name) {
      link.setAttribute("aria-current", "page");
    } else {
      link.removeAttribute("aria-current");
    }
  }
}

function go() {
  const { name, said } = where();
  const make = Object.hasOwn(VIEWS, name) ? VIEWS[name] : nowhere;
  const before = current;
  before?.close?.();
  clearInterval(before?.timer);
  const view = make(said, () => view.again());
  current = view;
  view.name = name === "job" ? `job ${said.id}` : name;
  view.again = paced(() => (view === current ? refresh(view) : Promise.resolve()), view.pace);
  if (view.every) {
    view.timer = setInterval(() => document.hidden || view.again(), view.every);
  }
  const isNew = before?.name !== view.name;
  if (isNew) {
    draw(view);
    scrollTo(0, 0);
  }
  view.again();
  document.title = `${view.title} · QueueCTL`;
  markLink({ "": "overview", job: "jobs" }[name] ?? name);
  if (before !== null && isNew && !view.quiet) {
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

function heedKeys(event) {
  const isTyping = event.target.closest?.("input, textarea, select, dialog[open]");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  event.preventDefault();
  if (where().name !== "jobs") {
    location.hash = "#/jobs";
    go();
  }
  document.getElementById("q")?.focus();
}

async function begin() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  document.addEventListener("keydown", heedKeys);
  addEventListener("hashchange", go);
  heedButtons((action) => {
    if (action === "purge" && where().name === "job") {
      location.hash = "#/jobs";
    } else {
      current.again();
    }
  });
  known.session = await get("/session").catch(() => null);
  if (known.session !== null) {
    drawSession();
    drawAround();
  }
  go();
  follow(() => {
    drawAround();
    if (known.session !== null) {
      drawSession();
    }
    if (current.quiet) {
      return;
    }
    draw(current);
    current.again();
  });
}

begin();
