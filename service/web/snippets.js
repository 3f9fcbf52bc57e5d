// A request of the page's as a line of the shell and as a program: the same options, the photo's own file name.

/** A word of the shell, whatever is in it. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A file name that no program takes for an option, or for the standard input. */
const path = (name) => (name.startsWith("-") ? `./${name}` : name);

/** A string of Python: JSON's escapes are among Python's. */
const string = (text) => JSON.stringify(text);

/**
 * For bash and zsh: asks for `file`, writes `to`.
 *
 * home  the server's address with a slash behind it;  options  of the request;  keyed  whether it wants $TESSERA_KEY
 */
export function curl(home, file, options, to, keyed) {
  const lines = [
    "curl -sS --fail-with-body",
    ...(keyed ? ['-H "X-API-Key: $TESSERA_KEY"'] : []),
    `--data-binary ${quoted(`@${path(file)}`)}`,
    quoted(`${home}segment?${new URLSearchParams(given(options))}`),
    `-o ${quoted(path(to))}`,
  ];
  return lines.join(" \\\n  ");
}

/** The same with the project's own client for Python. */
export function python(home, file, options, to, keyed) {
  const { format, ...others } = Object.fromEntries(given(options));
  const words = Object.entries(others).map(([name, value]) => `${name}=${literal(value)}`);
  const server = [string(home.replace(/\/$/, "")), ...(keyed ? ['key=os.environ["TESSERA_KEY"]'] : [])].join(", ");
  const asked = [string(path(file)), ...(format === "json" ? [] : [string(format)]), ...words].join(", ");
  const use = format === "json"
    ? [`    found = tessera.segment(${asked})`, "print(found.names, found.labels.shape)", `found.save(${string(path(to))})`]
    : [`    data = tessera.segment_as(${asked})`, `Path(${string(path(to))}).write_bytes(data)`];
  const imports = [...(keyed ? ["import os"] : []), ...(format === "json" ? [] : ["from pathlib import Path"])];
  return [...imports, ...(imports.length ? [""] : []), "from tessera import Client", "", `with Client(${server}) as tessera:`, ...use, ""].join("\n");
}

const given = (options) => Object.entries(options).filter(([, value]) => value !== undefined && value !== null && value !== "");

const literal = (value) => (value === "true" ? "True" : value === "false" ? "False" : typeof value === "number" ? value : string(value));
