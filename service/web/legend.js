// The rows beside the photo: what is there, how much of it, how sure; renaming, recoloring, hiding, ticking, merging.
import { $, el, replaceKeepingFocus } from "./dom.js";
import { joinable, run, undo } from "./history.js";
import { mergeAsStep, namesake, partsOf, survivor, takeApart } from "./merging.js";
import { changeAsStep, defaultName, groups, isLocal, lookOfCluster, setLocal, shownAs } from "./names.js";
import { say } from "./notice.js";
import { light } from "./photo.js";
import { on, set, state, tell } from "./state.js";
import { recall, store } from "./storage.js";
import { list, percent, t } from "./strings.js";

// Mean margin of a group's pixels from which it counts as such. Of the groups that the embedded default finds in street
// photos about a quarter is clear, and a quarter unsure; the surer, the more often a group is what it mostly is.
const CLEAR = 0.25, FAIR = 0.08;
const LONGEST = 80; // letters of a name
const KNOWN = "tessera.known"; // stored: what people have done once, so that they need not be told how

/** How sure an answer is of a group, in a word: clear, fair or unsure. */
export const surety = (confidence) => (confidence >= CLEAR ? "clear" : confidence >= FAIR ? "fair" : "unsure");

let editing = null; // {photo, finish}: a name that is being typed
let question = null; // {photo, group, name, other}: two groups are to be called the same
let shown = null; // what the rows were made of

/** The groups in the order of the rows. */
export const rows = () => (state.of === "clusters" ? groups() : []);

const button = (key, id) => $("legend").querySelector(`[data-key="${key}-${id}"]`);

/** Put the focus on a group's name. */
export const focusOn = (id) => button("name", id)?.focus();

function show() {
  if (editing) {
    if (editing.photo === state.current) return; // what is typed stays; the rows follow when it is done
    editing.finish(true);
  }
  if (question && question.photo !== state.current) keepApart();
  const all = rows(), table = shownAs({ preview: null });
  const now = JSON.stringify([state.current?.id, state.current?.page, all, all.map((group) => partsOf(group, table)), question && [question.group.id, question.name]]);
  if (now !== shown) {
    const items = all.map(row);
    const at = question ? all.findIndex((group) => group.id === question.group.id) : -1;
    if (at >= 0) items.splice(at + 1, 0, asked());
    replaceKeepingFocus($("legend"), items);
    highlight();
    tell("rows");
  }
  shown = now;
  const { error, name } = state.current ?? {}, nothing = state.of === "clusters" && Boolean(error) && !all.length;
  $("legend-head").hidden = $("shared-hint").hidden = nothing;
  $("nothing").hidden = !nothing;
  tellHow();
  $("nothing").textContent = t("legend.failed", { name });
  offerMerge();
}

function row(group) {
  const { id, name, color, hidden, fraction, confidence } = group;
  const tick = el("input", { type: "checkbox", class: "tick", checked: state.selection.has(id), data: { key: `tick-${id}` }, aria: { label: t("legend.select", { name }) } });
  tick.onchange = () => {
    const selection = new Set(state.selection);
    if (tick.checked) selection.add(id);
    else selection.delete(id);
    set({ selection }, "selection");
  };
  const swatch = el("input", { type: "color", class: "swatch", value: color, title: t("legend.color", { name }), data: { key: `color-${id}` }, aria: { label: t("legend.color", { name }) } });
  swatch.onchange = () => changeAsStep(t("step.color", { name }), [[id, { color: swatch.value }]]);
  const label = el("button", { type: "button", class: "name", textContent: name, title: t("legend.rename", { name }), data: { key: `name-${id}` } });
  label.onclick = () => rename(group);
  const eye = el("button", { type: "button", class: "eye", title: t(hidden ? "legend.show" : "legend.hide", { name }), aria: { pressed: String(hidden), label: t(hidden ? "legend.show" : "legend.hide", { name }) }, data: { key: `eye-${id}` } });
  eye.onclick = () => hide(group);
  const sure = surety(confidence);
  const much = el("span", { class: "much" },
    el("span", { class: "share", textContent: percent(fraction), title: t("legend.share", { percent: percent(fraction) }) }),
    el("span", { class: `sure ${sure}`, textContent: t(`legend.sure.${sure}`), title: t(`legend.sure.${sure}.what`) }));
  const place = el("label", { class: "place" }, tick, el("canvas", { class: "thumbnail", width: 64, height: 64, aria: { hidden: "true" } }));
  const item = el("li", { class: hidden ? "unseen" : "", data: { id } }, place, swatch, el("span", { class: "naming" }, label), much, eye, joined(group));
  item.onpointerenter = item.onfocus = () => light(id);
  item.onpointerleave = () => light(null);
  item.addEventListener("focusin", () => light(id));
  item.addEventListener("focusout", () => light(null));
  return item;
}

