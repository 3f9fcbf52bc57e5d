// The rows beside the photo: what is there, how much of it, how sure; renaming, recoloring, hiding, ticking.
import { $, el, replaceKeepingFocus } from "./dom.js";
import { changeAsStep, groups } from "./names.js";
import { light } from "./photo.js";
import { on, set, state } from "./state.js";
import { percent, t } from "./strings.js";

const CLEAR = 0.35, FAIR = 0.15; // mean margin from which a group counts as such

/** How sure an answer is of a group, in a word: clear, fair or unsure. */
export const surety = (confidence) => (confidence >= CLEAR ? "clear" : confidence >= FAIR ? "fair" : "unsure");

function list() {
  replaceKeepingFocus($("legend"), groups().map(row));
}

function row(group) {
  const { id, name, color, hidden, fraction, confidence } = group;
  const select = el("input", {
    type: "checkbox", class: "tick", checked: state.selection.has(id), data: { key: `tick-${id}` }, aria: { label: t("legend.select", { name }) },
  });
  select.onchange = () => {
    const selection = new Set(state.selection);
    if (select.checked) selection.add(id);
    else selection.delete(id);
    set({ selection }, "selection");
  };
  const swatch = el("input", { type: "color", value: color, data: { key: `color-${id}` }, aria: { label: t("legend.color", { name }) } });
  swatch.onchange = () => changeAsStep(t("step.color", { name }), [[id, { color: swatch.value }]]);
  const label = el("button", { type: "button", class: "name", textContent: name, title: t("legend.rename", { name }), data: { key: `name-${id}` } });
  label.onclick = () => rename(group, label);
  const eye = el("button", { type: "button", class: "eye", aria: { pressed: String(hidden), label: t(hidden ? "legend.show" : "legend.hide", { name }) }, data: { key: `eye-${id}` } }, hidden ? "○" : "●");
  eye.onclick = () => hide(group);
  const sure = surety(confidence);
  const item = el("li", { class: hidden ? "unseen" : "", data: { id } }, select, swatch, label,
    el("span", { class: "share", title: t("legend.share", { percent: percent(fraction) }) }, percent(fraction)),
    el("span", { class: `sure ${sure}` }, t(`legend.sure.${sure}`)), eye);
  item.onpointerenter = () => light(id);
  item.onpointerleave = () => light(null);
  item.onfocus = () => light(id);
  return item;
}

/** Put a field in the place of a name. */
export function rename(group, label = $("legend").querySelector(`[data-key="name-${group.id}"]`)) {
  const field = el("input", { class: "name", value: group.name, maxLength: 80, data: { key: `name-${group.id}` }, aria: { label: t("legend.name", { name: group.name }) } });
  let done = false;
  const finish = async (keep) => {
    if (done) return;
    done = true;
    const name = field.value.trim();
    const held = document.activeElement === field;
    field.replaceWith(label);
    if (held) label.focus();
    if (keep && name !== group.name) await changeAsStep(t("step.rename", { old: group.name, name: name || "…" }), [[group.id, { name: name || null }]]);
  };
  field.onkeydown = (event) => {
    event.stopPropagation();
    if (!["Enter", "Escape"].includes(event.key) || event.isComposing) return;
    event.preventDefault(); // Enter is not a click on the name that gets the focus
    finish(event.key === "Enter");
  };
  field.onblur = () => finish(true);
  label.replaceWith(field);
  field.focus();
  field.select();
}

/** The groups in the order of the rows. */
export const rows = () => groups();

/** Hide a group, or show it again. */
export const hide = ({ id, name, hidden }) => changeAsStep(t(hidden ? "step.show" : "step.hide", { name }), [[id, { hidden: !hidden }]]);

export const merge = () => {};

export function start() {
  on("photo clusters classes look", list);
  on("selection lit", () => {
    for (const one of $("legend").children) {
      const id = Number(one.dataset.id);
      one.classList.toggle("lit", id === state.lit);
      one.querySelector(".tick").checked = state.selection.has(id);
    }
  });
}
