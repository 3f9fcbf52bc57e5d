// The dialog Save …: every format of the server's, of this photo or of all; the same request for the shell and for Python.
import { key, query } from "./api.js";
import { taughtByExample } from "./classes.js";
import { toClipboard } from "./clipboard.js";
import { open as openDialog } from "./dialog.js";
import { $, el } from "./dom.js";
import { groups, isLocal, shownAs } from "./names.js";
import { paint, paints, sample } from "./paint.js";
import { optionsOf, send } from "./segmenting.js";
import { curl, NAMED, python } from "./snippets.js";
import { answer, state } from "./state.js";
import { number, t } from "./strings.js";
import { Zip } from "./zip.js";

const SEEN = "seen"; // made here, of what is on the screen
const SUFFIXES = { // what people ask for most is first
  overlay: ".overlay.jpg", png: ".labels.png", coco: ".coco.json", json: ".json", geojson: ".geojson", geotiff: ".tif", npy: ".npy", color: ".color.png",
  confidence: ".confidence.png", rle: ".rle.json", panoptic: ".panoptic.zip", zip: ".zip", [SEEN]: ".seen.png",
};
const FIRST = ["png", "overlay", "coco", "geojson"]; // what people ask for most; the others are a click away
const AT_ONCE = 2;
const TRIES = 5, PATIENCE_MS = 2000; // with a server that is busy
const JSON_KINDS = { type: "application/json" };

let working = null; // what stops the saving that is under way
let lately = "png"; // the format that was chosen last

/** Open it; `all` is chosen where all photos are meant. Resolves when it is closed. */
export async function open(all = false) {
  const closed = openDialog(t("save.title"), (close) => parts(close, all && state.photos.length > 1));
  show();
  await closed;
  working?.abort();
}

const checked = (name) => document.querySelector(`dialog [name=${name}]:checked`)?.value;
const chosen = () => ({ format: checked("format"), all: checked("which") === "all" });

/** What is asked of the server for a photo, so that the answer is what is shown. */
function request(photo, format) {
  const classes = state.of === "classes", found = photo.answer ?? photo.classAnswer;
  return optionsOf(photo, {
    format,
    k: classes || state.k === null ? undefined : state.k,
    classes: classes ? "true" : undefined,
    nodata: found?.valid_fraction < 1 ? "keep" : undefined,
  });
}

/** What a photo's file is called: its name, its page where it has several, what the format ends in. */
export function fileName(photo, format) {
  const stem = photo.name.replace(/\.[^./\\]{1,8}$/, "") || photo.name;
  return stem + (photo.pages > 1 ? `.page${photo.page + 1}` : "") + SUFFIXES[format];
}

const withoutFolders = (name) => name.split("/").at(-1);

function parts(close, all) {
  const thing = t(`save.thing.${state.of}`);
  const choice = (format) =>
    el("label", { class: "format" }, el("input", { type: "radio", name: "format", value: format, checked: format === lately, autofocus: format === lately, onchange: show }),
      el("span", {}, el("strong", { textContent: t(`save.format.${format}`) }), el("span", { class: "who", textContent: t(`save.format.${format}.who`, { thing }) })));
  const others = Object.keys(SUFFIXES).filter((format) => !FIRST.includes(format));
  const words = { one: t("save.one", { name: state.current.name }), all: t("save.all", { count: number(state.photos.length) }) };
  const which = Object.entries(words).map(([value, text]) =>
    el("label", {}, el("input", { type: "radio", name: "which", value, checked: all === (value === "all"), onchange: show }), text));
  const save = el("button", { type: "submit", id: "save-now", class: "main", textContent: t("save.now") });
  save.onclick = (event) => {
    event.preventDefault(); // it stays open: there may be more to save
    saving();
  };
  const stop = el("button", { type: "button", id: "save-stop", textContent: t("save.stop"), hidden: true, onclick: () => working?.abort() });
  const copies = ["curl", "python"].map((kind) =>
    el("button", { type: "button", id: `copy-${kind}`, textContent: t(`save.copy.${kind}`), onclick: () => copy(kind) }));
  return [
    el("p", { id: "save-as" }),
    ...(state.of === "clusters" && taughtByExample() ? [el("p", { class: "hint", textContent: t("save.untaught") })] : []),
    el("fieldset", { class: "which", hidden: state.photos.length < 2 }, el("legend", { class: "hidden-text", textContent: t("save.which") }), ...which),
    el("fieldset", { class: "formats" }, el("legend", { class: "hidden-text", textContent: t("save.formats") }), ...FIRST.map(choice),
      el("details", { open: others.includes(lately) }, el("summary", { textContent: t("save.more", { count: number(others.length) }) }), el("div", { class: "formats" }, ...others.map(choice)))),
    el("div", { class: "row end" },
      el("progress", { id: "save-progress", hidden: true, aria: { label: t("save.progress.label") } }),
      el("span", { id: "save-told", role: "status" }), stop,
      el("button", { type: "button", textContent: t("dialog.close"), onclick: () => close() }), save),
    el("div", { class: "row" }, ...copies, el("span", { class: "hint", id: "snippet-hint", role: "status" })),
    el("textarea", { id: "snippet", readOnly: true, spellcheck: false, rows: 6, hidden: true, aria: { label: t("save.snippet") } }),
  ];
}