/** What else is in a group; what was merged by hand can be taken apart. */
function joined(group) {
  const { id, name } = group;
  const table = shownAs({ preview: null }), parts = partsOf(group);
  const others = [...state.clusters.keys()].filter((one) => table[one] === id && one !== id);
  if (!others.length) return null;
  const split = parts.length ? undefined : splitting(group.id);
  const called = list(others.map((one) => lookOfCluster(one).name));
  const apart = el("button", { type: "button", class: "apart", textContent: t("legend.apart"), aria: { label: t("legend.apart.of", { name }) }, title: t("legend.apart.what", { name, names: called }), data: { key: `apart-${id}` } });
  apart.onclick = () => (split ? setLevel(split.k, t("step.apart", { name })) : takeApart(group)).then(() => focusOn(id));
  return el("span", { class: "joined" }, el("span", { class: "with", textContent: t("legend.with", { names: called }), title: called }), parts.length || split ? apart : null);
}

/** The level {k} that is the next where a group of this level falls apart, null being all. */
function splitting(id) {
  const now = shownAs({ preview: null }), inside = [...state.clusters.keys()].filter((one) => now[one] === id);
  const levels = [...state.tree.map((merge) => merge.k).filter((k) => k > (state.k ?? Infinity)).sort((a, b) => a - b), null];
  return levels.map((k) => ({ k, table: shownAs({ k, preview: null }) })).find(({ table }) => new Set(inside.map((one) => table[one])).size > 1);
}

/** Hide a group, or show it again. */
export const hide = ({ id, name, hidden }) => changeAsStep(t(hidden ? "step.show" : "step.hide", { name }), [[id, { hidden: !hidden }]]);

/**
 * Put a field in the place of a name. Enter and leaving it keep what was typed, Esc does not; nothing typed: the default name.
 *
 * label  that the field stands for;  value  it begins with;  joins  how the step before is called with this name, if it is its end;
 * failed  whether that could not be sent: it waits there until it is sent again, or something else is done;  focus  whether it takes the focus
 */
export function rename(group, { label, value = group.name, joins, failed = false, focus = true } = {}) {
  editing?.finish(true);
  label ??= button("name", group.id);
  const own = defaultName(group.id), spot = label?.classList.contains("name") ? undefined : label;
  if (!label) return;
  const field = el("input", { class: "name", value, placeholder: own, autocomplete: "off", enterKeyHint: "done", aria: { label: t("legend.name", { name: group.name }) } });
  const back = group.name === own ? null : el("button", { type: "button", class: "default", textContent: "↺", title: t("legend.default", { name: own }), aria: { label: t("legend.default", { name: own }) } });
  const box = el("span", { class: "editor" }, field, back);
  const finish = (keep, name = field.value.trim()) => {
    if (editing?.box !== box) return;
    if (keep && name.length > LONGEST && editing.photo === state.current) {
      field.setAttribute("aria-invalid", "true");
      return say(t("legend.long", { most: LONGEST, count: name.length }), { bad: true });
    }
    const held = box.contains(document.activeElement);
    editing = null;
    box.replaceWith(label);
    if (held) label.focus();
    if (keep && name.length <= LONGEST) callIt(group, name, joins).then((done) => done || again(name, held));
    show();
  };
  const again = (typed, focus) => { // what could not be sent is not lost
    const now = rows().find((one) => one.id === group.id), free = !typing() && !editing;
    if (now?.name === group.name && free) rename(now, { label: spot?.isConnected ? spot : undefined, value: typed, joins, failed: true, focus });
  };
  editing = { photo: state.current, box, finish, joins, failed };
  if (failed) field.setAttribute("aria-invalid", "true");
  if (back) back.onclick = () => finish(true, "");
  box.onkeydown = (event) => {
    event.stopPropagation();
    if (joins && event.key === "z" && (event.ctrlKey || event.metaKey) && field.value === value) {
      event.preventDefault(); // nothing was typed: what is to be undone is the step before
      finish(false);
      return undo();
    }
    if (event.isComposing || event.target !== field || !["Enter", "Escape"].includes(event.key)) {
      if (event.key === "Escape") finish(false);
      return;
    }
    event.preventDefault(); // Enter is not a click on the name that gets the focus
    finish(event.key === "Enter");
  };
  box.addEventListener("focusout", (event) => {
    if (box.contains(event.relatedTarget) || box.contains(document.activeElement)) return; // also: another window is in front
    if (failed && field.value === value) return;
    finish(true);
  });
  label.replaceWith(box);
  if (!focus) return;
  field.focus();
  field.select();
}

/** Whether something is typed, or a dialog is open. */
const typing = () => Boolean(document.activeElement?.closest("input:not([type=checkbox], [type=radio], [type=range]), textarea, dialog"));

/** Call a group something; "" is its default name. Where another is called so, people are asked. Resolves to whether it was not refused. */
async function callIt(group, name, joins) {
  if (name === group.name || (!name && group.name === defaultName(group.id))) return true;
  const other = name ? namesake(name, group, rows()) : undefined;
  if (!other) return renameAsStep(group, name, joins);
  question = { photo: state.current, group, name: other.name, typed: name, other };
  show();
  $("legend").querySelector('[data-key="same-merge"]')?.focus();
  return true;
}

