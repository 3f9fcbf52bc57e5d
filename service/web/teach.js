// The tool Teach, and what is shown in classes: name something, click it, see it change; where to click next.
import * as classes from "./classes.js";
import { $, announce, el, replaceKeepingFocus } from "./dom.js";
import { lettersCount } from "./keyboard.js";
import { surety } from "./legend.js";
import { groups, lookOfCluster } from "./names.js";
import { fail, say } from "./notice.js";
import { clearMarks, light, mark, onScreen } from "./photo.js";
import { answer, on, set, state, tell } from "./state.js";
import { number, percent, t } from "./strings.js";
import * as tools from "./tools.js";

let chosen = null; // the handle of the class that a click means
let not = false; // whether a click says that it is not that class
let open = null; // id of the class whose details are shown
let listed = null; // the examples of that class, once they are known
let waiting = null; // {photo, place, negative}: a place that was clicked before there was a class
const parts = {}; // of the panel, made once

const list = () => [...state.classes.values()];
const current = () => state.classes.get(chosen?.id);

/** What a click on the photo means from now on. */
export function choose(id) {
  chosen = classes.handle(id);
  if (state.tool === "teach") announce(t("teach.chosen", { name: current()?.name ?? "" }));
  tell("teach");
}

/** A place of the photo was pointed at; without a class it waits for a name. */
async function point(place, { alt }) {
  const negative = alt !== not, photo = state.current;
  if (!photo) return;
  if (current()) await give(chosen, photo, place, negative);
  else askFor(photo, place, negative);
}

/** Ask what is there: the answer is a name, or one of the classes. */
function askFor(photo, place, negative = false) {
  waiting = { photo, place, negative };
  tell("marks");
  say(t(state.classes.size ? "teach.which" : "teach.first"));
  parts.field.focus();
}

/** The place that waited is of the class that is chosen now. */
function answerWaiting() {
  const asked = waiting;
  waiting = null;
  return asked && give(chosen, asked.photo, asked.place, asked.negative);
}

async function give(one, photo, place, negative) {
  say("");
  const told = classes.teach(one, photo, place, { negative });
  if (await told) classes.setOf("classes");
}

/** Make the class that is named in the field, and teach it the place that waits. */
async function add(event) {
  event.preventDefault();
  const name = parts.field.value.trim();
  if (!name) return parts.field.focus();
  const same = list().find((one) => one.name === name);
  const one = same ? classes.handle(same.id) : await classes.create(name);
  if (!one) return;
  parts.field.value = "";
  choose(one.id);
  if (waiting) await answerWaiting();
  else if (state.current) $("labels").focus();
}

// The list of classes: what a click means, and the legend of what was taught.

function rows() {
  const field = document.activeElement;
  if (parts.list.contains(field) && field.dataset.typed === "true") return; // what is typed stays; the rows follow when it is done
  const found = state.of === "classes" ? new Map(groups().map((group) => [group.id, group])) : new Map();
  replaceKeepingFocus(parts.list, list().map((one, i) => row(one, i, found.get(one.id))));
  tell("rows");
  const rest = (state.of === "classes" && answer()?.unknown_fraction) || 0;
  parts.unknown.hidden = !rest;
  parts.unknown.textContent = t("teach.unknown", { percent: percent(rest) });
  parts.list.hidden = !state.classes.size;
}

