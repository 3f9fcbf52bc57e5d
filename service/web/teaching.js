// What people say of classes, as steps that can be undone: what the server takes away it hands out as a file, and taking
// that file in brings it back.
import { ApiError, call, get, send } from "./api.js";
import { adopt, handle, hide, hold, path, retaught } from "./classes.js";
import { run } from "./history.js";
import { lookOfCluster, shownAs } from "./names.js";
import { state, tell } from "./state.js";
import { t } from "./strings.js";

const said = ({ name, color, clusters }) => ({ name, color, clusters });

/** Take a file of classes in: [{id, examples: [their numbers]}], in the file's order. */
async function load(file, values = {}, headers = {}) {
  const answer = await send("PUT", path("/import", values), file, headers);
  adopt(answer);
  return answer;
}

/** Bring back what the server took away; `one` is the handle of its class, `marks` those of its examples in order. */
async function bringBack(file, one, marks) {
  const now = state.classes.get(one.id); // as others may have named it meanwhile
  if (now) Object.assign(file.classes[0], said(now));
  const { imported } = await load(file);
  const [{ id, examples }] = imported;
  hold(one, id);
  marks.forEach((mark, i) => (mark.n = examples[i] ?? null));
  retaught();
}

const drop = async (more) => (await call(path(more), { method: "DELETE" })).json();

/** Take a class or one of its examples away: the file that brings it back. */
async function takeAway(one, name, more = "") {
  const file = await about(one, name, () => drop(`/${one.id}${more}`));
  adopt(await get(path()));
  retaught();
  return file;
}

/** Ask something of a class. What somebody else deleted meanwhile is said to be so, and shown no more. */
async function about(one, name, work) {
  try {
    return await work();
  } catch (error) {
    const { id } = one;
    if (![404, 412].includes(error.status)) throw error;
    adopt(await get(path()));
    retaught();
    throw Object.assign(new ApiError(404, t(state.classes.has(id) ? "teach.gone.example" : "teach.gone", { name })), { outdated: true });
  }
}

const lower = (name) => name.toLocaleLowerCase();
const united = (...lists) => [...new Set(lists.flat())].sort((a, b) => a - b);

/**
 * What was found and is in no class of a list: {made, grown}, classes as a file has them, each with an id of its own. A group is one of them, with its
 * merges, name and color as they are shown here; one that is called as a class is gives its clusters to that class.
 */
export function missing(list) {
  const table = shownAs({ preview: null, of: "clusters" }), taken = new Set(list.flatMap((one) => one.clusters));
  const here = new Map(list.map((one) => [lower(one.name), one])), made = new Map(), grown = new Map();
  for (const cluster of state.clusters.keys()) {
    if (taken.has(cluster)) continue;
    const id = table[cluster], { name, color, hidden } = lookOfCluster(id), same = here.get(lower(name));
    const into = same ? grown : made;
    const one = into.get(lower(name)) ?? (same ? { ...same, examples: [] } : { id, name, color, hidden, clusters: [], examples: [] });
    into.set(lower(name), { ...one, clusters: united(one.clusters, cluster) });
  }
  const ids = new Set(list.map((one) => one.id)), free = [...Array(255).keys()];
  for (const one of made.values()) {
    one.id = ids.has(one.id) ? free.find((id) => !ids.has(id)) : one.id;
    ids.add(one.id);
  }
  return { made: [...made.values()], grown: [...grown.values()] };
}

const asFile = ({ id, name, color, clusters, examples }) => ({ id, name, color, clusters, examples });

const TURNS = 3; // what was found is asked to be classes as often where somebody else changes classes meanwhile

/** What was found becomes classes, by one call: {made: [{id, name}], before: classes that had other clusters before}. */
async function addFound(head) {
  for (let turn = 1; ; turn++) {
    const reply = await call(path(), { cache: "no-store" }), { classes } = await reply.json();
    const { made, grown } = missing(classes);
    if (!made.length && !grown.length) return { made: [], before: [] };
    try {
      const file = { ...head, classes: [...made, ...grown].map(asFile) };
      const { imported } = await load(file, {}, { "if-match": reply.headers.get("etag") });
      made.forEach((one, i) => one.hidden && hide(imported[i].id, true));
      const ids = new Set(grown.map((one) => one.id));
      return { made: made.map(({ name }, i) => ({ id: imported[i].id, name })), before: classes.filter((one) => ids.has(one.id)).map((one) => ({ ...one, examples: [] })) };
    } catch (error) {
      if (error.status !== 412 || turn === TURNS) throw error;
    }
  }
}

/**
 * Make a class, and with `found` classes of all that was found beside it, as one step: its handle, or null where that went
 * wrong. Without a name: what was found alone.
 */
