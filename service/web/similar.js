// The tool Similar: how like one place every other is, as a heat map over the photo.
import { call, query } from "./api.js";
import { $, el } from "./dom.js";
import { fail, say } from "./notice.js";
import { clearMarks, mark, onScreen } from "./photo.js";
import { optionsOf } from "./segmenting.js";
import { set, state } from "./state.js";
import { t } from "./strings.js";
import { register, take } from "./tools.js";

const EDGE_PX = 90; // nearer to the border a button would reach beyond it

let asking = null;

async function show({ x, y }) {
  asking?.abort();
  clearMarks("similar");
  asking = new AbortController();
  const photo = state.current;
  set({ busy: state.busy + 1 }, "busy");
  try {
    const path = query("similar", { ...optionsOf(photo), crf: undefined, x, y });
    const reply = await call(path, { method: "POST", body: photo.file, signal: asking.signal });
    const heat = await createImageBitmap(await reply.blob());
    if (photo !== state.current || state.tool !== "similar") return;
    set({ heat }, "look");
    say(t("similar.shown"));
    offer({ x, y });
  } catch (error) {
    fail(error);
  } finally {
    set({ busy: state.busy - 1 }, "busy");
  }
}

/** The place that was clicked, and a way to make a class of it. */
function offer(place) {
  const holder = mark("similar", place.x, place.y);
  const use = el("button", { type: "button", textContent: t("similar.use") });
  use.onclick = () => {
    state.example = place;
    take("teach");
  };
  holder.append(use);
  const { x, y } = onScreen(place.x, place.y), frame = $("view").getBoundingClientRect();
  if (x < EDGE_PX) use.style.translate = "-10px 0";
  if (x > frame.width - EDGE_PX) use.style.translate = "calc(10px - 100%) 0";
  if (y > frame.height - EDGE_PX) use.style.top = "-2.9rem";
}

export const start = () =>
  register("similar", {
    enter: () => say(t("similar.enter")),
    click: show,
    under: () => t("similar.under"),
    leave: () => {
      asking?.abort();
      say("");
      clearMarks("similar");
      set({ heat: null }, "look");
    },
  });
