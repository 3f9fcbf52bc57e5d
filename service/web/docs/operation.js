// One operation: what it does, what it takes as a form that can be sent, and what it answers.
import { endingOf, showAnswer } from "./answer.js";
import { curl } from "./curl.js";
import { element, folded, prose } from "./dom.js";
import { choices, example, isFile, meta, schemaView, typeOf, variants } from "./schema.js";
import { strings } from "./strings.js";

const PLACES = ["path", "query", "header"];
const FORM = "multipart/form-data";
const FORMAT_ENDINGS = { png: "png", overlay: "jpg", color: "png", confidence: "png", npy: "npy", panoptic: "zip", geotiff: "tif", zip: "zip" };
const AT_ONCE = 6; // optional parameters that are shown without being asked for

/**
 * The view of `entry` {id, method, path, operation, parameters}.
 *
 * resolve  reads references (`resolver`)
 * base     URL below which paths are
 * send     (url, options) → Response, asking for a key where one is wanted
 * key      () → the key that goes along, or ""
 */
export function operationView(entry, resolve, { base, send, key }) {
  const { id, method, path, operation } = entry;
  const inputs = []; // {name, place, required, value: () => string}
  const form = element("form", { className: "operation", noValidate: true });

  const body = operation.requestBody ? bodyOf(resolve(operation.requestBody), entry, resolve, () => changed()) : null;
  const groups = PLACES.map((place) => {
    const own = entry.parameters.filter((one) => one.in === place);
    if (!own.length) return null;
    const must = own.filter((one) => one.required);
    const may = own.filter((one) => !one.required);
    const rows = (list) => list.map((one) => parameterRow(one, id, resolve, inputs));
    const many = may.length > AT_ONCE;
    const optional = many
      ? [element("details", { className: "many", open: matchMedia("(min-width: 1100px)").matches }, element("summary", { text: strings.optional(may.length) }), ...rows(may))]
      : rows(may);
    return element("section", {}, element("h3", { text: strings[place] }), ...rows(must), ...optional);
  });
  const accept = acceptOf(operation, resolve, id);

  const command = element("pre", { className: "command", tabIndex: 0, role: "group", "aria-label": strings.curl });
  const says = element("p", { className: "says", role: "status" });
  const place = element("div", { className: "answer" });
  const sendButton = element("button", { className: "primary", type: "submit", text: strings.send });
  const cancel = element("button", { type: "button", text: strings.cancel, hidden: true });
  const copy = element("button", { type: "button", text: strings.copy });
  const copied = element("span", { className: "soft", role: "status" });

  function request() {
    let where = path;
    const query = new URLSearchParams();
    const headers = [];
    for (const { name, place, value } of inputs) {
      const text = value();
      if (place === "path") where = where.replace(`{${name}}`, text === "" ? `{${name}}` : encodeURIComponent(text));
      else if (text === "") continue;
      else if (place === "query") query.append(name, text);
      else headers.push([name, text]);
    }
    if (accept?.value) headers.push(["Accept", accept.value]);
    const asked = `${query}` ? `?${query}` : "";
    const made = body?.made() ?? null;
    if (made?.type) headers.push(["Content-Type", made.type]);
    return { method, url: new URL(`.${where}${asked}`, base).href.replaceAll("%7B", "{").replaceAll("%7D", "}"), headers, made };
  }

  function commandNow() {
    const { url, headers, made } = request();
    const ending = fileEnding(inputs.find((one) => one.name === "format")?.value(), accept?.value, typesOf(operation, resolve));
    return curl({ method, url, keyed: Boolean(key()), headers, body: made?.shell ?? null, saveAs: ending && `${id}.${ending}` });
  }

  function changed() {
    command.textContent = commandNow();
    copied.textContent = "";
  }

  copy.onclick = async () => {
    const done = await toClipboard(commandNow(), command);
    copied.textContent = done ? (key() ? strings.copiedKey : strings.copied) : strings.notCopied;
  };

  let running = null;
  let letGo = () => {};
  cancel.onclick = () => running?.abort();
  const say = (text, state = "") => {
    says.textContent = text;
    says.dataset.state = state;
  };

  form.onsubmit = async (event) => {
    event.preventDefault();
    if (running) return;
    const empty = [...inputs.filter((one) => one.required && one.value() === ""), ...(body?.missing() ?? [])];
    for (const one of inputs) one.field.toggleAttribute("aria-invalid", false);
    if (empty.length) {
      for (const one of empty) one.field.setAttribute("aria-invalid", "true");
      empty[0].field.focus();
      return say(strings.missing(empty.map((one) => one.name)), "bad");
    }
    const { url, headers, made } = request();
    if (made?.wrong) return say(strings.badJson(made.wrong), "bad");
    const wrong = headers.find(([name, value]) => !carries(name, value));
    if (wrong) return say(strings.badHeader(wrong[0]), "bad");
    running = new AbortController();
    cancel.hidden = false;
    sendButton.setAttribute("aria-disabled", "true");
    say(strings.sending);
    const since = performance.now();
    try {
      const response = await send(url, { method, headers: new Headers(headers), body: made?.body, cache: "no-store", signal: running.signal });
      const blob = await response.blob();
      const ms = Math.round(performance.now() - (response.since ?? since));
      letGo();
      letGo = await showAnswer(place, response, blob, id);
      say(strings.told(response.status, response.statusText, ms, strings.bytes(blob.size)), response.ok ? "good" : "bad");
    } catch (error) {
      letGo();
      place.replaceChildren();
      say(error.name === "AbortError" ? strings.canceled : strings.unreachable, "bad");
    } finally {
      running = null;
      if (document.activeElement === cancel) sendButton.focus(); // which is not lost with it
      cancel.hidden = true;
      sendButton.removeAttribute("aria-disabled");
    }
  };
  form.oninput = form.onchange = changed;

  const title = element("h2", { tabIndex: -1 }, element("span", { className: `method ${method.toLowerCase()}`, text: method }), " ", element("code", {}, ...breakable(path)));
  const tried = element("section", { className: "try", "aria-label": strings.tryIt },
    element("div", { className: "buttons" }, sendButton, cancel, copy, copied),
    command, says, place);
  form.append(
    element("div", { className: "takes" }, ...groups.slice(0, 1), body?.view ?? "", ...groups.slice(1), accept?.view ?? ""),
    tried,
    element("section", { className: "answers" }, element("h3", { text: strings.answers }), ...answersOf(operation, resolve)),
  );
  const view = element("article", {},
    element("a", { className: "back", href: "#", text: strings.back }),
    title,
    element("p", { className: "summary" }, operation.summary ?? "", operation.deprecated ? element("span", { className: "required", text: strings.deprecated }) : ""),
    ...(operation.description ?? "").split(/\n\s*\n/).filter(Boolean).map((words) => element("p", {}, prose(words))),
    form);
  changed();
  return { view, title, changed };
}

