// What was picked, at the place that was clicked: what it is called, a way to name it there, and to merge what is selected.
import { $, el } from "./dom.js";
import { merge, rename, rows } from "./legend.js";
import { clearMarks, mark, onScreen } from "./photo.js";
import { on, set, state } from "./state.js";
import { t } from "./strings.js";

const EDGE_PX = 120; // nearer to the border the chip would reach beyond it

let shown = null; // what the chip says

function show() {
  const { picked } = state, chosen = rows().filter((group) => state.selection.has(group.id));
  const there = state.tool === "pick" && picked && chosen.some((group) => group.id === picked.id);
  const held = $("marks").querySelector(".mark.picked");
  if (there && held?.querySelector(".editor")) return; // what is typed stays
  const now = there ? JSON.stringify([state.current.id, picked, chosen.map(({ id, name, color }) => [id, name, color])]) : null;
  if (now === shown && Boolean(held) === Boolean(there)) return;
  const focused = held?.contains(document.activeElement);
  clearMarks("picked");
  shown = now;
  if (!there) return;
  make(picked, chosen);
  if (focused) $("marks").querySelector(".picked button")?.focus();
}

function make({ x, y }, chosen) {
  const [group] = chosen, many = chosen.length > 1;
  const what = el("button", { type: "button", textContent: t(many ? "picked.merge" : "picked.name"), aria: { label: t(many ? "picked.merge.what" : "picked.name.what", { name: group.name, count: chosen.length }) } });
  what.onclick = () => (many ? merge(nameHere) : rename(group, { label: what }));
  const words = el("span", { textContent: many ? t("picked.many", { count: chosen.length }) : group.name });
  const box = el("div", { class: "at", role: "group", aria: { label: t("picked.label") } }, ...chosen.slice(0, 4).map(({ color }) => el("i", { style: { "background-color": color }, aria: { hidden: "true" } })), words, what);
  box.title = many ? "" : t("picked.more");
  const holder = mark("picked", x, y);
  holder.append(box);
  const seen = onScreen(x, y), frame = $("view").getBoundingClientRect();
  if (seen.x < EDGE_PX) box.style.translate = "-12px 0";
  if (seen.x > frame.width - EDGE_PX) box.style.translate = "calc(12px - 100%) 0";
  if (seen.y > frame.height - 70) box.style.top = "-3.1rem";
}

/** What became of a merge is named where it was clicked. */
function nameHere(group, more) {
  set({ selection: new Set([group.id]), picked: { ...state.picked, id: group.id } }, "selection");
  shown = null;
  clearMarks("picked");
  make(state.picked, [group]);
  rename(group, { ...more, label: $("marks").querySelector(".picked button") });
}

export function start() {
  on("selection tool look photo clusters rows", show);
  show();
}
