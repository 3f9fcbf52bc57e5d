// A zip file of files as they are: stored entries, names in UTF-8. Source: PKWARE APPNOTE 6.3.10, §4.3.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

/** CRC-32 of a Uint8Array. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) crc = TABLE[(crc ^ bytes[at]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

const UTF8 = 0x0800; // flag: names are UTF-8
const VERSION = 20;

export class Zip {
  static MOST_BYTES = 2e9; // of one file, far below the 4 GiB that the format counts to
  static MOST_FILES = 60_000;

  #parts = [];
  #directory = [];
  #names = new Set();
  size = 0; // bytes so far

  get files() {
    return this.#directory.length;
  }

  /** Whether a file of so many bytes still has room. */
  hasRoom(bytes) {
    return this.size + bytes <= Zip.MOST_BYTES && this.files < Zip.MOST_FILES;
  }

  /** Add a file; a name that is there already gets a number. Resolves to the name that it has. */
  async add(name, blob, when = new Date()) {
    const own = this.#free(clean(name));
    const spelt = new TextEncoder().encode(own);
    const facts = [VERSION, UTF8, 0, ...stamp(when)];
    const sizes = [crc32(new Uint8Array(await blob.arrayBuffer())), blob.size, blob.size];
    const head = record(0x04034b50, facts, sizes, [spelt.length, 0]);
    this.#directory.push(record(0x02014b50, [VERSION, ...facts], sizes, [spelt.length, 0, 0, 0, 0], [0, this.size]), spelt);
    this.#parts.push(head, spelt, blob);
    this.size += head.length + spelt.length + blob.size;
    return own;
  }

  /** The whole as a Blob. */
  blob() {
    const bytes = this.#directory.reduce((sum, one) => sum + one.length, 0), files = this.#directory.length / 2;
    const end = record(0x06054b50, [0, 0, files, files], [bytes, this.size], [0]);
    return new Blob([...this.#parts, ...this.#directory, end], { type: "application/zip" });
  }

  #free(name) {
    const [, stem, suffix] = name.match(/^(.*?)((?:\.[^./]*)*)$/s);
    let own = name;
    for (let n = 2; this.#names.has(own.toLowerCase()); n++) own = `${stem} (${n})${suffix}`;
    this.#names.add(own.toLowerCase()); // some disks tell no cases apart
    return own;
  }
}

/** A name that stays below the folder where it is unpacked. */
const clean = (name) =>
  name.split(/[/\\]/).filter((part) => part && part !== "." && part !== "..").join("/").replace(/[\0-\x1f:*?"<>|]/g, "_") || "file";

/** A record: its signature of 4 bytes, then fields of 2 and of 4 bytes in turn, little-endian. */
function record(signature, ...fields) {
  const bytes = fields.reduce((sum, some, turn) => sum + some.length * (turn % 2 ? 4 : 2), 4);
  const view = new DataView(new ArrayBuffer(bytes));
  view.setUint32(0, signature, true);
  let at = 4;
  fields.forEach((some, turn) => {
    for (const value of some) {
      if (turn % 2) view.setUint32(at, value, true);
      else view.setUint16(at, value, true);
      at += turn % 2 ? 4 : 2;
    }
  });
  return new Uint8Array(view.buffer);
}

/** [time, date] as MS-DOS writes them. */
const stamp = (when) => [
  (when.getHours() << 11) | (when.getMinutes() << 5) | (when.getSeconds() >> 1),
  ((Math.max(1980, when.getFullYear()) - 1980) << 9) | ((when.getMonth() + 1) << 5) | when.getDate(),
];
