// The page: its modules, begun in order. No build step, nothing from elsewhere, one module a view.
import { call, module } from "./api.js";
import * as background from "./background.js";
import { $, translate } from "./dom.js";
import * as keyboard from "./keyboard.js";
import * as legend from "./legend.js";
import * as models from "./models.js";
import { isLocal, setLocal } from "./names.js";
import { fail } from "./notice.js";
import * as pages from "./pages.js";
import * as photo from "./photo.js";
import * as photos from "./photos.js";
import * as segmenting from "./segmenting.js";
import * as similar from "./similar.js";
import { set } from "./state.js";
import * as status from "./status.js";
import * as strip from "./strip.js";
import * as tools from "./tools.js";
import * as welcome from "./welcome.js";

call.askForKey = () => module("dialog").then(({ askForKey }) => askForKey());
translate();
for (const part of [tools, photo, segmenting, legend, similar, photos, strip, pages, background, welcome, models, status, keyboard]) part.start();
tools.register("pick", { click: ({ id }) => set({ selection: new Set(id === undefined ? [] : [id]) }, "selection") });
for (const [id, all] of [["save", false], ["save-all", true]]) {
  $(id).onclick = () => module("downloads").then(({ open }) => open(all)).catch(fail);
}
$("scope").value = isLocal() ? "local" : "shared";
$("scope").onchange = () => setLocal($("scope").value === "local");
