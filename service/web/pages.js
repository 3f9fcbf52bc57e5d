// Which page of a file with several: back, on, or a number.
import { $, el } from "./dom.js";
import { fail } from "./notice.js";
import { turn } from "./photos.js";
import { on, state } from "./state.js";
import { number, t } from "./strings.js";

const go = (page) => turn(page).catch(fail);

function show() {
  const { page, pages } = state.current ?? { page: 0, pages: 1 };
  $("pages").hidden = pages < 2;
  if (pages < 2) return;
  $("page-back").setAttribute("aria-disabled", String(page === 0));
  $("page-on").setAttribute("aria-disabled", String(page === pages - 1));
  const field = $("page-number");
  field.max = pages;
  if (document.activeElement !== field) field.value = page + 1;
  $("page-all").textContent = t("pages.of", { pages: number(pages) });
}

export function start() {
  const back = el("button", { type: "button", id: "page-back", textContent: "‹", title: t("pages.back"), aria: { label: t("pages.back") } });
  const forth = el("button", { type: "button", id: "page-on", textContent: "›", title: t("pages.on"), aria: { label: t("pages.on") } });
  const field = el("input", { type: "number", id: "page-number", min: 1, value: 1, aria: { label: t("pages.number") } });
  back.onclick = () => go(state.current.page - 1);
  forth.onclick = () => go(state.current.page + 1);
  field.onchange = () => {
    const wanted = Math.round(Number(field.value)) || 1;
    const page = Math.max(1, Math.min(state.current.pages, wanted));
    field.value = page;
    go(page - 1);
  };
  $("pages").append(back, el("label", {}, t("pages.page"), " ", field, " ", el("span", { id: "page-all" })), forth);
  $("pages").setAttribute("role", "group");
  $("pages").setAttribute("aria-label", t("pages.label"));
  on("photo photos", show);
  show();
}
