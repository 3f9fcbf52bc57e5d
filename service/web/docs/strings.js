// The explorer's words. Another language is one more file beside strings/en.js, and one more line here.
import en from "./strings/en.js";

const LANGUAGES = { en };

export const language = navigator.languages.map((one) => one.split("-")[0]).find((one) => one in LANGUAGES) ?? "en";
export const strings = { ...en, ...LANGUAGES[language] };
