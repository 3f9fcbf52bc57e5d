// All photos as a strip of small pictures: which is shown, how far each is; arrows go along it, Delete takes one away.
import { progress, start as startBackground, stateOf, stop } from "./background.js";
import { $, announce, el, perFrame } from "./dom.js";
import { fail } from "./notice.js";
import { remove, show, step } from "./photos.js";
import { on, state } from "./state.js";
import { number, t } from "./strings.js";

const HEIGHT = 128, WIDTH = 176; // of a small picture, twice what it is on the page
const DRAWN_AT_ONCE = 2;

const items = new Map(); // photo → its <li>
const seen = new IntersectionObserver(look, { rootMargin: "200px" });
const waiting = new Set(); // photos in view whose picture is not drawn
let drawing = 0;
let told = "";

/** Show what there is: one item a photo, made once. */
function list() {
  const strip = $("strip");
  strip.hidden = state.photos.length < 2;
  if (strip.hidden && !items.size) return;
  for (const [photo, item] of items) {
    if (state.photos.includes(photo)) continue;
    seen.unobserve(item);
    item.remove();
    items.delete(photo);
    waiting.delete(photo);
  }
  const list = $("thumbs");
  state.photos.forEach((photo, at) => { // only what is new is moved: the focus stays
    const item = items.get(photo) ?? make(photo), before = list.children[at];
    if (before !== item) list.insertBefore(item, before ?? null);
  });
  state.photos.forEach(refresh);
  head();
}

function make(photo) {
  const picture = el("canvas", { width: WIDTH, height: HEIGHT, aria: { hidden: "true" } });
  const word = el("span", { class: "word", aria: { hidden: "true" } });
  const button = el("button", { type: "button", class: "thumb", title: photo.name, data: { key: `photo-${photo.id}` } }, picture, word);
  button.onclick = () => show(photo).catch(fail);
  const gone = el("button", { type: "button", class: "gone", textContent: "×" });
  gone.onclick = () => away(photo);
  const item = el("li", {}, button, gone);
  items.set(photo, item);
  item.photo = photo;
  seen.observe(item);
  return item;
}

function refresh(photo, at) {
  const item = items.get(photo), [button, gone] = item.children, current = photo === state.current;
  const how = stateOf(photo), unlike = how === "done" && photo.familiar === false;
  const now = [at, state.photos.length, current, how, unlike, photo.error].join();
  if (now === item.now) return; // hundreds of them are told of each answer
  item.now = now;
  const words = [t(`strip.${how}`), ...(unlike ? [t("strip.unlike")] : [])];
  button.setAttribute("aria-label", t("strip.photo", { name: photo.name, at: number(at + 1), all: number(state.photos.length), state: words.join(", ") }));
  button.title = photo.error ? t("strip.why", { name: photo.name, why: photo.error }) : photo.name;
  button.toggleAttribute("aria-current", current);
  if (current) button.setAttribute("aria-current", "true");
  button.tabIndex = gone.tabIndex = current ? 0 : -1;
  button.dataset.state = how;
  button.lastChild.textContent = how === "done" ? (unlike ? t("strip.unlike.short") : "") : t(`strip.${how}`);
  gone.setAttribute("aria-label", t("strip.remove", { name: photo.name }));
  gone.title = t("strip.remove", { name: photo.name });
  if (current && !item.current) item.scrollIntoView({ block: "nearest", inline: "nearest" });
  item.current = current;
}

/** How many of them are done, and what can be done with all. */
function head() {
  const { all, done, failed, stopped } = progress(), ended = done + failed === all;
  const words = [t("strip.progress", { done: number(done), all: number(all) })];
  if (failed) words.push(t("strip.progress.failed", { count: number(failed) }));
  $("progress").firstChild.data = failed ? `${words[0]}, ` : words[0];
  $("failed").hidden = !failed;
  $("failed").textContent = words[1] ?? "";
  $("progress-bar").max = all;
  $("progress-bar").value = done + failed;
  $("progress-bar").hidden = ended;
  $("stop").hidden = ended;
  $("stop").textContent = t(stopped ? "strip.resume" : "strip.stop");
  if (ended && all > 1 && told !== `${all}`) announce(words.join(", "));
  told = ended ? `${all}` : "";
}

