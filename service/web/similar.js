// The tool Similar: how like one place every other is. What is like it stays clear, the rest of the photo darkens.
import { call, query } from "./api.js";
import { $, el } from "./dom.js";
import { fail, say, unsay } from "./notice.js";
import { clearMarks, mark, onScreen } from "./photo.js";
import { indicesOf, optionsOf } from "./segmenting.js";
import { on, set, state } from "./state.js";
import { t } from "./strings.js";
import { take } from "./tools.js";

const EDGE_PX = 90; // nearer to the border a button would reach beyond it
const LONGEST_PX = 1600; // of what is painted
const LIKE = 0.5; // cosine from which a place is said to be alike: there runs the line
const [DARK_TO, CLEAR_FROM] = [0.1, 0.75]; // cosines up to which the photo is as dark as can be, and from which it is not dark at all
const DARKEST = 0.72; // opacity
const LINE = [255, 214, 10];

let asking = null;
let shown = null; // {photo, page, model} that the heat is of

const now = () => ({ photo: state.current, page: state.current?.page, model: state.model });
const outdated = () => shown && Object.entries(now()).some(([what, value]) => shown[what] !== value);

async function show({ x, y }) {
  forget();
  const mine = (asking = new AbortController()), about = now(), { photo } = about;
  set({ busy: state.busy + 1 }, "busy");
  try {
    const path = query("similar", { ...optionsOf(photo), crf: undefined, x, y });
    const reply = await call(path, { method: "POST", body: photo.file, signal: mine.signal });
    const heat = await createImageBitmap(veil(await indicesOf(await reply.arrayBuffer())));
    if (mine.signal.aborted || state.tool !== "similar") return;
    shown = about;
    if (outdated()) return forget();
    set({ heat }, "look");
    say(t("similar.shown"), { lasting: true });
    offer({ x, y });
  } catch (error) {
    fail(error);
  } finally {
    set({ busy: state.busy - 1 }, "busy");
  }
}

/** Nothing is compared any more. */
function forget() {
  asking?.abort();
  shown = null;
  clearMarks("similar");
  unsay(t("similar.shown"));
  if (state.heat) set({ heat: null }, "look");
}

/**
 * What is painted over the photo: nothing where it is like the place, dark where it is not, and a line at LIKE.
 *
 * heat  {ids: 127.5 × (cosine + 1), width, height};  returns  ImageData
 */
function veil({ ids, width, height }) {
  const step = Math.max(1, Math.max(width, height) / LONGEST_PX);
  const w = Math.max(1, Math.floor(width / step)), h = Math.max(1, Math.floor(height / step));
  const data = new Uint8ClampedArray(w * h * 4), line = Math.round(127.5 * (LIKE + 1));
  const opacity = Uint8Array.from({ length: 256 }, (_, value) => {
    const clear = Math.min(1, Math.max(0, (value / 127.5 - 1 - DARK_TO) / (CLEAR_FROM - DARK_TO)));
    return Math.round(255 * DARKEST * (1 - clear * clear * (3 - 2 * clear)));
  });
  const at = (x, y) => ids[Math.min(height - 1, Math.floor((y + 0.5) * step)) * width + Math.min(width - 1, Math.floor((x + 0.5) * step))];
  for (let y = 0, o = 0; y < h; y++) {
    for (let x = 0; x < w; x++, o += 4) {
      const value = at(x, y), like = value >= line;
      const border = (x + 1 < w && at(x + 1, y) >= line !== like) || (y + 1 < h && at(x, y + 1) >= line !== like) || (x && at(x - 1, y) >= line !== like) || (y && at(x, y - 1) >= line !== like);
      if (border) data.set([...LINE, 255], o);
      else data[o + 3] = opacity[value];
    }
  }
  return new ImageData(data, w, h);
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

export const tool = {
  enter: () => say(t("similar.enter")),
  click: show,
  under: () => t("similar.under"),
  leave: () => {
    forget();
    unsay(t("similar.enter"));
  },
};

export const start = () => on("photo photos models", () => outdated() && forget());
