"""PNG files to pixels by libpng, from the chunks that make the picture: no other one decides whether it is shown.

What counts of the ancillary chunks: tRNS (transparency), eXIf (orientation), and what the colors are: cICP (code
points), else iCCP (color profile), else sRGB, else gAMA (gamma) and cHRM (chromaticities) beside it, as browsers take
them. Of an animation the still picture is shown.

Knows nothing of other formats; label maps are written by `models.io.png`. Source: PNG specification, third edition
(W3C), 4.3, 5, 11 and 13.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from models.io import color_profile, exif
from models.io.picture import PROFILE_NS, RESIZING_BYTES, RGB_BYTES, Channels, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, Limits, UnsupportedImage
from models.types import Array

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_MAX_PROFILE = 4 * 2**20  # bytes of a color profile once inflated
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # of a color type; a palette's are looked up
_MOST_CHUNKS = 32768  # an animation of 10,000 frames has 20,000
_NS, _BYTE_NS, _ALPHA_NS = 10, 8, 25  # of a core, for a pixel, each byte of its samples, and its transparency
_COLORS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_READ = (*_COLORS, b"tRNS", b"eXIf", b"CgBI")  # of those that a reader need not know
_CHUNK_HEAD = struct.Struct(">I4s")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass
class _File:
    """What of a PNG makes its picture.

    chunks   whole chunks, from IHDR to the last IDAT, in their order; all of the file where there are no others
    alpha    it has a tRNS chunk
    """

    height: int
    width: int
    depth: int
    color: int
    chunks: list[memoryview] = field(default_factory=list)
    alpha: bool = False
    profile: bytes | None = None
    orientation: int = 1
    warnings: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the samples that libpng hands out."""
        channels = _CHANNELS[self.color] + self.alpha
        return (self.height, self.width, channels) if channels > 1 else (self.height, self.width)


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins with a PNG's signature, as `models.io.decode.inspect` has it."""
    file = _read(data)
    limits.check_size(file.height, file.width)
    check_bands(choice.bands, 1 if file.color in (0, 4) else 3)
    channels = file.shape[2] if len(file.shape) == 3 else 1
    samples = channels * file.depth // 8 if file.depth == 16 else channels
    pixels = file.height * file.width
    turned = file.orientation >= 5
    size = (file.width, file.height) if turned else (file.height, file.width)
    return Encoded(
        size,
        pixels * max(samples + RGB_BYTES + (4 if channels in (2, 4) else 0), RESIZING_BYTES),
        lambda: _decode(file, choice),
        1e-9 * pixels * (_NS + _BYTE_NS * samples + _ALPHA_NS * (channels in (2, 4)) + PROFILE_NS * bool(file.profile)),
    )


def _decode(file: _File, choice: Choice) -> Decoded:
    from imagecodecs import PngError, png_decode

    out = np.empty(file.shape, np.uint16 if file.depth == 16 else np.uint8)
    try:
        samples: Array = png_decode(b"".join([_SIGNATURE, *file.chunks, _END]), out=out)
    except (PngError, ValueError, NotImplementedError):
        raise ImageError("the PNG is damaged or truncated: its pixels cannot be decoded; send it again") from None
    return show(Channels(samples, file.profile, file.orientation, warnings=list(file.warnings)), choice)


def _read(data: bytes) -> _File:
    """The chunks that count. Raises ImageError where a critical one is damaged, UnsupportedImage for unknown ones."""
    chunks = _chunks(data)
    tag, body, whole = next(chunks, (b"", b"", memoryview(b"")))
    if tag == b"CgBI":
        raise UnsupportedImage("this is a PNG as Apple's devices keep it (CgBI), which is not opened; save it as PNG")
    if tag != b"IHDR" or len(body) != 13:
        raise ImageError("the PNG is damaged: it does not begin with its header; send it again")
    width, height, depth, color, *_ = struct.unpack(">IIBBBBB", body)
    if depth not in _DEPTHS.get(color, ()):
        raise ImageError(f"the PNG is damaged: color type {color} of {depth} bits does not exist")
    file, colors = _File(height, width, depth, color, [whole]), dict[bytes, bytes]()
    for tag, body, whole in chunks:
        if tag == b"IDAT" or (tag == b"PLTE" and color == 3):
            file.chunks.append(whole)
        elif tag == b"IEND":
            break
        elif tag == b"tRNS" and color not in (4, 6) and _sound(whole):
            file.alpha = True
            file.chunks.append(whole)
        elif tag in _COLORS and _sound(whole):
            if bytes(file.chunks[-1][4:8]) != b"IDAT":  # behind the pixels they come too late for browsers
                colors.setdefault(tag, bytes(body))
        elif tag == b"eXIf" and _sound(whole):
            file.orientation = exif.orientation(bytes(body))
        elif tag[:1].isupper() and tag != b"PLTE" and tag.isalpha():
            raise UnsupportedImage(f"this PNG has a part that no reader knows ({tag.decode()}); save it as plain PNG")
    file.profile = _profile(colors, file.warnings)
    return file


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """The name of each chunk that is read here, its data, and all of it; up to where the file ends.

    A cut chunk of pixels is handed on. Raises ImageError where there are too many.
    """
    view, at, count = memoryview(data), len(_SIGNATURE), 0
    while at + 12 <= len(data):
        count += 1
        if count > _MOST_CHUNKS:
            raise ImageError(f"the PNG has more than {_MOST_CHUNKS} chunks: save it again")
        length, tag = _CHUNK_HEAD.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data) and tag != b"IDAT":
            return
        if tag in _READ or tag[:1].isupper():
            yield tag, view[at + 8 : end - 4], view[at:end]
        at = end


def _sound(whole: memoryview) -> bool:
    """Whether an ancillary chunk has the sum that it states."""
    return zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")


def _profile(colors: dict[bytes, bytes], warnings: list[str]) -> bytes | None:
    """What the colors are, as an ICC profile; None: sRGB, or nobody says. Of HDR colors a profile beside is followed.

    Code points with a matrix or of narrow range, or that leave a part open, say nothing of RGB samples. Source: 11.3.2.
    """
    code, icc = colors.get(b"cICP", b""), colors.get(b"iCCP")
    if len(code) == 4 and code[2:] == b"\0\1" and color_profile.UNSPECIFIED not in code[:2]:
        unknown: list[str] = []
        profile = color_profile.of_code_points(code[0], code[1], unknown)
        if icc is None or not unknown:
            warnings += unknown
            return profile
    if icc is not None:
        return _inflated(icc, warnings)
    gamma, chromaticities = colors.get(b"gAMA", b""), colors.get(b"cHRM", b"")
    if b"sRGB" in colors or len(gamma) != 4 or not any(gamma):
        return None
    white_x, white_y, *primaries = struct.unpack(">8I", chromaticities) if len(chromaticities) == 32 else (0, 0)
    return color_profile.of_gamma(
        1e5 / int.from_bytes(gamma, "big"),
        tuple(v / 1e5 for v in (*primaries, white_x, white_y)) if primaries else None,
    )


def _inflated(body: bytes, warnings: list[str]) -> bytes | None:
    """The profile in an iCCP chunk, or None and a warning."""
    _, _, packed = body.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], _MAX_PROFILE + 1)
    except zlib.error:
        warnings.append("the color profile is damaged, and was left out")
        return None
    return profile
