// What became of jobs in the last hour, as bars: up for what completed, down for what failed.

import { h, s } from "./dom.js";
import { number, plural } from "./parts.js";

const WIDTH = 600;
const HEIGHT = 120;

function clockTime(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function scaleOf(minutes) {
  const up = Math.max(...minutes.map((minute) => minute.completed));
  const down = Math.max(...minutes.map((minute) => minute.failed));
  const all = Math.max(up + down, 1);
  // Both directions have the same measure; where nothing failed there is only a foot.
  const below = down === 0 ? 6 : Math.max((HEIGHT * down) / all, 12);
  return {
    zero: HEIGHT - below,
    unit: Math.min((HEIGHT - below) / Math.max(up, 1), below / Math.max(down, 1)),
    up,
    down,
  };
}

function bars(minute, at, scale) {
  const step = WIDTH / 60;
  const height = (count) => (count === 0 ? 0 : Math.max(count * scale.unit, 2));
  const bar = (kind, y, tall) =>
    tall === 0
      ? null
      : s("rect", { class: kind, x: at * step + 1, y, width: step - 2, height: tall, rx: 1 });
  const up = height(minute.completed);
  return s(
    "g",
    {},
    s(
      "title",
      {},
      `${clockTime(minute.at)}: ${minute.completed} completed, ${minute.failed} failed`,
    ),
    s("rect", { class: "hit", x: at * step, y: 0, width: step, height: HEIGHT }),
    bar("up", scale.zero - up, up),
    bar("down", scale.zero + 1, height(minute.failed)),
  );
}

export function chart(history) {
  const { minutes } = history;
  const completed = minutes.reduce((sum, minute) => sum + minute.completed, 0);
  const failed = minutes.reduce((sum, minute) => sum + minute.failed, 0);
  const scale = scaleOf(minutes);
  const unknown = minutes.filter(
    (minute) => Date.parse(minute.at) + 60000 <= Date.parse(history.since),
  ).length;
  const said = `${plural(completed, "job")} completed and ${plural(failed, "attempt")} failed`;
  const when =
    unknown > 0
      ? ` since ${clockTime(history.since)}, when the server was started`
      : " in the last hour";
  const told = minutes.filter((minute) => minute.completed || minute.failed);
  return [
    h(
      "div",
      { class: "legend" },
      h("span", { class: "key up" }, h("b", {}, number(completed)), " completed"),
      h("span", { class: "key down" }, h("b", {}, number(failed)), " failed attempts"),
      h("span", { class: "peak" }, scale.up ? `at most ${number(scale.up)} a minute` : ""),
    ),
    s(
      "svg",
      {
        class: "chart",
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `Throughput of the last hour by minute: ${said}${when}.`,
      },
      unknown > 0
        ? s("rect", { class: "unknown", x: 0, y: 0, width: (unknown * WIDTH) / 60, height: HEIGHT })
        : null,
      minutes.map((minute, at) => bars(minute, at, scale)),
      s("line", { class: "zero", x1: 0, x2: WIDTH, y1: scale.zero + 0.5, y2: scale.zero + 0.5 }),
    ),
    h(
      "div",
      { class: "axis", "aria-hidden": "true" },
      [0, 15, 30, 45, 59].map((at) => h("span", {}, clockTime(minutes[at].at))),
    ),
    h(
      "p",
      { class: "hint" },
      unknown > 0
        ? `Known since ${clockTime(history.since)}, when the server was started.`
        : "Each bar is a minute.",
    ),
    h(
      "details",
      {},
      h("summary", {}, "The figures"),
      told.length === 0
        ? h("p", { class: "empty" }, "Nothing ended in the last hour.")
        : h(
            "div",
            {
              class: "scroll figures",
              tabindex: 0,
              role: "region",
              "aria-label": "The figures of the chart",
            },
            h(
              "table",
              { "aria-label": "Completed jobs and failed attempts by minute" },
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  h("th", { scope: "col" }, "Minute"),
                  h("th", { scope: "col", class: "num" }, "Completed"),
                  h("th", { scope: "col", class: "num" }, "Failed"),
                ),
              ),
              h(
                "tbody",
                {},
                [...told]
                  .reverse()
                  .map((minute) =>
                    h(
                      "tr",
                      { "data-key": minute.at },
                      h("th", { scope: "row" }, clockTime(minute.at)),
                      h("td", { class: "num" }, number(minute.completed)),
                      h("td", { class: "num" }, number(minute.failed)),
                    ),
                  ),
              ),
            ),
          ),
    ),
  ];
}
