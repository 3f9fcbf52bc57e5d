// The page without a photo: streets to try, drawn here; what the model has seen; a line for the shell; the way to the rest.
import { get, module, picture, query } from "./api.js";
import { $, announce, el } from "./dom.js";
import { next, undo } from "./history.js";
import { fail } from "./notice.js";
import { take } from "./photos.js";
import { on, state } from "./state.js";
import { number, percent, t } from "./strings.js";

const EXEMPLARS = 8;

let about = ""; // the model that is told of

/** Small pictures of drawn streets: a click takes one as a photo. */
async function samples(list) {
  const { names, street } = await module("drawn");
  for (const name of names) {
    const drawing = street(name);
    const small = el("canvas", { width: 320, height: 240, aria: { hidden: "true" } });
    small.getContext("2d").drawImage(drawing, 0, 0, 320, 240);
    const button = el("button", { type: "button", class: "sample" }, small, el("span", { textContent: t(`welcome.sample.${name}`) }));
    button.onclick = async () => {
      const file = await drawing.convertToBlob({ type: "image/png" });
      take([new File([file], `${name}.png`, { type: "image/png" })]).catch(fail);
    };
    list.append(el("li", {}, button));
    await new Promise((resolve) => setTimeout(resolve)); // one at a time: the page stays awake
  }
}

/** What the model in use was made of, and what its clusters look like. */
async function tellOfTheModel() {
  if (!state.clusters.size || state.model === about || state.current) return;
  about = state.model;
  const { manifest, k, method, name } = await get(`models/${encodeURIComponent(about)}`);
  const { images } = manifest?.provenance ?? {};
  $("about-model").textContent = t(images ? "welcome.model" : "welcome.model.unknown", { name, k, images: number(images ?? 0), method });
  const largest = [...state.clusters.values()].sort((a, b) => b.fraction - a.fraction);
  const shown = largest.filter((one) => one.exemplars.length).slice(0, EXEMPLARS);
  const pictures = await Promise.all(shown.map(exemplar));
  $("exemplars").className = pictures.length ? "" : "shares"; // a bundle may not show its photos: then how much there was of each
  $("exemplars").replaceChildren(...(pictures.length ? pictures : largest.map(share)));
}

const wordsOf = ({ name, fraction }) => t("welcome.exemplar", { name, share: percent(fraction) });

async function exemplar(cluster) {
  const src = await picture(query(`clusters/${cluster.id}/exemplars/0`, { model: state.model }));
  return el("li", {}, el("img", { src, alt: wordsOf(cluster), title: wordsOf(cluster) }));
}

function share(cluster) {
  return el("li", { title: wordsOf(cluster), style: { "flex-grow": cluster.fraction, "background-color": cluster.color } }, el("span", { class: "hidden-text", textContent: wordsOf(cluster) }));
}

/** Photos that were all taken away can come back. */
function offerBack() {
  $("bring-back").hidden = Boolean(state.current) || !next().undo;
  $("bring-back").textContent = t("welcome.back", { what: next().undo ?? "" });
}

async function copyLine(field) {
  const { toClipboard } = await module("clipboard");
  const copied = await toClipboard(field);
  $("curl-told").textContent = t(copied ? "copy.done" : "copy.yourself");
  announce($("curl-told").textContent);
}

export function start() {
  const back = el("button", { type: "button", id: "bring-back", hidden: true, onclick: undo });
  const list = el("ul", { id: "samples", aria: { label: t("welcome.samples") } });
  const line = el("input", { id: "curl-line", readOnly: true, spellcheck: false, aria: { label: t("welcome.curl") } });
  line.value = `curl -F image=@photo.jpg '${new URL("segment?format=overlay", location.href).href}' -o overlay.jpg`;
  line.onfocus = () => line.select();
  const copy = el("button", { type: "button", id: "copy-line", textContent: t("copy.button"), onclick: () => copyLine(line).catch(fail) });
  const clusters = el("button", { type: "button", id: "welcome-clusters", textContent: t("welcome.clusters"), onclick: () => $("to-clusters").click() });
  $("welcome").append(
    back,
    el("section", {}, el("h2", { textContent: t("welcome.samples") }), list),
    el("section", {}, el("h2", { textContent: t("welcome.seen") }), el("p", { id: "about-model" }), el("ul", { id: "exemplars", aria: { label: t("welcome.exemplars") } }), clusters),
    el("section", {}, el("h2", { textContent: t("welcome.curl") }), el("div", { class: "line" }, line, copy), el("p", {}, el("span", { id: "curl-told" }), " ", el("a", { href: "docs", target: "_blank", rel: "noopener", title: t("api.title"), textContent: t("welcome.api") }))),
  );
  if (matchMedia("(pointer: coarse)").matches) { // nothing is dropped with a finger
    const [what, or] = $("drop").children;
    what.textContent = t("empty.tap");
    or.hidden = true;
  }
  samples(list).catch(fail);
  on("clusters models photo", () => tellOfTheModel().catch(() => (about = ""))); // the status line says what is wrong with the server
  on("history photo", offerBack);
}
