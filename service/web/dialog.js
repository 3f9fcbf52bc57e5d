// Dialogs: the browser's own <dialog>, which holds the focus and gives it back; Esc closes it.
import { el } from "./dom.js";
import { t } from "./strings.js";

/**
 * Show a dialog. `fill(close)` makes what is inside of its form; resolves, once it is closed, to what `close` was given,
 * or to undefined for who went away. A button of type submit closes it with its own value.
 */
export function open(title, fill) {
  const back = document.activeElement;
  const form = el("form", { method: "dialog" });
  const shown = el("dialog", { aria: { label: title } }, form);
  let given;
  const close = (value) => {
    given = value;
    shown.close();
  };
  form.append(el("h2", { textContent: title }), ...fill(close));
  document.body.append(shown);
  return new Promise((resolve) => {
    shown.onclose = () => {
      shown.remove();
      back?.focus?.();
      resolve(given);
    };
    shown.onclick = (event) => {
      if (event.target === shown) shown.close(); // beside it
    };
    shown.showModal();
  });
}

/** Ask for the server's key; resolves to what was typed, or undefined. */
export function askForKey() {
  return open(t("key.title"), (close) => {
    const field = el("input", { type: "password", autocomplete: "off", required: true, id: "key" });
    const give = el("button", { type: "submit", class: "main", textContent: t("key.give") });
    give.onclick = (event) => {
      event.preventDefault();
      if (field.value) close(field.value);
    };
    return [
      el("label", { class: "field" }, t("key.label"), field),
      el("p", { class: "hint", textContent: t("key.hint") }),
      el("div", { class: "buttons" }, el("button", { type: "button", textContent: t("dialog.cancel"), onclick: () => close() }), give),
    ];
  });
}