/** A path in pieces that may stand on lines of their own. */
export const breakable = (path) => path.split(/(?=\/)/).flatMap((piece) => [element("wbr"), piece]);

function parameterRow(parameter, operation, resolve, inputs) {
  const schema = parameter.schema ?? Object.values(parameter.content ?? {})[0]?.schema ?? {};
  const id = `${operation}-${parameter.in}-${parameter.name}`;
  // Defaults of options stand in words, so that no generated client sends them (service/api/openapi.py).
  const [, words, inWords] = /^([^]*?)(?: \(default: ([^]*?)\))?$/.exec(parameter.description ?? resolve(schema).description ?? "");
  const field = fieldOf(schema, resolve, { id, usual: inWords ?? resolve(schema).default, required: parameter.required });
  inputs.push({ name: parameter.name, place: parameter.in, required: parameter.required, field, value: () => field.value });
  return rowOf(id, parameter.name, field, meta(schema, parameter.required, resolve, inWords), words);
}

function rowOf(id, name, field, about, words) {
  if (words) field.setAttribute("aria-describedby", `${id}-words`);
  return element("div", { className: "row" },
    element("div", {},
      element("label", { htmlFor: field.id || id, className: "name", text: name }), " ", ...about,
      words ? element("p", { id: `${id}-words` }, prose(words)) : null),
    field);
}

