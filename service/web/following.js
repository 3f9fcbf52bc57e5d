// What others change: looked for when somebody comes back to the page, and every few seconds while it is seen.
import { call, query } from "./api.js";
import { news, sent } from "./names.js";
import { on, state, tell } from "./state.js";

const EVERY_MS = 15_000;

const followed = [];

/**
 * Follow a path: `take` is given its JSON whenever that is new, and what `before` said when it was asked for; where it
 * returns false, the same is asked for again.
 *
 * path  a function; what it returns is asked for, nothing for a falsy one
 */
export const follow = (path, take, before = () => undefined) => followed.push({ path, take, before, asked: null, tag: null });

async function look(one) {
  const path = one.path();
  if (!path) return;
  if (path !== one.asked) Object.assign(one, { asked: path, tag: null });
  const stamp = one.before();
  const reply = await call(path, { headers: one.tag ? { "if-none-match": one.tag } : {}, cache: "no-store" });
  if (reply.status === 304 || path !== one.path()) return;
  const taken = one.take(await reply.json(), stamp);
  one.tag = taken === false ? null : reply.headers.get("etag");
}

let looking = false;

/** Look at all that is followed; a server that is away now is asked again later, without a word. */
async function lookAround() {
  if (looking || document.hidden) return;
  looking = true;
  await Promise.allSettled(followed.map(look));
  looking = false;
}

export function start() {
  follow(() => state.model && query("clusters", { model: state.model }), news, sent);
  addEventListener("focus", lookAround);
  addEventListener("online", lookAround);
  document.addEventListener("visibilitychange", lookAround);
  setInterval(lookAround, EVERY_MS);
  addEventListener("storage", () => tell("clusters")); // what another tab of this browser says
  on("models", () => followed.forEach((one) => (one.tag = null)));
}