function row(one, i, group) {
  const { id, name, color } = one;
  const pressed = chosen?.id === id && state.tool === "teach";
  const swatch = el("input", { type: "color", value: color, data: { key: `class-color-${id}` }, aria: { label: t("legend.color", { name }) } });
  swatch.onchange = () => classes.change(classes.handle(id), { color: swatch.value }, t("step.color", { name }));
  const label = el("button", {
    type: "button", class: "name", data: { key: `class-${id}` }, aria: { pressed: String(pressed), ...(i < 9 ? { keyshortcuts: i + 1 } : {}) },
    title: state.tool === "teach" ? t("teach.choose", { name }) : name,
  }, el("span", { class: "called", textContent: name }), i < 9 ? el("kbd", { textContent: i + 1, aria: { hidden: "true" } }) : null);
  label.onclick = () => {
    choose(id);
    if (waiting) answerWaiting();
    if (state.tool !== "teach") set({ selection: new Set([id]) }, "selection");
  };
  const more = el("button", {
    type: "button", class: "more", data: { key: `class-more-${id}` }, aria: { expanded: String(open === id), label: t("teach.more", { name }) },
    title: t("teach.more", { name }),
  }, "⋯");
  more.onclick = () => show(open === id ? null : id);
  const sure = group && surety(group.confidence);
  const item = el("li", { class: one.hidden ? "unseen" : "", data: { id } },
    el("div", { class: "row" }, el("canvas", { class: "thumbnail", width: 64, height: 64, aria: { hidden: "true" } }), swatch, label,
      el("span", { class: "given", title: given(one), textContent: one.examples + one.negatives ? number(one.examples + one.negatives) : "–", aria: { label: given(one) }, role: "img" }),
      el("span", { class: "much" }, ...(group ? [
        el("span", { class: "share", title: t("legend.share", { percent: percent(group.fraction) }), textContent: percent(group.fraction) }),
        el("span", { class: `sure ${sure}`, title: t(`legend.sure.${sure}.what`), textContent: t(`legend.sure.${sure}`) }),
      ] : [])),
      more),
    open === id ? details(one) : null);
  item.onpointerenter = () => state.of === "classes" && light(id);
  item.onpointerleave = () => state.of === "classes" && light(null);
  return item;
}

/** Show the details of a class; null: of none. */
function show(id) {
  open = id;
  listed = null;
  tell("teach");
  if (id !== null) learnExamples();
}

const given = (one) =>
  [
    t(one.examples === 1 ? "teach.examples.one" : "teach.examples", { count: number(one.examples) }),
    one.negatives ? t("teach.negatives", { count: number(one.negatives) }) : "",
    one.aside ? t("teach.aside", { count: number(one.aside) }) : "",
  ].filter(Boolean).join(", ");

// What else there is to a class: its name, whole groups that belong to it, its examples, the way out.

function details(one) {
  const { id, name } = one, handle = classes.handle(id);
  const field = el("input", { value: name, maxLength: 80, data: { key: `class-name-${id}` }, aria: { label: t("legend.name", { name }) } });
  const rename = () => {
    const now = field.value.trim();
    if (!now || now === name) field.value = name;
    else classes.change(handle, { name: now }, t("step.rename", { old: name, name: now })).then((done) => done || (field.value = name));
  };
  field.oninput = () => (field.dataset.typed = "true");
  field.onchange = () => {
    field.dataset.typed = "false";
    rename();
  };
  field.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Escape") Object.assign(field, { value: name }).dataset.typed = "false";
    if (event.key === "Enter") field.blur();
  };
  const hide = el("button", { type: "button", data: { key: `class-hide-${id}` }, aria: { pressed: String(one.hidden) }, textContent: t(one.hidden ? "teach.show" : "teach.hide") });
  hide.onclick = () => classes.hide(id, !one.hidden);
  const remove = el("button", { type: "button", class: "bad", data: { key: `class-remove-${id}` }, textContent: t("teach.remove") });
  remove.onclick = () => {
    if (open === id) open = null;
    classes.remove(handle);
  };
  return el("div", { class: "details" },
    el("label", { class: "field" }, el("span", { textContent: t("teach.name") }), field),
    el("fieldset", { class: "whole" }, el("legend", { textContent: t("teach.clusters") }), ...[...state.clusters.keys()].map((cluster) => belongs(one, cluster))),
    examples(one),
    el("div", { class: "buttons" }, hide, remove));
}

function belongs(one, cluster) {
  const { name, color } = lookOfCluster(cluster);
  const box = el("input", { type: "checkbox", checked: one.clusters.includes(cluster), data: { key: `class-${one.id}-of-${cluster}` } });
  box.onchange = () => include(one, [cluster], box.checked);
  return el("label", {}, box, el("span", { class: "dot", style: { "--color": color } }), name);
}

/** Say that whole groups belong to a class, or no more. */
async function include(one, ids, belong) {
  const clusters = belong ? [...new Set([...one.clusters, ...ids])].sort((a, b) => a - b) : one.clusters.filter((id) => !ids.includes(id));
  const group = ids.map((id) => lookOfCluster(id).name).join(", ");
  const done = await classes.change(classes.handle(one.id), { clusters }, t(belong ? "step.belongs" : "step.belongs.not", { group, name: one.name }));
  if (done) classes.setOf("classes");
}

