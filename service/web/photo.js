// The photo with what is painted over it: zoom, pan, the place pointed at, by mouse, finger or keyboard.
import { $, announce, el, perFrame } from "./dom.js";
import { groups, look, shownAs } from "./names.js";
import { paint, paints, sample, NONE } from "./paint.js";
import { answer, on, set, state } from "./state.js";
import { number, t } from "./strings.js";
import { toolInUse } from "./tools.js";

const MOST_PX = 1.6e6; // of the canvas: screens with more are painted a little coarser
const CLOSEST = 32; // screen pixels for one of the photo
const MARK_PX = 16; // from the middle of a mark to its border
const STILL_PX = 5; // what moves less is a click

const view = { x: 0, y: 0, scale: 1, fitted: true }; // photo pixels at the corner, screen pixels for one of the photo
let table = null; // as of the last time that names, merges or the level changed
let cells = null; // what `sample` found, and of what
let buffer = null;
const pointer = { x: 0, y: 0, shown: false }; // the keyboard's, in photo pixels

/** The size of the shown photo as its viewers show it, or null. */
function size() {
  const found = answer() ?? state.current?.answer;
  if (found) return { width: found.width, height: found.height };
  const photo = $("photo");
  return photo.naturalWidth ? { width: photo.naturalWidth, height: photo.naturalHeight } : null;
}

/** Show the whole photo. */
export function fit() {
  const photo = size(), frame = $("view").getBoundingClientRect();
  if (!photo || !frame.width) return;
  view.scale = Math.min(frame.width / photo.width, frame.height / photo.height);
  view.x = (photo.width - frame.width / view.scale) / 2;
  view.y = (photo.height - frame.height / view.scale) / 2;
  view.fitted = true;
  settle();
}

/** Come closer by a factor, around a place of the view in screen pixels; none: its middle. */
export function zoom(factor, at) {
  const photo = size(), frame = $("view").getBoundingClientRect();
  if (!photo) return;
  at ??= { x: frame.width / 2, y: frame.height / 2 };
  const whole = Math.min(frame.width / photo.width, frame.height / photo.height);
  const scale = Math.min(CLOSEST, Math.max(whole, view.scale * factor));
  if (scale <= whole * 1.001) return fit();
  view.x += at.x / view.scale - at.x / scale;
  view.y += at.y / view.scale - at.y / scale;
  view.scale = scale;
  view.fitted = false;
  settle();
}

/** Move by screen pixels; the photo stays in view. */
export function pan(dx, dy) {
  view.x -= dx / view.scale;
  view.y -= dy / view.scale;
  settle();
}

function settle() {
  const photo = size(), frame = $("view").getBoundingClientRect();
  if (!photo) return;
  for (const [axis, side] of [["x", "width"], ["y", "height"]]) {
    const seen = frame[side] / view.scale, over = photo[side] - seen;
    view[axis] = over <= 0 ? over / 2 : Math.min(over, Math.max(0, view[axis]));
  }
  const img = $("photo");
  $("view").style.setProperty("--aspect", String(photo.width / photo.height)); // a phone's view is as high as the photo
  img.style.width = `${photo.width * view.scale}px`;
  img.style.height = `${photo.height * view.scale}px`;
  img.style.transform = `translate(${-view.x * view.scale}px, ${-view.y * view.scale}px)`;
  img.style.imageRendering = view.scale > 4 ? "pixelated" : "auto";
  $("view").classList.toggle("zoomed", !view.fitted);
  cells = null;
  placeMarks();
  draw();
}

/** Where a place of the photo lies in the view, in screen pixels. */
export const onScreen = (x, y) => ({ x: (x - view.x) * view.scale, y: (y - view.y) * view.scale });

/** The place of the photo under a screen position: {x, y, id}, id undefined where nothing is known; null outside. */
function at(clientX, clientY) {
  const photo = size(), frame = $("view").getBoundingClientRect();
  if (!photo) return null;
  return placeOf(Math.floor(view.x + (clientX - frame.left) / view.scale), Math.floor(view.y + (clientY - frame.top) / view.scale));
}

