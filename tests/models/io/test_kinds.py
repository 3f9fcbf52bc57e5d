"""Every format is called by its name: opened, or refused with it; what nobody knows is no image."""

import os
import random
import re
import struct
from importlib.util import find_spec

import pytest

from models.io import kinds
from models.io.decode import SUFFIXES, decode
from models.io.kinds import kind_of
from models.io.samples import ImageError, UnsupportedImage

TGA = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 4, 4, 24, 0x20) + bytes(48)
REFUSED = {
    "PBM": [b"P1\n2 2\n0 1 1 0", b"P4 8 1\n\xff"],
    "PGM": [b"P5\n2 2\n255\n\0\1\2\3", b"P2 1 1 255 7"],
    "PPM": [b"P6\n1 1\n255\n\0\1\2", b"P3\t1 1 255 1 2 3"],
    "PAM": [b"P7\nWIDTH 1\nHEIGHT 1\n"],
    "PFM": [b"PF\n1 1\n-1.0\n" + bytes(12), b"Pf\n1 1\n"],
    "OpenEXR": [b"\x76\x2f\x31\x01\2\0\0\0"],
    "Radiance HDR": [b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", b"#?RGBE\n"],
    "PSD": [b"8BPS\0\1" + bytes(20)],
    "XCF": [b"gimp xcf v011"],
    "JPEG XR": [b"II\xbc\1" + bytes(20)],
    "JPEG XS": [b"\xff\x10\xff\x50" + bytes(20)],
    "DDS": [b"DDS \x7c\0\0\0"],
    "KTX": [b"\xabKTX 11\xbb\r\n\x1a\n"],
    "QOI": [b"qoif\0\0\0\1\0\0\0\1\3\0"],
    "BPG": [b"BPG\xfb\0\0"],
    "FLIF": [b"FLIF1"],
    "MNG": [b"\x8aMNG\r\n\x1a\n"],
    "JNG": [b"\x8bJNG\r\n\x1a\n"],
    "SGI": [b"\x01\xda\x01\x01\0\3" + bytes(500)],
    "PCX": [b"\n\5\1\x08" + bytes(124)],
    "Sun raster": [b"\x59\xa6\x6a\x95" + bytes(28)],
    "ICO": [b"\0\0\1\0\1\0\x20\x20\0\0\1\0\x20\0" + bytes(20)],
    "CUR": [b"\0\0\2\0\1\0\x20\x20\0\0\1\0\1\0" + bytes(20)],
    "ICNS": [b"icns\0\0\0\x10"],
    "XPM": [b"/* XPM */\nstatic char *x[] = {"],
    "XBM": [b"#define im_width 8\n#define im_height 8\n", b"/* made */ #define a_width 8"],
    "DPX": [b"SDPX" + bytes(20), b"XPDS" + bytes(20)],
    "TGA": [TGA, bytes(40) + b"TRUEVISION-XFILE.\0"],
    "CR2": [b"II*\0\x10\0\0\0CR\2\0" + bytes(20)],
    "CR3": [b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"],
    "RAF": [b"FUJIFILMCCD-RAW 0201"],
    "CRW": [b"II\x1a\0\0\0HEAPCCDR"],
    "ORF": [b"IIRO\x08\0\0\0", b"IIRS\x08\0\0\0", b"MMOR\0\0\0\x08"],
    "RW2": [b"IIU\0\x18\0\0\0"],
    "X3F": [b"FOVb\0\0\2\0"],
    "MRW": [b"\0MRM\0\0\0\0"],
    "PostScript": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + bytes(28)],
    "PDF": [b"%PDF-1.7\n", b"\n\n%PDF-1.4"],
    "SVG": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made -->\n<svg width='1'>",
        b'<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd">\n<svg>',
    ],
    "WMF": [b"\xd7\xcd\xc6\x9a" + bytes(20)],
    "EMF": [b"\1\0\0\0" + bytes(36) + b" EMF"],
    "FITS": [b"SIMPLE  =                    T"],
    "NIfTI": [b"\x5c\1\0\0" + bytes(340) + b"n+1\0", b"\x1c\2\0\0n+2\0\r\n\x1a\n"],
    "Analyze": [b"\x5c\1\0\0" + bytes(400)],
    "NRRD": [b"NRRD0004\ntype: float\n"],
    "MetaImage": [b"ObjectType = Image\nNDims = 3\n", b"NDims = 2\n"],
    "HDF5": [b"\x89HDF\r\n\x1a\n" + bytes(8), bytes(512) + b"\x89HDF\r\n\x1a\n"],
    "netCDF": [b"CDF\1\0\0\0\0", b"CDF\5"],
    "GRIB": [b"GRIB\0\0\0\2"],
    "MRC": [bytes(208) + b"MAP " + bytes(20)],
    "MATLAB": [b"MATLAB 5.0 MAT-file"],
    "NumPy": [b"\x93NUMPY\1\0"],
    "video": [b"\0\0\0\x18ftypmp42\0\0\0\0", b"\0\0\0\x14ftypqt  ", b"RIFF\0\0\0\0AVI LIST", b"\x1aE\xdf\xa3", b"OggS"],
    "sound": [b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"ID3\4"],
    "ZIP": [b"PK\3\4" + bytes(20)],
    "gzip": [b"\x1f\x8b\x08" + bytes(20)],
    "7-Zip": [b"7z\xbc\xaf\x27\x1c"],
    "RAR": [b"Rar!\x1a\x07\x01"],
    "tar": [bytes(257) + b"ustar\0"],
    "HTML": [b"<!DOCTYPE html><html>", b"\n<html>", b"<!doctype HTML>"],
    "XML": [b"<?xml version='1.0'?><a/>"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, all_of in REFUSED.items() for data in all_of])
