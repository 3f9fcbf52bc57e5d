#!/bin/sh
# Pillow 13.0.0 reads an uncompressed 8-bit BMP whose palette has exactly two entries, black then white, as mode "1" and
# all black: the bytes 0 and 1 of its pixels are taken for packed bits. No error, no warning. The same file with the
# entries the other way round, or with two other grays, is right; ImageMagick and imagecodecs are right on all of them.
#
# Guess before running: a palette of two grays is a palette as any other; at worst the mode is "1" and the values right.
#
# Seen (mode, values of the pixels, which hold both entries in turn):
#   palette 0 255: 1 [0]
#   palette 255 0: P [0, 255]
#   palette 10 200: P [10, 200]
#   imagecodecs 2026.3.6 on the first: indices [0, 1]
#
# So: masks saved as 8-bit BMP of two colors come out empty; whoever reads label maps looks at the indices himself.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6 2>/dev/null
"$folder/env/bin/python" - <<'PYTHON'
import io
import struct
import sys

import imagecodecs
import numpy as np
from PIL import Image

pixels = (np.arange(64).reshape(8, 8) % 2).astype(np.uint8)  # rows of 8 bytes need no padding


def bmp(palette):
    begin = 14 + 40 + 4 * len(palette)
    head = b"BM" + struct.pack("<IHHI", begin + 64, 0, 0, begin)
    info = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 0, 64, 2835, 2835, len(palette), 0)
    return head + info + b"".join(bytes((g, g, g, 0)) for g in palette) + pixels[::-1].tobytes()


ok = True
for palette, mode, values in (((0, 255), "1", [0]), ((255, 0), "P", [0, 255]), ((10, 200), "P", [10, 200])):
    image = Image.open(io.BytesIO(bmp(palette)))
    seen = np.unique(np.asarray(image.convert("L"))).tolist()
    print(f"palette {palette[0]} {palette[1]}: {image.mode} {seen}")
    ok &= (image.mode, seen) == (mode, values)
indices = np.unique(imagecodecs.bmp_decode(bmp((0, 255)), asrgb=False)).tolist()
print(f"imagecodecs on the first: indices {indices}")
ok &= indices == [0, 1]
sys.exit(0 if ok else "changed: the behaviour is not what was seen")
PYTHON
