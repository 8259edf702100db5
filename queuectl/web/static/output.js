// What a run prints, while it does and after: its last lines.

import { jobPath, logsUrl, query, source } from "./api.js";
import { h, visible } from "./dom.js";

const LINES = 2000;
const LETTERS = 400_000;
const BYTES = 256 * 1024; // of what was printed before one looks
const COLOURS = /\x1b\[[0-9;:]*m/g;
const UNFINISHED = /\x1b(?:\[[0-9;:]*)?$|\r$/;

function newlines(text) {
  let count = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) {
    count += 1;
  }
  return count;
}

// Shows the output of a run in an element, until it is closed.
export class Output {
  constructor(place, id, run, ended) {
    this.id = id;
    this.run = run;
    this.ended = ended;
    this.lines = 0;
    this.letters = 0;
    this.held = "";
    this.waiting = "";
    this.isCut = false;
    this.text = h("pre", {
      class: "output",
      tabindex: 0,
      role: "log",
      "aria-live": "off",
      "aria-label": `Output of run ${run}`,
    });
    this.cut = h(
      "p",
      { class: "hint", hidden: true },
      "This is only the end. ",
      h("a", { href: logsUrl(id, run), target: "_blank", rel: "noopener" }, "All of it"),
    );
    this.state = h("p", { class: "hint", role: "status" }, "Reading…");
    place.replaceChildren(this.cut, this.text, this.state);
    this.heed = () => (document.hidden ? this.pause() : this.open());
    document.addEventListener("visibilitychange", this.heed);
    this.open();
  }

  open() {
    if (this.isOver || this.stream) {
      return;
    }
    this.empty();
    this.stream = source(jobPath(this.id, `/logs/live${query({ run: this.run, tail: BYTES })}`));
    this.stream.addEventListener("output", (event) => this.take(JSON.parse(event.data).text));
    this.stream.addEventListener("lost", (event) => this.lose(JSON.parse(event.data).why));
    this.stream.addEventListener("end", (event) => this.end(JSON.parse(event.data)));
    this.stream.addEventListener("error", (event) => {
      if (event.data) {
        this.finish(`That cannot be read: ${visible(JSON.parse(event.data).detail)}`);
      } else if (this.stream?.readyState === EventSource.CLOSED) {
        this.pause();
        this.retry = setTimeout(() => this.open(), 3000);
      }
    });
  }

  empty() {
    this.text.replaceChildren();
    this.lines = this.letters = 0;
    this.held = this.waiting = "";
  }

  pause() {
    clearTimeout(this.retry);
    this.stream?.close();
    this.stream = null;
  }

  close() {
    this.pause();
    this.isOver = true;
    document.removeEventListener("visibilitychange", this.heed);
  }

  take(text) {
    const all = this.held + text;
    const unfinished = UNFINISHED.exec(all);
    this.held = unfinished ? unfinished[0] : "";
    const whole = unfinished ? all.slice(0, unfinished.index) : all;
    this.show(visible(whole.replace(COLOURS, "").replaceAll("\r\n", "\n")));
  }

  lose(why) {
    this.isCut = true;
    this.show(`[${visible(why)}]\n`);
  }

  end({ state, exit_code: code }) {
    this.show(visible(this.held));
    this.held = "";
    this.draw();
    const done = this.letters === 0 ? "It printed nothing." : "";
    this.finish(state === null ? "The job was deleted." : done);
    this.ended({ state, code });
  }

  finish(text) {
    this.state.textContent = text;
    this.close();
  }

  show(text) {
    this.waiting += text;
    if (this.waiting.length > 2 * LETTERS) {
      this.waiting = this.waiting.slice(-LETTERS);
      this.isCut = true;
    }
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    const isAtEnd = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 30;
    if (this.waiting) {
      this.text.append(this.waiting);
      this.lines += newlines(this.waiting);
      this.letters += this.waiting.length;
      this.waiting = "";
      this.trim();
    }
    if (!this.isOver) {
      this.state.textContent = this.letters
        ? "Live: what it prints appears here."
        : "It has printed nothing yet.";
    }
    this.cut.hidden = !this.isCut;
    if (isAtEnd) {
      this.text.scrollTop = this.text.scrollHeight;
    }
  }

  // Only the end stays: memory must not grow with what is printed.
  trim() {
    if (this.lines <= LINES && this.letters <= LETTERS) {
      return;
    }
    const all = this.text.textContent.slice(-LETTERS);
    const lines = all.split("\n");
    const kept = lines.slice(-LINES / 2).join("\n");
    this.isCut = true;
    this.lines = newlines(kept);
    this.letters = kept.length;
    this.text.replaceChildren(kept);
  }
}