/** Show the next photo that failed, and ask for it again. */
function toFailed() {
  const at = state.photos.indexOf(state.current) + 1;
  const next = [...state.photos.slice(at), ...state.photos.slice(0, at)].find((photo) => stateOf(photo) === "failed");
  if (next) show(next).catch(fail);
}

async function away(photo) {
  const at = state.photos.indexOf(photo);
  await remove([photo]);
  const next = state.photos[Math.min(at, state.photos.length - 1)];
  items.get(next)?.firstChild.focus();
}

/** Small pictures are made of what is in view, two at a time: a browser decodes beside the page. */
function look(changes) {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting && !target.drawn) waiting.add(target.photo);
    else waiting.delete(target.photo);
  }
  drawNext();
}

function drawNext() {
  for (const photo of waiting) {
    if (drawing >= DRAWN_AT_ONCE) return;
    waiting.delete(photo);
    drawing++;
    draw(photo).finally(() => {
      drawing--;
      drawNext();
    });
  }
}

async function draw(photo) {
  const item = items.get(photo);
  if (!item) return;
  const picture = await small(photo);
  const canvas = item.querySelector("canvas"), context = canvas.getContext("2d");
  if (!picture) { // a kind of file that a browser opens not: its picture is the server's, once it was shown
    item.firstChild.dataset.kind = photo.name.match(/\.(\w{1,5})$/)?.[1].toUpperCase() ?? "?";
    return;
  }
  const by = Math.max(WIDTH / picture.width, HEIGHT / picture.height);
  const [width, height] = [picture.width * by, picture.height * by];
  context.drawImage(picture, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
  picture.close();
  delete item.firstChild.dataset.kind;
  item.drawn = true;
}

async function small(photo) {
  const resized = { resizeHeight: HEIGHT, resizeQuality: "medium" };
  try {
    return await createImageBitmap(photo.file, resized);
  } catch {
    const [file] = photo.served.values();
    return file ? createImageBitmap(file, resized).catch(() => null) : null;
  }
}

/** Photos that the server has opened in the meantime. */
function drawServed() {
  for (const photo of state.photos) if (photo.served.size && items.get(photo) && !items.get(photo).drawn) waiting.add(photo);
  drawNext();
}

/** Along the strip with the keys people try. */
function byKey(event) {
  const to = { ArrowLeft: -1, ArrowRight: 1, Home: -state.photos.length, End: state.photos.length }[event.key];
  if (event.key === "Delete" && state.current) {
    event.preventDefault();
    away(state.current);
  } else if (to) {
    event.preventDefault();
    const at = Math.max(0, Math.min(state.photos.length - 1, state.photos.indexOf(state.current) + to));
    show(state.photos[at]).catch(fail);
    items.get(state.photos[at]).firstChild.focus();
  }
}

const elsewhere = (target) => target.closest("#side, #clusters-view, dialog, input:not([type=radio], [type=checkbox]), textarea, select");

export function start() {
  const stopping = el("button", { type: "button", id: "stop" });
  stopping.onclick = () => stop(!progress().stopped);
  const clear = el("button", { type: "button", id: "remove-all", textContent: t("strip.remove.all") });
  clear.onclick = () => remove([...state.photos]);
  const save = el("button", { type: "button", id: "save-all", textContent: t("strip.save.all"), aria: { haspopup: "dialog" } });
  const failed = el("button", { type: "button", id: "failed", hidden: true, title: t("strip.failed.show"), onclick: toFailed });
  const bar = el("progress", { id: "progress-bar", aria: { label: t("strip.label") } });
  const thumbs = el("ul", { id: "thumbs", aria: { label: t("strip.label") } });
  thumbs.onkeydown = byKey;
  $("strip").append(el("div", { class: "head" }, el("span", { id: "progress" }, " ", failed), bar, el("div", { class: "group" }, stopping, save, clear)), thumbs);
  on("photos photo models", perFrame(list));
  on("photos", drawServed);
  addEventListener("keydown", (event) => {
    const by = { PageUp: -1, PageDown: 1 }[event.key];
    if (!by || event.ctrlKey || event.altKey || state.photos.length < 2 || elsewhere(event.target)) return;
    event.preventDefault();
    step(by);
  });
  startBackground();
  list();
}