/** What the choices mean, in words. */
function show() {
  const { format, all } = chosen(), photo = state.current;
  const { model, crf, k, page, classes } = request(photo, format);
  const words = [t("save.as.model", { model })];
  if (crf) words.push(t(crf === "fast" ? "save.as.fast" : "save.as.dense"));
  if (k) words.push(t("save.as.k", { k }));
  if (page && !all) words.push(t("save.as.page", { page: page + 1 }));
  if (classes) words.push(t("save.as.classes"));
  if (isLocal() && format !== SEEN) words.push(t("save.as.local"));
  $("save-as").textContent = words.join(" · ");
  const seen = document.querySelector(`dialog [value=${SEEN}]`);
  seen.disabled = all || !answer();
  if (seen.disabled && format === SEEN) {
    document.querySelector("dialog [name=format]").checked = true;
    return show();
  }
  lately = format;
  $("snippet").hidden = true;
  for (const kind of ["curl", "python"]) $(`copy-${kind}`).disabled = format === SEEN;
  $("snippet-hint").textContent = "";
}

/** A failure, or how far it is. */
function tell(text, { bad = false } = {}) {
  if (!$("save-told")) return;
  $("save-told").textContent = text;
  $("save-told").classList.toggle("bad", bad);
}

async function saving() {
  const { format, all } = chosen();
  const mine = (working = new AbortController());
  busy(true);
  tell("");
  try {
    if (all) await saveAll(state.photos, format, mine.signal);
    else await saveOne(state.current, format, mine.signal);
  } catch (error) {
    tell(error.name === "AbortError" ? t("save.stopped") : error.message, { bad: error.name !== "AbortError" });
  } finally {
    working = null;
    busy(false);
  }
}

function busy(now) {
  if (!$("save-now")) return; // it was closed
  $("save-now").disabled = now;
  $("save-stop").hidden = !now;
  $("save-progress").hidden = !now;
  $("save-progress").removeAttribute("value");
  if (document.activeElement === document.body) $(now ? "save-stop" : "save-now").focus(); // what held the focus is gone
}

async function saveOne(photo, format, signal) {
  const file = await fileOf(photo, format, signal);
  const name = withoutFolders(fileName(photo, format));
  give(file, name);
  tell(t("save.done", { name }));
}

