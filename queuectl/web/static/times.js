// Times and durations, as people read them.

import { now } from "./api.js";
import { h } from "./dom.js";

const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

// How long something took, or takes: 40 ms, 1.4 s, 12 s, 3 m 05 s, 2 h 10 m, 3 d 4 h.
export function duration(seconds) {
  if (seconds < 1) {
    return `${Math.max(Math.round(seconds * 1000), 0)} ms`;
  }
  if (seconds < 10) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  }
  if (whole < 86400) {
    return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  }
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function whole(seconds) {
  return seconds < 10 ? `${Math.max(Math.floor(seconds), 0)} s` : duration(seconds);
}

function relative(at) {
  const seconds = (now() - at) / 1000;
  const size = Math.abs(seconds);
  if (size < 5) {
    return seconds < 0 ? "in a moment" : "just now";
  }
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const [unit, name] = units.find(([unit]) => size >= unit);
  const text = `${Math.floor(size / unit)} ${name}`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

function write(element) {
  const at = Date.parse(element.dateTime);
  return "ticks" in element.dataset ? whole((now() - at) / 1000) : relative(at);
}

function time(at, attributes) {
  const element = h("time", { datetime: at, title: EXACT.format(new Date(at)), ...attributes });
  element.textContent = write(element);
  return element;
}

// When something was, or will be.
export function ago(at) {
  return at ? time(at) : "–";
}

// For how long something has been going on.
export function since(at) {
  return at ? time(at, { "data-ticks": true }) : "–";
}

// How long the last run of a job took, or has taken.
export function took(job) {
  if (!job.started_at) {
    return "–";
  }
  if (job.state === "processing") {
    return since(job.started_at);
  }
  return duration(
    (Date.parse(job.finished_at ?? job.updated_at) - Date.parse(job.started_at)) / 1000,
  );
}

setInterval(() => {
  if (document.hidden) {
    return;
  }
  for (const element of document.querySelectorAll("time")) {
    const text = write(element);
    if (element.textContent !== text) {
      element.textContent = text;
    }
  }
}, 1000);