/** What a value is given in: a list where there are few, else a line. Nothing is refused here: the server says why. */
function fieldOf(schema, resolve, { id, usual, required }) {
  const values = choices(schema, resolve);
  const type = variants(schema, resolve)[0]?.type;
  if (type === "boolean" && !values.length) values.push(true, false);
  const closed = values.length && variants(schema, resolve).every((one) => one.enum || one.const !== undefined || one.type === "boolean" || resolve(schema).enum);
  if (closed) {
    const none = required ? [] : [new Option(usual === undefined || usual === null ? strings.absent : strings.absentIs(usual), "")];
    return element("select", { id }, ...none, ...values.map((value) => new Option(String(value), String(value))));
  }
  const known = { integer: "numeric", number: "decimal" }[type];
  return element("input", {
    id, type: "text", autocomplete: "off", spellcheck: false, inputMode: known, required: required || null,
    placeholder: usual === undefined || usual === null ? null : String(usual),
  });
}

const typesOf = (operation, resolve) =>
  Object.keys(resolve(Object.entries(operation.responses ?? {}).find(([status]) => status.startsWith("2"))?.[1] ?? {}).content ?? {});

function acceptOf(operation, resolve, id) {
  const types = typesOf(operation, resolve);
  if (types.length < 2) return null;
  const select = element("select", { id: `${id}-accept` }, new Option(strings.anyType, ""), ...types.map((type) => new Option(type, type)));
  return {
    view: element("section", {}, element("h3", { text: strings.accept }), rowOf(select.id, "Accept", select, [], strings.acceptHelp)),
    get value() {
      return select.value;
    },
  };
}

/** How the file of an answer ends; null where the answer is text, for the terminal. `types` can be answered. */
function fileEnding(format, accepted, types) {
  if (format) return FORMAT_ENDINGS[format] ?? null;
  const type = accepted || (types.includes("application/json") ? "application/json" : types[0] ?? "application/json");
  return /json|^text/.test(type) ? null : endingOf(type);
}

/** A request's body: {view, made() → {type, body, shell, wrong}, missing()}, in each of the media types it can have. */
function bodyOf(requestBody, entry, resolve, changed) {
  const types = Object.keys(requestBody.content ?? {});
  const editors = types.map((type) => editorOf(type, resolve(requestBody.content[type].schema ?? {}), entry, resolve, changed));
  let chosen = 0;
  const panel = element("div", {});
  const choose = (n) => {
    chosen = n;
    panel.replaceChildren(editors[n].view);
    changed();
  };
  const names = types.map((type) => (type === FORM ? strings.form : type.endsWith("json") ? strings.json : /^(application\/octet-stream|image\/.*)$/.test(type) ? strings.raw : type));
  const tabs = element("fieldset", { className: "kinds" }, element("legend", { text: strings.sendAs }),
    ...types.map((type, n) => {
      const radio = element("input", { type: "radio", name: `${entry.id}-kind`, value: type, checked: n === 0, onchange: () => choose(n) });
      return element("label", { title: type }, radio, " ", names[n]);
    }));
  panel.append(editors[0].view);
  const view = element("section", { className: "body" },
    element("h3", { text: strings.body }),
    requestBody.description ? element("p", { className: "soft" }, prose(requestBody.description)) : null,
    types.length > 1 ? tabs : element("p", {}, element("code", { text: types[0] })),
    panel);
  return {
    view,
    made: () => editors[chosen].made(),
    missing: () => (requestBody.required ? editors[chosen].missing() : []),
  };
}

function editorOf(type, schema, entry, resolve, changed) {
  if (type === FORM) return formEditor(schema, entry, resolve, changed);
  if (type.endsWith("json")) return jsonEditor(type, schema, entry, resolve, changed);
  const file = fileField(`${entry.id}-raw`, strings.types.binary, false, changed);
  return {
    view: file.view,
    made: () => {
      const [first] = file.files();
      return { type, body: first, shell: { file: first?.name ?? "photo.jpg" } };
    },
    missing: () => (file.files().length ? [] : [{ name: strings.types.binary, field: file.field }]),
  };
}

