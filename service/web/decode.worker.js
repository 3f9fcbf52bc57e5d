// Label maps are read beside the page, so that a large one holds nothing up.
import { paletteIds } from "./png.js";

onmessage = async ({ data: { turn, text, bytes } }) => {
  try {
    const map = await paletteIds(bytes ?? Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    postMessage({ turn, map }, [map.ids.buffer]);
  } catch (error) {
    postMessage({ turn, error: error.message });
  }
};
