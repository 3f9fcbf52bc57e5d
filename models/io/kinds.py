"""What a file's first bytes say it is: one table of formats, who opens each, or that nobody does.

Knows nothing of pixels. Sources: PRONOM (The National Archives), the formats' own specifications, file(1)'s names.
"""

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from models.extras import brings
from models.io.samples import ImageError, UnsupportedImage

Test = Callable[[bytes], bool]
HEAD = 2048  # bytes that text formats are searched for their first word


class Kind(NamedTuple):
    """A format. `name` as a sentence has it ("this is …"); `reader` of models.io that opens it, "" where none does."""

    name: str
    reader: str
    is_it: Test


def _at(offset: int, *magics: bytes) -> Test:
    return lambda data: any(data[offset : offset + len(magic)] == magic for magic in magics)


def _starts(*magics: bytes) -> Test:
    return _at(0, *magics)


def _brand(*brands: bytes) -> Test:
    """An ISO base media file of one of these brands.

    Source: ISO/IEC 14496-12, 4.3; ISO/IEC 23008-12, 10.2: mif1 and msf1 are of pictures of any codec.
    """

    def is_it(data: bytes) -> bool:
        if data[4:8] != b"ftyp":
            return False
        claimed = [data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 256), 4)]
        major = data[8:12]
        return (b"avif" if major in (b"mif1", b"msf1") and b"avif" in claimed else major) in brands

    return is_it


def _like(pattern: bytes) -> Test:
    compiled = re.compile(pattern, re.DOTALL | re.IGNORECASE)
    return lambda data: compiled.match(data[:HEAD]) is not None


def _riff(form: bytes) -> Test:
    return lambda data: data[:4] == b"RIFF" and data[8:12] == form


def _no_preamble(data: bytes) -> bool:
    """DICOM that begins with its first elements, of group 2 or 8, in either byte order: from before 1993, or cut."""
    explicit = re.match(rb"(?:[\2\x08]\0[\0-\x18]\0|\0[\2\x08]\0[\0-\x18])(?:UL|CS|UI|SH|DA)", data)
    implicit = re.match(rb"[\2\x08]\0[\0-\x18]\0[\2-\x40]\0\0\0[\x20-\x7e\0]{2}", data)
    return bool(explicit or implicit)


def _tga(data: bytes) -> bool:
    """TGA has no magic: its footer, or a header whose fields all make sense. Source: Truevision TGA 2.0, table 1."""
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return True
    if len(data) < 19 or data[1] > 1 or data[2] not in (1, 2, 3, 9, 10, 11) or (data[2] in (1, 9)) != (data[1] == 1):
        return False
    map_fits = data[7] in (15, 16, 24, 32) if data[1] else data[3:8] == bytes(5)
    depths = (8, 16) if data[2] in (1, 3, 9, 11) else (15, 16, 24, 32)
    return map_fits and data[16] in depths and data[17] & 0xC0 == 0 and any(data[12:14]) and any(data[14:16])


