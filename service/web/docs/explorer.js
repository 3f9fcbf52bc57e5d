// The API explorer: reads openapi.json, lists its operations by tag, shows the one that the address names (#operationId).
// No build step, nothing from elsewhere; what the server says is shown as text.
import { element } from "./dom.js";
import { breakable, operationView } from "./operation.js";
import { resolver } from "./schema.js";
import { language, strings } from "./strings.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options"];
const HERE = new URL(".", location.href); // the server's root, under whatever path it is shown

const $ = (id) => document.getElementById(id);
const key = () => sessionStorage.key_ ?? ""; // as the page keeps it

let entries = [];
let resolve = null;
let described = null;
const views = new Map(); // operationId → its view, kept with what was filled in

const state = () => decodeURIComponent(location.hash.slice(1));

async function start() {
  document.documentElement.lang = language;
  $("skip").textContent = strings.skip;
  $("home").setAttribute("aria-label", strings.home);
  $("title").textContent = strings.title;
  $("list").setAttribute("aria-label", strings.calls);
  $("filter").placeholder = strings.filter;
  $("filter").setAttribute("aria-label", strings.filter);
  $("filter").oninput = filter;
  $("filter").onkeydown = openFirst;
  $("key").onclick = () => askKey("");
  $("skip").onclick = (event) => {
    event.preventDefault();
    ($("main").querySelector("h2") ?? $("main")).focus();
  };
  showKey();
  await load();
  addEventListener("hashchange", () => show(true));
}

async function load() {
  $("main").replaceChildren(element("p", { className: "soft", role: "status", text: strings.loading }));
  try {
    const answer = await fetch(new URL("openapi.json", HERE));
    if (!answer.ok) throw new Error(String(answer.status));
    described = await answer.json();
  } catch {
    $("main").replaceChildren(element("p", { role: "alert", text: strings.notLoaded }), element("button", { type: "button", text: strings.again, onclick: load }));
    return;
  }
  resolve = resolver(described);
  entries = Object.entries(described.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => {
      const operation = item[method];
      const parameters = [...(operation.parameters ?? []), ...(item.parameters ?? [])].map(resolve);
      return { id: operation.operationId ?? `${method}${path}`, method: method.toUpperCase(), path, tag: operation.tags?.[0] ?? strings.others, operation, parameters };
    }));
  filter();
  show(false);
}

/** What `words` leave: those that have all of them in path, name, tag or summary. */
function kept(words) {
  const all = words.toLowerCase().split(/\s+/).filter(Boolean);
  const text = ({ id, method, path, tag, operation }) => [id, method, path, tag, operation.summary ?? ""].join(" ").toLowerCase();
  return entries.filter((entry) => all.every((word) => text(entry).includes(word)));
}

/** [[tag, its entries]…], in the order in which the server tells them. */
const byTag = (some) => [...new Set(some.map((entry) => entry.tag))].map((tag) => [tag, some.filter((entry) => entry.tag === tag)]);

function filter(event) {
  if (!described) return; // typed before there is anything: `load` asks once more
  const some = kept($("filter").value);
  $("found").textContent = strings.found(some.length, entries.length);
  $("list").replaceChildren(...byTag(some).map(([tag, list]) =>
    element("section", {},
      element("h2", { text: tag }),
      element("ul", {}, ...list.map((entry) => element("li", {}, link(entry, false)))))));
  if (event && state() && getComputedStyle($("list")).display === "none") location.hash = ""; // a phone shows one of both
  else if (!state()) home();
  mark();
}

function openFirst(event) {
  if (event.key !== "Enter") return;
  const [first] = kept($("filter").value);
  if (first && $("filter").value.trim()) location.hash = encodeURIComponent(first.id);
}

function link({ id, method, path, operation }, told) {
  return element("a", { href: `#${encodeURIComponent(id)}`, title: told ? null : operation.summary ?? null },
    element("span", { className: `method ${method.toLowerCase()}`, text: method }), " ",
    element("span", { className: "path" }, ...breakable(path)),
    told && operation.summary ? element("span", { className: "what", text: operation.summary }) : null);
}

function mark() {
  for (const one of $("list").querySelectorAll("a")) {
    const here = one.hash === `#${encodeURIComponent(state())}`;
    one.removeAttribute("aria-current");
    if (here) {
      one.setAttribute("aria-current", "page");
      one.scrollIntoView({ block: "nearest" });
    }
  }
}

