"""Damaged files of most kinds: an image or ImageError, and nothing else."""

import random

import numpy as np
import pytest
from imagecodecs import jpeg8_encode, jpegxl_encode
from PIL import Image

from models.io.decode import decode
from models.io.samples import ImageError
from tests.models.io import profiles
from tests.models.io.drawn import PHOTO, packed, tiff

RGBA = Image.fromarray(np.dstack([PHOTO, PHOTO[..., 0]]))
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
FILES = {
    "JPEG": packed(Image.fromarray(PHOTO), "JPEG", icc_profile=profiles.rgb(), exif=EXIF),
    "progressive JPEG": packed(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", progressive=True),
    "JPEG of 12 bits": bytes(jpeg8_encode(PHOTO.astype(np.uint16) * 16, bitspersample=12)),
    "PNG": packed(RGBA, "PNG", icc_profile=profiles.rgb(), exif=EXIF),
    "PNG of a palette": packed(RGBA.convert("RGB").quantize(16), "PNG", transparency=b"\0\x7f"),
    "WebP": packed(RGBA, "WEBP", icc_profile=profiles.rgb(), exif=EXIF),
    "lossless WebP": packed(RGBA, "WEBP", lossless=True),
    "moving WebP": packed(RGBA, "WEBP", save_all=True, append_images=[RGBA]),
    "GIF": packed(RGBA.convert("RGB").quantize(16), "GIF"),
    "BMP": packed(RGBA, "BMP"),
    "JPEG 2000": packed(RGBA, "JPEG2000"),
    "TIFF": tiff(PHOTO, compression="zlib", photometric="rgb"),
    "AVIF": packed(RGBA, "AVIF", icc_profile=profiles.rgb()),
    "JPEG XL": bytes(jpegxl_encode(PHOTO)),
}


@pytest.mark.parametrize("kind", FILES)
def test_only_image_errors_come_out(kind: str) -> None:
    chance, whole = random.Random(kind), FILES[kind]
    for _ in range(6 if kind in ("AVIF", "JPEG XL") else 150):  # these in processes of their own
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(4, min(len(data), chance.choice((64, 400, len(data)))))
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.2:
            del data[chance.randrange(4, len(data)) :]
        if chance.random() < 0.1:
            at = chance.randrange(4, len(data))
            data[at:at] = chance.randbytes(chance.randrange(1, 40))
        try:
            shown = decode(bytes(data))
        except ImageError:
            continue
        assert shown.image.dtype == np.uint8
        assert shown.image.ndim == 3
        assert shown.image.shape[2] == 3
        assert shown.valid is None or shown.valid.shape == shown.image.shape[:2]
