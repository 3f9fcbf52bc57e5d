// Which models serve, and which of them is asked.
import { get } from "./api.js";
import { $ } from "./dom.js";
import { forget } from "./history.js";
import * as names from "./names.js";
import { fail, say } from "./notice.js";
import { refresh } from "./segmenting.js";
import { on, set, state } from "./state.js";
import { t } from "./strings.js";

let learning = null;

/** Resolves once it is known what the model in use tells apart; asks once more where that failed. */
export const ready = () =>
  (learning ??= learn().catch((error) => {
    learning = null;
    throw error;
  }));

async function learn() {
  const { models } = await get("models");
  const served = models.filter((one) => one.state === "ready");
  const refs = served.map(refOf);
  const model = refs.includes(state.model) ? state.model : refs[0] ?? "";
  set({ models: served, model }, "models");
  if (model) set(await names.learn(model), "clusters");
  else learning = null; // none is ready yet
}

export const refOf = (model) => `${model.name}@${model.digest}`;

let turn = 0;

/** Use another model: nothing of what the one before said is kept. Where it cannot be asked, all stays as it is. */
export async function use(model) {
  const mine = ++turn;
  const known = await names.learn(model);
  if (mine !== turn) return; // another was chosen meanwhile
  forget();
  for (const one of state.photos) Object.assign(one, { answer: null, classAnswer: null, error: null });
  const anew = { k: null, preview: null, selection: new Set(), lit: null, heat: null };
  set({ model, ...known, ...anew }, "models", "clusters", "photo", "photos", "selection", "look");
  await refresh();
}

/** Which models serve now, as the server said lately; where the one in use is gone, another answers, and people are told. */
export async function follow(models) {
  if (!learning || !state.model) return ready(); // it was away when it was asked for the first time
  const served = models.filter((one) => one.state === "ready"), refs = served.map(refOf);
  if (JSON.stringify(served.map(shownOf)) === JSON.stringify(state.models.map(shownOf))) return;
  set({ models: served }, "models");
  if (!served.length || refs.includes(state.model)) return;
  const old = state.model;
  const next = refs.find((ref) => ref.split("@")[0] === old.split("@")[0]) ?? refs[0];
  await use(next);
  say(t("model.replaced", { old, model: next }));
}

const shownOf = (model) => [refOf(model), model.canary, model.engine, model.provider];

function list() {
  const options = state.models.map((one) => {
    const name = t(one.canary ? "model.canary" : "model.option", { name: one.name, k: one.k });
    return new Option(name, refOf(one), false, refOf(one) === state.model);
  });
  $("model").replaceChildren(...options);
  $("model").closest("label").hidden = options.length < 2;
}

export function start() {
  on("models", list);
  $("model").onchange = () => use($("model").value).catch((error) => {
    list(); // as it was
    fail(error);
  });
  ready().catch(fail);
}
