// The page: its modules, begun in order. No build step, nothing from elsewhere, one module a view.
import { call, module } from "./api.js";
import * as classes from "./classes.js";
import { $, sheet, translate } from "./dom.js";
import * as following from "./following.js";
import * as keyboard from "./keyboard.js";
import * as legend from "./legend.js";
import * as models from "./models.js";
import { fail } from "./notice.js";
import * as photo from "./photo.js";
import * as photos from "./photos.js";
import * as segmenting from "./segmenting.js";
import { on, set, state } from "./state.js";
import * as status from "./status.js";
import * as tools from "./tools.js";
import * as views from "./views.js";
import * as welcome from "./welcome.js";

call.askForKey = () => module("dialog").then(({ askForKey }) => askForKey());
translate();
for (const part of [tools, photo, segmenting, legend, classes, photos, welcome, models, status, following, keyboard]) part.start();
tools.register("pick", { click: pick });
const save = (all) => Promise.all([module("downloads"), sheet("photos.css")]).then(([{ open }]) => open(all)).catch(fail);
$("save").onclick = () => save(false);

// What is not needed at the first view is fetched when it is asked for, and again where that failed.
const once = (begin, begun = null) => () => (begun ??= begin().catch((error) => ((begun = null), Promise.reject(error))));
const lazily = (name, fetch) => {
  const begun = once(async () => {
    const [{ start, tool }] = await fetch();
    start();
    tools.register(name, tool);
    return tool;
  });
  tools.register(name, { enter: () => begun().then((tool) => state.tool === name && tool.enter()).catch(fail) });
  return begun;
};
const teach = lazily("teach", () => Promise.all([module("teach"), sheet("teach.css")]));
lazily("similar", () => Promise.all([module("similar")]));
on("of", () => state.of === "classes" && teach().catch(fail));
const withPhotos = once(async () => {
  const [, ...all] = await Promise.all([sheet("photos.css"), ...["strip", "pages", "thumbnails", "joining", "familiarity", "picked"].map(module)]);
  for (const one of all) one.start();
  $("save-all").onclick = () => save(true);
});
on("photos", () => state.photos.length && withPhotos().catch(fail));
views.start(once(async () => {
  const [{ start }] = await Promise.all([module("clusters"), sheet("clusters.css")]);
  await start();
}));

/** Select what is at a place; with Shift or Alt that, too. */
function pick({ id, x, y }, { alt }) {
  const selection = new Set(alt ? state.selection : []);
  if (id !== undefined && !(alt && selection.delete(id))) selection.add(id);
  set({ selection, picked: { id, x, y } }, "selection");
}
