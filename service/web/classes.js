// Classes that people teach by a few places: the server's, which everybody on it shares. What is said of them: teaching.js.
import { get, query } from "./api.js";
import { announce } from "./dom.js";
import { follow } from "./following.js";
import { refresh } from "./segmenting.js";
import { on, set, state, tell } from "./state.js";
import { recall, store } from "./storage.js";
import { t } from "./strings.js";

const LATELY = "tessera.of"; // kept by this browser: whose words were shown last
const handles = new Map(); // id → {id}: what steps hold on to, as a class that was brought back may have another id
const hidden = new Set(); // ids, of this browser alone
let known = ""; // the server's last list, as text
let model = ""; // whose classes these are

/** The path of the model's classes, or of something about them. */
export const path = (more = "", values = {}) => query(`classes${more}`, { model: state.model, ...values });

/** The handle of a class: {id}, the same as long as the class lives, and after it was brought back. */
export function handle(id) {
  if (!handles.has(id)) handles.set(id, { id });
  return handles.get(id);
}

/** A class that was brought back goes on with the handle it had. */
export function hold(one, id) {
  one.id = id;
  handles.set(id, one);
}

/** Whether any pixel could be of a class: one has a cluster, or an example in use. */
export const isTaught = () => [...state.classes.values()].some(speaks);

/** Whether a class has a cluster, or an example in use: where none has, no pixel is it. */
export const speaks = (one) => one.clusters.length > 0 || one.examples > 0;

/** How many were taught by examples, not only taken over from what was found. */
export const taughtByExample = () => [...state.classes.values()].filter((one) => one.examples > 0).length;

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
export function adopt(list) {
  const text = JSON.stringify(list.classes);
  if (text === known) return;
  known = text;
  const classes = new Map(list.classes.map((one) => [one.id, { ...one, hidden: hidden.has(one.id), into: null }]));
  for (const id of handles.keys()) if (!classes.has(id)) handles.delete(id);
  const first = !state.classes.size;
  set({ classes, classWarnings: list.warnings ?? [] }, "classes");
  if (first && isTaught() && recall(LATELY) === "classes") setOf("classes");
}

/** What was painted in classes is not what would be now. */
export function retaught() {
  for (const photo of state.photos) if (photo !== state.current) photo.classAnswer = null;
  if (state.current && (state.of === "clusters" || !isTaught())) state.current.classAnswer = null;
  tell("photo", "photos");
  if (state.of === "classes" && isTaught()) refresh();
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
  store(LATELY, of);
  set({ of, selection: new Set(), lit: null, preview: null }, "of", "selection", "look");
  announce(t(of === "classes" ? "of.classes.on" : "of.clusters.on"));
}

export function start() {
  for (const button of document.querySelectorAll("#side [data-of]")) button.onclick = () => setOf(button.dataset.of);
  on("of classes", show);
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
  const count = taughtByExample();
  document.querySelector("#side [data-of=classes]").textContent = count ? t("of.classes.some", { count }) : t("of.classes");
  document.body.dataset.of = state.of;
}