function show(focus) {
  const id = state();
  document.body.classList.toggle("one", Boolean(id));
  mark();
  if (!id) {
    document.title = strings.titleOf(described.info.title === "Tessera" ? strings.calls : described.info.title);
    home();
    if (focus && document.activeElement !== $("filter")) $("main").querySelector("h2").focus();
    return;
  }
  const entry = entries.find((one) => one.id === id);
  if (!entry) {
    $("main").replaceChildren(element("p", { role: "alert", text: strings.unknown(id) }), element("a", { className: "button", href: "#", text: strings.back }));
    return;
  }
  document.title = strings.titleOf(id);
  if (!views.has(id)) views.set(id, operationView(entry, resolve, { base: HERE, send, key }));
  const { view, title, changed } = views.get(id);
  $("main").replaceChildren(view);
  changed();
  if (focus) {
    scrollTo(0, 0);
    title.focus({ preventScroll: true });
  }
}

function home() {
  const { info } = described;
  const facts = [
    [strings.address, element("code", { text: HERE.href })],
    [strings.version, element("span", { text: info.version })],
    [strings.keys, element("span", {}, ...Object.values(described.components?.securitySchemes ?? {}).flatMap((one, n) => [n ? ", " : "", element("code", { text: one.type === "http" ? "Authorization: Bearer KEY" : `${one.name}: KEY` })]))],
    [strings.document, element("a", { href: "openapi.json", text: `OpenAPI ${described.openapi}` })],
    [strings.forModels, element("a", { href: "llms.txt", text: "llms.txt" })],
  ];
  const some = kept($("filter").value);
  $("main").replaceChildren(
    element("div", { className: "home" },
      element("h2", { tabIndex: -1, text: strings.intro }),
      element("p", { text: strings.introText }),
      element("dl", { className: "facts" }, ...facts.map(([name, value]) => element("div", {}, element("dt", { text: name }), element("dd", {}, value)))),
      some.length ? "" : element("p", { text: strings.nothing($("filter").value) }),
      element("div", { className: "cards" }, ...byTag(some).map(([tag, list]) =>
        element("section", {},
          element("h3", { text: tag }),
          element("ul", {}, ...list.map((entry) => element("li", {}, link(entry, true)))))))));
}

/** fetch, with the key; where the server wants another, that is asked for and it is sent once more. */
async function send(url, options) {
  for (let refused = false; ; refused = true) {
    const headers = new Headers(options.headers);
    if (key()) headers.set("X-API-Key", key());
    const since = performance.now();
    const answer = await fetch(url, { ...options, headers });
    answer.since = since;
    if (answer.status !== 401 || !(await askKey(refused || key() ? strings.askRefused : strings.askWanted))) return answer;
  }
}

function showKey() {
  $("key").textContent = key() ? strings.keySet : strings.key;
}

/** Whether a key was given. */
function askKey(why) {
  const dialog = $("ask");
  const field = element("input", { id: "ask-field", type: "password", autocomplete: "off", spellcheck: false, value: key(), "aria-describedby": "ask-why" });
  const said = element("p", { className: "required", role: "alert" });
  return new Promise((done) => {
    const close = (given) => {
      dialog.close();
      dialog.replaceChildren();
      showKey();
      for (const { changed } of views.values()) changed();
      done(given);
    };
    const keep = (event) => {
      event.preventDefault();
      try {
        new Headers([["X-API-Key", field.value.trim()]]);
      } catch {
        said.textContent = strings.badHeader(strings.askField);
        return field.focus();
      }
      if (field.value.trim()) sessionStorage.key_ = field.value.trim();
      else delete sessionStorage.key_;
      close(Boolean(key()));
    };
    const forget = () => {
      delete sessionStorage.key_;
      close(false);
    };
    said.textContent = why;
    dialog.replaceChildren(
      element("h2", { id: "ask-title", text: strings.askTitle }),
      said,
      element("p", { id: "ask-why", text: strings.askWhy }),
      element("form", { onsubmit: keep },
        element("label", { htmlFor: "ask-field", text: strings.askField }), field,
        element("div", { className: "buttons" },
          element("button", { type: "submit", className: "primary", text: strings.askUse }),
          key() ? element("button", { type: "button", text: strings.askForget, onclick: forget }) : null,
          element("button", { type: "button", text: strings.askClose, onclick: () => close(false) }))));
    dialog.oncancel = (event) => {
      event.preventDefault();
      close(false);
    };
    dialog.showModal();
    field.select();
  });
}

start();
