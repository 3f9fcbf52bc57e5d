// A request of the page's as lines of the shell and as a program: the same options, the photos' own file names.

/** A word of the shell, whatever is in it. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A file name that no program takes for an option, or for the standard input. */
const path = (name) => (name.startsWith("-") ? `./${name}` : name);

/** A string of Python: JSON's escapes are among Python's. */
const string = (text) => JSON.stringify(text);

/** Formats in which an image has a name: the server is told it. */
export const NAMED = ["coco", "panoptic", "zip"];
const told = (options, file) => (NAMED.includes(options.format) ? { ...options, file_name: file } : options);

/**
 * For bash and zsh: asks for each of `files`, [{file, to}], and writes to `to`.
 *
 * home  the server's address with a slash behind it;  options  of the request;  keyed  whether it wants $TESSERA_KEY
 */
export function curl(home, files, options, keyed) {
  return files.map(({ file, to }) => [
    "curl -sS --fail-with-body",
    ...(keyed ? ['-H "X-API-Key: $TESSERA_KEY"'] : []),
    `--data-binary ${quoted(`@${path(file)}`)}`,
    quoted(`${home}segment?${new URLSearchParams(given(told(options, file)))}`),
    `-o ${quoted(path(to))}`,
  ].join(" \\\n  ")).join("\n");
}

/** The same with the project's own client for Python. */
export function python(home, files, options, keyed) {
  const { format, ...others } = Object.fromEntries(given(options));
  const words = Object.entries(others).map(([name, value]) => `${name}=${literal(value)}`);
  const server = [string(home.replace(/\/$/, "")), ...(keyed ? ['key=os.environ["TESSERA_KEY"]'] : [])].join(", ");
  const many = files.length > 1, inside = many ? "        " : "    ";
  const named = NAMED.includes(format) ? [`file_name=${many ? "file" : string(files[0].file)}`] : [];
  const asked = (file) => [file, ...(format === "json" ? [] : [string(format)]), ...words, ...named].join(", ");
  const [file, to] = many ? ["file", "to"] : [string(path(files[0].file)), string(path(files[0].to))];
  const use = {
    json: [`found = tessera.segment(${asked(file)})`, "print(found.names, found.labels.shape)", `found.save(${to})`],
  }[format] ?? [`data = tessera.segment_as(${asked(file)})`, `Path(${to}).write_bytes(data)`];
  const imports = [...(keyed ? ["import os"] : []), ...(format === "json" ? [] : ["from pathlib import Path"])];
  return [
    "# Wants this project's package tessera: pip install tessera-segmentation, or the Python that runs the server.",
    ...imports, ...(imports.length ? [""] : []), "from tessera import Client", "",
    ...(many ? ["FILES = {", ...files.map((one) => `    ${string(path(one.file))}: ${string(path(one.to))},`), "}", ""] : []),
    `with Client(${server}) as tessera:`, ...(many ? ["    for file, to in FILES.items():"] : []), ...use.map((line) => inside + line), "",
  ].join("\n");
}

const given = (options) => Object.entries(options).filter(([, value]) => value !== undefined && value !== null && value !== "");

const literal = (value) => (value === "true" ? "True" : value === "false" ? "False" : typeof value === "number" ? value : string(value));
