// What the model tells apart, without any photo: the tree of what belongs together, and every cluster with its pictures.
import { picture, query } from "./api.js";
import { $, el, replaceKeepingFocus } from "./dom.js";
import { next, redo, undo } from "./history.js";
import { ready } from "./models.js";
import { changeAsStep, lookOfCluster } from "./names.js";
import { fail } from "./notice.js";
import { on, state, tell } from "./state.js";
import { decimal, percent, t } from "./strings.js";
import { closest, leaves, treeOf, wordOf } from "./tree.js";

const SVG = "http://www.w3.org/2000/svg";
const ROW = 28, LABELS = 132, TOP = 30, WIDEST = 460; // of the tree, in pixels
const STEPS = [0.05, 0.1, 0.2, 0.5, 1]; // between two lines of its scale
const ALIKE = [[0.8, "same"], [0.5, "alike"], [0.2, "little"], [-1, "unlike"]]; // from which cosine on, and the word

const NEAR = 3; // neighbors that are named, at least

const parts = {};
let sought = ""; // what the filter holds
let order = "share"; // or "tree", "name"
let pointed = null; // the node of the tree that is pointed at or has the focus
let stop = null; // key of the node that the Tab key reaches
let known = ""; // which pictures are shown

const all = () => [...state.clusters.values()];
const share = (ids) => ids.reduce((sum, id) => sum + state.clusters.get(id).fraction, 0);
const named = (ids) => ids.map((id) => lookOfCluster(id).name).join(", ");

// The tree.

const shape = (tag, values, ...children) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

function tree() {
  const root = treeOf(all().map((one) => one.id), state.tree);
  parts.tree.hidden = !root?.children;
  if (!root?.children) return;
  const under = leaves(root), rowOf = new Map(under.map((id, i) => [id, i]));
  const width = Math.min(WIDEST, parts.drawing.clientWidth || WIDEST), height = TOP + under.length * ROW + 4;
  const most = Math.max(root.height, 1e-9), step = STEPS.find((one) => most / one <= 5) ?? most / 4;
  const x = (value) => 12 + (1 - value / most) * (width - LABELS - 24);
  const y = (node) => (node.children ? (y(node.children[0]) + y(node.children[1])) / 2 : TOP + (rowOf.get(node.id) + 0.5) * ROW);
  const drawn = shape("svg", { width, height, role: "tree", "aria-label": t("tree.label"), class: "dendrogram" });
  const axis = shape("g", { class: "axis", "aria-hidden": "true" });
  for (let value = 0; value <= most; value += step) {
    axis.append(shape("line", { x1: x(value), x2: x(value), y1: TOP - 6, y2: height }), shape("text", { x: x(value), y: TOP - 11, "text-anchor": "middle" }, decimal(value)));
  }
  drawn.append(axis);
  const nodes = [];
  const add = (node, level, place, of, parent) => {
    const ids = leaves(node), key = node.children ? ids.join("-") : String(node.id);
    const here = { node, ids, key, parent };
    nodes.push(here);
    const item = shape("g", { role: "treeitem", "aria-level": level, "aria-posinset": place, "aria-setsize": of, "aria-label": words(here), tabindex: "-1", "data-key": `node-${key}` });
    if (node.children) item.setAttribute("aria-expanded", "true");
    here.item = item;
    const at = x(node.height), to = parent ? x(parent.node.height) : Math.max(2, at - 10), cy = y(node);
    item.append(shape("path", { class: "branch", d: `M${to} ${cy}H${at}` + (node.children ? `M${at} ${y(node.children[0])}V${y(node.children[1])}` : "") }));
    if (node.children) {
      item.append(shape("rect", { class: "reach", x: Math.min(to, at - 12), y: cy - 12, width: Math.max(24, at - to + 12), height: 24 }), shape("circle", { class: "knot", cx: at, cy, r: 5 }));
    } else {
      const { name, color, into } = lookOfCluster(node.id);
      item.append(shape("rect", { class: "reach", x: to, y: cy - ROW / 2, width: width - to, height: ROW }));
      item.append(shape("circle", { cx: at + 8, cy, r: 6, fill: color, class: "leaf" }));
      item.append(shape("text", { x: at + 20, y: cy + 4, class: into === null ? "" : "merged" }, name.length > 17 ? `${name.slice(0, 16)}…` : name));
    }
    item.onpointerenter = () => point(here);
    item.onfocus = () => point(here);
    item.onclick = () => item.focus();
    drawn.append(item);
    node.children?.forEach((child, i) => add(child, level + 1, i + 1, 2, here));
    return here;
  };
  add(root, 1, 1, 1, null);
  drawn.onpointerleave = () => drawn.contains(document.activeElement) || point(null);
  drawn.onkeydown = (event) => byKeyboard(event, nodes);
  parts.nodes = nodes;
  replaceKeepingFocus(parts.drawing, [drawn]);
  if (!nodes.some((one) => one.key === stop)) stop = nodes[0].key;
  nodes.find((one) => one.key === stop).item.setAttribute("tabindex", "0");
  parts.measure.textContent = t(state.treeBy === "belonging" ? "tree.by.belonging" : "tree.by.centroids");
  pointed = pointed && nodes.find((one) => one.key === pointed.key);
  light();
}

