// Where a group shows best, and that place cut from the shown photo.
import { $ } from "./dom.js";
import { shownAs } from "./names.js";
import { NONE } from "./paint.js";
import { answer, on, state } from "./state.js";

const GRID = 160; // cells along the longer side: what is found on them is found often enough
const PICTURE_PX = 1024; // along the longer side of the picture that thumbnails are cut from

/**
 * The square around the deepest place of each cluster's largest part: Map id → {x, y, side, size}, in pixels of the map but
 * for size, how large that part is.
 *
 * map  {ids, width, height}
 */
export function squares({ ids, width, height }) {
  const step = Math.max(1, Math.max(width, height) / GRID);
  const w = Math.max(1, Math.floor(width / step)), h = Math.max(1, Math.floor(height / step));
  const cells = new Uint8Array(w * h);
  for (let y = 0, o = 0; y < h; y++) {
    const row = Math.min(height - 1, Math.floor((y + 0.5) * step)) * width;
    for (let x = 0; x < w; x++, o++) cells[o] = ids[row + Math.min(width - 1, Math.floor((x + 0.5) * step))];
  }
  const depth = depths(cells, w, h), best = new Map();
  for (const part of parts(cells, w, h)) {
    const known = best.get(part.id);
    if (known && known.size >= part.size) continue;
    best.set(part.id, { size: part.size, at: part.cells.reduce((deep, at) => (depth[at] > depth[deep] ? at : deep), part.cells[0]) });
  }
  const found = new Map(), least = Math.min(w, h) / 7, most = Math.min(w, h) / 2;
  for (const [id, { at, size }] of best) {
    const side = Math.min(most, Math.max(least, depth[at] * 2.4));
    const x = Math.min(w - side, Math.max(0, (at % w) + 0.5 - side / 2)), y = Math.min(h - side, Math.max(0, Math.floor(at / w) + 0.5 - side / 2));
    found.set(id, { x: x * step, y: y * step, side: side * step, size });
  }
  return found;
}

/** How many steps each cell is from one of another id, or from the border. Two passes, as Rosenfeld and Pfaltz had it. */
function depths(cells, w, h) {
  const depth = new Int32Array(w * h);
  const near = (o, other, inside) => (inside && cells[other] === cells[o] ? depth[other] : 0);
  for (let y = 0, o = 0; y < h; y++) for (let x = 0; x < w; x++, o++) depth[o] = 1 + Math.min(near(o, o - 1, x > 0), near(o, o - w, y > 0));
  for (let y = h - 1, o = w * h - 1; y >= 0; y--)
    for (let x = w - 1; x >= 0; x--, o--) depth[o] = Math.min(depth[o], 1 + near(o, o + 1, x < w - 1), 1 + near(o, o + w, y < h - 1));
  return depth;
}

/** The connected parts: [{id, size, cells: their numbers}]. */
function parts(cells, w, h) {
  const seen = new Uint8Array(w * h), all = [];
  for (let first = 0; first < cells.length; first++) {
    if (seen[first] || cells[first] === NONE) continue;
    const id = cells[first], part = [first];
    seen[first] = 1;
    for (let at = 0; at < part.length; at++) {
      const o = part[at], x = o % w;
      for (const [other, inside] of [[o - 1, x > 0], [o + 1, x < w - 1], [o - w, o >= w], [o + w, o + w < w * h]]) {
        if (!inside || seen[other] || cells[other] !== id) continue;
        seen[other] = 1;
        part.push(other);
      }
    }
    all.push({ id, size: part.length, cells: part });
  }
  return all;
}

let picture = null; // {of: address, bitmap}, small enough to cut from quickly
let known = null; // {map, found} of the last time

/** Draw every row's piece of the photo, once the photo is there. */
function cutAll() {
  const map = answer();
  if (!map || !picture || picture.of !== $("photo").src) return;
  if (known?.map !== map) known = { map, found: squares(map) };
  const table = shownAs({ preview: null }), best = new Map(); // a group is shown by the largest of its parts
  for (const [id, square] of known.found) if (!(best.get(table[id])?.size >= square.size)) best.set(table[id], square);
  const by = picture.bitmap.width / map.width;
  for (const row of document.querySelectorAll(state.of === "clusters" ? "#legend > li[data-id]" : "#teach .classes > li")) {
    const square = best.get(Number(row.dataset.id)), canvas = row.querySelector("canvas");
    if (!square) continue;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.bitmap, square.x * by, square.y * by, square.side * by, square.side * by, 0, 0, canvas.width, canvas.height);
  }
}

/** Take the photo as the browser shows it, be it its own decoding or the server's: of the file, which is read beside the page. */
async function take() {
  const img = $("photo"), of = img.src, { served, page, file } = state.current;
  const by = Math.min(1, PICTURE_PX / Math.max(img.naturalWidth, img.naturalHeight));
  const [resizeWidth, resizeHeight] = [img.naturalWidth, img.naturalHeight].map((side) => Math.max(1, Math.round(side * by)));
  const bitmap = await createImageBitmap(served.get(page) ?? file, { resizeWidth, resizeHeight, resizeQuality: "medium" });
  if (img.src !== of) return bitmap.close(); // another photo is shown meanwhile
  picture?.bitmap.close();
  picture = { of, bitmap };
  cutAll();
}

export function start() {
  const img = $("photo"), taken = () => take().catch(() => {}); // what cannot be taken is seen to be missing
  img.addEventListener("load", taken);
  if (img.src && img.complete && img.naturalWidth) taken();
  on("rows", cutAll);
}
