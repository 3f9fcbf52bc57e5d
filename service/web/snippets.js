// A request of the page's as lines of the shell and as a program: the same options, the photos' own file names.

/** A word of the shell, whatever is in it. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A file name that no program takes for an option, or for the standard input. */
const path = (name) => (name.startsWith("-") ? `./${name}` : name);

/** A string of Python: JSON's escapes are among Python's. */
const string = (text) => JSON.stringify(text);

/** A command that puts a photo's name into a COCO document: the server was never told it. */
const naming = (file) => `sed ${quoted(`s/"file_name":"image.png"/"file_name":${string(file).replace(/[\\&/]/g, "\\$&")}/`)}`;

/**
 * For bash and zsh: asks for each of `files`, [{file, to}], and writes to `to`.
 *
 * home  the server's address with a slash behind it;  options  of the request;  keyed  whether it wants $TESSERA_KEY
 */
export function curl(home, files, options, keyed) {
  return files.map(({ file, to }) => {
    const coco = options.format === "coco";
    return [
      "curl -sS --fail-with-body",
      ...(keyed ? ['-H "X-API-Key: $TESSERA_KEY"'] : []),
      `--data-binary ${quoted(`@${path(file)}`)}`,
      quoted(`${home}segment?${new URLSearchParams(given(options))}`),
      coco ? `| ${naming(file)} > ${quoted(path(to))}` : `-o ${quoted(path(to))}`,
    ].join(" \\\n  ");
  }).join("\n");
}

/** The same with the project's own client for Python. */
export function python(home, files, options, keyed) {
  const { format, ...others } = Object.fromEntries(given(options));
  const words = Object.entries(others).map(([name, value]) => `${name}=${literal(value)}`);
  const server = [string(home.replace(/\/$/, "")), ...(keyed ? ['key=os.environ["TESSERA_KEY"]'] : [])].join(", ");
  const asked = (file) => [file, ...(format === "json" ? [] : [string(format)]), ...words].join(", ");
  const many = files.length > 1, inside = many ? "        " : "    ";
  const [file, to] = many ? ["file", "to"] : [string(path(files[0].file)), string(path(files[0].to))];
  const use = {
    json: [`found = tessera.segment(${asked(file)})`, "print(found.names, found.labels.shape)", `found.save(${to})`],
    coco: [`document = json.loads(tessera.segment_as(${asked(file)}))`, `document["images"][0]["file_name"] = ${many ? file : string(files[0].file)}`, `Path(${to}).write_text(json.dumps(document))`],
  }[format] ?? [`data = tessera.segment_as(${asked(file)})`, `Path(${to}).write_bytes(data)`];
  const imports = [...(format === "coco" ? ["import json"] : []), ...(keyed ? ["import os"] : []), ...(format === "json" ? [] : ["from pathlib import Path"])];
  return [
    "# Wants this project's package tessera: pip install tessera-segmentation, or the Python that runs the server.",
    ...imports, ...(imports.length ? [""] : []), "from tessera import Client", "",
    ...(many ? ["FILES = {", ...files.map((one) => `    ${string(path(one.file))}: ${string(path(one.to))},`), "}", ""] : []),
    `with Client(${server}) as tessera:`, ...(many ? ["    for file, to in FILES.items():"] : []), ...use.map((line) => inside + line), "",
  ].join("\n");
}

const given = (options) => Object.entries(options).filter(([, value]) => value !== undefined && value !== null && value !== "");

const literal = (value) => (value === "true" ? "True" : value === "false" ? "False" : typeof value === "number" ? value : string(value));
