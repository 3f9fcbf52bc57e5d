// The keys of the whole page. None of them counts while something is typed or a dialog is open; single letters can be
// switched off, for people who speak to their computer.
import { $, announce, el } from "./dom.js";
import { redo, undo } from "./history.js";
import * as legend from "./legend.js";
import { say } from "./notice.js";
import { fit, zoom } from "./photo.js";
import { set, state } from "./state.js";
import { recall, store } from "./storage.js";
import { percent, t } from "./strings.js";
import { take, toolInUse } from "./tools.js";

const OFF = "tessera.keys"; // in localStorage: "off" where single letters do nothing

/** Whether single letters and numbers do something. */
export const lettersCount = () => recall(OFF) !== "off";

const LETTERS = {
  n: () => withGroup(legend.rename),
  h: () => withGroup(legend.hide),
  m: () => legend.merge(),
  t: () => take("teach"),
  p: () => take("pick"),
  s: () => take("similar"),
  "?": help,
  "0": fit,
  "+": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
};

/** The group that a key is for: of the row with the focus, else the one that is ticked, else the one pointed at. */
function groupInUse() {
  const row = document.activeElement?.closest?.("#legend li");
  const id = row ? Number(row.dataset.id) : state.selection.size === 1 ? [...state.selection][0] : state.selection.size ? null : state.lit;
  return legend.rows().find((group) => group.id === id);
}

function withGroup(work) {
  const group = groupInUse();
  if (group) work(group);
  else say(t("keys.which"));
}

/** Tick the nth row and no other; with Shift, the nth row too. A tool may have other use for numbers. */
function pickRow(n, more) {
  if (toolInUse().number) return toolInUse().number(n, more);
  const group = legend.rows()[n - 1];
  if (!group) return;
  const ids = more ? state.selection : [];
  const selection = new Set(ids);
  if (more && selection.has(group.id)) selection.delete(group.id);
  else selection.add(group.id);
  set({ selection }, "selection");
  announce(t(selection.has(group.id) ? "keys.selected" : "keys.unselected", { name: group.name, share: percent(group.fraction) }));
}

/** What is under way ends, the innermost first. */
function escape() {
  if (state.preview) set({ preview: null }, "look");
  else if (state.selection.size) {
    set({ selection: new Set() }, "selection");
    announce(t("keys.nothing"));
  } else if (state.tool !== "pick") take("pick");
  else if (!$("notice").hidden) say("");
}

/** Esc where something is typed goes out of the field; where nothing was, it goes on. */
function leave(field) {
  field.blur();
  if (!field.value) escape();
}

const KINDS = "input:not([type=checkbox], [type=radio], [type=range], [type=color], [type=file]), textarea, select, [contenteditable]";
const typing = (target) => Boolean(target?.closest?.(KINDS));

function pressed(event) {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  if (typing(event.target)) return event.key === "Escape" && leave(event.target);
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    const back = key === "z" && !event.shiftKey, again = (key === "z" && event.shiftKey) || key === "y";
    if (!back && !again) return;
    event.preventDefault();
    if (back) undo();
    else redo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "Escape") return escape();
  if (key === "F2") return withGroup(legend.rename);
  if ($("view").offsetParent && lettersCount()) {
    const digit = /^Digit([1-9])$/.exec(event.code)?.[1] ?? /^[1-9]$/.exec(key)?.[0];
    if (digit) return pickRow(Number(digit), event.shiftKey);
    if (!Object.hasOwn(LETTERS, key)) return;
    event.preventDefault(); // the letter is not to be typed into the field that it opens
    return LETTERS[key]();
  }
  if (key === "?") return help();
}

/** All keys, in a dialog. */
export async function help() {
  const { open } = await import("./dialog.js");
  await open(t("keys.title"), () => {
    const single = el("input", { type: "checkbox", checked: lettersCount() });
    single.onchange = () => store(OFF, single.checked ? null : "off");
    const list = t("keys.list").split("\n").map((line) => line.split(" — "));
    return [
      el("dl", { class: "keys" }, ...list.flatMap(([keys, what]) => [el("dt", {}, ...keys.split(" ").map((one) => el("kbd", { textContent: one }))), el("dd", { textContent: what })])),
      el("label", { class: "check" }, single, t("keys.single")),
      el("div", { class: "buttons" }, el("button", { type: "submit", class: "main", textContent: t("dialog.close") })),
    ];
  });
}

/** One stop of the Tab key for a whole toolbar, and arrows inside of it. Source: ARIA APG, toolbar pattern. */
function roving(toolbar) {
  const stops = () => [...toolbar.querySelectorAll("button, input")].filter((one) => one.offsetParent && !one.closest("[hidden]"));
  const settle = (chosen) => {
    for (const one of stops()) one.tabIndex = one === chosen ? 0 : -1;
  };
  toolbar.addEventListener("focusin", (event) => settle(event.target));
  toolbar.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const all = stops(), at = all.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault(); // radio buttons and the slider have up and down of their own
    all[(to + all.length) % all.length].focus();
  });
  new MutationObserver(() => stops().some((one) => one.tabIndex === 0) || settle(stops()[0])).observe(toolbar, { attributes: true, attributeFilter: ["hidden"], childList: true, subtree: true });
}

export function start() {
  addEventListener("keydown", pressed);
  roving($("tools"));
  $("keys").onclick = () => help();
}