/** All in one zip; those that cannot be made stand in a list inside. A COCO data set of all is one document. */
async function saveAll(photos, format, signal) {
  const failures = [], documents = [];
  let zip = new Zip(), part = 1, done = 0;
  const hand = (last) => give(zip.blob(), t("save.zip", { format, part: last && part === 1 ? "" : `-${part++}` }));
  await eachOf(photos, signal, async (photo) => {
    try {
      const file = await fileOf(photo, format, signal);
      if (format === "coco") documents.push([photos.indexOf(photo), JSON.parse(await file.text())]);
      else {
        if (!zip.hasRoom(file.size)) {
          hand(false);
          zip = new Zip();
        }
        await zip.add(fileName(photo, format), file);
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
      failures.push(`${photo.name}\t${error.message}`);
    }
    if ($("save-progress")) Object.assign($("save-progress"), { max: photos.length, value: ++done });
    tell(t("save.progress", { done: number(done), all: number(photos.length) }));
  });
  if (failures.length === photos.length) throw new Error(t("save.none", { why: failures[0].split("\t")[1] }));
  if (documents.length) await zip.add("annotations.json", new Blob([JSON.stringify(joined(documents))], JSON_KINDS));
  if (failures.length) await zip.add(t("save.failures.file"), new Blob([failures.join("\n"), "\n"], { type: "text/plain" }));
  hand(true);
  tell(t(failures.length ? "save.done.but" : "save.done.all", { done: number(done - failures.length), failed: number(failures.length) }), { bad: failures.length > 0 });
}

/** A few at once, in order; the first that throws ends all. */
async function eachOf(all, signal, work) {
  const left = [...all];
  const one = async () => {
    while (left.length) {
      signal.throwIfAborted();
      await work(left.shift());
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

/** The file of a photo, as a Blob. */
async function fileOf(photo, format, signal) {
  if (format === SEEN) return asSeen();
  const file_name = NAMED.includes(format) ? photo.name : undefined;
  const path = query("segment", { ...request(photo, format), file_name });
  for (let tried = 1; ; tried++) {
    try {
      const reply = await send(photo, path, { signal });
      return await reply.blob();
    } catch (error) {
      if (tried === TRIES || ![429, 503].includes(error.status)) throw error;
      await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS * tried));
    }
  }
}

/** COCO documents of one image each, with their places in the strip, as one of all: ids begin at 1. */
export function joined(documents) {
  const all = documents.sort(([a], [b]) => a - b).map(([, document]) => document);
  const categories = new Map(all.flatMap((document) => document.categories.map((one) => [one.id, one])));
  const images = [], annotations = [];
  for (const document of all) {
    images.push({ ...document.images[0], id: images.length + 1 });
    for (const one of document.annotations) annotations.push({ ...one, id: annotations.length + 1, image_id: images.length });
  }
  const warnings = [...new Set(all.flatMap((document) => document.info.warnings))];
  const byId = (a, b) => a.id - b.id;
  return { ...all[0], info: { ...all[0].info, warnings }, images, annotations, categories: [...categories.values()].sort(byId) };
}

/** The photo with what is painted over it, at its own size: also with names and colors that only this browser knows. */
async function asSeen() {
  const map = answer(), { width, height } = map;
  const over = new ImageData(width, height);
  const shown = sample(map, shownAs(), { x: 0, y: 0, scale: 1 }, width, height);
  paint(shown, paints(groups(), { ...state, lit: null, selection: new Set() }), width, height, new Uint32Array(over.data.buffer));
  const canvas = new OffscreenCanvas(width, height), layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(over, 0, 0);
  canvas.getContext("2d").drawImage($("photo"), 0, 0, width, height);
  canvas.getContext("2d").drawImage(layer, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function give(file, name) {
  const url = URL.createObjectURL(file);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Where the program finds the photos that it names. */
function where(photos) {
  const [{ name }] = photos, folder = name.includes("/") ? name.split("/")[0] : null;
  if (folder) return t("save.copy.above", { folder });
  return photos.length > 1 ? t("save.copy.where.all", { count: number(photos.length) }) : t("save.copy.where", { name });
}

/** Put a snippet where it can be copied from, and copy it where the browser lets us. */
async function copy(kind) {
  const { format, all } = chosen(), photos = all ? state.photos : [state.current];
  const files = photos.map((photo) => ({ file: photo.name, to: all ? fileName(photo, format) : withoutFolders(fileName(photo, format)) }));
  const parts = [files, request(state.current, format), Boolean(key())];
  const text = $("snippet");
  text.value = (kind === "curl" ? curl : python)(new URL(".", location.href).href, ...parts);
  text.hidden = false;
  const copied = await toClipboard(text);
  text.scrollIntoView({ block: "nearest" });
  $("snippet-hint").textContent = `${t(copied ? "copy.done" : "copy.yourself")} ${where(photos)}`;
  if (key()) $("snippet-hint").textContent += ` ${t("save.copy.key")}`;
}
