// The row of tools: what a click on the photo does, and how what was found is painted.
import { $, announce } from "./dom.js";
import { next, redo, run, undo } from "./history.js";
import { on, set, state } from "./state.js";
import { t } from "./strings.js";

const tools = new Map();

/**
 * A tool: `click(place, {alt})` on the photo, `box({x, y, width, height}, {alt})` of a rectangle that was drawn, `under(place)`
 * words beside the pointer, `enter()`, `leave()`; all optional.
 */
export const register = (name, tool) => tools.set(name, tool);

export const toolInUse = () => tools.get(state.tool) ?? {};

/** Take a tool up. */
export function take(name) {
  if (name === state.tool) return;
  toolInUse().leave?.();
  set({ tool: name }, "tool", "look");
  announce(t(`tools.${name}`));
  toolInUse().enter?.();
}

const compare = (held) => state.comparing !== held && set({ comparing: held }, "look");

export function start() {
  for (const button of document.querySelectorAll("#tools [data-tool]")) button.onclick = () => take(button.dataset.tool);
  const hold = $("compare");
  hold.onpointerdown = (event) => {
    hold.setPointerCapture(event.pointerId);
    compare(true);
  };
  hold.onpointerup = hold.onpointercancel = hold.onblur = () => compare(false);
  hold.onkeydown = (event) => {
    if (![" ", "Enter"].includes(event.key)) return;
    event.preventDefault();
    compare(true);
  };
  hold.onkeyup = () => compare(false);
  hold.oncontextmenu = (event) => event.preventDefault();
  $("outlines").onclick = () => set({ outlines: !state.outlines }, "look");
  $("fill").oninput = () => set({ fill: Number($("fill").value) }, "look");
  for (const radio of document.querySelectorAll("[name=edges]")) radio.onchange = () => setEdges(radio.value);
  $("undo").onclick = undo;
  $("redo").onclick = redo;
  on("tool look history edges", show);
  show();
}

const EDGES = { false: "off", fast: "fast", true: "dense" };

/** Have edges refined so from now on, as a step. */
function setEdges(edges) {
  const old = state.edges;
  const to = (value) => () => set({ edges: value }, "edges");
  return run({ look: "edges", what: t("step.edges", { edges: t(`tools.edges.${EDGES[edges]}`) }), redo: to(edges), undo: to(old) });
}

function show() {
  for (const radio of document.querySelectorAll("[name=edges]")) radio.checked = radio.value === state.edges;
  for (const button of document.querySelectorAll("#tools [data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === state.tool));
  }
  $("view").dataset.tool = state.tool;
  $("outlines").setAttribute("aria-pressed", String(state.outlines));
  $("compare").setAttribute("aria-pressed", String(state.comparing));
  for (const [id, what] of Object.entries(next())) {
    $(id).setAttribute("aria-disabled", String(!what)); // not `disabled`: that would lose the focus
    $(id).title = what ? t(`tools.${id}.what`, { what }) : t(`tools.${id}`);
  }
}
