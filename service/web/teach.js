// The tool Teach, and what is shown in classes: name something, click it, see it change; where to click next.
import * as classes from "./classes.js";
import { $, announce, el, replaceKeepingFocus } from "./dom.js";
import { lettersCount } from "./keyboard.js";
import { surety } from "./legend.js";
import { defaultName, groups, look, lookOfCluster } from "./names.js";
import { fail, say, unsay } from "./notice.js";
import { clearMarks, light, mark, onScreen } from "./photo.js";
import { answer, on, set, state, tell } from "./state.js";
import { number, percent, t } from "./strings.js";
import * as teaching from "./teaching.js";
import * as tools from "./tools.js";

let chosen = null; // the handle of the class that a click means
let not = false; // whether a click says that it is not that class
let bare = false; // whether the first class is made beside nothing, not beside what was found
let open = null; // id of the class whose details are shown
let listed = null; // the examples of that class, once they are known
let naming = null; // id of the class whose name is typed in its row
let same = null; // {id, other}: two classes are to be called the same
let waiting = null; // {photo, place, negative}: a place that was clicked before there was a class
let taught = false; // whether anything was when the panel was last made
let order = { of: "", ids: [] }; // of the rows
const parts = {}; // of the panel, made once

const list = () => [...state.classes.values()];
const current = () => state.classes.get(chosen?.id);
const called = (name) => list().find((one) => one.name.toLocaleLowerCase() === name.toLocaleLowerCase());

/** Whether a place can be said not to be a class: where there is no other it could be nothing else. */
const canBeNot = () => list().filter(classes.speaks).length > 1;

/** Whether nobody named a class: it is called as the cluster that it was found as. */
const unnamed = ({ name, clusters }) => /^cluster \d+$/i.test(name) && clusters.some((id) => defaultName(id) === name);

/** What a click on the photo means from now on. */
export function choose(id) {
  if (chosen?.id !== id) not = false;
  chosen = classes.handle(id);
  if (state.tool === "teach") announce(t("teach.chosen", { name: current()?.name ?? "" }));
  tell("teach");
}

/** A place of the photo was pointed at; without a class it waits for a name. */
async function point(place, { alt }) {
  const negative = alt !== not, photo = state.current;
  if (!photo) return;
  if (negative && !canBeNot()) return say(t("teach.not.early"));
  if (current()) await give(chosen, photo, place, negative);
  else askFor(photo, place, negative);
}

/** Ask what is there: the answer is a name, or one of the classes. */
function askFor(photo, place, negative = false) {
  waiting = { photo, place, negative };
  tell("marks");
  say(asks(), { lasting: true });
  parts.field.focus();
}

const asks = () => t(state.classes.size ? "teach.which" : "teach.first");

/** Nothing is asked any more. */
function unask() {
  if (!waiting) return;
  waiting = null;
  unsay(t("teach.which"));
  unsay(t("teach.first"));
  tell("marks");
}

/** The place that waited is of the class that is chosen now. */
function answerWaiting() {
  const asked = waiting;
  unask();
  return asked && give(chosen, asked.photo, asked.place, asked.negative);
}

async function give(one, photo, place, negative) {
  say("");
  const told = teaching.teach(one, photo, place, { negative });
  if (await told) classes.setOf("classes");
}

/** Make the class that is named in the field, and teach it the place that waits; the first one beside what was found. */
async function add(event) {
  event.preventDefault();
  const name = parts.field.value.trim();
  if (!name) return parts.field.focus();
  const same = called(name);
  const one = same ? classes.handle(same.id) : await teaching.make(name, { found: !state.classes.size && !bare });
  if (!one) return;
  parts.field.value = "";
  not = false;
  choose(one.id);
  if (waiting) await answerWaiting();
  else if (state.current) $("labels").focus();
}

/** What was found becomes classes. */
async function begin() {
  bare = false;
  if (await teaching.make(null, { found: true })) classes.setOf("classes");
}

// The list of classes: what a click means, and the legend of what was taught.

