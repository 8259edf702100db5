// Asking the server.

const API = "/api/v1";

// How far this machine's clock is behind the server's, in milliseconds.
let behind = 0;

export function now() {
  return Date.now() + behind;
}

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

function heed(answer) {
  const said = Date.parse(answer.headers.get("Date") ?? "");
  if (!Number.isNaN(said)) {
    const off = said - Date.now();
    // It is told in whole seconds.
    behind = Math.abs(off) > 2000 ? off : 0;
  }
}

// Returns what was answered; throws a Refusal, with the status 0 if nobody answered.
export async function ask(method, path, body, { signal, headers } = {}) {
  const options = { method, signal, headers: { ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  let told;
  try {
    answer = await fetch(API + path, options);
    told = await answer.json();
  } catch (error) {
    if (signal?.aborted && error.name === "AbortError") {
      throw error;
    }
    throw new Refusal(answer && !answer.ok ? answer.status : 0, "the server does not answer");
  }
  heed(answer);
  if (!answer.ok) {
    throw new Refusal(answer.status, told.detail ?? answer.statusText);
  }
  return told;
}

export function get(path, options) {
  return ask("GET", path, undefined, options);
}

export function source(path) {
  return new EventSource(API + path);
}

export function logsUrl(id, run) {
  return `${API}/jobs/${encodeURIComponent(id)}/logs?run=${run}`;
}

export function jobPath(id, rest = "") {
  return `/jobs/${encodeURIComponent(id)}${rest}`;
}

export function query(values) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value) {
      said.set(name, value);
    }
  }
  const text = said.toString();
  return text ? `?${text}` : "";
}
