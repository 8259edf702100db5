// What buttons do, by the name in their `data-action`.

import { ask, jobPath } from "./api.js";
import { confirmed, toast } from "./confirm.js";
import { inline } from "./dom.js";
import { counts } from "./state.js";
import { plural, shortId } from "./parts.js";

const also = (answer) =>
  answer.followers?.length
    ? `, and ${plural(answer.followers.length, "job")} that would have followed`
    : "";

const ACTIONS = {
  cancel: {
    first: (id) => ({
      title: `Cancel job ${shortId(id)}?`,
      text: "If it runs, all its processes are ended. Jobs that were to follow it are cancelled too.",
      yes: "Cancel job",
      danger: true,
    }),
    act: (id) => ask("POST", jobPath(id, "/cancel")),
    say: (answer, id) =>
      `Job ${shortId(id)} ${answer.jobs[0].state === "cancelled" ? "cancelled" : "is being ended"}${also(answer)}.`,
  },
  retry: {
    act: (id) => ask("POST", jobPath(id, "/retry")),
    say: (answer, id) => `Job ${shortId(id)} is pending again.`,
  },
  purge: {
    first: (id) => ({
      title: `Delete job ${shortId(id)}?`,
      text: "What it printed is deleted too. This cannot be undone.",
      yes: "Delete",
      danger: true,
    }),
    act: (id) => ask("DELETE", jobPath(id)),
    say: (answer, id) => `Job ${shortId(id)} deleted${also(answer)}.`,
  },
  "retry-all": {
    first: () => ({
      title: `Retry ${plural(counts().dead ?? 0, "dead job")}?`,
      text: "All of them become pending, with all their attempts.",
      yes: "Retry all",
    }),
    act: () => ask("POST", "/dlq/retry", { all: true }),
    say: (answer) => {
      const refused = Object.keys(answer.refused).length;
      return `${plural(answer.jobs.length, "job is", "jobs are")} pending again${refused ? `; ${refused} could not be retried` : ""}.`;
    },
  },
  "purge-all": {
    first: () => ({
      title: `Delete ${plural(counts().dead ?? 0, "dead job")}?`,
      text: "What they printed is deleted too. This cannot be undone.",
      yes: "Delete all",
      danger: true,
    }),
    act: () => ask("POST", "/dlq/purge", { all: true }),
    say: (answer) => `${plural(answer.jobs.length, "job")} deleted${also(answer)}.`,
  },
  pause: {
    act: (name) => ask("POST", `/queues/${encodeURIComponent(name)}/pause`),
    say: (answer, name) => `Queue ${name} is paused: what runs goes on, nothing else starts.`,
  },
  resume: {
    act: (name) => ask("POST", `/queues/${encodeURIComponent(name)}/resume`),
    say: (answer, name) => `Queue ${name} goes on.`,
  },
};

// Does what a button is for, unless whoever was asked said no; returns whether it was done.
async function run(button) {
  const { action, id } = button.dataset;
  const { first, act, say } = ACTIONS[action];
  if (first && !(await confirmed(first(id)))) {
    return false;
  }
  button.disabled = true;
  try {
    toast(say(await act(id), id));
    return true;
  } catch (error) {
    toast(`That did not work: ${inline(error.message)}`, true);
    return false;
  } finally {
    button.disabled = false;
  }
}

// Heeds all buttons there are and will be.
export function heedButtons(afterwards) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-action]");
    if (button && (await run(button))) {
      afterwards(button.dataset.action);
    }
  });
}