const words = ({ node, ids }) =>
  node.children
    ? t("tree.node", { names: named(ids), percent: percent(share(ids)), height: decimal(node.height) })
    : t("tree.leaf", { name: lookOfCluster(node.id).name, percent: percent(share(ids)) });

/** Arrow keys as in any tree: right to what is inside, left to what it is in, up and down along the rows. */
function byKeyboard(event, nodes) {
  const at = nodes.findIndex((one) => one.item === document.activeElement);
  if (at < 0) return;
  const inside = nodes.findIndex((one) => one.parent === nodes[at]), outside = nodes.indexOf(nodes[at].parent);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, ArrowRight: inside, ArrowLeft: outside, Home: 0, End: nodes.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  nodes[to]?.item.focus();
}

/** Light up a node of the tree, and what is in it. */
function point(node) {
  if (pointed === node) return;
  pointed = node;
  if (node && node.item.contains(document.activeElement)) {
    for (const one of parts.nodes) one.item.setAttribute("tabindex", one === node ? "0" : "-1");
    stop = node.key;
  }
  light();
}

function light() {
  const ids = new Set(pointed?.ids ?? []);
  for (const one of parts.nodes ?? []) one.item.classList.toggle("lit", one.ids.every((id) => ids.has(id)));
  for (const card of parts.cards.children) card.classList.toggle("lit", ids.has(Number(card.dataset.id)));
  const many = pointed?.node.children;
  parts.said.textContent = pointed ? words(pointed) : t("tree.hint");
  const free = many ? pointed.ids.filter((id) => lookOfCluster(id).into === null) : [];
  parts.join.hidden = free.length < 2;
  parts.join.textContent = t("tree.merge", { count: free.length });
  parts.join.onclick = () => merge(free);
}

/** Merge clusters into the largest of them. */
function merge(ids) {
  const [largest, ...rest] = [...ids].sort((a, b) => state.clusters.get(b).fraction - state.clusters.get(a).fraction);
  return changeAsStep(t("step.merge.into", { names: named(rest), name: lookOfCluster(largest).name }), rest.map((id) => [id, { merged_into: largest }]));
}

// The cards.

function shown() {
  const wanted = sought.trim().toLowerCase();
  const found = all().filter((one) => !wanted || lookOfCluster(one.id).name.toLowerCase().includes(wanted));
  const root = order === "tree" && treeOf(all().map((one) => one.id), state.tree);
  const places = new Map(root ? leaves(root).map((id, i) => [id, i]) : []);
  const by = {
    share: (a, b) => b.fraction - a.fraction,
    name: (a, b) => lookOfCluster(a.id).name.localeCompare(lookOfCluster(b.id).name, undefined, { numeric: true }),
    tree: (a, b) => places.get(a.id) - places.get(b.id),
  };
  return found.sort(by[order]);
}

function cards() {
  if (parts.cards.contains(document.activeElement) && document.activeElement.dataset.typed === "true") return; // it follows when that is done
  const list = shown();
  replaceKeepingFocus(parts.cards, list.map(card));
  parts.count.textContent = t("clusters.count", { shown: list.length, all: state.clusters.size });
  light();
}