function formEditor(schema, entry, resolve, changed) {
  const asked = new Set(entry.parameters.filter((one) => one.in === "query").map((one) => one.name));
  const parts = []; // {name, required, field, values: () => [File | string]}
  const rows = [];
  let also = false;
  for (const [name, given] of Object.entries(schema.properties ?? {})) {
    const one = variants(given, resolve)[0];
    const required = schema.required?.includes(name) ?? false;
    const id = `${entry.id}-form-${name}`;
    if (isFile(one) || (one.items && isFile(resolve(one.items)))) {
      const file = fileField(id, name, Boolean(one.items), changed);
      parts.push({ name, required, field: file.field, values: file.files });
      rows.push(file.view);
    } else if (asked.has(name)) also = true;
    else {
      const field = fieldOf(given, resolve, { id, usual: one.default, required });
      parts.push({ name, required, field, values: () => (field.value === "" ? [] : [field.value]) });
      rows.push(rowOf(id, name, field, meta(given, required, resolve), one.description));
    }
  }
  if (also) rows.push(element("p", { className: "soft", text: strings.alsoFields }));
  return {
    view: element("div", {}, ...rows),
    made: () => {
      const body = new FormData();
      const shell = [];
      for (const { name, required, values } of parts) {
        for (const value of values()) {
          body.append(name, value);
          shell.push([name, value instanceof File ? { file: value.name } : value]);
        }
        if (required && !values().length) shell.push([name, { file: "photo.jpg" }]);
      }
      return { body, shell: { form: shell } }; // the browser says where its parts end
    },
    missing: () => parts.filter((one) => one.required && !one.values().length),
  };
}

function jsonEditor(type, schema, entry, resolve, changed) {
  const all = variants(schema, resolve);
  const id = `${entry.id}-json`;
  const field = element("textarea", { id, spellcheck: false, autocapitalize: "off", autocomplete: "off" });
  const fill = (one, every) => {
    field.value = JSON.stringify(example(one, resolve, { all: every, picture: drawnBase64() }), null, 2);
    field.rows = Math.min(16, Math.max(3, field.value.split("\n").length));
    changed();
  };
  const buttons = all.flatMap((one) => {
    const named = all.length > 1 ? `${one.named ?? typeOf(one, resolve)}: ` : "";
    return [[strings.least, false], [strings.every, true]]
      .filter(([, every]) => !every || Object.keys(one.properties ?? {}).length > (one.required?.length ?? 0))
      .map(([word, every]) => element("button", { type: "button", text: named + word, onclick: () => fill(one, every) }));
  });
  field.value = "{}";
  let first = true;
  const view = element("div", { className: "json" },
    element("label", { htmlFor: id, text: strings.jsonBody }), field,
    element("div", { className: "buttons" }, ...buttons),
    folded(strings.schemaOf, () => schemaView(schema, resolve)));
  return {
    get view() {
      if (first) {
        first = false;
        queueMicrotask(() => fill(all[0], false));
      }
      return view;
    },
    made: () => {
      const text = field.value.trim();
      if (!text) return null;
      try {
        JSON.parse(text);
      } catch (error) {
        return { type, body: text, shell: { text }, wrong: error.message };
      }
      return { type, body: text, shell: { text } };
    },
    missing: () => (field.value.trim() ? [] : [{ name: strings.json, field }]),
  };
}

/** A field for files, with a picture drawn here for who has none at hand. */
function fileField(id, name, several, changed) {
  const field = element("input", { id, type: "file", multiple: several, className: "file" });
  const told = element("p", { className: "soft", text: strings.noFile, id: `${id}-told` });
  const tell = () => {
    told.textContent = field.files.length ? strings.chosen([...field.files]) : strings.noFile;
    changed();
  };
  field.setAttribute("aria-describedby", told.id);
  field.onchange = tell;
  const drawn = element("button", { type: "button", text: strings.drawn });
  drawn.onclick = async () => {
    const held = new DataTransfer();
    held.items.add(new File([await drawnStreet()], "street.png", { type: "image/png" }));
    field.files = held.files;
    tell();
  };
  const view = element("div", { className: "row files" },
    element("div", {}, element("span", { className: "name", text: name }), " ", element("span", { className: "type", text: several ? strings.files : strings.types.binary }), told),
    element("div", { className: "buttons" }, field, element("label", { className: "button", htmlFor: id, text: several ? strings.chooseSeveral : strings.choose }), drawn));
  return { view, field, files: () => [...field.files] };
}

