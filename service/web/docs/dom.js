// Elements made of text, never of markup: what the server says is shown as it is.

/** An element. `text` is its text; `on…` are listeners; what an element has as a property is set, all else is an attribute. */
export function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (name === "text") made.textContent = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Words in which `these` are code, as the API's descriptions have them. */
export function prose(words) {
  const pieces = document.createDocumentFragment();
  words.split(/`([^`]+)`/).forEach((piece, n) => pieces.append(n % 2 ? element("code", { text: piece }) : piece));
  return pieces;
}

/** A `details` that is filled when it is opened first. */
export function folded(summary, fill, given = {}) {
  const details = element("details", given, element("summary", {}, ...[summary].flat()));
  let filled = false;
  const open = () => {
    if (!details.open || filled) return;
    filled = true;
    details.append(...[fill()].flat().filter(Boolean));
  };
  details.addEventListener("toggle", open);
  open();
  return details;
}