function placeOf(x, y) {
  const photo = size();
  if (!photo || x < 0 || y < 0 || x >= photo.width || y >= photo.height) return null;
  const map = answer();
  const raw = map ? map.ids[Math.min(map.height - 1, y) * map.width + Math.min(map.width - 1, x)] : NONE;
  return { x, y, id: raw === NONE ? undefined : shownTable()[raw], raw };
}

const shownTable = () => (table ??= shownAs());

/** Paint the visible part. Milliseconds of script are in `draw.took`, for the tests. */
export function drawNow() {
  const canvas = $("labels"), frame = $("view").getBoundingClientRect();
  const ratio = Math.min(devicePixelRatio || 1, Math.sqrt(MOST_PX / Math.max(1, frame.width * frame.height)));
  const width = Math.max(1, Math.round(frame.width * ratio)), height = Math.max(1, Math.round(frame.height * ratio));
  const context = canvas.getContext("2d");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const map = answer();
  if (state.heat && !state.comparing) {
    const photo = size();
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = true;
    const by = view.scale * ratio;
    context.drawImage(state.heat, -view.x * by, -view.y * by, photo.width * by, photo.height * by);
    return;
  }
  if (!map || state.comparing) {
    context.clearRect(0, 0, width, height);
    return;
  }
  const began = performance.now();
  const wanted = shownTable();
  if (!cells || cells.map !== map || cells.table !== wanted || cells.width !== width || cells.height !== height) {
    const same = cells?.shown.length === width * height ? cells.shown : undefined;
    const shown = sample(map, wanted, { x: view.x, y: view.y, scale: view.scale * ratio }, width, height, same);
    cells = { map, table: wanted, width, height, shown };
  }
  if (buffer?.width !== width || buffer.height !== height) buffer = new ImageData(width, height);
  paint(cells.shown, paints(groups(), state), width, height, new Uint32Array(buffer.data.buffer));
  context.putImageData(buffer, 0, 0);
  draw.took = performance.now() - began;
}

export const draw = perFrame(drawNow);

/** What is told beside the pointer. */
function tellUnder(place, clientX, clientY) {
  const under = $("under"), frame = $("view").getBoundingClientRect();
  const words = place && (toolInUse().under?.(place) ?? (place.id === undefined ? "" : look(place.id).name));
  under.hidden = !words;
  if (!words) return;
  under.textContent = words;
  under.style.left = `${Math.max(0, Math.min(clientX - frame.left, frame.width - under.offsetWidth - 16))}px`;
  under.style.top = `${Math.max(0, Math.min(clientY - frame.top, frame.height - under.offsetHeight - 16))}px`;
}

/** Light a cluster up, here and in the legend; null: none. */
export const light = (id) => state.lit !== id && set({ lit: id }, "lit");

/**
 * A marker at a place of the photo, in a color; `clearMarks` takes all of one kind away.
 *
 * width, height  of a rectangle in photo pixels, whose corner x, y is then;  text  what is written in it;  key  data-key
 */
export function mark(kind, x, y, { label, color, width, height, text = "", key, on: click } = {}) {
  const made = el(click ? "button" : "span", { class: `mark ${kind}`, data: { x, y, kind }, title: label ?? "", textContent: text });
  if (width) Object.assign(made.dataset, { width, height });
  if (key) made.dataset.key = key;
  if (click) {
    made.type = "button";
    made.setAttribute("aria-label", label);
    made.onclick = click;
  }
  if (color) made.style.setProperty("--color", color);
  $("marks").append(made);
  placeMarks();
  return made;
}

export function clearMarks(kind) {
  for (const one of $("marks").querySelectorAll(kind ? `[data-kind="${kind}"]` : "*")) one.remove();
}

/** A place that is seen, so far from the border that a mark there is seen whole. */
const within = (at, side) => (at < 0 || at > side ? at : Math.min(side - MARK_PX, Math.max(MARK_PX, at)));

