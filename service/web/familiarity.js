// How like the photos the model has learned from the shown one is, in words over the photo.
import { $ } from "./dom.js";
import { answer, on, state } from "./state.js";
import { percent, t } from "./strings.js";

const RATHER = 0.15; // of the training images are less sure: fewer is "rather unlike"
const SEEN_MS = 5000; // that all is well is said for so long; the status line goes on saying it

let quiet = 0;

/** A word for what an answer says of its photo: like, rather or unlike; null where the model cannot say. */
export function word({ familiarity, familiar }) {
  if (familiarity === null || familiarity === undefined) return null;
  if (familiar === false) return "unlike";
  return familiarity < RATHER ? "rather" : "like";
}

function show() {
  clearTimeout(quiet);
  const found = answer() ?? state.current?.answer, said = found ? word(found) : null;
  const badge = $("familiarity");
  badge.hidden = !said;
  badge.className = `badge ${said ?? ""}`;
  badge.textContent = said ? t(`familiarity.${said}`) : "";
  if (said === "like") quiet = setTimeout(() => badge.classList.add("quiet"), SEEN_MS);
  badge.title = said ? t("familiarity.what", { share: percent(found.familiarity) }) : "";
}

export function start() {
  on("photo of", show);
  show();
}
