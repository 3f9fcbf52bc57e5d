"""JPEG 2000 files and codestreams to pixels, by OpenJPEG.

Knows nothing of other formats.
"""

import struct

import numpy as np

from models.io import jpeg2000_header, pillow_formats
from models.io.jpeg2000_header import CMYK, GRAY, SRGB, SYCC, Header
from models.io.picture import RGB_BYTES, Channels, all_of_a_byte, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, ImageTooLarge, Limits, UnsupportedImage
from models.types import Array

_TILE_BYTES, _BLOCK_BYTES = 16_000, 440  # of OpenJPEG's tables, for each tile, and each precinct or code block


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins as JPEG 2000, as `models.io.decode.inspect` has it."""
    header = jpeg2000_header.read(data)
    size = (header.height, header.width)
    limits.check_size(*size)
    held = bytes_a_pixel(header.parts, header.bits) * size[0] * size[1] + table_bytes(header)
    if held > limits.max_held_bytes:
        raise ImageTooLarge(
            f"decoding this JPEG 2000 of {header.width}×{header.height} takes {held / 1e6:.0f} MB; the limit is"
            f" {limits.max_held_bytes / 1e6:.0f} MB: send a smaller image, or a JPEG, PNG or TIFF"
        )
    # Pillow decodes what has to be looked up, enlarged or turned into RGB
    pillows = header.palette or header.subsampled or header.space == SYCC
    if (
        header.space not in (None, SRGB, GRAY, SYCC, CMYK)
        or header.bits > (8 if pillows else 16)
        or (pillows and header.signed)
    ):
        raise UnsupportedImage("this kind of JPEG 2000 is not opened; save it as PNG or TIFF")
    check_bands(choice.bands, 1 if header.parts <= 2 and not header.palette else 3)
    if not pillows:
        return Encoded(size, held, lambda: _decode(data, header, choice))
    if header.subsampled and header.space is None:  # there is no other reason to do that
        data = _as_sycc(data, header)
    encoded = pillow_formats.inspect(data, "JPEG2000", limits, choice)
    if encoded.size != size:
        raise ImageError("the JPEG 2000 file is damaged: it states two sizes")
    return encoded._replace(working_bytes=max(held, encoded.working_bytes))


def bytes_a_pixel(parts: int, bits: int) -> int:
    """What decoding holds for a pixel of so many bands and bits. OpenJPEG computes in 32 bits."""
    return parts * (4 + (1 if bits <= 8 else 2)) + RGB_BYTES


def table_bytes(header: Header) -> int:
    """What OpenJPEG holds beside the pixels, for tiles and their code blocks."""
    return _TILE_BYTES * header.tiles + _BLOCK_BYTES * header.blocks


def _as_sycc(data: bytes, header: Header) -> bytes:
    """The codestream in a file that says its bands are YCbCr. Source: ISO/IEC 15444-1, I.5.3."""
    size = struct.pack(">IIHBBBB", header.height, header.width, header.parts, header.bits - 1, 7, 0, 0)
    boxes = _box(b"ihdr", size) + _box(b"colr", struct.pack(">BBBI", 1, 0, 0, SYCC))
    start = _box(b"jP  ", b"\r\n\x87\n") + _box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + _box(b"jp2h", boxes) + _box(b"jp2c", data[slice(*header.codestream)])


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _decode(data: bytes, header: Header, choice: Choice) -> Decoded:
    from imagecodecs import Jpeg2kError, jpeg2k_decode

    shape = (header.height, header.width, header.parts)
    kind = np.dtype(f"{'i' if header.signed else 'u'}{1 if header.bits <= 8 else 2}")
    codestream = data[
        slice(*header.codestream)
    ]  # the boxes around it were read: what OpenJPEG makes of them is its own
    try:
        samples: Array = jpeg2k_decode(codestream, out=np.empty(shape[: 2 + (header.parts > 1)], kind))
    except (Jpeg2kError, ValueError, TypeError, NotImplementedError):
        raise ImageError("the JPEG 2000 file is damaged or truncated; send it again") from None
    samples = samples.reshape(shape)
    if header.signed:  # around 0: the lowest becomes black
        samples = samples.view(f"u{kind.itemsize}")
        np.add(samples, samples.dtype.type(2 ** (header.bits - 1)), out=samples)
        np.bitwise_and(samples, samples.dtype.type(2**header.bits - 1), out=samples)
    inks = header.space == CMYK or (header.profile or b"")[16:20] == b"CMYK"
    colors = min(header.parts, 4) if inks else 3 if header.parts >= 3 else 1
    alpha = header.alpha if header.alpha is not None and colors <= header.alpha < header.parts and not inks else None
    kept = [*range(colors), *([] if alpha is None else [alpha])]
    channels = Channels(all_of_a_byte(samples, header.bits), header.profile, inks=inks, bits=header.bits)
    channels.premultiplied = header.premultiplied
    if len(kept) < header.parts:
        channels.samples = samples[..., kept]
        channels.warnings.append(f"{header.parts - len(kept)} of the file's {header.parts} bands were left out")
    return show(channels, choice)
