// Which models serve, and which of them is asked.
import { get } from "./api.js";
import { $ } from "./dom.js";
import { forget } from "./history.js";
import * as names from "./names.js";
import { fail } from "./notice.js";
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
  await names.learn();
}

export const refOf = (model) => `${model.name}@${model.digest}`;

/** Use another model: nothing of what the one before said is kept. */
export async function use(model) {
  forget();
  for (const one of state.photos) one.answer = one.classAnswer = null;
  set({ model, k: null, preview: null, selection: new Set(), heat: null }, "models", "photo", "photos", "selection", "look");
  await names.learn();
  await refresh();
}

function list() {
  const options = state.models.map((one) => {
    const name = one.canary ? t("model.canary", { name: one.name }) : one.name;
    return new Option(name, refOf(one), false, refOf(one) === state.model);
  });
  $("model").replaceChildren(...options);
  $("model").closest("label").hidden = options.length < 2;
}

export function start() {
  on("models", list);
  $("model").onchange = () => use($("model").value).catch(fail);
  ready().catch(fail);
}