function card(one) {
  const { id } = one, { name, color, hidden, into } = lookOfCluster(id);
  const step = (what, fields) => changeAsStep(what, [[id, fields]]);
  const swatch = el("input", { type: "color", value: color, data: { key: `card-color-${id}` }, aria: { label: t("legend.color", { name }) } });
  swatch.onchange = () => step(t("step.color", { name }), { color: swatch.value });
  const field = el("input", { class: "title", value: name, maxLength: 80, data: { key: `card-name-${id}` }, aria: { label: t("clusters.name", { name }) } });
  field.oninput = () => (field.dataset.typed = "true");
  field.onchange = () => {
    field.dataset.typed = "false";
    const now = field.value.trim();
    if (now === name) field.value = name;
    else step(t("step.rename", { old: name, name: now || one.default_name }), { name: now || null }).then((done) => done || (field.value = name));
  };
  field.onkeydown = (event) => {
    if (event.key === "Enter") field.blur();
    if (event.key === "Escape") Object.assign(field, { value: name }).dataset.typed = "false";
  };
  const eye = el("button", { type: "button", class: "small", data: { key: `card-hide-${id}` }, aria: { pressed: String(hidden), label: t(hidden ? "legend.show" : "legend.hide", { name }) }, textContent: t(hidden ? "clusters.show" : "clusters.hide") });
  eye.onclick = () => step(t(hidden ? "step.show" : "step.hide", { name }), { hidden: !hidden });
  const item = el("li", { class: hidden ? "unseen" : "", data: { id } },
    el("div", { class: "head" }, swatch, field, el("span", { class: "share", title: t("clusters.share", { percent: percent(one.fraction) }), textContent: percent(one.fraction) })),
    el("div", { class: "body" }, pictures(one, name), near(one)),
    el("div", { class: "buttons" }, into === null ? mergeInto(one, name) : apart(one, into), eye, ownName(one, name, step)));
  item.onpointerenter = () => point(parts.nodes?.find((node) => !node.node.children && node.node.id === id) ?? null);
  item.onpointerleave = () => point(null);
  return item;
}

const addresses = new Map(); // path → promise of where the picture is

function pictures(one, name) {
  return el("div", { class: "exemplars" }, ...one.exemplars.map((_, i) => {
    const path = query(`clusters/${one.id}/exemplars/${i}`, { model: state.model }); // relative: a proxy may show us under a path
    const img = el("img", { alt: t("clusters.exemplar", { name, n: i + 1 }), width: 96, height: 96, loading: "lazy" });
    if (!addresses.has(path)) addresses.set(path, picture(path));
    addresses.get(path).then((address) => (img.src = address), () => (img.hidden = true));
    return img;
  }));
}

/** Its neighbors, the nearest first: [{id, cosine: where it is known, word}]. The tree says it where it tells what belongs together. */
function neighbors(one) {
  const known = one.neighbors.filter(({ id }) => state.clusters.has(id));
  if (state.treeBy !== "belonging") return known.map(({ id, cosine }) => ({ id, cosine, word: t(`clusters.alike.${ALIKE.find(([from]) => cosine >= from)?.[1] ?? "unlike"}`) }));
  const cosines = new Map(known.map(({ id, cosine }) => [id, cosine]));
  const found = closest(treeOf(all().map((each) => each.id), state.tree), one.id).map(({ id, height }) => ({ id, height, cosine: cosines.get(id), word: t(`joining.${wordOf(height, state.treeBy)}`) }));
  return found.sort((a, b) => a.height - b.height || (b.cosine ?? -1) - (a.cosine ?? -1)).slice(0, Math.max(NEAR, known.length));
}

/** Which others it belongs to most, and how much so, in words. */
function near(one) {
  return el("p", { class: "near" }, el("span", { textContent: t("clusters.near") }), ...neighbors(one).map(({ id, cosine, word }) => {
    const { name, color } = lookOfCluster(id);
    return el("span", { class: "neighbor", title: cosine === undefined ? "" : t("clusters.cosine", { cosine: decimal(cosine) }) }, el("span", { class: "dot", style: { "--color": color } }), t("clusters.neighbor", { name, word }));
  }));
}

