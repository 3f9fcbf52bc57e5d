// What clusters are called and how they look: the server's, which everybody on it shares, or this browser's own.
import { ApiError, get, patiently, query, send } from "./api.js";
import { run } from "./history.js";
import { say } from "./notice.js";
import { answer, set, state, tell } from "./state.js";
import { recall, store } from "./storage.js";
import { t } from "./strings.js";

const HERE = "tessera.names"; // stored: whether changes stay here, and those that did, by the model's ref
const TRIES = 3; // a change is asked for as often where somebody else changes the same cluster meanwhile

const wished = new Map(); // id → fields that the server is being told: they are shown already
let changes = 0; // counts them, so that what was asked before one of them is not taken for news after it

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

let read = { text: null, value: {} };

/** What is stored; whatever else lies there, or is damaged, counts as nothing. */
function kept() {
  const text = recall(HERE) ?? "{}";
  if (text === read.text) return read.value;
  let value = {};
  try {
    value = JSON.parse(text);
  } catch {
    // as if nothing was there
  }
  read = { text, value: isRecord(value) ? value : {} };
  return read.value;
}

function keep(value) {
  if (!store(HERE, JSON.stringify(value))) say(t("scope.forgets"), { bad: true });
  tell("clusters");
}

export const isLocal = () => kept().local === true;

/** Keep changes in this browser alone from now on, or share them with everybody on the server: a step, too. */
export function setLocal(local) {
  const switched = (to) => () => keep({ ...kept(), local: to });
  return run({ look: "scope", what: t(local ? "step.local" : "step.shared"), redo: switched(local), undo: switched(!local) });
}

const FIELDS = {
  name: (value) => typeof value === "string" && value.length > 0 && value.length <= 80,
  color: (value) => /^#[0-9a-f]{6}$/i.test(value),
  hidden: (value) => typeof value === "boolean",
  merged_into: (value) => state.clusters.has(value),
};

/** What this browser alone says of a cluster; only what can be right. */
function own(id) {
  const said = isLocal() ? kept()[state.model]?.[id] : null;
  if (!isRecord(said)) return {};
  return Object.fromEntries(Object.entries(said).filter(([field, value]) => Object.hasOwn(FIELDS, field) && FIELDS[field](value)));
}

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
  const bare = { name: shared.default_name, color: shared.default_color, hidden: false, merged_into: null };
  const now = isLocal() ? { ...bare, ...own(id) } : { ...shared, ...wished.get(id) };
  const { name, color, hidden, merged_into: into } = now;
  return { id, name: name ?? bare.name, color: color ?? bare.color, hidden: Boolean(hidden), into: into ?? null };
}

/** What everybody sees of a cluster's field, null being the bundle's own. */
function effective(id, field, value) {
  const shared = state.clusters.get(id);
  return value ?? { name: shared?.default_name, color: shared?.default_color, hidden: false }[field] ?? null;
}

/**
 * Say something of a cluster, {name, color, hidden, merged_into}; null takes it back. Throws what the server says.
 *
 * seen  {field: value} as it was when that was decided: what somebody else changed since is not overwritten
 */
export async function change(id, what, seen = {}) {
  if (isLocal()) {
    const mine = isRecord(kept()[state.model]) ? kept()[state.model] : {};
    const fields = { ...mine[id], ...what };
    for (const field of Object.keys(fields)) if (fields[field] === null) delete fields[field];
    return keep({ ...kept(), [state.model]: { ...mine, [id]: fields } });
  }
  const mine = Object.fromEntries(Object.entries(what).map(([field, value]) => [field, effective(id, field, value)]));
  wished.set(id, mine);
  changes++;
  tell("clusters");
  try {
    state.clusters.set(id, await changeUnlessOutdated(id, what, seen));
  } finally {
    if (wished.get(id) === mine) wished.delete(id);
    tell("clusters");
  }
}