function placeMarks() {
  const frame = $("view").getBoundingClientRect();
  for (const one of $("marks").children) {
    const middle = one.dataset.width ? 0 : 0.5;
    let { x, y } = onScreen(Number(one.dataset.x) + middle, Number(one.dataset.y) + middle);
    if (one.dataset.kind === "suggestion") [x, y] = [within(x, frame.width), within(y, frame.height)];
    one.style.translate = `${x}px ${y}px`;
    for (const side of one.dataset.width ? ["width", "height"] : []) one.style[side] = `${one.dataset[side] * view.scale}px`;
  }
  const cross = onScreen(pointer.x + 0.5, pointer.y + 0.5);
  $("cross").hidden = !pointer.shown;
  $("cross").style.translate = `${cross.x}px ${cross.y}px`;
}

const touches = new Map(); // pointer id → where it is and was first
let space = false; // held: a drag moves the photo, whatever the tool

/** Whether a drag draws a rectangle: one finger or the first button, and a tool that wants one. */
const draws = (one) => touches.size === 1 && !one.pans && Boolean(toolInUse().box);

function begin(event) {
  if (event.button > 1) return;
  if (event.button === 1) event.preventDefault();
  const { clientX, clientY } = event;
  const one = { x: clientX, y: clientY, fromX: clientX, fromY: clientY, moved: false, pans: space || event.button === 1 };
  touches.set(event.pointerId, one);
  if (touches.size > 1) stopDrawing();
  $("labels").setPointerCapture(event.pointerId);
  pointer.shown = false;
}

/** Whatever is drawn is no rectangle after all. */
function stopDrawing() {
  for (const one of touches.values()) one.pans = one.moved = true;
  $("rubber").hidden = true;
}

function move(event) {
  const one = touches.get(event.pointerId);
  if (!one) {
    const place = at(event.clientX, event.clientY);
    tellUnder(place, event.clientX, event.clientY);
    if (!state.heat) light(place?.id ?? null);
    return;
  }
  const [dx, dy] = [event.clientX - one.x, event.clientY - one.y];
  if (touches.size === 2) {
    const other = [...touches.entries()].find(([id]) => id !== event.pointerId)[1];
    const before = Math.hypot(one.x - other.x, one.y - other.y);
    const now = Math.hypot(event.clientX - other.x, event.clientY - other.y);
    const frame = $("view").getBoundingClientRect();
    zoom(now / Math.max(1, before), { x: (event.clientX + other.x) / 2 - frame.left, y: (event.clientY + other.y) / 2 - frame.top });
    if (!view.fitted) pan(dx / 2, dy / 2);
    one.moved = other.moved = true;
  } else if (one.moved || Math.hypot(event.clientX - one.fromX, event.clientY - one.fromY) > STILL_PX) {
    one.moved = true;
    if (draws(one)) rubber(one, event);
    else if (!view.fitted) pan(dx, dy);
  }
  Object.assign(one, { x: event.clientX, y: event.clientY });
}

/** Show the rectangle that is drawn. */
function rubber(one, event) {
  const frame = $("view").getBoundingClientRect(), { style } = $("rubber");
  $("rubber").hidden = false;
  $("under").hidden = true;
  style.translate = `${Math.min(one.fromX, event.clientX) - frame.left}px ${Math.min(one.fromY, event.clientY) - frame.top}px`;
  style.width = `${Math.abs(event.clientX - one.fromX)}px`;
  style.height = `${Math.abs(event.clientY - one.fromY)}px`;
}

/** The rectangle between two screen positions, in whole pixels of the photo; null where nothing of it is inside. */
function rectangle(one, event) {
  const photo = size(), frame = $("view").getBoundingClientRect();
  const side = (from, to, corner, start, length) => {
    const [low, high] = [Math.min(from, to), Math.max(from, to)].map((v) => corner + (v - start) / view.scale);
    const first = Math.max(0, Math.floor(low));
    return [first, Math.min(length, Math.ceil(high)) - first];
  };
  const [x, width] = side(one.fromX, event.clientX, view.x, frame.left, photo.width);
  const [y, height] = side(one.fromY, event.clientY, view.y, frame.top, photo.height);
  return width > 0 && height > 0 ? { x, y, width, height } : null;
}

