// Status and errors, over the photo, where people look.
import { $ } from "./dom.js";

let fading = 0;

/** Say something; an error stays until something else is said, a word fades. Without words: nothing is shown. */
export function say(text, { bad = false } = {}) {
  clearTimeout(fading);
  const notice = $("notice");
  notice.textContent = text ?? "";
  notice.hidden = !text;
  notice.classList.toggle("bad", bad);
  if (text && !bad) fading = setTimeout(() => say(""), 6000);
}

export const fail = (error) => {
  if (error.name !== "AbortError") say(error.message, { bad: true });
};