/** PATCH, of what was seen and nothing else. */
async function changeUnlessOutdated(id, what, seen) {
  const path = query(`clusters/${id}`, { model: state.model });
  for (let left = TRIES; ; left--) {
    const reply = await patiently(path), now = await reply.json();
    const other = Object.keys(seen).find((field) => now[field] !== seen[field]);
    if (other) {
      state.clusters.set(id, now);
      const values = { name: now.default_name, value: valueInWords(other, now) };
      throw Object.assign(new ApiError(412, t(`names.changed.${other}`, values)), { outdated: true });
    }
    try {
      return await send("PATCH", path, what, { "if-match": reply.headers.get("etag") });
    } catch (error) {
      if (error.status !== 412 || left <= 1) throw error;
    }
  }
}

const valueInWords = (field, { name, merged_into: into }) => (field === "merged_into" && into !== null ? lookOfCluster(into).name : name);

/** What `change` has to be told so that a field is as it is now. */
function before(id, field) {
  const now = lookOfCluster(id);
  const value = field === "merged_into" ? now.into : now[field];
  return value === effective(id, field, null) ? null : value;
}

const fieldsOf = (list, value) => list.map(([id, fields]) => [id, Object.fromEntries(Object.keys(fields).map((field) => [field, value(id, field, fields[field])]))]);

/** Change clusters as one step that can be undone: [[id, {field: value}], …]; `more` of the step. Either all of it happens, or nothing. */
export function changeAsStep(what, list, more = {}) {
  const old = fieldsOf(list, before);
  const was = fieldsOf(old, effective), is = fieldsOf(list, effective);
  const move = (to, back, seen) => async () => {
    const done = [];
    try {
      for (const [at, [id, fields]] of to.entries()) {
        await change(id, fields, seen[at][1]);
        done.unshift(back[at]);
      }
    } catch (error) {
      for (const [id, fields] of done) await change(id, fields).catch(() => {});
      throw error;
    }
  };
  const turned = (pairs) => [...pairs].reverse(); // what was merged last comes apart first
  return run({ ...more, what, redo: move(list, old, was), undo: move(turned(old), turned(list), turned(is)) });
}

/** The default name of a cluster. */
export const defaultName = (id) => state.clusters.get(id)?.default_name ?? "";

/** What the server says of all clusters came: somebody else may have changed something. False: it may be older than a change. */
export function news(list, asked) {
  if (asked !== changes || wished.size || `${list.model}@${list.digest}` !== state.model) return false;
  set({ clusters: new Map(list.clusters.map((one) => [one.id, one])) }, "clusters");
  return true;
}

/** How many changes were sent, for `news`. */
export const sent = () => changes;

/** Uint8Array(256): the id under which each id of the label map is shown: merges by hand, then the level, then a preview. */
export function shownAs({ k = state.k, preview = state.preview, of = state.of } = {}) {
  const table = Uint8Array.from({ length: 256 }, (_, id) => id);
  if (of === "classes") return table;
  for (const id of state.clusters.keys()) table[id] = rootOf(id);
  if (k !== null) {
    const level = Uint8Array.from({ length: 256 }, (_, id) => id);
    let left = state.clusters.size;
    for (const { k: after, merge, into } of state.tree) {
      if (left <= k) break;
      for (let id = 0; id < 255; id++) if (merge.includes(level[id])) level[id] = into;
      left = after;
    }
    for (let id = 0; id < 255; id++) table[id] = level[table[id]];
  }
  if (preview) for (let id = 0; id < 255; id++) table[id] = preview.get(table[id]) ?? table[id];
  return table;
}

/** Where a cluster's merges by hand lead. */
export function rootOf(id) {
  for (let step = 0; step < 255; step++) {
    const { into } = lookOfCluster(id);
    if (into === null || !state.clusters.has(into)) break;
    id = into;
  }
  return id;
}

/**
 * What of the shown photo is in each group, largest first; a preview does not count:
 * [{id, name, color, hidden, pixels, fraction, confidence, members: of the network's, that are in the photo}].
 */
export function groups() {
  const found = answer()?.found;
  if (!found) return [];
  const table = shownAs({ preview: null });
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
