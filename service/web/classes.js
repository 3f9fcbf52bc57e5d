// Classes that people teach by a few places: the server's, which everybody on it shares. What is said of them are steps
// that can be undone: what the server takes away it hands out as a file, and taking that file in brings it back.
import { call, get, query, send } from "./api.js";
import { $, announce } from "./dom.js";
import { follow } from "./following.js";
import { run } from "./history.js";
import { refresh } from "./segmenting.js";
import { on, set, state, tell } from "./state.js";
import { t } from "./strings.js";

const handles = new Map(); // id → {id}: what steps hold on to, as a class that was brought back may have another id
const hidden = new Set(); // ids, of this browser alone
let known = ""; // the server's last list, as text
let model = ""; // whose classes these are

const path = (more = "", values = {}) => query(`classes${more}`, { model: state.model, ...values });

/** The handle of a class: {id}, the same as long as the class lives, and after it was brought back. */
export function handle(id) {
  if (!handles.has(id)) handles.set(id, { id });
  return handles.get(id);
}

/** Whether any pixel could be of a class: one has a cluster, or an example in use. */
export const isTaught = () => [...state.classes.values()].some((one) => one.clusters.length || one.examples > 0);

/** Ask the server which classes there are; whatever others changed is shown. */
export async function refreshClasses() {
  const before = known;
  news(await get(path()), before);
}

/** A list of classes came, asked for when `before` was what was known. False: it may be older than what is known now. */
function news(list, before) {
  if (before !== known) return false;
  adopt(list);
  if (before !== known) retaught();
  return true;
}

/** Show a list of classes as the server gave it. */
function adopt(list) {
  const text = JSON.stringify(list.classes);
  if (text === known) return;
  known = text;
  const classes = new Map(list.classes.map((one) => [one.id, { ...one, hidden: hidden.has(one.id), into: null }]));
  for (const id of handles.keys()) if (!classes.has(id)) handles.delete(id);
  set({ classes, classWarnings: list.warnings ?? [] }, "classes");
}

/** What was painted in classes is not what would be now. */
export function retaught() {
  for (const photo of state.photos) if (photo !== state.current) photo.classAnswer = null;
  if (state.current && (state.of === "clusters" || !isTaught())) state.current.classAnswer = null;
  tell("photo", "photos");
  if (state.of === "classes" && isTaught()) refresh();
}

const said = ({ name, color, clusters }) => ({ name, color, clusters });

/** Take a file of classes in: [{id, examples: [their numbers]}], in the file's order. */
async function load(file, values = {}) {
  const answer = await send("PUT", path("/import", values), file);
  adopt(answer);
  return answer;
}

/** Bring back what the server took away; `one` is the handle of its class, `marks` those of its examples in order. */
async function bringBack(file, one, marks) {
  const now = state.classes.get(one.id); // as others may have named it meanwhile
  if (now) Object.assign(file.classes[0], said(now));
  const { imported } = await load(file);
  const [{ id, examples }] = imported;
  one.id = id;
  handles.set(id, one);
  marks.forEach((mark, i) => (mark.n = examples[i] ?? null));
  retaught();
}

const takeAway = async (more) => {
  const file = await (await call(path(more), { method: "DELETE" })).json();
  adopt(await get(path()));
  retaught();
  return file;
};

/** Make a class; its handle, or null where that went wrong. */
export async function create(name) {
  const one = { id: null };
  let removed = null;
  const made = await run({
    what: t("step.class", { name }),
    redo: async () => {
      if (removed) return bringBack(removed, one, []);
      const { id } = await send("POST", path(), { name });
      one.id = id;
      handles.set(id, one);
      adopt(await get(path()));
    },
    undo: async () => {
      removed = await takeAway(`/${one.id}`);
    },
  });
  return made ? one : null;
}

/** Say {name, color, clusters} of a class, as a step. */
export function change(one, what, words) {
  const old = said(state.classes.get(one.id));
  const put = async (fields) => {
    await send("PUT", path(`/${one.id}`), { ...said(state.classes.get(one.id) ?? old), ...fields });
    adopt(await get(path()));
    if (fields.clusters) retaught();
  };
  const back = Object.fromEntries(Object.keys(what).map((field) => [field, old[field]]));
  return run({ what: words, redo: () => put(what), undo: () => put(back) });
}