async function renameAsStep(group, name, joins) {
  const called = name || defaultName(group.id), more = joins ? { joins: joins(called) } : {};
  const done = await changeAsStep(t("step.rename", { old: group.name, name: called }), [[group.id, { name: name || null }]], more);
  if (done) know("rename");
  return done;
}

/** People have done something once: they need not be told how any more. */
function know(what) {
  store(KNOWN, [...new Set([...(recall(KNOWN) ?? "").split(" "), what])].join(" ").trim());
  tellHow();
}

const tellHow = () => ($("legend-how").hidden = $("legend-head").hidden || ["rename", "merge"].every((what) => (recall(KNOWN) ?? "").split(" ").includes(what)));

/** Two groups are to be called the same: are they? */
function asked() {
  const { group, name, other } = question;
  const yes = el("button", { type: "button", class: "main", textContent: t("same.merge"), data: { key: "same-merge" } });
  const no = el("button", { type: "button", textContent: t("same.apart"), data: { key: "same-apart" } });
  yes.onclick = () => {
    question = null;
    const into = group.pixels > other.pixels ? group : other;
    mergeAsStep([group, other], { into, name }).then(() => focusOn(into.id));
    show();
  };
  no.onclick = () => keepApart();
  const what = t("same.what", { name });
  const item = el("li", {}, el("div", { class: "question", role: "group", aria: { label: what } }, el("span", { textContent: what }), yes, no));
  item.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    question = null;
    show();
    focusOn(group.id);
  };
  return item;
}

/** Both are called so, and stay two. */
function keepApart() {
  const { group, typed } = question;
  question = null;
  renameAsStep(group, typed);
  show();
  focusOn(group.id);
}

/** The button that merges what is ticked. */
function offerMerge() {
  const chosen = rows().filter((group) => state.selection.has(group.id));
  const merge = $("merge");
  if (merge.hidden !== chosen.length < 2 && document.activeElement === merge) focusOn(chosen[0]?.id);
  merge.hidden = chosen.length < 2;
  if (merge.hidden) return;
  const { name } = survivor(chosen);
  merge.textContent = t("merge.button", { count: chosen.length, name });
  merge.title = t("merge.what", { names: list(chosen.map((group) => group.name)), name });
}

/** Merge what is ticked, and have it named: `name(group, {joins})` shows a field; what is typed there is the same step. */
export async function merge(name = rename) {
  const chosen = rows().filter((group) => state.selection.has(group.id));
  if (chosen.length < 2) return say(t(rows().length === 1 ? "merge.one" : "merge.which"));
  const { id } = survivor(chosen);
  if (!(await mergeAsStep(chosen))) return;
  know("merge");
  set({ selection: new Set() }, "selection");
  const group = rows().find((one) => one.id === id), names = list(chosen.filter((one) => one.id !== id).map((one) => one.name));
  if (group && joinable()) name(group, { joins: (called) => t("step.merge", { names, name: called }) });
}

function highlight() {
  for (const one of $("legend").querySelectorAll("li[data-id]")) {
    const id = Number(one.dataset.id);
    one.classList.toggle("lit", id === state.lit);
    one.querySelector(".tick").checked = state.selection.has(id);
  }
}

/** Show fewer groups, or all again: a step, although nobody else sees it. */
export function setLevel(k, words) {
  const old = state.k;
  const to = (level) => () => set({ k: level, preview: null }, "look");
  return run({ look: "level", what: words, redo: to(k), undo: to(old) });
}

/** Who sees what is called how. */
function tellScope() {
  const local = isLocal();
  $("scope").value = local ? "local" : "shared";
  $("scope").title = $("shared-hint").title = t(local ? "scope.local.title" : "scope.shared.title");
  $("shared-hint").replaceChildren(t(local ? "scope.local.what" : "scope.shared.what"), " ",
    el("button", { type: "button", class: "link", textContent: t(local ? "scope.to-shared" : "scope.to-local"), data: { key: "scope" }, onclick: () => setLocal(!local).then(() => $("shared-hint").querySelector("button").focus()) }));
}

export function start() {
  on("photo clusters classes look of models", show);
  on("selection lit", highlight);
  on("selection", () => {
    offerMerge();
    const [id] = state.selection;
    if (state.selection.size === 1) $("legend").querySelector(`li[data-id="${id}"]`)?.scrollIntoView({ block: "nearest" });
  });
  on("clusters", tellScope);
  on("history", () => {
    const undone = editing?.joins && !joinable(), left = editing?.failed && !editing.box.contains(document.activeElement);
    if (undone || left) editing.finish(false);
  });
  $("merge").onclick = () => merge();
  tellHow();
  $("scope").onchange = () => setLocal($("scope").value === "local");
  tellScope();
}
