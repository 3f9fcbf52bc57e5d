// What the server answered: status, time, headers, and the body as JSON, picture, text or file.
import { element, folded } from "./dom.js";
import { strings } from "./strings.js";

const LONG_TEXT = 400; // a JSON text longer than this is base64, mostly
const MOST_SHOWN = 200_000; // characters in one <pre>
const MOST_COLORED = 60_000;
const PICTURES = /^image\/(png|jpeg|webp|gif|avif|bmp|svg\+xml)$/;
const ENDINGS = {
  "application/json": "json", "application/problem+json": "json", "application/geo+json": "geojson", "application/x-npy": "npy", "application/zip": "zip",
  "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/tiff": "tif", "text/plain": "txt", "application/octet-stream": "bin",
};
// Said of every answer alike, or by the connection: nothing that was asked for.
const NOISE = new Set([
  "connection", "content-length", "content-security-policy", "cross-origin-opener-policy", "cross-origin-resource-policy", "date", "keep-alive", "referrer-policy",
  "server", "strict-transport-security", "transfer-encoding", "vary", "x-content-type-options", "x-frame-options",
]);

export const endingOf = (type) => ENDINGS[type] ?? "bin";

/** The lines of an answer in `place`, without the one that says how it went. Answers what lets go of the pictures in it. */
export async function showAnswer(place, response, blob, name) {
  const type = (response.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
  const address = URL.createObjectURL(blob);
  const file = `${name}.${endingOf(type)}`;
  const download = element("a", { className: "button", href: address, download: file, text: strings.download(file) });
  const body = blob.size ? [await bodyOf(type, blob, address), download] : [element("p", { className: "soft", text: strings.empty })];
  place.replaceChildren(...body, headersOf(response));
  return () => URL.revokeObjectURL(address);
}

function headersOf(response) {
  const all = [...response.headers].map(([name, value]) => [name, name === "server-timing" ? strings.times(value) : value]);
  const list = (rows) => element("dl", { className: "headers" }, ...rows.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]));
  const matter = all.filter(([name]) => !NOISE.has(name));
  const rest = all.filter(([name]) => NOISE.has(name));
  return element("section", { "aria-label": strings.headers }, list(matter), rest.length ? folded(strings.allHeaders, () => list(rest)) : null);
}

async function bodyOf(type, blob, address) {
  if (PICTURES.test(type)) {
    const picture = element("img", { className: "answered", alt: "", src: address });
    await picture.decode().catch(() => null);
    picture.alt = strings.picture(picture.naturalWidth, picture.naturalHeight);
    return picture.naturalWidth ? picture : element("p", { className: "soft", text: strings.notShown(type) });
  }
  if (type.endsWith("json")) {
    try {
      const answered = JSON.parse(await blob.text());
      const view = jsonView(answered);
      if (type.includes("problem") && answered.detail) view.prepend(element("p", { className: "detail", text: answered.detail }));
      return view;
    } catch {
      return textView(await blob.text()); // as it is, then
    }
  }
  if (type.startsWith("text/")) return textView(await blob.text());
  return element("p", { className: "soft", text: strings.notShown(type || strings.anyType) });
}

function jsonView(value) {
  let shortened = false;
  const text = JSON.stringify(value, (_, one) => {
    if (typeof one !== "string" || one.length <= LONG_TEXT) return one;
    shortened = true;
    return `${one.slice(0, 60)}${strings.more(one.length - 60)}`;
  }, 2);
  const view = textView(onOneLine(text), colored);
  if (shortened) view.append(element("p", { className: "soft", text: strings.shortened }));
  return view;
}

/** Lists of plain numbers, such as boxes and codes, on lines of their own instead of a line for each number. */
const onOneLine = (text) => text.replace(/\[\s+(-?[\d.eE+-]+(?:,\s+-?[\d.eE+-]+)*)\s+\]/g, (_, numbers) => `[${numbers.replace(/,\s+/g, ", ")}]`);

function textView(text, paint) {
  const pre = element("pre", { tabIndex: 0, role: "group", "aria-label": strings.answer });
  const shown = text.slice(0, MOST_SHOWN);
  pre.append(...(paint && shown.length <= MOST_COLORED ? paint(shown) : [shown]));
  const view = element("div", {}, pre);
  if (shown.length < text.length) view.append(element("p", { className: "soft", text: strings.more(text.length - shown.length) }));
  return view;
}

/** JSON text in pieces: names, texts and other values have classes. */
export function colored(text) {
  const pieces = [];
  let end = 0;
  for (const found of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d[\d.eE+-]*/g)) {
    pieces.push(text.slice(end, found.index));
    pieces.push(element("span", { className: found[2] ? "key" : found[1] ? "text" : "value", text: found[1] ?? found[0] }));
    if (found[2]) pieces.push(found[2]);
    end = found.index + found[0].length;
  }
  return [...pieces, text.slice(end)];
}
