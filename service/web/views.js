// Which view is shown: the photo, or what the model tells apart.
import { $, announce } from "./dom.js";
import { fail } from "./notice.js";
import { t } from "./strings.js";

/** Begin. `clusters` fetches and begins the view of clusters, the first time that it is asked for. */
export function start(clusters) {
  const show = (view) => {
    document.body.dataset.view = view;
    $("clusters-view").hidden = view !== "clusters";
    for (const name of ["photo", "clusters"]) $(`to-${name}`).setAttribute("aria-pressed", String(name === view));
    announce(t(`views.${view}`));
  };
  $("to-photo").onclick = () => show("photo");
  $("to-clusters").onclick = () => {
    show("clusters");
    Promise.resolve(clusters()).catch(fail);
  };
}
