// Groups become one, and come apart again: what is merged into which, for the legend, the suggestions and the keys.
import { changeAsStep, defaultName, lookOfCluster, rootOf, shownAs } from "./names.js";
import { state } from "./state.js";
import { list, t } from "./strings.js";

/** Which of some groups the others become: one that somebody named before one that nobody did, then the largest here. */
export function survivor(groups) {
  const named = ({ id, name }) => Number(name !== defaultName(id));
  return [...groups].sort((a, b) => named(b) - named(a) || b.pixels - a.pixels)[0];
}

/** Merge groups as they are shown, also those that only the level joined, as one step. */
export function mergeAsStep(groups, { into = survivor(groups), name = into.name } = {}) {
  const table = shownAs({ preview: null }), ids = new Set(groups.map((group) => group.id));
  const roots = [...state.clusters.keys()].filter((id) => ids.has(table[id]) && rootOf(id) === id);
  const target = roots.includes(into.id) ? into.id : roots.find((id) => table[id] === into.id);
  const changes = roots.filter((id) => id !== target).map((id) => [id, { merged_into: target }]);
  const now = lookOfCluster(target);
  if (now.name !== name) changes.unshift([target, { name }]);
  if (now.color !== into.color) changes.unshift([target, { color: into.color }]);
  const others = groups.filter((group) => group !== into).map((group) => group.name);
  return changeAsStep(t("step.merge", { names: list(others), name }), changes, { joinable: true });
}

/** The clusters that were merged into a group by hand: their ids. */
export function partsOf(group, table = shownAs({ preview: null })) {
  return [...state.clusters.keys()].filter((id) => table[id] === group.id && lookOfCluster(id).into !== null);
}

/** Take back all merges of a group, as one step. */
export const takeApart = (group) => changeAsStep(t("step.apart", { name: group.name }), partsOf(group).map((id) => [id, { merged_into: null }]));

/** The group anywhere in this model, in this photo or not, that is called so, besides one; undefined: none. */
export function namesake(name, besides, groups) {
  const table = shownAs({ preview: null }), wanted = name.toLocaleLowerCase();
  const ids = new Set([...state.clusters.keys()].map((id) => table[id]));
  const id = [...ids].find((one) => one !== besides.id && lookOfCluster(one).name.toLocaleLowerCase() === wanted);
  return id === undefined ? undefined : groups.find((group) => group.id === id) ?? { ...lookOfCluster(id), pixels: 0 };
}