function mergeInto({ id }, name) {
  const others = all().filter((other) => other.id !== id && lookOfCluster(other.id).into === null && !leadsTo(other.id, id));
  const choice = el("select", { class: "small", data: { key: `card-merge-${id}` }, aria: { label: t("clusters.merge.which", { name }) } },
    el("option", { value: "", textContent: t("clusters.merge") }), ...others.map((other) => el("option", { value: other.id, textContent: lookOfCluster(other.id).name })));
  choice.onchange = () => {
    if (choice.value === "") return;
    const into = Number(choice.value);
    changeAsStep(t("step.merge.into", { names: name, name: lookOfCluster(into).name }), [[id, { merged_into: into }]]);
  };
  return choice;
}

/** Whether a cluster is merged, by however many steps, into another. */
function leadsTo(from, to) {
  for (let at = from, steps = 0; at !== null && steps < 256; at = lookOfCluster(at).into, steps++) if (at === to) return true;
  return false;
}

function apart({ id }, into) {
  const { name } = lookOfCluster(id);
  const button = el("button", { type: "button", class: "small", data: { key: `card-merge-${id}` }, textContent: t("clusters.apart", { name: lookOfCluster(into).name }), aria: { label: t("clusters.apart.which", { name, into: lookOfCluster(into).name }) } });
  button.onclick = () => changeAsStep(t("step.apart", { name }), [[id, { merged_into: null }]]);
  return button;
}

function ownName(one, name, step) {
  if (name === one.default_name) return null;
  const back = el("button", { type: "button", class: "small", data: { key: `card-own-${one.id}` }, textContent: t("clusters.own", { name: one.default_name }) });
  back.onclick = () => step(t("step.rename", { old: name, name: one.default_name }), { name: null });
  return back;
}

// The view.

function make() {
  parts.filter = el("input", { type: "search", placeholder: t("clusters.filter"), aria: { label: t("clusters.filter") } });
  parts.filter.oninput = () => {
    sought = parts.filter.value;
    cards();
  };
  parts.order = el("select", {}, ...["share", "tree", "name"].map((by) => el("option", { value: by, textContent: t(`clusters.order.${by}`) })));
  parts.order.onchange = () => {
    order = parts.order.value;
    cards();
  };
  parts.count = el("span", { class: "soft", role: "status" });
  parts.undo = el("button", { type: "button", textContent: t("tools.undo"), onclick: undo });
  parts.redo = el("button", { type: "button", textContent: t("tools.redo"), onclick: redo });
  parts.measure = el("p", { class: "soft" });
  parts.drawing = el("div");
  parts.said = el("p", { class: "said" });
  parts.join = el("button", { type: "button", hidden: true });
  parts.tree = el("section", { class: "tree", aria: { label: t("tree.title") } }, el("h2", { textContent: t("tree.title") }), parts.measure, parts.drawing, parts.said, parts.join);
  parts.cards = el("ul", { class: "cards", aria: { label: t("clusters.title") } });
  $("clusters-view").append(
    el("div", { class: "bar" }, el("h2", { textContent: t("clusters.title") }), parts.filter, el("label", {}, t("clusters.order"), " ", parts.order), parts.count, el("span", { class: "end" }, parts.undo, parts.redo)),
    el("div", { class: "columns" }, parts.tree, parts.cards));
}

function steps() {
  for (const [id, what] of Object.entries(next())) {
    parts[id].setAttribute("aria-disabled", String(!what));
    parts[id].title = what ? t(`tools.${id}.what`, { what }) : t(`tools.${id}`);
  }
}

function list() {
  if (known !== state.model) addresses.clear();
  known = state.model;
  tree();
  cards();
}

/** Begin, and show it; called once. */
export async function start() {
  make();
  on("clusters", list);
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width && contentRect.width !== width) tree();
    width = contentRect.width;
  }).observe(parts.drawing);
  on("history", steps);
  steps();
  await ready();
  tell("clusters");
}
