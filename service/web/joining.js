// What could be joined: the tree's next merges as suggestions with a preview, and fewer groups at a time.
import { $, el, replaceKeepingFocus } from "./dom.js";
import { focusOn, rows, setLevel } from "./legend.js";
import { mergeAsStep, survivor } from "./merging.js";
import { lookOfCluster, shownAs } from "./names.js";
import { on, set, state } from "./state.js";
import { list, number, t } from "./strings.js";
import { wordOf } from "./tree.js";

const MOST = 4; // suggestions; a low window shows fewer of them

const inWords = (height) => t(`joining.${wordOf(height, state.treeBy)}`);

/**
 * The tree's merges of two groups that are both shown, the closest first: [{groups: [two], height}].
 *
 * merges  as GET /clusters/tree has them;  table  the id under which each cluster is shown;  groups  those in the photo
 */
export function suggestions(merges, ids, table, groups) {
  const leaves = new Map(ids.map((id) => [id, [id]])), found = [];
  for (const { merge, into, height } of merges) {
    const sides = merge.map((id) => leaves.get(id));
    leaves.set(into, sides.flat());
    const shown = sides.map((side) => [...new Set(side.map((id) => table[id]))]);
    if (shown.some((side) => side.length > 1) || shown[0][0] === shown[1][0]) continue; // later, or done
    const pair = shown.map(([id]) => groups.find((group) => group.id === id));
    if (pair.every(Boolean)) found.push({ groups: pair, height });
  }
  return found;
}

/** How many groups there are at a level of the tree, in this photo or not. */
const countAt = (table) => new Set([...state.clusters.keys()].map((id) => table[id])).size;

/** The next level with fewer groups, and the next with more: {count, all, fewer, more}; each {k, table} or undefined. */
function levels() {
  const size = state.clusters.size, at = state.k ?? size;
  const known = [size, ...state.tree.map((merge) => merge.k)].map((k) => ({ k: k === size ? null : k, rank: k, table: shownAs({ k: k === size ? null : k, preview: null }) }));
  const now = shownAs({ preview: null }), count = countAt(now);
  return {
    now, count, all: countAt(known[0].table),
    fewer: known.find((level) => level.rank < at && countAt(level.table) < count),
    more: known.findLast((level) => level.rank > at && countAt(level.table) > count),
  };
}

/** What the step to a level joins: {preview: Map, ids: of the groups that become one}. */
function joinedBy(now, level) {
  const preview = new Map();
  for (const id of state.clusters.keys()) preview.set(now[id], level.table[id]);
  const [to] = [...preview].find(([from, into]) => from !== into)?.slice(1) ?? [];
  return { preview, ids: [...preview].filter(([, into]) => into === to).map(([from]) => from) };
}

const show = (preview) => set({ preview }, "look");

/** Show a merge while the pointer or the focus is on an element. */
function previewing(element, preview) {
  element.addEventListener("pointerenter", () => show(preview));
  element.addEventListener("pointerleave", () => show(null));
  element.addEventListener("focusin", () => show(preview));
  element.addEventListener("focusout", () => show(null));
  return element;
}

const chip = ({ name, color }) =>
  el("span", { class: "chip", title: name }, el("i", { style: { "background-color": color }, aria: { hidden: "true" } }), el("span", { textContent: name }));

function suggestion({ groups, height }) {
  const into = survivor(groups), from = groups.find((group) => group !== into), words = inWords(height);
  const join = el("button", {
    type: "button", textContent: t("joining.join"), data: { key: `join-${from.id}-${into.id}` },
    aria: { label: t("joining.join.what", { one: groups[0].name, other: groups[1].name, words }) },
  });
  join.onclick = async () => {
    show(null);
    const held = document.activeElement === join;
    if ((await mergeAsStep(groups, { into })) && held) ($("joining").querySelector("button[data-key^=join]") ?? { focus: () => focusOn(into.id) }).focus();
  };
  return previewing(el("li", {}, el("span", { class: "pair" }, chip(groups[0]), el("span", { textContent: "+" }), chip(groups[1])), el("span", { class: "apart-by", textContent: words }), join), new Map([[from.id, into.id]]));
}

function stepper() {
  const { now, count, all, fewer, more } = levels();
  const next = fewer ? joinedBy(now, fewer) : null;
  const called = next ? list(next.ids.map((id) => lookOfCluster(id).name)) : "";
  const here = next && next.ids.filter((id) => rows().some((group) => group.id === id)).length > 1;
  const words = next ? t(here ? "levels.next" : "levels.next.elsewhere", { names: called }) : t(count > 1 ? "levels.least" : "levels.one");
  const button = (key, sign, level, label, work) => {
    const made = el("button", { type: "button", textContent: sign, data: { key }, title: label, aria: { label, disabled: String(!level) } });
    made.onclick = () => level && work();
    return made;
  };
  const fewerButton = button("level-fewer", "−", fewer, next ? t("levels.fewer.next", { words }) : t("levels.fewer"), () => setLevel(fewer.k, t("step.level", { count: countAt(fewer.table), all })));
  const moreButton = button("level-more", "+", more, t("levels.more"), () => setLevel(more.k, t("step.level", { count: countAt(more.table), all })));
  if (next) previewing(fewerButton, next.preview);
  return el("div", { class: "levels", role: "group", aria: { label: t("levels.label") } },
    el("span", { textContent: t("levels.label") }), fewerButton, el("output", { textContent: t(all === 1 ? "levels.count.one" : "levels.count", { count: number(count), all: number(all) }) }), moreButton,
    el("span", { class: "next", textContent: words, title: words }));
}

let shown = null; // what the panel was made of

function render() {
  const panel = $("joining"), groups = rows();
  const table = shownAs({ preview: null });
  const found = suggestions(state.tree, [...state.clusters.keys()], table, groups).slice(0, MOST);
  const now = JSON.stringify([state.of, state.k, state.tree, state.treeBy, groups.map(({ id, name, color }) => [id, name, color]), [...state.clusters.keys()].map((id) => [table[id], lookOfCluster(id).name])]);
  if (now === shown) return; // a preview changes nothing here
  shown = now;
  if (!groups.length || !state.tree.length) return panel.replaceChildren();
  const title = el("h2", { textContent: t("joining.title"), title: t("joining.what") });
  const old = state.treeBy === "belonging" ? null : el("p", { class: "hint", textContent: t("joining.old") });
  const body = found.length ? el("ol", {}, ...found.map(suggestion)) : el("p", { class: "hint", textContent: t(groups.length > 1 ? "joining.none" : "joining.one") });
  replaceKeepingFocus(panel, [title, old, body, stepper()].filter(Boolean));
}

export function start() {
  on("photo clusters look of models", render);
  render();
}