function end(event) {
  const one = touches.get(event.pointerId);
  const box = one?.moved && draws(one) && event.type === "pointerup" && size() ? rectangle(one, event) : null;
  touches.delete(event.pointerId);
  $("rubber").hidden = true;
  const keys = { alt: event.altKey || event.shiftKey };
  if (box) toolInUse().box(box, keys);
  if (!one || one.moved || event.type === "pointercancel") return;
  const place = at(event.clientX, event.clientY);
  tellUnder(place, event.clientX, event.clientY);
  if (place) toolInUse().click?.(place, keys);
}

/** The pointer of who has no mouse: arrows move it, Enter is a click. Returns whether the key was for it. */
function byKeyboard(event) {
  const step = event.shiftKey ? 10 : 1, pixels = Math.max(1, Math.round(step * 4 / view.scale));
  const by = { ArrowLeft: [-pixels, 0], ArrowRight: [pixels, 0], ArrowUp: [0, -pixels], ArrowDown: [0, pixels] }[event.key];
  const photo = size();
  if (!photo || event.ctrlKey || event.metaKey) return;
  if (by) {
    if (!pointer.shown) Object.assign(pointer, { x: Math.round(photo.width / 2), y: Math.round(photo.height / 2) });
    pointer.x = Math.max(0, Math.min(photo.width - 1, pointer.x + by[0]));
    pointer.y = Math.max(0, Math.min(photo.height - 1, pointer.y + by[1]));
    pointer.shown = true;
    const place = placeOf(pointer.x, pointer.y), frame = $("view").getBoundingClientRect(), seen = onScreen(pointer.x, pointer.y);
    if (seen.x < 0 || seen.y < 0 || seen.x > frame.width || seen.y > frame.height) {
      Object.assign(view, { x: pointer.x - frame.width / 2 / view.scale, y: pointer.y - frame.height / 2 / view.scale });
      settle();
    }
    light(place?.id ?? null);
    tellUnder(place, frame.left + onScreen(pointer.x, 0).x + 14, frame.top + onScreen(0, pointer.y).y + 14);
    announce(t("photo.at", { x: number(pointer.x), y: number(pointer.y), name: place?.id === undefined ? "" : look(place.id).name }));
    placeMarks();
  } else if (event.key === "Enter" || event.key === " ") {
    const place = pointer.shown && placeOf(pointer.x, pointer.y);
    if (place) toolInUse().click?.(place, { alt: event.altKey || event.shiftKey });
  } else if (event.key === "+" || event.key === "=") zoom(1.5, pointer.shown ? onScreen(pointer.x, pointer.y) : undefined);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") fit();
  else return;
  event.preventDefault();
}

/** Begin: listeners on the view, and painting whenever what is painted changed. */
export function start() {
  const canvas = $("labels");
  canvas.onpointerdown = begin;
  canvas.onpointermove = move;
  canvas.onpointerup = canvas.onpointercancel = end;
  canvas.onpointerleave = () => {
    $("under").hidden = true;
    light(null);
  };
  canvas.onkeydown = byKeyboard;
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("rubber").hidden) stopDrawing();
    if (event.key !== " " || pointer.shown || ![document.body, canvas].includes(document.activeElement)) return;
    space = true;
    event.preventDefault(); // the page does not scroll
  });
  addEventListener("keyup", (event) => event.key === " " && (space = false));
  canvas.onblur = () => {
    pointer.shown = false;
    placeMarks();
  };
  $("view").addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = $("view").getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), { x: event.clientX - frame.left, y: event.clientY - frame.top });
  }, { passive: false });
  canvas.ondblclick = ({ clientX, clientY }) => {
    const { left, top } = $("view").getBoundingClientRect();
    if (view.fitted) zoom(2.5, { x: clientX - left, y: clientY - top });
    else fit();
  };
  $("zoom-in").onclick = () => zoom(1.5);
  $("zoom-out").onclick = () => zoom(1 / 1.5);
  $("zoom-fit").onclick = fit;
  new ResizeObserver(() => (view.fitted ? fit() : settle())).observe($("view"));
  $("photo").addEventListener("load", () => (view.fitted ? fit() : settle()));
  on("photo clusters classes look", () => {
    table = null;
    draw();
  });
  on("lit selection", draw);
  on("photo look", placeMarks);
}