async function learnExamples() {
  const id = open;
  try {
    const found = await classes.examplesOf(id);
    if (open !== id) return;
    listed = found;
    tell("teach");
  } catch (error) {
    fail(error);
  }
}

function examples(one) {
  if (!listed?.length) return null;
  const marks = (state.current?.marks ?? []).filter((mark) => mark.one.id === one.id && !mark.gone);
  const items = listed.map((example, i) => {
    const n = number(i + 1); // as people count; the server's numbers are never used twice
    const here = marks.find((mark) => mark.n === example.n);
    const words = t(example.aside ? "teach.example.aside" : example.negative ? "teach.example.not" : "teach.example", { n });
    const button = el("button", { type: "button", class: "small", data: { key: `example-${one.id}-${example.n}` }, textContent: t("teach.example.remove"), aria: { label: t("teach.example.remove.which", { n, name: one.name }) } });
    button.onclick = () => classes.forget(here ?? { one: classes.handle(one.id), n: example.n });
    return el("li", {}, el("span", { textContent: here ? t("teach.example.here", { what: words }) : words }), button);
  });
  return el("details", { class: "given-list", open: true }, el("summary", { textContent: given(one) }), el("ul", {}, ...items));
}

// Where to click next: the places that are decided least clearly.

const asked = () => (state.tool === "teach" && state.of === "classes" ? answer()?.suggestions ?? [] : []).filter(
  ({ between: [a, b] }) => a !== b && state.classes.has(a) && state.classes.has(b));

function suggestions() {
  const all = asked();
  parts.next.hidden = !all.length;
  replaceKeepingFocus(parts.places, all.map((place, i) => {
    const names = place.between.map((id) => state.classes.get(id).name);
    const item = el("li", {}, el("span", { class: "nth", textContent: i + 1, aria: { hidden: "true" } }),
      el("span", { class: "question", textContent: t("teach.between", { one: names[0], other: names[1] }) }), ...answers(place, i));
    item.onpointerenter = () => pointAt(i, true);
    item.onpointerleave = () => pointAt(i, false);
    item.addEventListener("focusin", () => pointAt(i, true));
    item.addEventListener("focusout", () => pointAt(i, false));
    return item;
  }));
}

/** The two buttons that answer a question. */
const answers = (place, i, where = "list") =>
  place.between.map((id, which) => {
    const { name, color } = state.classes.get(id);
    const button = el("button", {
      type: "button", class: "answer", data: { key: `${where}-${i}-${which}` }, aria: { label: t("teach.answer", { n: number(i + 1), name }) },
    }, el("span", { class: "dot", style: { "--color": color } }), el("span", { class: "called", textContent: name }));
    button.onclick = () => give(classes.handle(id), state.current, { x: place.x, y: place.y }, false);
    return button;
  });

const pointAt = (i, pointed) => $("marks").querySelector(`[data-key="place-${i}"]`)?.classList.toggle("pointed", pointed);

/** What was taught in this photo, and what is asked of it, as marks. */
function marks() {
  const held = document.activeElement?.closest?.("#marks") ? document.activeElement.dataset.key : null;
  for (const kind of ["example", "area", "suggestion"]) clearMarks(kind);
  if (state.tool !== "teach" || !state.current) return;
  for (const [i, one] of (state.current.marks ?? []).entries()) {
    const about = state.classes.get(one.one.id);
    if (one.gone || !about) continue;
    const { name, color } = about;
    const middle = one.width ? { x: one.x + (one.width - 1) / 2, y: one.y + (one.height - 1) / 2 } : one;
    if (one.width) mark("area", one.x, one.y, { color, width: one.width, height: one.height });
    const made = mark("example", middle.x, middle.y, {
      color, key: `mark-${i}`, label: t(one.negative ? "teach.mark.not" : "teach.mark", { name }),
      on: (event) => one.n !== null && !(one.fresh && event.detail) && classes.forget(one),
    });
    made.classList.toggle("fresh", Boolean(one.fresh));
    made.onpointerleave = settled;
    if (one.negative) made.classList.add("negative");
    if (one.n === null) made.classList.add("pending");
  }
  if (waiting && waiting.photo === state.current) mark("example", waiting.place.x, waiting.place.y, { text: "?", color: "#444444", width: waiting.place.width, height: waiting.place.height });
  for (const [i, place] of asked().entries()) question(place, i);
  if (held) $("marks").querySelector(`[data-key="${held}"]`)?.focus();
}

