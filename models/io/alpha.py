"""Transparency: what is seen through is shown on white, and what is wholly transparent is no data.

Knows nothing of file formats, of depths, of color spaces.
"""

import numpy as np

from models.types import Array

_STRIP = 2**18  # pixels painted at once: their working copies stay in a core's cache


def paint(rgb: Array, opacity: Array, *, premultiplied: bool = False) -> tuple[Array, Array | None]:
    """The image as a viewer shows it on a white page, and where it holds data.

    rgb            uint8 [H, W, 3]; painted in place where it may be written
    opacity        uint8 [H, W]: 0 transparent, 255 opaque
    premultiplied  the colors were multiplied by the opacity already ("associated alpha")

    Answers rgb uint8 [H, W, 3] and valid bool [H, W]: False where opacity is 0; None where it is 0 nowhere.
    Source: Porter and Duff, "Compositing Digital Images" (1984): over, with an opaque white below.
    """
    if opacity.min(initial=255) == 255:
        return rgb, None
    rgb = rgb if rgb.flags.writeable else rgb.copy()
    rows = max(1, _STRIP // max(1, opacity.shape[1]))
    for top in range(0, len(rgb), rows):
        strip, over = rgb[top : top + rows], opacity[top : top + rows, :, None].astype(np.uint16)
        if over.min() == 255:
            continue
        below = 255 - over
        if premultiplied:
            np.minimum(strip + below, 255, out=strip, casting="unsafe")
        else:
            np.floor_divide(strip * over + (255 * below + 127), 255, out=strip, casting="unsafe")
    valid = opacity != 0
    return rgb, None if valid.all() else valid