let street = null;

/** A canvas with a street on it: sky, houses, trees, a road. */
function drawnCanvas(width, height) {
  const canvas = element("canvas", { width, height });
  const pen = canvas.getContext("2d");
  const fill = (color, x, y, w, h) => {
    pen.fillStyle = color;
    pen.fillRect(x * width, y * height, w * width, h * height);
  };
  fill("#9cc3e6", 0, 0, 1, 0.6);
  fill("#b7865c", 0, 0.18, 0.24, 0.5);
  fill("#8d6e63", 0.76, 0.1, 0.24, 0.6);
  for (let n = 0; n < 6; n++) fill("#4a545c", 0.03 + (n % 2) * 0.1, 0.24 + Math.floor(n / 2) * 0.12, 0.06, 0.07);
  for (let n = 0; n < 8; n++) fill("#4a545c", 0.79 + (n % 2) * 0.1, 0.16 + Math.floor(n / 2) * 0.12, 0.06, 0.07);
  fill("#5d7b4c", 0.3, 0.38, 0.1, 0.22);
  fill("#5d7b4c", 0.6, 0.34, 0.12, 0.26);
  fill("#a7a39b", 0, 0.6, 1, 0.4);
  pen.fillStyle = "#6b6b70";
  pen.beginPath();
  for (const [x, y] of [[0.42, 0.6], [0.58, 0.6], [0.95, 1], [0.05, 1]]) pen.lineTo(x * width, y * height);
  pen.fill();
  fill("#f2efe6", 0.49, 0.66, 0.015, 0.08);
  fill("#f2efe6", 0.485, 0.82, 0.025, 0.12);
  return canvas;
}

const drawnStreet = async () => (street ??= await new Promise((done) => drawnCanvas(480, 360).toBlob(done, "image/png")));
const drawnBase64 = () => drawnCanvas(64, 48).toDataURL("image/png").split(",")[1];

function answersOf(operation, resolve) {
  return Object.entries(operation.responses ?? {})
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([status, given]) => {
      const response = resolve(given);
      const types = Object.keys(response.content ?? {});
      const summary = [
        element("span", { className: `status s${status[0]}`, text: status }), " ",
        element("span", { text: response.description ?? "" }), " ",
        element("span", { className: "limits", text: types.length ? (types.length > 2 ? `${types.slice(0, 2).join(", ")}, +${types.length - 2}` : types.join(", ")) : strings.noBody }),
      ];
      const schemaOf = (type) => resolve(response.content[type].schema);
      const files = types.filter((type) => isFile(schemaOf(type)));
      return folded(summary, () => [
        ...types.filter((type) => !files.includes(type)).map((type) =>
          element("div", {}, types.length > 1 ? element("p", {}, element("code", { text: type })) : null, schemaView(schemaOf(type), resolve, true))),
        files.length ? element("p", { className: "values" }, ...files.flatMap((type) => [element("code", { text: type }), " "]), element("span", { className: "type", text: strings.types.binary })) : null,
        response.headers
          ? element("ul", { className: "fields" }, ...Object.entries(response.headers).map(([name, header]) =>
              element("li", {}, element("code", { className: "name", text: name }), " ", ...meta(resolve(header).schema ?? {}, null, resolve),
                header.description ? element("p", {}, prose(header.description)) : null)))
          : null,
      ], { open: status.startsWith("2") });
    });
}

function carries(name, value) {
  try {
    new Headers([[name, value]]);
    return true;
  } catch {
    return false;
  }
}

/** Whether `text` is in the clipboard now. Pages without TLS, other than localhost's, have only the old way. */
async function toClipboard(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", { value: text, className: "off", "aria-hidden": "true", readOnly: true });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (done) focused?.focus();
    else getSelection().selectAllChildren(shown);
    return done;
  }
}
