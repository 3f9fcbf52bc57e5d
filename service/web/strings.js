// The page's words. Another language is one more file beside strings/en.js, and one more line here.
import en from "./strings/en.js";

const LANGUAGES = { en };
const language = navigator.languages.map((one) => one.split("-")[0]).find((one) => one in LANGUAGES) ?? "en";
const words = { ...en, ...LANGUAGES[language] };
document.documentElement.lang = language;

/** The words of a key, with `{name}` replaced by values; a key that is missing shows itself. */
export function t(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

const whole = new Intl.NumberFormat(language);
const tenth = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const number = (value) => whole.format(value);
export const percent = (share) => `${tenth.format(share * 100)} %`;
export const decimal = (value, digits = 2) => new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

const listed = new Intl.ListFormat(language, { type: "conjunction" });

/** Several names as one reads them: a, b and c. */
export const list = (names) => listed.format(names);
