// What clusters are called and how they look: the server's, which everybody on it shares, or this browser's own.
import { get, query, send } from "./api.js";
import { run } from "./history.js";
import { answer, set, state, tell } from "./state.js";
import { t } from "./strings.js";

const HERE = "tessera.names"; // in localStorage: whether changes stay here, and those that did, by the bundle's digest

const kept = () => JSON.parse(localStorage.getItem(HERE) ?? "{}");

export const isLocal = () => Boolean(kept().local);

/** Keep changes in this browser alone from now on, or share them with everybody on the server. */
export function setLocal(local) {
  localStorage.setItem(HERE, JSON.stringify({ ...kept(), local }));
  tell("clusters");
}

const own = () => (isLocal() ? kept()[state.model] ?? {} : {});

/** Ask the server what a model's clusters are called, and for the tree: {clusters, tree, treeBy} of the state. */
export async function learn(model) {
  const [list, tree] = await Promise.all([get(query("clusters", { model })), get(query("clusters/tree", { model }))]);
  return { clusters: new Map(list.clusters.map((one) => [one.id, one])), tree: tree.merges, treeBy: tree.by ?? "centroids" };
}

/** How a cluster or class is shown: {id, name, color, hidden, into}. */
export function look(id) {
  if (state.of === "classes") return { hidden: false, into: null, color: "#888888", name: "", ...state.classes.get(id), id };
  return lookOfCluster(id);
}

/** The same of a cluster, whatever is painted. */
export function lookOfCluster(id) {
  const shared = state.clusters.get(id);
  if (!shared) return { id, name: t("cluster.unknown", { id }), color: "#888888", hidden: false, into: null };
  const mine = own()[id] ?? {};
  return {
    id,
    name: mine.name ?? (isLocal() ? shared.default_name : shared.name),
    color: mine.color ?? (isLocal() ? shared.default_color : shared.color),
    hidden: mine.hidden ?? (isLocal() ? false : shared.hidden),
    into: (isLocal() ? mine.merged_into : shared.merged_into) ?? null,
  };
}

/** Say something of a cluster, {name, color, hidden, merged_into}; null takes it back. Throws what the server says. */
export async function change(id, what) {
  if (isLocal()) {
    const all = kept();
    const mine = (all[state.model] ??= {});
    mine[id] = { ...mine[id], ...what };
    localStorage.setItem(HERE, JSON.stringify(all));
  } else {
    const changed = await send("PATCH", query(`clusters/${id}`, { model: state.model }), what);
    state.clusters.set(id, changed);
  }
  tell("clusters");
}

/** What `change` has to be told so that a field is as it is now. */
function before(id, field) {
  const now = lookOfCluster(id);
  const value = field === "merged_into" ? now.into : now[field];
  const shared = state.clusters.get(id);
  if (field === "name" && value === shared?.default_name) return null;
  if (field === "color" && value === shared?.default_color) return null;
  if (field === "hidden" && !value) return null;
  return value;
}

/** Change clusters as one step that can be undone: [[id, {field: value}], …]. */
export function changeAsStep(what, changes) {
  const old = changes.map(([id, fields]) => [id, Object.fromEntries(Object.keys(fields).map((f) => [f, before(id, f)]))]);
  const all = async (list) => {
    for (const [id, fields] of list) await change(id, fields);
  };
  return run({ what, redo: () => all(changes), undo: () => all([...old].reverse()) });
}

/** Uint8Array(256): the id under which each id of the label map is shown: merges by hand, then the level, then a preview. */
export function shownAs() {
  const table = Uint8Array.from({ length: 256 }, (_, id) => id);
  if (state.of === "classes") return table;
  for (const id of state.clusters.keys()) {
    let at = id;
    for (let step = 0; step < 255; step++) {
      const into = look(at).into;
      if (into === null || !state.clusters.has(into)) break;
      at = into;
    }
    table[id] = at;
  }
  if (state.k !== null) {
    const level = Uint8Array.from({ length: 256 }, (_, id) => id);
    let left = state.clusters.size;
    for (const { k, merge, into } of state.tree) {
      if (left <= state.k) break;
      for (let id = 0; id < 255; id++) if (merge.includes(level[id])) level[id] = into;
      left = k;
    }
    for (let id = 0; id < 255; id++) table[id] = level[table[id]];
  }
  if (state.preview) for (let id = 0; id < 255; id++) table[id] = state.preview.get(table[id]) ?? table[id];
  return table;
}

/** What of the shown photo is in each group, largest first: [{id, name, color, hidden, pixels, fraction, confidence, members}]. */
export function groups() {
  const found = answer()?.found;
  if (!found) return [];
  const table = shownAs();
  const all = new Map();
  for (const one of found.values()) {
    const id = table[one.id];
    const group = all.get(id) ?? { ...look(id), pixels: 0, fraction: 0, sure: 0, members: [] };
    group.pixels += one.pixels;
    group.fraction += one.fraction;
    group.sure += one.confidence * one.pixels;
    group.members.push(one.id);
    all.set(id, group);
  }
  const list = [...all.values()].map((group) => ({ ...group, confidence: group.sure / Math.max(1, group.pixels) }));
  return list.sort((a, b) => b.pixels - a.pixels);
}
