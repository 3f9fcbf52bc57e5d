// A label map → the pixels of a canvas. Knows nothing of the page: typed arrays in, typed arrays out.

export const NONE = 255; // in label maps: no data, or unknown

const DARK = 0.12, LIFT = 0.45; // relative luminance below which an outline is mixed with so much white

const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
const packed = ([r, g, b], opacity) => ((Math.round(opacity * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** #rrggbb and an opacity 0..1 as ImageData lies in memory. */
export const rgba = (color, opacity) => packed(channels(color), opacity);

/** A color as an outline: one that is nearly black would not be seen on dark parts of a photo. Luminance: WCAG 2.2. */
function outline(color) {
  const rgb = channels(color);
  const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  const dark = 0.2126 * r + 0.7152 * g + 0.0722 * b < DARK;
  return packed(dark ? rgb.map((value) => Math.round(value + LIFT * (255 - value))) : rgb, 1);
}

/**
 * What every id is painted with: {fill, line}, Uint32Array(256) each.
 *
 * groups  [{id, color, hidden}];  fill  opacity;  lit  the id that is pointed at: it is filled, and the rest does not dim
 */
export function paints(groups, { fill, outlines, lit, selection = new Set() }) {
  const paint = { fill: new Uint32Array(256), line: new Uint32Array(256) };
  for (const { id, color, hidden } of groups) {
    if (hidden) continue;
    const strong = id === lit || selection.has(id);
    paint.fill[id] = rgba(color, strong ? Math.max(0.62, fill) : fill);
    paint.line[id] = outlines ? outline(color) : paint.fill[id];
  }
  return paint;
}

/**
 * Which id every pixel of a canvas shows: Uint8Array of width × height, NONE outside of the map.
 *
 * map     {ids, width, height};  table  Uint8Array(256): the id under which each is shown
 * view    {x, y, scale}: the canvas' left upper corner in pixels of the map, and canvas pixels for one of the map
 */
export function sample(map, table, view, width, height, out = new Uint8Array(width * height)) {
  const columns = new Int32Array(width);
  for (let x = 0; x < width; x++) {
    const at = Math.floor(view.x + (x + 0.5) / view.scale);
    columns[x] = at >= 0 && at < map.width ? at : -1;
  }
  let first = 0, last = width;
  while (first < width && columns[first] < 0) first++;
  while (last > first && columns[last - 1] < 0) last--;
  const { ids } = map;
  for (let y = 0, o = 0; y < height; y++, o += width) {
    const at = Math.floor(view.y + (y + 0.5) / view.scale);
    if (at < 0 || at >= map.height) {
      out.fill(NONE, o, o + width);
      continue;
    }
    const row = at * map.width;
    out.fill(NONE, o, o + first);
    for (let x = first; x < last; x++) out[o + x] = table[ids[row + columns[x]]];
    out.fill(NONE, o + last, o + width);
  }
  return out;
}

/** Paint what `sample` found: pixels beside another id are the outline. out  Uint32Array of width × height. */
export function paint(shown, { fill, line }, width, height, out) {
  for (let y = 0, o = 0; y < height; y++) {
    const above = y ? -width : 0, below = y < height - 1 ? width : 0;
    for (let x = 0; x < width; x++, o++) {
      const id = shown[o];
      if (id === NONE) {
        out[o] = 0;
        continue;
      }
      const edge =
        shown[o + above] !== id || shown[o + below] !== id || (x && shown[o - 1] !== id) || (x < width - 1 && shown[o + 1] !== id);
      out[o] = edge ? line[id] : fill[id];
    }
  }
}
