"""Files near to pictures: seeds of every format that is read, spoiled; and TIFFs whose directories are made of numbers.

The seeds are drawn here at each run, a few hundred bytes each. Sizes are harmless: limits are set far below the usual.

Knows nothing of who reads the files.
"""

import io
from typing import Any

import numpy as np
from hypothesis import strategies as st
from imagecodecs import jpeg8_encode, jpegls_encode, jpegxl_encode
from PIL import Image

from models.io.samples import Limits
from tests.models.io import profiles
from tests.models.io.drawn import directory_file, packed, tiff

LIMITS = Limits(max_bytes=2**20, max_mpx=1.0, max_side_px=8192)
_PHOTO = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
_RGBA = Image.fromarray(np.dstack([_PHOTO, _PHOTO[..., 0]]))
_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def dicom() -> bytes:
    """An image of 12 bits, as a scanner writes it."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["seed"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 12, 18, 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = (_PHOTO[..., 0].astype("<u2") * 16).tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def heic() -> bytes:
    """What a phone writes, where its encoder is installed; else its first box."""
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x0cmeta\0\0\0\0"


HERE = {  # decoded in the process that asks
    "JPEG": packed(Image.fromarray(_PHOTO), "JPEG", icc_profile=profiles.rgb(), exif=_EXIF),
    "progressive JPEG": packed(Image.fromarray(_PHOTO).convert("CMYK"), "JPEG", progressive=True),
    "JPEG of 12 bits": bytes(jpeg8_encode(_PHOTO.astype(np.uint16) * 16, bitspersample=12)),
    "PNG": packed(_RGBA, "PNG", icc_profile=profiles.rgb(), exif=_EXIF),
    "PNG of 16 bits": packed(Image.fromarray(_PHOTO[..., 0].astype(np.uint16) * 99), "PNG"),
    "PNG of a palette": packed(_RGBA.convert("RGB").quantize(16), "PNG", transparency=b"\0\x7f"),
    "WebP": packed(_RGBA, "WEBP", icc_profile=profiles.rgb(), exif=_EXIF),
    "lossless WebP": packed(_RGBA, "WEBP", lossless=True),
    "GIF": packed(_RGBA.convert("RGB").quantize(16), "GIF"),
    "BMP": packed(_RGBA, "BMP"),
    "JPEG 2000": packed(_RGBA, "JPEG2000"),
    "DICOM": dicom(),
    **{
        f"TIFF, {compression}": tiff(_PHOTO, compression=compression, photometric="rgb")
        for compression in ("none", "zlib", "lzw", "packbits", "jpeg", "zstd", "lzma", "webp")
    },
    "TIFF of tiles": tiff(_PHOTO, tile=(16, 16), compression="zlib", photometric="rgb"),
    "BigTIFF": tiff(_PHOTO[..., 0].astype(np.float32), bigtiff=True, predictor=True, compression="zlib"),
}
APART = {  # decoded in a process of their own
    "AVIF": packed(_RGBA, "AVIF", icc_profile=profiles.rgb()),
    "JPEG XL": bytes(jpegxl_encode(_PHOTO)),
    "JPEG-LS": bytes(jpegls_encode(_PHOTO)),
    "HEIC": heic(),
}
SEEDS = {**HERE, **APART}
_VALUES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


@st.composite
def spoiled(draw: st.DrawFn, seeds: dict[str, bytes]) -> tuple[str, bytes]:
    """(format, a file of it with a few bytes, numbers or pieces changed)."""
    kind = draw(st.sampled_from(sorted(seeds)))
    data = bytearray(seeds[kind])
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 2, 5)))):
        most = max(1, min(len(data) - 1, draw(st.sampled_from((64, 256, 2**20, 2**20)))))
        at = draw(st.integers(0, most))
        how = draw(st.sampled_from(("byte", "byte", "byte", "number", "number", "cut", "insert", "repeat", "swap")))
        if how == "byte":
            data[at : at + 1] = bytes([draw(st.sampled_from(_VALUES) | st.integers(0, 255))])
        elif how == "number":
            size, order = draw(st.sampled_from((2, 4, 8))), draw(st.sampled_from(("little", "big")))
            data[at : at + size] = (draw(st.sampled_from(_NUMBERS)) % 2 ** (8 * size)).to_bytes(size, order)
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        else:
            other = draw(st.integers(0, most))
            data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
        if len(data) < 4:
            break
    return kind, bytes(data)


_small, _count = st.integers(0, 40), st.sampled_from((0, 1, 2, 3, 4, 5, 7, 8, 16, 4096, 65535, 2**16, 2**31, 2**32 - 1))
_number = st.one_of(_small, _count)
_several = st.lists(_number, min_size=1, max_size=6).map(tuple)
_TAGS: dict[int, st.SearchStrategy[Any]] = {
    256: _number, 257: _number,  # width, length
    258: st.one_of(st.sampled_from((1, 2, 4, 8, 12, 16, 24, 32, 64, (8, 8, 8))), _several),
    259: st.sampled_from((1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34712, 34887, 34925, 50000, 50001, 50002, 99)),
    262: st.integers(0, 10), 266: st.integers(0, 3), 270: st.text("abc", max_size=9), 274: st.integers(0, 9),
    277: st.one_of(st.integers(1, 5), _number), 278: _number, 284: st.integers(0, 3), 317: st.integers(0, 4),
    320: _several, 322: _number, 323: _number, 330: _several, 338: _several,
    339: st.one_of(st.integers(0, 6), _several),
    347: st.binary(max_size=40), 529: _several, 530: _several, 531: st.integers(0, 3), 532: _several,
    33432: st.text("abc", max_size=5), 34675: st.binary(max_size=40), 42112: st.text("<GDALMet>", max_size=20),
    42113: st.sampled_from(("0", "-1", "nan", "1e400", "x", "")),
}  # fmt: skip
_NEEDED = (256, 257, 258, 259, 262, 277)


@st.composite
def directories(draw: st.DrawFn) -> tuple[str, bytes]:
    """("TIFF", one directory over a little data): sound, with one to four numbers that may be odd; or odd all over."""
    optional = [tag for tag in _TAGS if tag not in _NEEDED]
    more = draw(st.lists(st.sampled_from(optional), unique=True, max_size=4))
    if draw(st.integers(0, 4)) == 0:
        tags = {tag: draw(_TAGS[tag]) for tag in (*_NEEDED, *more)}
    else:
        height, width, bands = draw(st.integers(1, 24)), draw(st.integers(1, 24)), draw(st.sampled_from((1, 1, 3, 4)))
        tags = {256: width, 257: height, 258: (draw(st.sampled_from((1, 8, 8, 16, 32))),) * bands, 259: 1}
        tags |= {262: 2 if bands >= 3 else draw(st.sampled_from((0, 1))), 277: bands, 278: height}
        if draw(st.booleans()):
            tags |= {322: 16, 323: 16, 324: (8,) * 4, 325: (4096,) * 4}
            del tags[278]
        tags |= {tag: draw(_TAGS[tag]) for tag in more[: draw(st.integers(0, 4))]}
    for tag in (273, 279, 324, 325):
        if draw(st.integers(0, 19)) == 0:
            tags[tag] = draw(_several)
    body = bytes(range(256)) * 36 if draw(st.booleans()) else draw(st.binary(max_size=200))
    return "TIFF", directory_file(tags, body, draw(st.booleans()))
