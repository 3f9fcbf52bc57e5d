// A request as a command of curl's, for a POSIX shell. Knows nothing of pages.

/** One argument, whatever is in it. */
export const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** A file's name as curl is told it: from this folder, and not the standard input. */
const fileName = (name) => (name.startsWith("-") ? `./${name}` : name);

/** A form's file, which ends at a semicolon or comma unless it stands in quotes of its own. */
const inForm = (name) => (/^[\w.][\w.-]*$/.test(name) ? name : `"${fileName(name).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`);

/**
 * {method, url, keyed, headers: [[name, value]…], body, saveAs} → a command.
 *
 * keyed   it goes with the key in $TESSERA_KEY: no secret stands in a command, as the page's have none
 * body    null · {text} · {file: name} · {form: [[field, {file: name} | text]…]}
 * saveAs  the file that the answer goes to; absent: the terminal
 */
export function curl({ method, url, keyed, headers, body, saveAs }) {
  const lines = [`curl ${body ? (method === "POST" ? "" : `-X ${method} `) : method === "GET" ? "" : `-X ${method} `}${quoted(url)}`];
  if (keyed) lines.push('-H "X-API-Key: $TESSERA_KEY"');
  for (const [name, value] of headers) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body?.text !== undefined) lines.push(`--data-raw ${quoted(body.text)}`);
  if (body?.file !== undefined) lines.push(`--data-binary ${quoted(`@${fileName(body.file)}`)}`);
  for (const [field, value] of body?.form ?? []) {
    lines.push(value.file !== undefined ? `-F ${quoted(`${field}=@${inForm(value.file)}`)}` : `--form-string ${quoted(`${field}=${value}`)}`);
  }
  if (saveAs) lines.push(`-o ${quoted(fileName(saveAs))}`);
  return lines.join(" \\\n  ");
}
