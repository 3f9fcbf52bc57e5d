// Cluster ids out of a palette PNG. A canvas would give colors, and two clusters may have one color.

/** {ids: Uint8Array of width × height, width, height} of a palette or gray PNG of 1 to 8 bits, not interlaced. */
export async function paletteIds(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const packed = [];
  let width = 0, height = 0, bits = 8;
  for (let at = 8; at < data.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...data.subarray(at + 4, at + 8));
    if (kind === "IHDR") [width, height, bits] = [view.getUint32(at + 8), view.getUint32(at + 12), data[at + 16]];
    if (kind === "IDAT") packed.push(data.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer());
  const stride = Math.ceil((width * bits) / 8);
  const ids = new Uint8Array(width * height);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const start = y * (stride + 1);
    const line = rows.subarray(start + 1, start + 1 + stride);
    unfilter(rows[start], line, above);
    for (let x = 0, o = y * width; x < width; x++) {
      const bit = x * bits;
      ids[o + x] = (line[bit >> 3] >> (8 - bits - (bit & 7))) & ((1 << bits) - 1);
    }
    above = line;
  }
  return { ids, width, height };
}

/** Undo a row's filter in place; a pixel is at most one byte, so left is one byte back. Source: PNG (ISO 15948) §9. */
function unfilter(filter, line, above) {
  for (let x = 0; x < line.length; x++) {
    const left = x ? line[x - 1] : 0, up = above[x], corner = x ? above[x - 1] : 0;
    if (filter === 1) line[x] += left;
    else if (filter === 2) line[x] += up;
    else if (filter === 3) line[x] += (left + up) >> 1;
    else if (filter === 4) {
      const p = left + up - corner;
      const [a, b, c] = [Math.abs(p - left), Math.abs(p - up), Math.abs(p - corner)];
      line[x] += a <= b && a <= c ? left : b <= c ? up : corner;
    }
  }
}
