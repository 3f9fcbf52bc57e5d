// What people drop or choose → the image files in it, also of whole folders, in the order in which people count.

const IMAGES = /\.(jpe?g|jfif|jpe|png|apng|webp|gif|bmp|dib|tiff?|btf|heic|heif|hif|avif|dcm|dicom|jp2|j2k|jxl|ppm|pgm|pnm)$/i;
const DEEPEST = 32; // folders in folders

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const inOrder = (all) => all.sort((a, b) => order.compare(a.path, b.path));
const isImage = ({ file, path }) => file.type.startsWith("image/") || IMAGES.test(path);
const isHidden = ({ path }) => path.split("/").some((part) => part.startsWith(".") || part === "__MACOSX");

/** {images: [{file, path}], left: how many others}. A single file is an image whatever it is called: the server looks at it. */
export function sorted(all) {
  if (all.length === 1) return { images: all, left: 0 };
  const seen = all.filter((one) => !isHidden(one));
  const images = inOrder(seen.filter(isImage));
  return { images, left: seen.length - images.length };
}

/** Of a file field: [{file, path}]; the path is below the folder that was chosen, if one was. */
export const ofField = (files) => [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

/** Of a drop, folders opened: [{file, path}]. Entries have to be asked for before anything is waited for. */
export async function ofDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return ofField(transfer.files);
  const found = [];
  for (const entry of entries) await open(entry, found, 0);
  return found;
}

async function open(entry, found, depth) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file) found.push({ file, path: entry.fullPath.replace(/^\//, "") });
  } else if (entry.isDirectory && depth < DEEPEST) {
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([]))); // a hundred at a time
      if (!some.length) break;
      for (const one of some) await open(one, found, depth + 1);
    }
  }
}
