// The photos that are not shown are asked for too, two at a time behind the one that is, from it onwards.
import { isDone, learn } from "./segmenting.js";
import { on, state, tell } from "./state.js";

const AT_ONCE = 2;
const BEHIND = -10; // the server's least priority: what people look at goes ahead
const PATIENCE_MS = 4000; // before a server that is busy, or away, is asked again
const MOST_BYTES = 128e6; // of label maps that are kept, one byte a pixel

let running = 0;
let waitsUntil = 0;
export let stopped = false;

/** waiting, working, done or failed. */
export const stateOf = (photo) => (photo.asked ? "working" : photo.error ? "failed" : isDone(photo) ? "done" : "waiting");

/** How many photos were answered, and could not be. */
export function progress() {
  const states = state.photos.map(stateOf), count = (word) => states.filter((one) => one === word).length;
  return { all: states.length, done: count("done"), failed: count("failed"), stopped };
}

/** Begin no further ones, or go on. */
export function stop(value) {
  stopped = value;
  tell("photos");
}

function goOn() {
  forgetFar();
  if (stopped || document.hidden || !state.model || !state.current || Date.now() < waitsUntil) return;
  if (state.of === "clusters" && ["waiting", "working"].includes(stateOf(state.current))) return; // it goes first
  while (running < AT_ONCE) {
    const next = nearest().find((photo) => stateOf(photo) === "waiting");
    if (!next) return;
    running++;
    learn(next, { priority: BEHIND }).catch((error) => later(next, error)).finally(() => {
      running--;
      tell("photos");
    });
  }
}

/** A server that is busy or away is no fault of the photo's; one that wants a key is not asked for each photo again. */
function later(photo, error) {
  if (error.status === 401) stopped = true;
  else if (![0, 429, 503, 504].includes(error.status)) return;
  photo.error = null;
  waitsUntil = Date.now() + PATIENCE_MS;
  setTimeout(() => tell("photos"), PATIENCE_MS + 50);
}

/** The photos, from the shown one onwards and around. */
function nearest() {
  const at = Math.max(0, state.photos.indexOf(state.current));
  return [...state.photos.slice(at), ...state.photos.slice(0, at)];
}

/** Label maps of photos far from the shown one are dropped: they are asked for again when somebody looks. */
function forgetFar() {
  const at = state.photos.indexOf(state.current);
  const far = (photo) => Math.abs(state.photos.indexOf(photo) - at);
  const kept = state.photos.filter((photo) => photo.answer || photo.classAnswer || photo.served.size);
  let bytes = 0;
  for (const photo of kept.map((one) => [far(one), one]).sort(([a], [b]) => a - b).map(([, one]) => one)) {
    bytes += [photo.answer, photo.classAnswer].reduce((sum, one) => sum + (one?.ids.length ?? 0), 0);
    if (bytes <= MOST_BYTES || photo === state.current) continue;
    photo.answer = photo.classAnswer = null;
    for (const page of photo.served.keys()) {
      URL.revokeObjectURL(photo.pictures.get(page));
      photo.pictures.delete(page);
    }
    photo.served.clear();
  }
}

export function start() {
  on("photos photo models", goOn);
  addEventListener("visibilitychange", goOn);
  goOn();
}
