// Copying what stands in a field, also where the browser keeps its clipboard to itself.

/** Whether it is in the clipboard now; if not it is selected, so that a key does it. */
export async function toClipboard(field) {
  try {
    await navigator.clipboard.writeText(field.value); // only on https and on this machine
    return true;
  } catch {
    field.focus();
    field.select();
    return document.execCommand("copy");
  }
}
