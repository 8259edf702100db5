// What changes, as it comes: and whether it still comes.

import { get, source } from "./api.js";
import { known } from "./state.js";

const LOOK = 2500; // milliseconds between two looks whether anybody is there
const PATIENCE = 3000;
const LONGEST = 5000; // between two attempts

const banner = document.getElementById("banner");
const link = document.getElementById("link");

let stream = null;
let attempts = 0;
let retry = null;
let heardAt = null;
let tell = () => {};

function show(state, text) {
  if (link.dataset.link !== state) {
    link.dataset.link = state;
    link.textContent = text;
  }
}

function lost(text) {
  show("lost", "Not connected");
  if (banner.hidden || banner.textContent !== text) {
    banner.replaceChildren(text);
    banner.hidden = false;
  }
}

function signedOut() {
  stop();
  show("lost", "Signed out");
  const again = document.createElement("a");
  again.href = "/";
  again.textContent = "Sign in again";
  // The view is kept: only the page is loaded anew.
  again.addEventListener("click", (event) => {
    event.preventDefault();
    location.reload();
  });
  banner.replaceChildren("The session is over: the server was started again. ", again);
  banner.hidden = false;
}

function stop() {
  stream?.close();
  stream = null;
  clearTimeout(retry);
  retry = null;
}

function again() {
  stop();
  const when = heardAt === null ? "" : ` What you see is as of ${heardAt.toLocaleTimeString()}.`;
  lost(`Connection lost. Trying again…${when}`);
  retry = setTimeout(connect, Math.min(500 * 2 ** attempts, LONGEST));
  attempts += 1;
}

// Whether the server answers, and still knows who asks; else says so.
async function look() {
  try {
    known.session = await get("/session", { signal: AbortSignal.timeout(PATIENCE) });
    heardAt = stream === null ? heardAt : new Date();
    return true;
  } catch (error) {
    if (error.status === 401) {
      signedOut();
    } else if (error.status >= 500) {
      stop();
      lost(`The store does not answer: ${error.message}`);
      retry = setTimeout(connect, LONGEST);
    } else {
      again();
    }
    return false;
  }
}

async function connect() {
  stop();
  if (document.hidden || !(await look()) || stream !== null) {
    return;
  }
  stream = source("/events");
  stream.addEventListener("changed", (event) => {
    attempts = 0;
    heardAt = new Date();
    banner.hidden = true;
    show("live", "Live");
    known.changed = JSON.parse(event.data);
    tell();
  });
  stream.onerror = () => {
    // It would try by itself, but say nothing.
    again();
  };
}

// Tells of every change, from now on.
export function follow(listener) {
  tell = listener;
  connect();
  setInterval(() => {
    if (stream !== null && !document.hidden) {
      look();
    }
  }, LOOK);
  // A page that nobody sees holds no connection: a browser has but six for a server.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      stop();
    } else if (stream === null) {
      attempts = 0;
      connect();
    }
  });
  addEventListener("online", () => stream === null && connect());
  // Which says nothing of a server on this machine.
  addEventListener("offline", () => stream !== null && look());
}

// Has something done at once, and again when it is asked for: but one at a time, and with a pause
// behind each that grows with what it takes.
export function paced(act, pause = 900) {
  let busy = false;
  let wanted = false;
  return async function run() {
    wanted = true;
    if (busy) {
      return;
    }
    busy = true;
    while (wanted) {
      wanted = false;
      const begun = performance.now();
      await act();
      const rest = Math.max(pause, 4 * (performance.now() - begun));
      await new Promise((resolve) => setTimeout(resolve, rest));
    }
    busy = false;
  };
}
