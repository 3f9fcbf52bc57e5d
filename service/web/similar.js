// The tool Similar: how like one place every other is, as a heat map over the photo.
import { call, query } from "./api.js";
import { fail, say } from "./notice.js";
import { optionsOf } from "./segmenting.js";
import { set, state } from "./state.js";
import { t } from "./strings.js";
import { register } from "./tools.js";

let asking = null;

async function show({ x, y }) {
  asking?.abort();
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
  } catch (error) {
    fail(error);
  } finally {
    set({ busy: state.busy - 1 }, "busy");
  }
}

export const start = () =>
  register("similar", {
    enter: () => say(t("similar.enter")),
    click: show,
    under: () => t("similar.under"),
    leave: () => {
      asking?.abort();
      say("");
      set({ heat: null }, "look");
    },
  });
