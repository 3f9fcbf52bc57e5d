"""One frame of a DICOM file: its stored values, plain ones by pydicom, compressed ones by imagecodecs.

Knows nothing of what the values mean. Source: DICOM PS3.5, 8.2 and A.4; PS3.5 annex G (RLE).
"""

from typing import Any

import numpy as np

from models.io import jpeg, jpeg2000_header, jpeg_header
from models.io.samples import ImageError, UnsupportedImage
from models.types import Array

_UID = "1.2.840.10008.1.2."
_PLAIN = ("1.2.840.10008.1.2", _UID + "1", _UID + "1.99", _UID + "2")
_RLE = _UID + "5"
_JPEG = tuple(_UID + "4." + end for end in ("50", "51", "53", "55", "57", "70"))
_JPEG_LS = tuple(_UID + "4." + end for end in ("80", "81"))
_JPEG_2000 = tuple(_UID + "4." + end for end in ("90", "91", "92", "93", "201", "202", "203"))
_KINDS = {1: "u1", 8: "u1", 16: "u2", 32: "u4"}  # of BitsAllocated


def stored_values(dataset: Any, number: int) -> Array:
    """Of the frame with this number, from 0: [H, W] or [H, W, 3], signed where the file says so.

    Colors that a JPEG keeps as YCbCr are RGB. Raises ImageError, UnsupportedImage, and what pydicom raises.
    """
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax in _PLAIN:
        from pydicom.pixels import pixel_array

        values: Array = pixel_array(dataset, index=number, raw=True)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    from pydicom.encaps import get_frame

    data = get_frame(dataset.PixelData, number, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    bits = int(dataset.BitsStored)
    if syntax == _RLE:
        values = _rle(data, dataset)
    elif syntax in _JPEG:
        values, bits = _jpeg(data, dataset)
    elif syntax in _JPEG_LS:
        values = _jpeg_ls(data, dataset)
    elif syntax in _JPEG_2000:
        values, bits = _jpeg_2000(data, dataset)
    else:
        raise UnsupportedImage(
            f"this DICOM is compressed in a way that is not opened ({dataset.file_meta.TransferSyntaxUID.name});"
            " save it as Explicit VR Little Endian"
        )
    return _signed(values, bits) if int(dataset.PixelRepresentation) else values


def are_rgb(dataset: Any) -> bool:
    """Whether `stored_values` are RGB where the file says YCbCr: JPEG and JPEG 2000 turn them as they decode."""
    return str(dataset.file_meta.TransferSyntaxUID) in (*_JPEG, *_JPEG_2000)


def _empty(dataset: Any, kind: str) -> Array:
    parts = int(dataset.SamplesPerPixel)
    return np.empty((int(dataset.Rows), int(dataset.Columns), parts)[: 2 + (parts > 1)], kind)


def _signed(values: Array, bits: int) -> Array:
    """The lowest bits of each value, in two's complement."""
    if values.dtype.kind == "i":
        return values
    signed = values.view(f"i{values.itemsize}")
    unused = 8 * values.itemsize - bits
    np.left_shift(signed, unused, out=signed)
    np.right_shift(signed, unused, out=signed)
    return signed


def _rle(data: bytes, dataset: Any) -> Array:
    from imagecodecs import dicomrle_decode

    empty = _empty(dataset, "<" + _KINDS[int(dataset.BitsAllocated)])
    parts = int(dataset.SamplesPerPixel)
    planes = np.frombuffer(dicomrle_decode(data, empty.dtype, out=bytearray(empty.nbytes)), empty.dtype)
    values = planes.reshape(parts, *empty.shape[:2])
    return np.ascontiguousarray(values[0] if parts == 1 else np.moveaxis(values, 0, -1))


def _jpeg(data: bytes, dataset: Any) -> tuple[Array, int]:
    from imagecodecs import jpeg8_decode

    data = data[data.index(b"\xff\xd8") :]
    header = jpeg_header.read(data)
    out = _empty(dataset, "u1" if header.bits <= 8 else "u2")
    if header.process == jpeg_header.LOSSLESS or header.bits > 8 or out.ndim == 2:
        return jpeg8_decode(data, out=out), header.bits
    kept = "RGB" if dataset.PhotometricInterpretation == "RGB" else "YCBCR"
    return jpeg8_decode(data, colorspace=kept, outcolorspace="RGB", out=out), header.bits


def _jpeg_ls(data: bytes, dataset: Any) -> Array:
    header = jpeg_header.read(data)
    shape = (header.height, header.width, header.parts)[: 2 + (header.parts > 1)]
    if shape != _empty(dataset, "u1").shape:
        raise ImageError("the DICOM file is damaged: it states two sizes")
    return np.array(jpeg.jpeg_ls(data, header))


def _jpeg_2000(data: bytes, dataset: Any) -> tuple[Array, int]:
    from imagecodecs import jpeg2k_decode

    header = jpeg2000_header.read(data)
    if (header.height, header.width) != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageError("the DICOM file is damaged: it states two sizes")
    if header.blocks > 16 * header.height * header.width // 256 + 4096 or header.subsampled:
        raise UnsupportedImage("this kind of JPEG 2000 in DICOM is not opened; save it as Explicit VR Little Endian")
    kind = ("i" if header.signed else "u") + ("1" if header.bits <= 8 else "2" if header.bits <= 16 else "4")
    return jpeg2k_decode(data[slice(*header.codestream)], out=_empty(dataset, kind)), header.bits