/** Take a class away, with its examples, as a step. */
export function remove(one) {
  const { name } = state.classes.get(one.id);
  const marks = state.photos.flatMap((photo) => photo.marks ?? []).filter((mark) => mark.one === one && mark.n !== null);
  marks.sort((a, b) => a.n - b.n);
  let removed;
  return run({
    what: t("step.class.remove", { name }),
    redo: async () => {
      removed = await takeAway(`/${one.id}`);
      marks.forEach((mark) => (mark.gone = true));
      tell("marks");
    },
    undo: async () => {
      const numbers = removed.classes[0].examples.map((example) => example.n);
      const shown = numbers.map((n) => marks.find((mark) => mark.n === n) ?? {});
      await bringBack(removed, one, shown);
      marks.forEach((mark) => (mark.gone = false));
      tell("marks");
    },
  });
}

/**
 * Say that a place of a photo is the class, or with `negative` that it is not: shown at once, as a step.
 *
 * place  {x, y} a pixel, or {x, y, width, height} a rectangle
 */
export async function teach(one, photo, place, { negative = false } = {}) {
  const mark = { one, n: null, negative, fresh: true, ...place };
  (photo.marks ??= []).push(mark);
  tell("marks");
  const name = state.classes.get(one.id)?.name ?? "";
  const where = place.width ? { box: [place.x, place.y, place.width, place.height].join(",") } : { x: place.x, y: place.y };
  let removed = null;
  const done = await run({
    what: t(negative ? "step.example.not" : "step.example", { name }),
    redo: async () => {
      mark.gone = false;
      if (removed) await bringBack(removed, one, [mark]);
      else {
        const asked = path(`/${one.id}/examples`, { ...where, page: photo.page || undefined, negative: negative || undefined });
        const answer = await (await call(asked, { method: "POST", body: photo.file })).json();
        mark.n = answer.example;
        mark.agrees = answer.agrees;
        adopt(answer);
        retaught();
      }
      tell("marks");
    },
    undo: async () => {
      removed = await takeAway(`/${one.id}/examples/${mark.n}`);
      mark.gone = true;
      tell("marks");
    },
  });
  if (!done) photo.marks.splice(photo.marks.indexOf(mark), 1);
  tell("marks");
  return done;
}

/** Take an example back, as a step. `mark` is one of a photo's, or {one, n} for one that was given elsewhere. */
export function forget(mark) {
  const name = state.classes.get(mark.one.id)?.name ?? "";
  let removed;
  return run({
    what: t("step.example.remove", { name }),
    redo: async () => {
      removed = await takeAway(`/${mark.one.id}/examples/${mark.n}`);
      mark.gone = true;
      tell("marks");
    },
    undo: async () => {
      await bringBack(removed, mark.one, [mark]);
      mark.gone = false;
      tell("marks");
    },
  });
}

/** The examples of a class: [{n, at, negative, aside, added}]. */
export const examplesOf = async (id) => (await get(path(`/${id}`))).examples_list;

/** All classes as a file: a Blob. */
export const exported = async () => (await call(path("/export"))).blob();

/** Take a file of classes in, as a step: those that are here stay. Resolves to what is to be told of it, or null. */
export async function importFile(file) {
  const text = await file.text();
  let before, warnings = null;
  const put = async (body, values) => {
    const answer = await (await call(path("/import", values), { method: "PUT", body, headers: { "content-type": "application/json" } })).json();
    adopt(answer);
    retaught();
    return answer.warnings ?? [];
  };
  const done = await run({
    what: t("step.import", { name: file.name }),
    redo: async () => {
      before = await (await exported()).text();
      warnings = await put(text);
    },
    undo: () => put(before, { replace: "true" }),
  });
  return done ? warnings : null;
}

/** Show a class or not, in this browser alone. */
export function hide(id, gone) {
  if (gone) hidden.add(id);
  else hidden.delete(id);
  state.classes.set(id, { ...state.classes.get(id), hidden: gone });
  tell("classes", "photo");
}

/** Paint what was found, or what was taught. */
export function setOf(of) {
  if (state.of === of) return;
  set({ of, selection: new Set(), lit: null, preview: null }, "of", "selection", "look");
  announce(t(of === "classes" ? "of.classes.on" : "of.clusters.on"));
}

export function start() {
  for (const button of document.querySelectorAll("#side [data-of]")) button.onclick = () => setOf(button.dataset.of);
  on("of", show);
  follow(() => state.model && path(), news, () => known);
  on("models", () => {
    if (state.model === model) return;
    model = state.model;
    known = "";
    handles.clear();
    hidden.clear();
    for (const photo of state.photos) photo.marks = [];
    set({ classes: new Map(), classWarnings: [] }, "classes", "marks");
    refreshClasses().catch(() => {});
  });
  show();
}

function show() {
  for (const button of document.querySelectorAll("#side [data-of]")) button.setAttribute("aria-pressed", String(button.dataset.of === state.of));
  document.body.dataset.of = state.of;
}