function rows() {
  const field = document.activeElement;
  if ($("teach").contains(field) && field.dataset.typed === "true") return; // what is typed stays; the rows follow when it is done
  const found = state.of === "classes" ? new Map(groups().map((group) => [group.id, group])) : new Map();
  const all = inOrder(found), far = all.filter((one) => found.size && unnamed(one) && !found.has(one.id) && one.id !== chosen?.id && one.id !== open);
  const near = all.filter((one) => !far.includes(one));
  replaceKeepingFocus(parts.list, near.flatMap((one, i) => [row(one, i, found.get(one.id)), asked(one)].filter(Boolean)));
  replaceKeepingFocus(parts.far, far.map((one, i) => row(one, near.length + i)));
  parts.farther.hidden = !far.length;
  parts.farther.firstChild.textContent = t(far.length === 1 ? "teach.far.one" : "teach.far", { count: number(far.length) });
  tell("rows");
  const rest = (state.of === "classes" && answer()?.unknown_fraction) || 0;
  parts.unknown.hidden = !rest;
  parts.unknown.textContent = t("teach.unknown", { percent: percent(rest) });
  parts.list.hidden = !state.classes.size;
}

/**
 * The classes as the rows have them: those of people's own words, those that were named where they were found, the others,
 * these two by how much of the photo is them. Rows stay where they are while a photo is taught.
 */
function inOrder(found) {
  const rank = (one) => (one.examples + one.negatives || !one.clusters.length ? 0 : unnamed(one) ? 2 : 1);
  const of = JSON.stringify([state.current?.id, state.current?.page, found.size > 0, list().map((one) => [one.id, rank(one)])]);
  if (of !== order.of) {
    const share = (one) => (rank(one) && found.get(one.id)?.fraction) || 0;
    order = { of, ids: list().sort((a, b) => rank(a) - rank(b) || share(b) - share(a) || a.id - b.id).map((one) => one.id) };
  }
  return order.ids.map((id) => state.classes.get(id)).filter(Boolean);
}

/** Call a class something. Where another is called so, people are asked whether it is the same thing. */
function callIt(one, name) {
  const other = name && called(name);
  if (!name || name === one.name) return;
  if (!other || other.id === one.id) return teaching.change(classes.handle(one.id), { name }, t("step.rename", { old: one.name, name }));
  same = { id: one.id, other: other.id };
  panel();
  parts.list.querySelector('[data-key="class-join"]')?.focus();
}

function asked(one) {
  const other = state.classes.get(same?.other);
  if (same?.id !== one.id || !other) return null;
  const what = t("same.what", { name: other.name });
  const done = (work) => () => {
    same = null;
    panel();
    work?.();
  };
  const yes = el("button", { type: "button", class: "main", textContent: t("same.merge"), data: { key: "class-join" } });
  const no = el("button", { type: "button", textContent: t("teach.same.no"), data: { key: "class-apart" } });
  yes.onclick = done(() => {
    const into = classes.handle(other.id);
    teaching.join(classes.handle(one.id), into).then((joined) => joined && choose(into.id));
  });
  no.onclick = done(() => nameOf(one.id)?.focus());
  const item = el("li", {}, el("div", { class: "question", role: "group", aria: { label: what } }, el("span", { textContent: what }), yes, no));
  item.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    no.onclick();
  };
  return item;
}

const nameOf = (id) => $("teach").querySelector(`[data-key="class-${id}"]`);

/** A field for a class's name. Enter and leaving it keep what was typed, Esc does not. */
function nameField(one, key, done = () => {}) {
  const field = el("input", { value: one.name, maxLength: 80, autocomplete: "off", enterKeyHint: "done", data: { key }, aria: { label: t("legend.name", { name: one.name }) } });
  const finish = (name) => {
    if (field.dataset.typed === "done") return;
    field.dataset.typed = "done";
    done();
    callIt(one, name);
  };
  field.onfocus = field.oninput = () => (field.dataset.typed = "true");
  field.onblur = () => finish(field.value.trim());
  field.onkeydown = (event) => {
    event.stopPropagation();
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Escape") field.value = one.name;
    finish(field.value.trim());
    field.blur();
    setTimeout(() => same || nameOf(one.id)?.focus());
  };
  return field;
}

