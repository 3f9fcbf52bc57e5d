// JSON Schema as OpenAPI 3.1 has it: what a reference means, a schema in words, as a foldable list, and as an example.
import { element, folded, prose } from "./dom.js";
import { strings } from "./strings.js";

const AT_MOST_DEEP = 6; // of an example: schemas may hold themselves

/** What reads `document`: schema → the same without `$ref`, what stands beside it laid over it. */
export function resolver(document) {
  return function resolve(schema) {
    let read = schema === true || schema === undefined ? {} : schema;
    for (let hops = 0; read.$ref !== undefined && hops < 32; hops++) {
      const { $ref, ...beside } = read;
      const found = pointed(document, $ref);
      if (found === undefined) return beside;
      read = { named: $ref.slice($ref.lastIndexOf("/") + 1), ...found, ...beside };
    }
    if (!read.allOf) return read;
    const { allOf, ...own } = read;
    return [...allOf.map(resolve), own].reduce((whole, part) => ({
      ...whole,
      ...part,
      properties: { ...whole.properties, ...part.properties },
      required: [...(whole.required ?? []), ...(part.required ?? [])],
    }));
  };
}

function pointed(document, reference) {
  if (!reference.startsWith("#/")) return undefined;
  const steps = reference.slice(2).split("/").map((step) => decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~"));
  return steps.reduce((place, step) => place?.[step], document);
}

/** What a schema may be, besides null: itself, or the alternatives in it. */
export function variants(schema, resolve) {
  const read = resolve(schema);
  const given = read.anyOf ?? read.oneOf;
  if (!given) return [read];
  const { anyOf, oneOf, ...beside } = read;
  return given.map((one) => resolve(one)).filter((one) => one.type !== "null").map((one, _, all) => (all.length > 1 ? one : { ...one, ...beside }));
}

export const isFile = (schema) => schema.format === "binary" || schema.contentMediaType === "application/octet-stream";

/** Its type in a word or two. */
export function typeOf(schema, resolve) {
  if (choices(schema, resolve).length > 1) return strings.oneOfThese;
  const words = variants(schema, resolve).map((one) => {
    if (isFile(one)) return strings.types.binary;
    if (one.type === "array" || one.items) return one.items && isFile(resolve(one.items)) ? strings.files : strings.listOf(typeOf(one.items, resolve));
    if (one.named) return one.named;
    const types = [one.type ?? (one.properties ? "object" : one.enum || one.const !== undefined ? typeof (one.const ?? one.enum[0]) : undefined)].flat();
    return types.map((type) => strings.types[type] ?? type ?? strings.anything).join(strings.or);
  });
  return [...new Set(words)].join(strings.or);
}

/** What else is asked of a value: ["2 to 255", …]. */
export function limitsOf(schema, resolve) {
  const say = strings.limits;
  const range = (low, high, between, least, most) =>
    low !== undefined && high !== undefined ? between(low, high) : low !== undefined ? least(low) : high !== undefined ? most(high) : null;
  const all = variants(schema, resolve).flatMap((one) => [
    range(one.minimum, one.maximum, say.between, say.least, say.most),
    one.exclusiveMinimum !== undefined ? say.above(one.exclusiveMinimum) : null,
    one.exclusiveMaximum !== undefined ? say.below(one.exclusiveMaximum) : null,
    one.multipleOf !== undefined ? say.multiple(one.multipleOf) : null,
    range(one.minLength, one.maxLength, say.lengthBetween, say.lengthLeast, say.lengthMost),
    range(one.minItems, one.maxItems, say.itemsBetween, say.itemsLeast, say.itemsMost),
    one.minProperties ? say.fieldsLeast(one.minProperties) : null,
    one.format && !isFile(one) ? say.format(one.format) : null,
    one.pattern && one.pattern.length <= 80 ? say.pattern(one.pattern) : null,
  ]);
  return [...new Set(all.filter(Boolean))];
}

/** The values that it can have and no others; none: []. */
export function choices(schema, resolve) {
  const read = resolve(schema);
  const own = read.enum ?? variants(read, resolve).flatMap((one) => one.enum ?? (one.const !== undefined ? [one.const] : []));
  return own.filter((value) => value !== null);
}

const holds = (schema, resolve) =>
  variants(schema, resolve).some((one) => one.properties || (one.items && holds(one.items, resolve)) || typeof one.additionalProperties === "object");

const mayBeNull = (schema, resolve) => [resolve(schema), ...(resolve(schema).anyOf ?? resolve(schema).oneOf ?? [])].some((one) => [one.type].flat().includes("null"));

/**
 * A schema as a list, whose inner parts are made when they are opened.
 *
 * answered  it is of an answer: told is what may be absent, and not what must be there
 */
export function schemaView(schema, resolve, answered = false) {
  const all = variants(schema, resolve);
  if (all.length > 1) {
    return element("div", { className: "schema" }, element("p", { className: "soft", text: strings.oneOf }),
      ...all.map((one) => folded(element("b", { text: one.named ?? typeOf(one, resolve) }), () => schemaView(one, resolve, answered))));
  }
  const [one] = all;
  const about = one.description ? element("p", { className: "soft" }, prose(one.description)) : null;
  if (one.items && holds(one.items, resolve)) {
    return element("div", { className: "schema" }, about, element("p", { className: "soft", text: typeOf(one, resolve) }), schemaView(one.items, resolve, answered));
  }
  if (!holds(one, resolve)) {
    const words = [typeOf(one, resolve), ...limitsOf(one, resolve)].join(", ");
    return element("div", { className: "schema" }, about, element("p", {}, element("span", { className: "type", text: words })));
  }
  const rows = Object.entries(one.properties ?? {}).map(([name, field]) => row(name, field, one.required?.includes(name) ?? false, resolve, answered));
  if (typeof one.additionalProperties === "object") rows.push(row(strings.others, one.additionalProperties, null, resolve, answered));
  return element("div", { className: "schema" }, about, element("ul", { className: "fields" }, ...rows));
}

function row(name, schema, required, resolve, answered) {
  const read = resolve(schema);
  const described = read.description ?? variants(schema, resolve).map((one) => one.description).find(Boolean);
  const deep = holds(schema, resolve);
  return element("li", {},
    element("code", { className: "name", text: name }), " ",
    ...meta(schema, answered ? null : required, resolve),
    answered && required === false ? element("span", { className: "limits", text: strings.mayBeAbsent }) : null,
    described && !deep ? element("p", {}, prose(described)) : null,
    deep ? folded(strings.inside, () => schemaView(schema, resolve, answered)) : null);
}

/**
 * Type, whether it must be there, limits and values, as words behind a name.
 *
 * required  null where it isn't said, and null is told as a value
 * instead   the default, where the schema does not have it
 */
export function meta(schema, required, resolve, instead) {
  const values = choices(schema, resolve);
  const usual = instead ?? resolve(schema).default;
  const words = [...limitsOf(schema, resolve), usual === undefined || usual === null ? null : strings.limits.default(said(usual))].filter(Boolean);
  return [
    element("span", { className: "type", text: typeOf(schema, resolve) }),
    required === null && mayBeNull(schema, resolve) ? element("span", { className: "limits", text: strings.orNull }) : null,
    required ? element("span", { className: "required", text: strings.required }) : null,
    words.length ? element("span", { className: "limits", text: words.join(" · ") }) : null,
    values.length ? element("span", { className: "values" }, ...values.flatMap((value) => [element("code", { text: said(value) }), " "])) : null,
  ].filter(Boolean).flatMap((part) => [part, " "]);
}

const said = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** A value of this schema: what must be there, or with `all` what may be. `picture` is base64 of one, for who wants that. */
export function example(schema, resolve, { all = false, picture = "", deep = 0 } = {}) {
  const [one] = variants(schema, resolve);
  const more = { all, picture, deep: deep + 1 };
  const given = resolve(schema).examples?.[0] ?? one.examples?.[0] ?? one.example ?? one.const ?? one.enum?.[0];
  if (given !== undefined) return given;
  if (one.default !== undefined && one.default !== null) return one.default;
  const type = [one.type ?? (one.properties ? "object" : one.items ? "array" : "string")].flat()[0];
  if (type === "object") {
    if (deep > AT_MOST_DEEP) return {};
    const names = Object.keys(one.properties ?? {});
    const must = names.filter((name) => one.required?.includes(name));
    const some = all ? names : must.length ? must : names.slice(0, one.minProperties ?? 0);
    return Object.fromEntries(some.map((name) => [name, example(one.properties[name], resolve, { ...more, name })]));
  }
  if (type === "array") return deep > AT_MOST_DEEP ? [] : Array(Math.max(1, one.minItems ?? 1)).fill(example({ description: one.description, ...resolve(one.items) }, resolve, more));
  if (type === "boolean") return true;
  if (type === "integer" || type === "number") return one.minimum ?? (one.exclusiveMinimum !== undefined ? one.exclusiveMinimum + 1 : 0);
  return textOf(one, picture);
}

function textOf(schema, picture) {
  if (/base64/i.test(schema.description ?? "") && picture) return picture;
  if (schema.format === "date-time") return "2026-01-31T12:00:00Z";
  return "string".padEnd(schema.minLength ?? 0, "g").slice(0, schema.maxLength ?? 80);
}
