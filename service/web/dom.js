// Elements without a library: made by one call, their words from the strings file.
import { t } from "./strings.js";

export const $ = (id) => document.getElementById(id);

/** An element. `props` are properties, except `data`, `aria`, `style` (objects) and `class`; children are elements or texts. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) made.style.setProperty(key, one);
    else if (name === "aria") for (const [key, one] of Object.entries(value)) made.setAttribute(`aria-${key}`, one);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Fill in the words of static elements: data-t is the text, data-t-label aria-label, data-t-title the title. */
export function translate(root = document) {
  for (const one of root.querySelectorAll("[data-t]")) one.textContent = t(one.dataset.t);
  for (const one of root.querySelectorAll("[data-t-label]")) one.setAttribute("aria-label", t(one.dataset.tLabel));
  for (const one of root.querySelectorAll("[data-t-title]")) one.title = t(one.dataset.tTitle);
}

const told = []; // of this frame: one action may have two things to tell

/** Tell people who hear the page instead of seeing it; also what the last action did. */
export function announce(text) {
  if (told.push(text) > 1) return;
  $("live").textContent = "";
  requestAnimationFrame(() => ($("live").textContent = told.splice(0).join(" · ")));
}

/** Replace the children and keep the focus where it was: on the element with the same data-key. */
export function replaceKeepingFocus(parent, children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children);
  if (key) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

/** A copy of `work` that runs once per frame at most, with the latest arguments. */
export function perFrame(work) {
  let waiting = null;
  return (...given) => {
    if (waiting === null) requestAnimationFrame(() => {
      const now = waiting;
      waiting = null;
      work(...now);
    });
    waiting = given;
  };
}

const sheets = new Map();

/** Fetch a style sheet of a view that is not the first, once. Resolves when it counts. */
export function sheet(name) {
  if (!sheets.has(name)) sheets.set(name, fetched(name).catch((error) => (sheets.delete(name), Promise.reject(error))));
  return sheets.get(name);
}

const fetched = (name) =>
  new Promise((resolve, reject) => {
    const link = el("link", { rel: "stylesheet", href: new URL(name, import.meta.url).href, onload: resolve, onerror: () => reject(new Error(t("error.silent"))) });
    document.head.append(link);
  });
