// One photo's answer: asked for, read, and put where everybody sees it. One map of the network's own clusters does for
// all levels, merges and colors: only edges, another page or another model are another question.
import { call, query } from "./api.js";
import { fail, say } from "./notice.js";
import { answer, on, set, state, tell } from "./state.js";
import { t } from "./strings.js";

const reader = new Worker(new URL("./decode.worker.js", import.meta.url), { type: "module" });
const reading = new Map();
let turns = 0;
reader.onmessage = ({ data }) => {
  const { resolve, reject } = reading.get(data.turn);
  reading.delete(data.turn);
  if (data.error) reject(new Error(data.error));
  else resolve(data.map);
};

/** {ids, width, height} of a palette PNG, read in the worker. */
const mapOf = (file) =>
  new Promise((resolve, reject) => {
    reading.set(++turns, { resolve, reject });
    reader.postMessage({ turn: turns, file }, [file.buffer]);
  });

/** What a request for a photo says besides the photo. */
export function optionsOf(photo, more = {}) {
  const edges = state.edges === "false" ? undefined : state.edges;
  return { model: state.model, crf: edges, page: photo.page || undefined, ...more };
}

/** Ask for the answer of a photo; `classes` in the words people taught. Throws what the server says. */
export async function ask(photo, { classes = false, signal } = {}) {
  const own = classes ? { classes: "true" } : { merged: "false" };
  const path = query("segment", optionsOf(photo, { nodata: "keep", ...own }));
  const reply = await call(path, { method: "POST", body: photo.file, headers: { accept: "application/json" }, signal });
  const told = await reply.json();
  const map = await mapOf(Uint8Array.from(atob(told.label_map.data), (c) => c.charCodeAt(0)));
  delete told.label_map;
  return { ...told, ...map, found: new Map(told.clusters.map((one) => [one.id, one])) };
}

let asking = null; // what ends the question that is under way

/** Ask what the shown photo needs now and show it; an older question is dropped. Resolves when it is shown. */
export async function refresh() {
  const photo = state.current;
  asking?.abort();
  if (!photo) return;
  const classes = state.of === "classes", mine = (asking = new AbortController());
  set({ busy: state.busy + 1 }, "busy");
  try {
    const found = await ask(photo, { classes, signal: mine.signal });
    photo[classes ? "classAnswer" : "answer"] = found;
    photo.pages = found.pages;
    photo.error = null;
    if (photo === state.current) say(found.warnings.join(" "));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!classes) photo.error = error.message;
    if (photo === state.current) fail(error);
  } finally {
    set({ busy: state.busy - 1, heat: null }, "busy", "photo", "photos");
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