export async function make(name, { found = false } = {}) {
  const one = { id: null }, held = new Map(); // handles, by name
  let removed = null, added;
  const take = async () => {
    removed ??= { classes: [] };
    try {
      for (const { id, name: called } of added.made) {
        const file = await drop(`/${id}`).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
        if (!file) continue; // somebody else has
        held.set(called, called === name ? one : handle(id));
        removed = { ...file, classes: [...removed.classes, ...file.classes] };
      }
      if (added.before.length) await load({ ...added.head, classes: added.before.map(asFile) });
    } finally {
      adopt(await get(path()));
      retaught();
    }
  };
  const made = await run({
    what: t(!name ? "step.found" : found ? "step.class.found" : "step.class", { name }),
    redo: async () => {
      const head = found ? { ...(await get(path("/export"))), classes: [] } : null;
      added = { head, ...(head ? await addFound(head) : { made: [], before: [] }) };
      try {
        if (removed?.tessera) {
          const { imported } = await load(removed);
          removed.classes.forEach(({ name: called }, i) => {
            hold(held.get(called), imported[i].id);
            if (!added.made.some(({ id }) => id === imported[i].id)) added.made.push({ id: imported[i].id, name: called });
          });
          removed = null;
        } else if (name) {
          const same = [...state.classes.values()].find((other) => lower(other.name) === lower(name));
          const { id } = same ?? (await send("POST", path(), { name }));
          if (!same) added.made.push({ id, name });
          hold(one, id);
        }
      } catch (error) {
        await take();
        removed = null;
        throw error;
      }
      adopt(await get(path()));
      if (found) retaught();
    },
    undo: take,
  });
  return made ? one : null;
}

/** Two classes are the same thing: clusters and examples of `one` become those of `into`, as a step. */
export function join(one, into) {
  const { name } = state.classes.get(one.id), other = state.classes.get(into.id).name;
  const marks = state.photos.flatMap((photo) => photo.marks ?? []).filter((mark) => mark.one === one && mark.n !== null);
  let was;
  return run({
    what: t("step.merge.into", { names: name, name: other }),
    redo: async () => {
      const all = await get(path("/export")), byId = new Map(all.classes.map((each) => [each.id, each]));
      const from = byId.get(one.id), to = byId.get(into.id);
      if (!from || !to) await about(from ? into : one, from ? other : name, () => Promise.reject(new ApiError(404, "")));
      const key = ({ code, at, negative, encoder }) => JSON.stringify([code, at, negative, encoder]);
      const there = new Set(to.examples.map(key)), moved = from.examples.filter((example) => !there.has(key(example)));
      const { imported } = await load({ ...all, classes: [{ ...to, clusters: united(to.clusters, from.clusters), examples: moved }] });
      was = { head: { ...all, classes: [] }, from, clusters: to.clusters, examples: imported[0].examples, at: new Map(marks.map((mark) => [mark, mark.n])) };
      for (const mark of marks) {
        const at = moved.findIndex(({ n }) => n === mark.n);
        Object.assign(mark, at < 0 ? { gone: true } : { one: into, n: imported[0].examples[at] });
      }
      await takeAway(one, name);
      tell("marks");
    },
    undo: async () => {
      const now = state.classes.get(into.id), back = now ? [{ ...asFile(now), clusters: was.clusters, examples: [] }] : [];
      const { imported } = await load({ ...was.head, classes: [was.from, ...back] });
      hold(one, imported[0].id);
      for (const [mark, n] of was.at) Object.assign(mark, { one, gone: false, n: imported[0].examples[was.from.examples.findIndex((example) => example.n === n)] ?? null });
      for (const n of now ? was.examples : []) await drop(`/${into.id}/examples/${n}`).catch((error) => error.status === 404 || Promise.reject(error));
      adopt(await get(path()));
      retaught();
      tell("marks");
    },
  });
}
/** Say {name, color, clusters} of a class, as a step. */
export function change(one, what, words) {
  const old = said(state.classes.get(one.id));
  const put = async (fields) => {
    await about(one, old.name, () => send("PUT", path(`/${one.id}`), { ...said(state.classes.get(one.id) ?? old), ...fields }, { "if-match": "*" }));
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
      removed = await takeAway(one, name);
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
        const answer = await about(one, name, async () => (await call(asked, { method: "POST", body: photo.file })).json());
        mark.n = answer.example;
        mark.agrees = answer.agrees;
        adopt(answer);
        retaught();
      }
      tell("marks");
    },
    undo: async () => {
      removed = await takeAway(one, name, `/examples/${mark.n}`);
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
      removed = await takeAway(mark.one, name, `/examples/${mark.n}`);
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

function isFileOfClasses(text) {
  try {
    const { tessera, classes } = JSON.parse(text);
    return tessera === "classes" && Array.isArray(classes);
  } catch {
    return false;
  }
}

/** Take a file of classes in, as a step: those that are here stay. Resolves to what is to be told of it, or null. Throws for other files. */
export async function importFile(file) {
  const text = await file.text();
  if (!isFileOfClasses(text)) throw new Error(t("teach.import.no", { name: file.name }));
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
