// What the page asks of the server: every call, its key, its errors in words. Paths are relative: a sub-path is no matter.
import { t } from "./strings.js";

/** What the server refused, in its words; `after` is in how many seconds it would be asked again, 0 where it does not say. */
export class ApiError extends Error {
  constructor(status, detail, after = 0) {
    super(detail);
    this.status = status;
    this.after = after;
  }
}

export const key = () => sessionStorage.key_ ?? "";

let asking = null; // for the key, by one dialog however many requests want it

const LONGEST_WAIT_S = 5, TURNS = 3; // how long, and how often, a busy server is waited for with a change before people are told
const PATIENCE_MS = 30_000; // with a change that is not answered

/**
 * fetch, with the key; `signal` ends it; 304 is an answer. Throws ApiError with the server's sentence.
 *
 * `askForKey` is set by the page.
 */
export async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key() ? { "x-api-key": key() } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, t("error.silent"));
  }
  if (answer.ok || answer.status === 304) return answer;
  if (answer.status === 401 && call.askForKey) {
    asking ??= call.askForKey().finally(() => (asking = null));
    const given = await asking;
    if (given) {
      sessionStorage.key_ = given; // kept until this tab closes
      return call(path, options);
    }
  }
  const problem = await answer.json().catch(() => ({}));
  const after = Number(answer.headers.get("retry-after")) || 0;
  throw new ApiError(answer.status, problem.detail ?? `${answer.status} ${answer.statusText}`, after);
}

export const get = async (path) => (await call(path)).json();

/** `call` for what is changed: it ends where nothing is answered, and a server that is busy for seconds is asked again. */
export async function patiently(path, options = {}) {
  for (let turn = 1; ; turn++) {
    try {
      return await call(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
    } catch (error) {
      if (error.status !== 503 || !error.after || error.after > LONGEST_WAIT_S || turn === TURNS) throw error;
      await new Promise((resolve) => setTimeout(resolve, error.after * 1000));
    }
  }
}

/** Send JSON; returns the answer's. */
export async function send(method, path, body, headers = {}) {
  const all = { "content-type": "application/json", ...headers };
  return (await patiently(path, { method, body: JSON.stringify(body), headers: all })).json();
}

/** `path?query` of those values that are there; `model` is the ref of the model in use. */
export function query(path, values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** The address of a picture of the server's, for <img>: as it is, or fetched with the key. */
export async function picture(path) {
  if (!key()) return path;
  return URL.createObjectURL(await (await call(path)).blob());
}

const modules = new Map(); // name → what it was fetched under the last time; browsers remember that a fetch failed

/** A module of the page that is not needed at the first view; it may be asked for again where it could not be had. */
export async function module(name) {
  const turn = modules.get(name) ?? 0;
  try {
    return await import(turn ? `./${name}.js?${turn}` : `./${name}.js`);
  } catch {
    modules.set(name, turn + 1);
    throw new ApiError(0, t("error.silent"));
  }
}
