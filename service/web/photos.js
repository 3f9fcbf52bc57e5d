// The photos that were given: dropped, chosen, pasted; which is shown.
import { $ } from "./dom.js";
import { call, query } from "./api.js";
import { ready } from "./models.js";
import { fit } from "./photo.js";
import { fail, say } from "./notice.js";
import { optionsOf, refresh } from "./segmenting.js";
import { on, set, state } from "./state.js";
import { t } from "./strings.js";

let count = 0;

/** Take files; the first of them is shown. */
export async function take(files) {
  const photos = [...files].map((file) => ({ id: ++count, file, name: file.name || t("photo.pasted"), page: 0, pages: 1, answer: null, classAnswer: null, error: null, url: null }));
  if (!photos.length) return;
  set({ photos: [...state.photos, ...photos] }, "photos");
  await show(photos[0]);
}

/** Show one of the photos; nothing is left of the one before. */
export async function show(photo) {
  say("");
  set({ current: photo, heat: null, selection: new Set(), lit: null, preview: null }, "photo", "selection", "look");
  document.body.classList.remove("empty");
  for (const id of ["tools", "side"]) $(id).hidden = false;
  const img = $("photo");
  img.alt = t("photo.alt", { name: photo.name });
  photo.url ??= URL.createObjectURL(photo.file);
  img.onload = fit;
  img.onerror = () => seenByTheServer(photo).catch(fail);
  img.src = photo.url;
  await ready();
  if (!(state.of === "classes" ? photo.classAnswer : photo.answer)) await refresh();
  fit();
}

/** A browser opens no TIFF, and no second page: the server shows the photo as it sees it. */
async function seenByTheServer(photo) {
  await ready();
  const path = query("segment", { ...optionsOf(photo), crf: undefined, format: "overlay", alpha: 0 });
  const reply = await call(path, { method: "POST", body: photo.file, headers: { accept: "image/webp" } }).catch(() => null);
  if (!reply) return; // the question for its labels says why
  photo.url = URL.createObjectURL(await reply.blob());
  if (photo !== state.current) return;
  $("photo").onerror = null;
  $("photo").src = photo.url;
}

export function start() {
  const field = $("file");
  field.onchange = () => take([...field.files]).finally(() => (field.value = ""));
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
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => event.clipboardData.files.length && take(event.clipboardData.files));
  on("busy", () => ($("working").hidden = !state.busy));
}
