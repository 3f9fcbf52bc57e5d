// The line at the foot: which model answers, on what, how busy the server is, how long the last answer took; whether it is there at all.
import { get } from "./api.js";
import { $, announce, el } from "./dom.js";
import { follow, refOf } from "./models.js";
import { fail, say } from "./notice.js";
import { refresh } from "./segmenting.js";
import { answer, on, state } from "./state.js";
import { number, percent, t } from "./strings.js";

const EVERY_MS = 5000;

let health = null;
let away = false;
let asked = 0;

/** Ask how the server does; nobody is told of a failure but by the line itself. */
async function look() {
  clearTimeout(asked);
  if (!document.hidden) {
    try {
      health = await get("healthz");
      const was = away;
      away = false;
      if (was) back();
      await follow(health.models).catch(() => {});
    } catch {
      if (!away) announce(t("status.away"));
      away = true;
    }
    show();
  }
  asked = setTimeout(look, EVERY_MS);
}

/** It is there again: what was asked in vain is asked once more. */
function back() {
  say(t("status.back"));
  if (state.current && !answer()) refresh().catch(fail);
  announce(t("status.back"));
}

/** The stages of an answer that took any time, as lines. */
const stages = (timings) => Object.entries(timings).filter(([, ms]) => ms >= 0.05).map(([stage, ms]) => t("status.stage", { stage, ms: number(Math.round(ms * 10) / 10) })).join("\n");

function show() {
  const served = state.models.find((one) => refOf(one) === state.model), found = answer();
  const line = [];
  const add = (name, text, title) => line.push(el("span", { data: { status: name }, title }, text));
  if (away) add("away", t("status.away"));
  if (served) {
    add("model", state.model);
    add("engine", [served.engine, served.provider].filter(Boolean).join(" / "), served.note);
  }
  if (health && !away) add("queue", health.ready ? t("status.queue", { waiting: number(health.waiting), running: number(health.running) }) : t("status.unready", { why: health.reason }));
  if (found) {
    const ms = Object.values(found.timings_ms).reduce((sum, one) => sum + one, 0);
    add("time", t("status.time", { ms: number(Math.round(ms)) }), stages(found.timings_ms));
    add("size", t("status.size", { width: number(found.width), height: number(found.height) }));
    if (found.familiarity !== null && found.familiarity !== undefined) add("familiarity", t(found.familiar === false ? "status.unlike" : "status.familiar"), t("familiarity.what", { share: percent(found.familiarity) }));
    if (found.valid_fraction < 1) add("valid", t("status.valid", { percent: percent(found.valid_fraction) }));
  }
  $("status").classList.toggle("away", away);
  $("status").replaceChildren(...line);
}

export function start() {
  on("models photo photos", show);
  addEventListener("visibilitychange", () => !document.hidden && look());
  look();
}