def test_what_is_not_opened_is_named(name: str, data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=re.escape(name)) as refused:
        decode(data)
    assert "send" in str(refused.value)


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"II*\0" + bytes(130), "tiff"),
        (b"MM\0+", "tiff"),
        (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"GIF89a", "gif"),
        (b"BM" + bytes(20), "bmp"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heic", "heic"),
        (b"\xff\x4f\xff\x51", "jpeg2000"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
        (b"\xff\x0a", "jpegxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jpegxl"),
        (bytes(128) + b"DICM", "dicom"),
        (b"II*\0" + bytes(124) + b"DICM", "dicom"),  # a TIFF's preamble before a DICOM
        (b"\x08\0\5\0CS\n\0ISO_IR 100", "dicom"),
    ],
)
def test_what_is_opened(data: bytes, reader: str) -> None:
    assert kind_of(data).reader == reader


@pytest.mark.parametrize(
    "data", [b"hello, this is text", b"\0", bytes(300), b"{}", b"P9 1", b"\xff\xd8", b"BA", b"\n\n\n"]
)
def test_what_nobody_knows_is_no_image(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image") as refused:
        decode(data)
    assert not isinstance(refused.value, UnsupportedImage)


def test_noise_is_hardly_ever_called_anything() -> None:
    noise = random.Random(0)
    named = 0
    for _ in range(3000):
        try:
            kind_of(noise.randbytes(600))
        except UnsupportedImage:
            named += 1
        except ImageError:
            pass
    assert named <= 1


def test_without_its_package_a_format_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "find_spec", lambda name: None if name in ("pi_heif", "pydicom") else find_spec(name))
    for data, name, extra in (
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "heic"),
        (bytes(128) + b"DICM", "DICOM", "dicom"),
    ):
        with pytest.raises(UnsupportedImage, match=f"{name}.*extra `{extra}`"):
            kind_of(data)
    assert ".heic" not in kinds.suffixes()
    assert ".dcm" not in kinds.suffixes()


def test_suffixes() -> None:
    assert set(SUFFIXES) >= {".jpg", ".jpeg", ".jpe", ".jfif", ".avif", ".jp2", ".j2k", ".jxl", ".jls", ".tif", ".png"}
    assert all(end == end.lower() and os.path.splitext("x" + end)[1] == end for end in SUFFIXES)


def test_the_table_names_each_format_once() -> None:
    opened = [kind.reader for kind in kinds.KINDS if kind.reader]
    assert set(opened) == set(kinds.SUFFIXES_OF)
