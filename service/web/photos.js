// The photos that were given: dropped, chosen, pasted; which is shown, and which page of it.
import { call, query } from "./api.js";
import { $, announce } from "./dom.js";
import { ofDrop, ofField, sorted } from "./given.js";
import { run } from "./history.js";
import { ready } from "./models.js";
import { fail, say, warn } from "./notice.js";
import { fit } from "./photo.js";
import { optionsOf, refresh } from "./segmenting.js";
import { on, set, state, tell } from "./state.js";
import { t } from "./strings.js";

let count = 0;

/** Take [{file, path}], or files; the first image of them is shown. What is no image is left out, and told. */
export async function take(given) {
  const all = [...given].map((one) => (one instanceof File ? { file: one, path: one.name || t("photo.pasted") } : one));
  const { images, left } = sorted(all);
  if (!images.length) {
    if (all.length) say(t("photos.none", { count: all.length }), { bad: true });
    return;
  }
  const photos = images.map(({ file, path }) => ({
    id: ++count, file, name: path, page: 0, pages: 1, answer: null, classAnswer: null, error: null, url: null, pictures: new Map(), served: new Map(),
  }));
  set({ photos: [...state.photos, ...photos] }, "photos");
  if (document.body.dataset.view === "clusters") $("to-photo").click();
  const lost = document.activeElement, shown = show(photos[0]);
  if ($("empty").contains(lost)) $("labels").focus({ preventScroll: true }); // what held the focus is gone
  if (left) say(t("photos.left", { count: left }));
  await shown;
}

/** Show one of the photos; nothing is left of the one before. */
export async function show(photo) {
  if (photo !== state.current) {
    say("");
    warn([]);
  }
  set({ current: photo, heat: null, selection: new Set(), lit: null, preview: null }, "photo", "photos", "selection", "look");
  document.body.classList.remove("empty");
  for (const id of ["tools", "side"]) $(id).hidden = false;
  $("photo").alt = t("photo.alt", { name: photo.name });
  picture(photo).catch(fail);
  await ready();
  if (photo !== state.current) return;
  const known = state.of === "classes" ? photo.classAnswer : photo.answer;
  if (!known) await refresh();
  else warn(known.warnings);
}

/** Put the picture of the shown page where it belongs; the one before is gone at once, whatever becomes of this one. */
async function picture(photo) {
  const img = $("photo"), page = photo.page;
  const late = () => photo !== state.current || page !== photo.page;
  img.removeAttribute("src");
  img.hidden = true; // what cannot be shown is no broken picture either
  if (page === 0 && !photo.pictures.has(0)) photo.pictures.set(0, URL.createObjectURL(photo.file));
  photo.url = photo.pictures.get(page) ?? (await fromTheServer(photo));
  if (late() || !photo.url) return;
  img.src = photo.url;
  try {
    await img.decode(); // beside the page, however large it is
    if (!late()) img.hidden = false;
  } catch {
    if (late() || photo.served.has(page)) return;
    img.removeAttribute("src"); // no browser's sign for a broken picture
    photo.url = await fromTheServer(photo);
    if (late() || !photo.url) return;
    img.src = photo.url;
    await img.decode().then(() => late() || (img.hidden = false), () => {});
  }
  if (!late()) fit();
}

/** A browser opens no TIFF, and no second page: the server shows the photo as it sees it. Null where it cannot. */
async function fromTheServer(photo) {
  await ready();
  const page = photo.page;
  const path = query("segment", { ...optionsOf(photo), crf: undefined, format: "overlay", alpha: 0 });
  const reply = await call(path, { method: "POST", body: photo.file, headers: { accept: "image/jpeg" } }).catch(() => null);
  if (!reply) return null; // the question for its labels says why
  const file = await reply.blob();
  photo.pictures.set(page, URL.createObjectURL(file));
  photo.served.set(page, file);
  tell("photos");
  return photo.pictures.get(page);
}

/** Show another page of the shown photo. */
export async function turn(page) {
  const photo = state.current;
  if (!photo || page === photo.page || page < 0 || page >= photo.pages) return;
  Object.assign(photo, { page, answer: null, classAnswer: null, error: null });
  announce(t("pages.at", { page: page + 1, pages: photo.pages }));
  await show(photo);
}

/** Show the photo so many further on. */
export function step(by) {
  const at = state.photos.indexOf(state.current) + by;
  if (state.photos[at]) show(state.photos[at]).catch(fail);
}

/** Take photos away, as a step that can be undone. */
export function remove(photos) {
  const before = state.photos, gone = new Set(photos);
  const what = photos.length === 1 ? t("step.remove", { name: photos[0].name }) : t("step.remove.all", { count: photos.length });
  return run({ what, redo: () => keep(state.photos.filter((one) => !gone.has(one))), undo: () => bringBack(before, photos[0]) });
}

function keep(photos) {
  const at = state.photos.indexOf(state.current);
  const next = photos.includes(state.current) ? state.current : photos[Math.min(at, photos.length - 1)] ?? null;
  set({ photos }, "photos");
  if (next === state.current) return;
  if (next) show(next).catch(fail);
  else nothing();
}

function bringBack(before, first) {
  const added = state.photos.filter((one) => !before.includes(one));
  set({ photos: [...before, ...added] }, "photos");
  if (!state.current) show(first).catch(fail);
}

/** No photo is there: as at the beginning. */
function nothing() {
  say("");
  warn([]);
  set({ current: null, heat: null, selection: new Set(), lit: null, preview: null }, "photo", "photos", "selection", "look");
  $("photo").removeAttribute("src");
  document.body.classList.add("empty");
  for (const id of ["tools", "side"]) $(id).hidden = true;
}

export function start() {
  for (const id of ["file", "folder"]) {
    const field = $(id);
    field.onchange = () => {
      const given = ofField(field.files);
      field.value = ""; // the same again is another choice
      take(given).catch(fail);
    };
  }
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.types.includes("Files")) say(t("photos.looking"));
    ofDrop(event.dataTransfer).then(take).catch(fail);
  });
  addEventListener("paste", (event) => event.clipboardData.files.length && take(event.clipboardData.files).catch(fail));
  addEventListener("beforeunload", (event) => state.photos.length > 1 && event.preventDefault()); // one is opened again soon enough
  document.querySelector(".skip").onclick = (event) => {
    event.preventDefault();
    $(state.current ? "labels" : "file").focus();
  };
  on("busy", () => ($("working").hidden = !state.busy));
}