# The first row that fits is the file's. DICOM stands before TIFF: its preamble may be a TIFF's.
KINDS = (
    Kind("DICOM", "dicom", _at(128, b"DICM")),
    Kind("JPEG", "jpeg", _starts(b"\xff\xd8\xff")),
    Kind("PNG", "png", _starts(b"\x89PNG\r\n\x1a\n")),
    Kind("a camera raw file (CR2)", "", lambda data: data[:4] == b"II*\0" and data[8:10] == b"CR"),
    Kind("TIFF", "tiff", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    Kind("WebP", "webp", _riff(b"WEBP")),
    Kind("GIF", "gif", _starts(b"GIF87a", b"GIF89a")),
    Kind("BMP", "bmp", _starts(b"BM")),
    Kind("AVIF", "avif", _brand(b"avif", b"avis")),
    Kind("HEIC", "heic", _brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")),
    Kind("JPEG 2000", "jpeg2000", _starts(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")),
    Kind("JPEG XL", "jpegxl", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    # Pictures of other formats
    Kind("a camera raw file (CR3)", "", _brand(b"crx ")),
    Kind("a camera raw file (RAF)", "", _starts(b"FUJIFILMCCD-RAW")),
    Kind("a camera raw file (CRW)", "", _at(6, b"HEAPCCDR")),
    Kind("a camera raw file (ORF)", "", _starts(b"IIRO", b"IIRS", b"MMOR")),
    Kind("a camera raw file (RW2)", "", _starts(b"IIU\0")),
    Kind("a camera raw file (X3F)", "", _starts(b"FOVb")),
    Kind("a camera raw file (MRW)", "", _starts(b"\0MRM")),
    Kind("PBM", "", _like(rb"P[14]\s")),
    Kind("PGM", "", _like(rb"P[25]\s")),
    Kind("PPM", "", _like(rb"P[36]\s")),
    Kind("PAM", "", _like(rb"P7\s")),
    Kind("PFM", "", _like(rb"P[Ff]4?\s")),
    Kind("OpenEXR", "", _starts(b"\x76\x2f\x31\x01")),
    Kind("Radiance HDR", "", _starts(b"#?RADIANCE", b"#?RGBE")),
    Kind("a Photoshop file (PSD)", "", _starts(b"8BPS")),
    Kind("a GIMP file (XCF)", "", _starts(b"gimp xcf")),
    Kind("JPEG XR", "", _starts(b"II\xbc")),
    Kind("JPEG XS", "", _starts(b"\xff\x10\xff\x50")),
    Kind("DDS", "", _starts(b"DDS ")),
    Kind("KTX", "", _starts(b"\xabKTX")),
    Kind("QOI", "", _starts(b"qoif")),
    Kind("BPG", "", _starts(b"BPG\xfb")),
    Kind("FLIF", "", _starts(b"FLIF")),
    Kind("MNG", "", _starts(b"\x8aMNG\r\n\x1a\n")),
    Kind("JNG", "", _starts(b"\x8bJNG\r\n\x1a\n")),
    Kind("SGI", "", _like(rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]")),
    Kind("PCX", "", _like(rb"\n[\0\x02-\x05][\0\x01][\x01\x02\x04\x08]")),
    Kind("Sun raster", "", _starts(b"\x59\xa6\x6a\x95")),
    Kind("an icon (ICO)", "", _like(rb"\0\0\x01\0[^\0]\0.{3}[\0\x01]")),
    Kind("a cursor (CUR)", "", _like(rb"\0\0\x02\0[^\0]\0.{3}\0")),
    Kind("an icon (ICNS)", "", _starts(b"icns")),
    Kind("XPM", "", _starts(b"/* XPM")),
    Kind("XBM", "", _like(rb"\s*(?:/\*.*?\*/\s*)?#define\s+\S*_?width\s+\d+")),
    Kind("IFF", "", lambda data: data[:4] == b"FORM" and data[8:12] in (b"ILBM", b"PBM ", b"ACBM")),
    Kind("DPX", "", _starts(b"SDPX", b"XPDS")),
    Kind("Cineon", "", _starts(b"\x80\x2a\x5f\xd7")),
    Kind("JBIG2", "", _starts(b"\x97JB2\r\n\x1a\n")),
    Kind("DjVu", "", _starts(b"AT&TFORM")),
    Kind("MrSID", "", _starts(b"msid")),
    Kind("Windows metafile (WMF)", "", _starts(b"\xd7\xcd\xc6\x9a", b"\x01\0\x09\0\0\x03")),
    Kind("Windows metafile (EMF)", "", _at(40, b" EMF")),
    Kind("PostScript", "", _starts(b"%!PS", b"\xc5\xd0\xd3\xc6")),
    Kind("PDF", "", _like(rb".{0,1024}?%PDF-\d|%PDF")),
    Kind("SVG", "", _like(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?)?(?:<!--.*?-->|<!DOCTYPE\s+svg.*?>|\s)*<svg[\s>]")),
    # What instruments write
    Kind("FITS", "", _starts(b"SIMPLE  =")),
    Kind("NIfTI", "", lambda data: data[344:348] in (b"n+1\0", b"ni1\0") or data[4:8] in (b"n+2\0", b"ni2\0")),
    Kind("Analyze", "", lambda data: data[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c") and len(data) >= 348),
    Kind("NRRD", "", _starts(b"NRRD0")),
    Kind("MetaImage", "", _like(rb"(?:ObjectType|NDims)\s*=")),
    Kind("HDF5 or netCDF-4", "", lambda data: b"\x89HDF\r\n\x1a\n" in (data[:8], data[512:520], data[1024:1032])),
    Kind("netCDF", "", _starts(b"CDF\1", b"CDF\2", b"CDF\5")),
    Kind("GRIB", "", _starts(b"GRIB")),
    Kind("MRC", "", _at(208, b"MAP ", b"MAP\0")),
    Kind("a Zeiss file (CZI)", "", _starts(b"ZISRAWFILE")),
    Kind("a Nikon file (ND2)", "", _starts(b"\xda\xce\xbe\x0a")),
    Kind("MATLAB data", "", _starts(b"MATLAB 5.0")),
    Kind("a NumPy array", "", _starts(b"\x93NUMPY")),
    # What is no picture
    Kind("video", "", lambda data: data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") or _riff(b"AVI ")(data)),
    Kind("video", "", _starts(b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"OggS", b"0&\xb2u\x8ef")),
    Kind("sound", "", lambda data: _riff(b"WAVE")(data) or data[:4] in (b"fLaC", b"ID3\3", b"ID3\4")),
    Kind("a ZIP archive", "", _starts(b"PK\3\4", b"PK\5\6", b"PK\7\x08")),
    Kind("compressed by gzip", "", _starts(b"\x1f\x8b")),
    Kind("compressed by bzip2", "", _like(rb"BZh[1-9]")),
    Kind("compressed by xz", "", _starts(b"\xfd7zXZ\0")),
    Kind("compressed by zstd", "", _starts(b"\x28\xb5\x2f\xfd")),
    Kind("a 7-Zip archive", "", _starts(b"7z\xbc\xaf\x27\x1c")),
    Kind("a RAR archive", "", _starts(b"Rar!\x1a\x07")),
    Kind("a tar archive", "", _at(257, b"ustar")),
    Kind("HTML", "", _like(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!DOCTYPE\s+html|html|head|body)[\s>]")),
    Kind("XML", "", _like(rb"(?:\xef\xbb\xbf)?\s*<\?xml")),
    Kind("DICOM", "dicom", _no_preamble),
    Kind("TGA", "", _tga),
)  # fmt: skip

# Readers that need a package which not every environment has: (module, extra of pyproject).
EXTRAS = {"heic": ("pi_heif", "heic"), "dicom": ("pydicom", "dicom")}

SUFFIXES_OF = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".jls"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "bmp": (".bmp", ".dib"),
    "gif": (".gif",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "jpeg2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "jpegxl": (".jxl",),
    "heic": (".heic", ".heif", ".hif"),
    "dicom": (".dcm", ".dicom"),
}  # fmt: skip

OPENED = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000 or JPEG XL"


def missing(reader: str) -> str | None:
    """The extra of pyproject whose package a reader lacks in this environment, or None."""
    module, extra = EXTRAS.get(reader, ("", ""))
    return extra if module and find_spec(module) is None else None


def suffixes() -> tuple[str, ...]:
    """File name endings, in small letters, of what this environment opens."""
    return tuple(end for reader, ends in SUFFIXES_OF.items() if not missing(reader) for end in ends)


def kind_of(data: bytes) -> Kind:
    """The format of a file's bytes that a reader here opens.

    Raises UnsupportedImage, with the format's name, where none does; ImageError where nobody knows what it is.
    """
    kind = next((kind for kind in KINDS if kind.is_it(data)), None)
    if kind is None:
        raise ImageError(f"these bytes are not an image that anybody reads; send {OPENED}")
    if not kind.reader:
        raise UnsupportedImage(f"this is {kind.name}, which is not opened; send {OPENED}")
    if extra := missing(kind.reader):
        raise UnsupportedImage(
            f"this is {kind.name}, which this server was installed without: install the extra"
            f" `{extra}` ({brings(extra)}), or send {OPENED}"
        )
    return kind
