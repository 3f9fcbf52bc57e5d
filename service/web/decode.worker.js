// Label maps are read beside the page, so that a large one holds nothing up.
import { paletteIds } from "./png.js";

onmessage = async ({ data: { turn, file } }) => {
  try {
    const map = await paletteIds(file);
    postMessage({ turn, map }, [map.ids.buffer]);
  } catch (error) {
    postMessage({ turn, error: error.message });
  }
};