function row(one, i, group) {
  const { id, name, color } = one;
  const pressed = chosen?.id === id && state.tool === "teach";
  const swatch = el("input", { type: "color", value: color, data: { key: `class-color-${id}` }, aria: { label: t("legend.color", { name }) } });
  swatch.onchange = () => teaching.change(classes.handle(id), { color: swatch.value }, t("step.color", { name }));
  const label = el("button", {
    type: "button", class: "name", data: { key: `class-${id}` }, aria: { pressed: String(pressed), ...(i < 9 ? { keyshortcuts: i + 1 } : {}) },
    title: unnamed(one) ? t("legend.rename", { name }) : state.tool === "teach" ? t("teach.choose", { name }) : name,
  }, el("span", { class: "called", textContent: name }), i < 9 ? el("kbd", { textContent: i + 1, aria: { hidden: "true" } }) : null);
  label.onclick = () => {
    const asking = Boolean(waiting);
    if (unnamed(one) && !asking) naming = id;
    choose(id);
    if (asking) answerWaiting();
    if (naming === id) {
      panel();
      $("teach").querySelector(`[data-key="class-typed-${id}"]`)?.select();
    }
    if (state.tool !== "teach") set({ selection: new Set([id]) }, "selection");
  };
  const more = el("button", {
    type: "button", class: "more", data: { key: `class-more-${id}` }, aria: { expanded: String(open === id), label: t("teach.more", { name }) },
    title: t("teach.more", { name }),
  }, "⋯");
  more.onclick = () => show(open === id ? null : id);
  const typed = naming === id ? nameField(one, `class-typed-${id}`, () => {
    naming = null;
    tell("teach");
  }) : null;
  const shows = one.examples + one.negatives ? number(one.examples + one.negatives) : one.clusters.length ? "" : "–";
  const sure = group && surety(group.confidence);
  const item = el("li", { class: one.hidden ? "unseen" : "", data: { id } },
    el("div", { class: "row" }, el("canvas", { class: "thumbnail", width: 64, height: 64, aria: { hidden: "true" } }), swatch, typed ?? label,
      el("span", { class: shows ? "given" : "", title: given(one), textContent: shows, aria: { label: given(one) }, role: "img" }),
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
    one.clusters.length && !one.examples ? t("teach.found.as") : t(one.examples === 1 ? "teach.examples.one" : "teach.examples", { count: number(one.examples) }),
    one.negatives ? t("teach.negatives", { count: number(one.negatives) }) : "",
    one.aside ? t("teach.aside", { count: number(one.aside) }) : "",
  ].filter(Boolean).join(", ");

// What else there is to a class: its name, whole groups that belong to it, its examples, the way out.

function details(one) {
  const { id, name } = one, handle = classes.handle(id);
  const field = nameField(one, `class-name-${id}`);
  const hide = el("button", { type: "button", data: { key: `class-hide-${id}` }, aria: { pressed: String(one.hidden) }, textContent: t(one.hidden ? "teach.show" : "teach.hide") });
  hide.onclick = () => classes.hide(id, !one.hidden);
  const remove = el("button", { type: "button", class: "bad", data: { key: `class-remove-${id}` }, textContent: t("teach.remove") });
  remove.onclick = () => {
    if (open === id) open = null;
    teaching.remove(handle);
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
  const done = await teaching.change(classes.handle(one.id), { clusters }, t(belong ? "step.belongs" : "step.belongs.not", { group, name: one.name }));
  if (done) classes.setOf("classes");
}

async function learnExamples() {
  const id = open;
  try {
    const found = await teaching.examplesOf(id);
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
    button.onclick = () => teaching.forget(here ?? { one: classes.handle(one.id), n: example.n });
    return el("li", {}, el("span", { textContent: here ? t("teach.example.here", { what: words }) : words }), button);
  });
  return el("details", { class: "given-list", open: true }, el("summary", { textContent: given(one) }), el("ul", {}, ...items));
}

// Where to click next: the places that are decided least clearly.

const APART_PX = 28; // on the screen, between a question's mark and that of an example: both can be hit

const places = () => (state.tool === "teach" && state.of === "classes" ? answer()?.suggestions ?? [] : []).filter(
  ({ x, y, between: [a, b] }) => a !== b && state.classes.has(a) && state.classes.has(b) && !isTaughtAt(onScreen(x, y)));

const isTaughtAt = (at) => (state.current.marks ?? []).some((one) => {
  const { x, y } = onScreen(...Object.values(middleOf(one)));
  return !one.gone && state.classes.has(one.one.id) && Math.hypot(x - at.x, y - at.y) < APART_PX;
});

const middleOf = ({ x, y, width, height }) => (width ? { x: x + (width - 1) / 2, y: y + (height - 1) / 2 } : { x, y });

function suggestions() {
  const all = places();
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
    const middle = middleOf(one);
    if (one.width) mark("area", one.x, one.y, { color, width: one.width, height: one.height });
    const made = mark("example", middle.x, middle.y, {
      color, key: `mark-${i}`, label: t(one.negative ? "teach.mark.not" : "teach.mark", { name }),
      on: (event) => one.n !== null && !(one.fresh && event.detail) && teaching.forget(one),
    });
    made.classList.toggle("fresh", Boolean(one.fresh));
    made.onpointerleave = settled;
    if (one.negative) made.classList.add("negative");
    if (one.n === null) made.classList.add("pending");
  }
  if (waiting && waiting.photo === state.current) mark("example", waiting.place.x, waiting.place.y, { text: "?", color: "#444444", width: waiting.place.width, height: waiting.place.height });
  for (const [i, place] of places().entries()) question(place, i);
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
  button.onclick = (event) => { // a mouse sees the answers already: its click is one into the photo
    if (event.pointerType === "mouse" && current()) point({ x: place.x, y: place.y }, { alt: event.altKey || event.shiftKey });
    else show(!holder.classList.contains("open"));
  };
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
  parts.how = el("p", { class: "how" });
  parts.begin = el("button", { type: "button", class: "main", textContent: t("teach.begin.found"), onclick: begin });
  parts.bare = el("button", { type: "button", class: "link", textContent: t("teach.begin.nothing") });
  parts.bare.onclick = () => {
    bare = true;
    tell("teach");
    parts.field.focus();
  };
  parts.beginning = el("p", { class: "beginning" }, parts.begin, parts.bare);
  parts.field = el("input", { id: "class-name", maxLength: 80, placeholder: t("teach.field"), autocomplete: "off", aria: { label: t("teach.field") } });
  parts.field.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    if (waiting) event.stopPropagation(); // Teach goes on
    unask();
    parts.field.value = "";
    $("labels").focus();
  };
  parts.form = el("form", { class: "new" }, parts.field, el("button", { textContent: t("teach.add") }));
  parts.form.onsubmit = add;
  parts.start = el("button", { type: "button", class: "primary", textContent: t("teach.start") });
  parts.start.onclick = () => tools.take("teach");
  parts.none = el("p", { class: "none", textContent: t("teach.none") });
  parts.list = el("ul", { class: "classes", aria: { label: t("teach.list") } });
  parts.far = el("ul", { class: "classes", aria: { label: t("teach.list.far") } });
  parts.farther = el("details", { class: "farther" }, el("summary"), parts.far);
  parts.only = el("p", { id: "teach-only", class: "only" });
  parts.found = el("button", { type: "button", textContent: t("teach.found.add"), title: t("teach.found.add.what"), onclick: begin });
  parts.unknown = el("p", { class: "soft" });
  parts.not = el("button", { type: "button", textContent: t("teach.not") });
  parts.not.onclick = () => {
    if (!canBeNot()) return say(t("teach.not.early"));
    not = !not;
    tell("teach");
  };
  parts.means = el("span", { class: "means" });
  parts.click = el("p", { class: "click" }, parts.means, parts.not);
  parts.hint = el("p", { class: "soft" });
  parts.places = el("ol", { class: "places" });
  parts.next = el("section", { aria: { label: t("teach.next") } }, el("h2", { textContent: t("teach.next") }), parts.places);
  parts.warnings = el("p", { class: "soft" });
  const pick = el("input", { type: "file", class: "hidden-text", accept: ".json,application/json", aria: { label: t("teach.import") }, tabIndex: -1 });
  pick.onchange = async () => {
    const [file] = pick.files;
    pick.value = "";
    if (!file) return;
    say("");
    const warnings = await teaching.importFile(file).catch((error) => say(error.message, { bad: true, lasting: false }));
    if (warnings) say([t("teach.imported", { name: file.name }), ...warnings].join(" "));
  };
  const take = el("button", { type: "button", class: "small", textContent: t("teach.import") });
  take.onclick = () => pick.click();
  const save = el("button", { type: "button", class: "small", textContent: t("teach.export") });
  save.onclick = () => exportAll().catch(fail);
  parts.save = save;
  parts.foot = el("p", { class: "foot" }, el("span", { textContent: t("teach.shared") }), save, take, pick);
  const { how, none, start, beginning, form, list, farther, only, found, unknown, click, hint, next, warnings, foot } = parts;
  $("teach").append(how, none, start, beginning, form, click, only, hint, list, farther, found, unknown, next, warnings, foot);
}

