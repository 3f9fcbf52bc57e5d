// Status, warnings and errors over the photo, where people look.
import { $, el } from "./dom.js";
import { t } from "./strings.js";

let fading = 0;

/** Say something; what is bad or lasting stays until something else is said, a word fades. Without words: nothing is shown. */
export function say(text, { bad = false, lasting = bad } = {}) {
  clearTimeout(fading);
  const notice = $("notice");
  notice.replaceChildren(...(text ? [text] : []));
  if (text && bad) notice.append(closing(() => say("")));
  notice.hidden = !text;
  notice.classList.toggle("bad", bad);
  if (text && !lasting) fading = setTimeout(() => say(""), 6000);
}

/** What was said is so no more; whatever else was said meanwhile stays. */
export const unsay = (text) => text && $("notice").firstChild?.data === text && say("");

export const fail = (error) => {
  if (error.name !== "AbortError") say(error.message, { bad: true });
};

/** What the server had to leave out of an answer; it stays until it is closed, or the next photo's are told. */
export function warn(warnings) {
  const shown = $("warnings");
  shown.hidden = !warnings.length;
  if (shown.hidden) return shown.replaceChildren();
  const list = el("ul", {}, ...warnings.map((one) => el("li", { textContent: one })));
  shown.replaceChildren(list, closing(() => warn([])));
}

function closing(close) {
  const button = el("button", { type: "button", class: "close", textContent: "×", title: t("notice.close"), aria: { label: t("notice.close") } });
  button.onclick = () => {
    close();
    $("labels").focus();
  };
  return button;
}
