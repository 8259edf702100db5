// The form that enqueues a job.

import { ask, get } from "./api.js";
import { toast } from "./confirm.js";
import { h, inline } from "./dom.js";
import { empty, jobUrl, shortId } from "./parts.js";
import { mayChange } from "./state.js";

const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const whole = (text) => Number(text);

// What each field is called, and how its text is said to the server.
const FIELDS = {
  queue: { title: "Queue", hint: "default", list: "queues" },
  priority: { title: "Priority", choices: ["", "high", "medium", "low"], hint: "medium" },
  delay: { title: "Delay", hint: "such as 90, 10m, 2h" },
  max_retries: {
    title: "Attempts in all",
    hint: "as in the settings",
    type: "number",
    min: 0,
    read: whole,
  },
  timeout: {
    title: "Timeout in seconds",
    hint: "as in the settings",
    type: "number",
    min: 0,
    read: whole,
  },
  labels: { title: "Labels", hint: "nightly, db", read: words },
  after: { title: "After these jobs complete", hint: "their ids", read: words },
  after_any: { title: "After these jobs end", hint: "their ids", read: words },
  cwd: { title: "Folder", hint: "where serve was started" },
  id: { title: "Id", hint: "a random one" },
};

// The same for one request, however often it is sent: a job that was enqueued although nobody heard
// of it is not enqueued once more.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function field(name, { title, hint, choices, list, type = "text", min }) {
  const control = choices
    ? h(
        "select",
        { id: `new-${name}`, name },
        choices.map((choice) => h("option", { value: choice }, choice || `${hint} (usual)`)),
      )
    : h("input", {
        id: `new-${name}`,
        name,
        type,
        min,
        step: type === "number" ? "any" : null,
        placeholder: hint,
        list: list ?? null,
        autocomplete: "off",
        spellcheck: "false",
      });
  return h("div", { class: "field" }, h("label", { for: `new-${name}` }, title), control);
}

function read(form) {
  const body = { command: form.command.value };
  for (const [name, { read: written = (text) => text }] of Object.entries(FIELDS)) {
    const text = form.elements[name].value.trim();
    if (text !== "") {
      body[name] = written(text);
    }
  }
  return body;
}

function makeForm() {
  let key = newKey();
  const wrong = h("p", { class: "wrong", id: "new-wrong", role: "alert" });
  const send = h("button", { class: "primary", type: "submit" }, "Enqueue");
  const form = h(
    "form",
    { class: "card enqueue", "data-kept": true, "data-key": "form", "aria-label": "Enqueue a job" },
    h(
      "div",
      { class: "field whole" },
      h("label", { for: "new-command" }, "Command"),
      h("textarea", {
        id: "new-command",
        name: "command",
        rows: 3,
        required: true,
        spellcheck: "false",
        autocapitalize: "off",
        placeholder: "make backup",
        "aria-describedby": "new-hint new-wrong",
      }),
      h(
        "p",
        { class: "hint", id: "new-hint" },
        "A line for the shell. It runs as whoever started the workers.",
      ),
    ),
    h(
      "div",
      { class: "fields" },
      Object.entries(FIELDS).map(([name, about]) => field(name, about)),
    ),
    h("datalist", { id: "queues" }),
    wrong,
    h("div", { class: "row" }, send, h("a", { class: "button", href: "#/" }, "Go back")),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    wrong.textContent = "";
    send.disabled = true;
    try {
      const job = await ask("POST", "/jobs", read(form), { headers: { "Idempotency-Key": key } });
      toast(`Job ${shortId(job.id)} enqueued.`);
      location.hash = jobUrl(job.id);
    } catch (error) {
      if (error.status !== 0) {
        key = newKey();
      }
      wrong.textContent = `Not enqueued: ${inline(error.message)}`;
      form.command.focus();
    } finally {
      send.disabled = false;
    }
  });
  return form;
}

export function enqueueView() {
  const form = makeForm();
  return {
    title: "Enqueue a job",
    quiet: true,
    async refresh() {
      const { queues } = await get("/queues");
      form
        .querySelector("datalist")
        .replaceChildren(...queues.map(({ name }) => h("option", { value: name })));
    },
    render() {
      if (!mayChange()) {
        return [h("h1", { tabindex: -1 }, "Enqueue a job"), empty("This session may only read.")];
      }
      return [h("h1", { tabindex: -1 }, "Enqueue a job"), form];
    },
    mounted() {
      if (!form.contains(document.activeElement)) {
        form.command.focus();
      }
    },
  };
}