async function exportAll() {
  const url = URL.createObjectURL(await teaching.exported());
  const link = el("a", { href: url, download: `classes-${state.model.split("@")[0]}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function panel() {
  const inUse = state.tool === "teach", any = state.classes.size > 0, is = classes.isTaught();
  if (inUse && taught !== is) classes.setOf(is ? "classes" : "clusters"); // what can be seen is
  taught = is;
  $("teach").hidden = !inUse && state.of !== "classes";
  $("side").classList.toggle("teaching", inUse);
  $("side").classList.toggle("one-list", inUse && (any || bare)); // the legend of what was found is no second one
  if ($("teach").hidden) return;
  if (!current()) [chosen, not] = [null, false];
  if (!canBeNot()) not = false;
  parts.how.hidden = !inUse;
  parts.how.textContent = t(any ? "teach.how" : bare ? "teach.how.bare" : "teach.how.found");
  parts.beginning.hidden = !inUse || any;
  parts.bare.hidden = bare;
  parts.none.hidden = inUse || any;
  parts.start.hidden = inUse;
  parts.form.hidden = !inUse;
  parts.click.hidden = !inUse || !any;
  parts.means.textContent = current() ? t(not ? "teach.means.not" : "teach.means", { name: current().name }) : t("teach.means.none");
  parts.means.title = parts.means.textContent;
  parts.not.hidden = !current();
  parts.not.setAttribute("aria-pressed", String(not));
  parts.not.setAttribute("aria-disabled", String(!canBeNot()));
  parts.not.title = t(canBeNot() ? "teach.not.what" : "teach.not.early");
  const speaking = list().filter(classes.speaks);
  parts.only.hidden = speaking.length !== 1;
  parts.only.textContent = speaking.length === 1 ? t("teach.only", { name: speaking[0].name }) : "";
  const { made, grown } = teaching.missing(list());
  parts.found.hidden = !inUse || !any || !(made.length || grown.length);
  parts.found.classList.toggle("main", speaking.length < 2);
  parts.hint.textContent = t("teach.hint.click");
  parts.hint.hidden = !inUse || !current() || current().examples > 0 || speaking.length > 1;
  parts.warnings.textContent = state.classWarnings.join(" ");
  parts.warnings.hidden = !state.classWarnings.length;
  parts.save.hidden = !any;
  rows();
  suggestions();
}

/** What was found is looked at, once there are classes: not with Teach, whose list is of classes. */
const looksAtFound = () => state.tool === "teach" && state.of === "clusters" && classes.isTaught() && tools.take("pick");

/** T in Teach leads to the name of a new class; in classes N names the one in use, and H hides it. */
function byLetter(event) {
  if (event.key === "Escape" && waiting && event.target !== parts.field && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    event.stopImmediatePropagation();
    return unask();
  }
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

/** What is at a place now, beside what a click would say of it. */
function under({ id }) {
  const one = current(), now = id === undefined ? "" : look(id).name;
  const said = one ? t(not ? "teach.under.not" : "teach.under", { name: one.name }) : t("teach.under.none");
  return now ? t("teach.under.now", { said, now }) : said;
}

export const tool = {
  click: point,
  box: point,
  number: (n) => order.ids[n - 1] !== undefined && choose(order.ids[n - 1]),
  under,
  enter: () => {
    taught = classes.isTaught();
    classes.setOf(taught ? "classes" : "clusters");
    panel();
    if (!state.classes.size) parts.field.focus({ preventScroll: true });
    const place = state.example;
    state.example = null;
    if (place && state.current) askFor(state.current, place);
  },
  leave: unask,
};

export function start() {
  make();
  on("classes", () => open !== null && (state.classes.has(open) ? learnExamples() : (open = null)));
  on("of", looksAtFound);
  on("teach classes clusters photo of tool", panel);
  on("marks classes photo of tool", marks);
  on("lit", () => {
    for (const one of $("teach").querySelectorAll(".classes > li[data-id]")) one.classList.toggle("lit", state.of === "classes" && Number(one.dataset.id) === state.lit);
  });
  $("labels").addEventListener("pointermove", settled);
  addEventListener("keydown", byLetter, { capture: true });
  panel();
  marks();
}
