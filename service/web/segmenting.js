// One photo's answer: asked for, read, and put where everybody sees it. One map of the network's own clusters does for
// all levels, merges and colors: only edges, another page or another model are another question.
import { call, query } from "./api.js";
import { isTaught } from "./classes.js";
import { say, unsay, warn } from "./notice.js";
import { answer, on, set, state, tell } from "./state.js";
import { t } from "./strings.js";

const reading = new Map();
let reader = null; // the worker, begun with the first photo
let turns = 0;

function worker() {
  if (reader) return reader;
  reader = new Worker(new URL("./decode.worker.js", import.meta.url), { type: "module" });
  reader.onmessage = ({ data }) => {
    const { resolve, reject } = reading.get(data.turn);
    reading.delete(data.turn);
    if (data.error) reject(new Error(data.error));
    else resolve(data.map);
  };
  return reader;
}

/** {ids, width, height} of a palette PNG, {text: base64} or {bytes}, read in the worker. */
const mapOf = (png) =>
  new Promise((resolve, reject) => {
    reading.set(++turns, { resolve, reject });
    worker().postMessage({ turn: turns, ...png });
  });

/** The same of the PNG in an ArrayBuffer. */
export const indicesOf = (buffer) => mapOf({ bytes: new Uint8Array(buffer) });

/** What a request for a photo says besides the photo. */
export function optionsOf(photo, more = {}) {
  const edges = state.edges === "false" ? undefined : state.edges;
  return { model: state.model, crf: edges, page: photo.page || undefined, ...more };
}

/** What an answer of a photo's clusters depends on: as long as it is the same, so is the answer. */
const questionOf = (photo) => JSON.stringify(optionsOf(photo));

/** Whether a photo was answered as it would be answered now, even if its label map is kept no more. */
export const isDone = (photo) => photo.done === questionOf(photo);

const LONGEST_S = 30, MOST = 8; // how long, and how often, a busy server is waited for

/** `send`, and again when a server that is busy says so; people are told how long it takes. */
async function patiently(photo, path, options) {
  for (let turn = 1, told = ""; ; turn++) {
    try {
      const reply = await send(photo, path, options);
      unsay(told);
      return reply;
    } catch (error) {
      if (![429, 503].includes(error.status) || !error.after || error.after > LONGEST_S || turn === MOST) throw error;
      told = t("segment.busy", { seconds: error.after });
      say(told, { lasting: true });
      await new Promise((resolve, reject) => {
        setTimeout(resolve, error.after * 1000);
        options.signal?.addEventListener("abort", () => reject(options.signal.reason), { once: true });
      });
    }
  }
}

/** Ask for the answer of a photo; `classes` in the words people taught. Throws what the server says. */
export async function ask(photo, { classes = false, signal, priority } = {}) {
  worker(); // it begins while the server works
  const own = classes ? { classes: "true" } : { merged: "false" };
  const path = query("segment", optionsOf(photo, { nodata: "keep", priority, ...own }));
  const asked = priority ? send : patiently; // what is asked beside it comes again by itself
  const reply = await asked(photo, path, { headers: { accept: "application/json" }, signal });
  const told = await reply.json();
  const map = await mapOf({ text: told.label_map.data });
  delete told.label_map;
  return { ...told, ...map, found: new Map(told.clusters.map((one) => [one.id, one])) };
}

/** Send a photo's file. Throws what the server says, or that the file can be read no more. */
export async function send(photo, path, options) {
  try {
    return await call(path, { ...options, method: "POST", body: photo.file });
  } catch (error) {
    if (error.status === 0) await photo.file.slice(0, 1).arrayBuffer().catch(() => Promise.reject(new Error(t("photos.gone", { name: photo.name }))));
    throw error;
  }
}

let asking = null; // what ends the question that is under way
let failure = ""; // what was said of the last one

/** Ask what the shown photo needs now and show it; an older question is dropped. Resolves when it is shown. */
export async function refresh() {
  const photo = state.current;
  asking?.abort();
  if (!photo) return;
  const classes = state.of === "classes", mine = (asking = new AbortController());
  if (classes && !isTaught()) return tell("photo"); // the panel says what to do
  set({ busy: state.busy + 1 }, "busy");
  try {
    const found = classes ? await ask(photo, { classes, signal: mine.signal }) : await learn(photo, { signal: mine.signal });
    if (classes) photo.classAnswer = found;
    if (photo !== state.current) return;
    unsay(failure);
    warn(found.warnings);
  } catch (error) {
    if (photo !== state.current || mine.signal.aborted) return;
    failure = t("segment.failed", { name: photo.name, why: error.message });
    if (error.name !== "AbortError") say(failure, { bad: true });
  } finally {
    set({ busy: state.busy - 1 }, "busy", "photo", "photos");
  }
}

/** Ask for a photo's clusters and keep what is said of it; who asks while another asks the same gets its answer. */
export function learn(photo, { signal, priority } = {}) {
  const question = questionOf(photo);
  if (photo.asked?.question === question && !photo.asked.signal?.aborted) return photo.asked.answer;
  const mine = { question, signal };
  mine.answer = settled(photo, question, ask(photo, { signal, priority })).finally(() => {
    if (photo.asked === mine) photo.asked = null;
    tell("photos", ...(photo === state.current ? ["photo"] : []));
  });
  photo.asked = mine;
  tell("photos");
  return mine.answer;
}

async function settled(photo, question, asked) {
  try {
    const found = await asked;
    const { pages, familiar } = found;
    if (question === questionOf(photo)) Object.assign(photo, { answer: found, done: question, error: null, pages, familiar });
    return found;
  } catch (error) {
    if (error.name !== "AbortError" && question === questionOf(photo)) photo.error = error.message;
    throw error;
  }
}

/** Whatever was answered is not what would be answered now: ask again when a photo is shown. */
export function outdated({ classesOnly = false } = {}) {
  for (const photo of state.photos) {
    if (photo === state.current) continue; // what is shown stays until the new answer is there
    photo.classAnswer = null;
    if (!classesOnly) photo.answer = null;
  }
  if (state.current && state.of === "clusters") state.current.classAnswer = null;
  tell("photos");
  return refresh();
}

export function start() {
  on("edges", () => outdated());
  on("of", () => (answer() ? tell("photo") : refresh()));
  on("photo", () => {
    const found = answer();
    document.title = state.current ? t("title.photo", { name: state.current.name }) : t("title");
    if (found) document.body.dataset.of = state.of;
  });
}