/** The pointer left the mark that its click made: from now on a click on that mark is meant for it. */
function settled() {
  for (const one of state.current?.marks ?? []) one.fresh = false;
  for (const one of $("marks").querySelectorAll(".fresh")) one.classList.remove("fresh");
}

/** A numbered mark; pointed at, it shows the two answers. */
function question(place, i) {
  const names = place.between.map((id) => state.classes.get(id).name);
  const holder = mark("suggestion", place.x, place.y, { key: `place-${i}` });
  const button = el("button", {
    type: "button", class: "nth", textContent: i + 1, data: { key: `ask-${i}` }, aria: { expanded: "false", label: t("teach.ask", { n: number(i + 1), one: names[0], other: names[1] }) },
  });
  const show = (shown) => {
    const { x, y } = onScreen(place.x, place.y), frame = $("view").getBoundingClientRect();
    holder.classList.toggle("before", x > frame.width / 2);
    holder.classList.toggle("above", y > frame.height - 90);
    holder.classList.toggle("open", shown);
    button.setAttribute("aria-expanded", String(shown));
  };
  button.onclick = () => show(!holder.classList.contains("open"));
  holder.onpointerenter = (event) => event.pointerType === "mouse" && show(true);
  holder.onpointerleave = (event) => event.pointerType === "mouse" && show(false);
  holder.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    show(false);
    button.focus();
  };
  holder.append(button, el("span", { class: "bubble" }, ...answers(place, i, "bubble")));
  holder.removeAttribute("title");
}

// The panel.

function make() {
  parts.how = el("p", { class: "how", textContent: t("teach.how") });
  parts.field = el("input", { id: "class-name", maxLength: 80, placeholder: t("teach.field"), autocomplete: "off", aria: { label: t("teach.field") } });
  parts.field.onkeydown = (event) => event.key !== "Escape" || (waiting = null, parts.field.value = "", tell("marks"), $("labels").focus());
  parts.form = el("form", { class: "new" }, parts.field, el("button", { textContent: t("teach.add") }));
  parts.form.onsubmit = add;
  parts.start = el("button", { type: "button", class: "primary", textContent: t("teach.start") });
  parts.start.onclick = () => tools.take("teach");
  parts.none = el("p", { class: "none", textContent: t("teach.none") });
  parts.list = el("ul", { class: "classes", aria: { label: t("teach.list") } });
  parts.unknown = el("p", { class: "soft" });
  parts.not = el("button", { type: "button", title: t("teach.not.what"), textContent: t("teach.not") });
  parts.not.onclick = () => {
    not = !not;
    tell("teach");
  };
  parts.means = el("span", { class: "means" });
  parts.click = el("p", { class: "click" }, parts.means, parts.not);
  parts.group = el("div", { class: "buttons" });
  parts.hint = el("p", { class: "soft" });
  parts.places = el("ol", { class: "places" });
  parts.next = el("section", { aria: { label: t("teach.next") } }, el("h2", { textContent: t("teach.next") }), parts.places);
  parts.warnings = el("p", { class: "soft" });
  const pick = el("input", { type: "file", class: "hidden-text", accept: ".json,application/json", aria: { label: t("teach.import") }, tabIndex: -1 });
  pick.onchange = async () => {
    const [file] = pick.files;
    pick.value = "";
    const warnings = file ? await classes.importFile(file) : null;
    if (warnings) say([t("teach.imported", { name: file.name }), ...warnings].join(" "));
  };
  const take = el("button", { type: "button", class: "small", textContent: t("teach.import") });
  take.onclick = () => pick.click();
  const save = el("button", { type: "button", class: "small", textContent: t("teach.export") });
  save.onclick = () => exportAll().catch(fail);
  parts.save = save;
  parts.foot = el("p", { class: "foot" }, el("span", { textContent: t("teach.shared") }), save, take, pick);
  $("teach").append(parts.how, parts.none, parts.start, parts.form, parts.list, parts.unknown, parts.click, parts.group, parts.hint, parts.next, parts.warnings, parts.foot);
}

async function exportAll() {
  const url = URL.createObjectURL(await classes.exported());
  const link = el("a", { href: url, download: `classes-${state.model.split("@")[0]}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function panel() {
  const teaching = state.tool === "teach", inClasses = state.of === "classes", any = state.classes.size > 0;
  $("teach").hidden = !teaching && !inClasses;
  if ($("teach").hidden) return;
  if (!current()) chosen = any && teaching ? classes.handle(list().at(-1).id) : null;
  const examples = list().reduce((sum, one) => sum + one.examples, 0);
  parts.how.hidden = !teaching || examples > 2;
  parts.none.hidden = teaching || any;
  parts.start.hidden = teaching;
  parts.form.hidden = !teaching;
  parts.click.hidden = !teaching || !current();
  parts.means.textContent = current() ? t(not ? "teach.means.not" : "teach.means", { name: current().name }) : "";
  parts.not.setAttribute("aria-pressed", String(not));
  const hint = !any ? "" : !classes.isTaught() ? t("teach.hint.click") : state.classes.size < 2 ? t("teach.hint.second") : "";
  parts.hint.textContent = teaching ? hint : "";
  parts.hint.hidden = !parts.hint.textContent;
  parts.warnings.textContent = state.classWarnings.join(" ");
  parts.warnings.hidden = !state.classWarnings.length;
  parts.save.hidden = !any;
  rows();
  groupsAre();
  suggestions();
}

/** Groups that are selected among what was found can belong to the class as they are. */
function groupsAre() {
  const selected = state.of === "clusters" && state.tool === "teach" && current() ? [...state.selection] : [];
  parts.group.hidden = !selected.length;
  if (!selected.length) return parts.group.replaceChildren();
  const members = groups().filter((group) => state.selection.has(group.id)).flatMap((group) => group.members);
  const button = el("button", { type: "button", data: { key: "group-is" }, textContent: t(selected.length === 1 ? "teach.group" : "teach.groups", { name: current().name }) });
  button.onclick = () => include(current(), members, true);
  replaceKeepingFocus(parts.group, [button]);
}

/** T in Teach leads to the name of a new class; in classes N names the one in use, and H hides it. */
function byLetter(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, dialog") ) return;
  if (state.tool === "teach" && event.key.toLowerCase() === "t") {
    event.preventDefault();
    event.stopImmediatePropagation();
    return parts.field.focus();
  }
  if (state.of !== "classes") return;
  const row = event.target.closest?.(".classes > li");
  const one = row ? state.classes.get(Number(row.dataset.id)) : current();
  const key = event.key.toLowerCase();
  if (!one || !["n", "f2", "h"].includes(key)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (key === "h") return classes.hide(one.id, !one.hidden);
  show(one.id);
  panel();
  parts.list.querySelector(`[data-key="class-name-${one.id}"]`)?.select();
}

export const tool = {
  click: point,
  box: point,
  number: (n) => list()[n - 1] && choose(list()[n - 1].id),
  under: () => {
    const one = current();
    return one ? t(not ? "teach.under.not" : "teach.under", { name: one.name }) : t("teach.under.none");
  },
  enter: () => {
    if (classes.isTaught()) classes.setOf("classes");
    if (!state.classes.size) parts.field.focus({ preventScroll: true });
    const place = state.example;
    state.example = null;
    if (place && state.current) askFor(state.current, place);
  },
  leave: () => {
    waiting = null;
  },
};

export function start() {
  make();
  on("classes", () => open !== null && (state.classes.has(open) ? learnExamples() : (open = null)));
  on("teach classes clusters photo of tool selection", panel);
  on("marks classes photo of tool", marks);
  on("lit", () => {
    for (const one of parts.list.children) one.classList.toggle("lit", state.of === "classes" && Number(one.dataset.id) === state.lit);
  });
  $("labels").addEventListener("pointermove", settled);
  addEventListener("keydown", byLetter, { capture: true });
  panel();
  marks();
}
