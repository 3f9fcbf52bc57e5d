"""Strips and tiles of a TIFF directory to samples, each no larger than the directory declares it.

Knows nothing of colors. Bytes are unpacked by imagecodecs' codecs, which are told how much room there is; codecs whose
data have a header of their own are let begin only where that header fits.
Source: TIFF 6.0, Technical Note 2 (JPEG), Technical Note 3 (floating-point predictor).
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from models.io import tiff_embedded
from models.io.file_bytes import piece
from models.io.samples import ImageError, ImageTooLarge, Limits, Size, UnsupportedImage
from models.io.tiff_directory import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_BYTES,
    STRIP_OFFSETS,
    SUBSAMPLING,
    TILE_BYTES,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    Directory,
)
from models.types import Array

_FILL_ORDER, _T4_OPTIONS, _JPEG_TABLES, _LERC_PARAMETERS = 266, 292, 347, 50674
_MOST_TABLES = 2**16  # bytes: quantization and Huffman tables have two thousand
_LERC_EXTRA = 2**16  # bytes beside the samples: headers and a mask
_MOST_SEGMENTS, _MOST_BANDS = 65536, 65535
_FEW_SEGMENTS, _SEGMENT_PX = 4096, 1024  # an image may be cut into so many, and one more for each so many pixels
_TILE_PX, _SEGMENT_BYTES = 1024**2, 8 * 2**20  # that a segment may have whatever the image's size
_LOOKED_AT = 4  # segments whose own headers are read before anything is decoded
_TIMES_READ = 4  # the bytes of a file, at most, by segments that share them
_YCBCR = 6

# Which codec of imagecodecs undoes a compression. They write at most as many bytes as they are told.
_PACKED = {1: "", 5: "lzw", 8: "deflate", 32773: "packbits", 32946: "deflate", 34925: "lzma", 50000: "zstd"}
_FAX = {2: "ccittrle", 3: "ccittfax3", 4: "ccittfax4"}
_JPEG = (6, 7)
_IMAGES = {6: "jpeg", 7: "jpeg", 33003: "jpeg2k", 33005: "jpeg2k", 34712: "jpeg2k", 34887: "lerc", 50001: "webp"}
_REFUSED = {
    32766: "NeXT 2-bit", 32771: "CCITT RLE word-aligned", 32809: "ThunderScan", 32908: "PixarFilm", 32909: "PixarLog",
    32947: "DCS", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log24", 34713: "Nikon NEF", 34718: "MODI",
    34892: "lossy DNG", 34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
    65000: "EER", 65001: "EER", 65002: "EER",
}  # fmt: skip
COMPRESSIONS = {1: "none", 2: "CCITT RLE", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "JPEG (old)", 7: "JPEG"} | {
    8: "Deflate", 32773: "PackBits", 32946: "Deflate", 34925: "LZMA", 50000: "Zstandard", 33003: "JPEG 2000",
    33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 50001: "WebP",
}  # fmt: skip


class Sample(NamedTuple):
    """What a sample is: `uint`, `int`, `float` or `complex`, of so many bits."""

    format: str
    bits: int

    @property
    def dtype(self) -> np.dtype:
        """The type that holds it, in this machine's byte order. Raises UnsupportedImage."""
        kind, bits = self
        if kind == "uint" and 1 <= bits <= 64:
            return np.dtype(f"u{1 if bits <= 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8}")
        if (kind == "int" and bits in (8, 16, 32, 64)) or (kind == "float" and bits in (16, 32, 64)):
            return np.dtype(f"{kind[0]}{bits // 8}")
        if kind == "float" and bits == 24:
            return np.dtype("f4")
        raise UnsupportedImage(f"TIFF samples of {bits} bits, {kind}, are not opened; send 8, 16 or 32 bits")


def sample_of(directory: Directory) -> Sample:
    """What the samples of a directory are. Raises UnsupportedImage where they differ from each other."""
    formats, bits = directory.numbers(SAMPLE_FORMAT, 64), directory.numbers(BITS, 64)
    if len(set(formats.tolist())) > 1:
        raise UnsupportedImage("the samples of this TIFF have several formats; send all of one")
    if len(different := sorted(set(bits.tolist()))) > 1:
        raise UnsupportedImage(f"the samples of this TIFF have {', '.join(map(str, different))} bits; send all of one")
    names = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex", 6: "complex"}
    code = int(formats[0]) if formats.size else 1
    if code not in names:
        raise UnsupportedImage(f"TIFF samples of format {code} are not opened; send integers or floats")
    default = 8 if directory.number(COMPRESSION, 1) in _JPEG else 1
    return Sample(names[code], int(bits[0]) if bits.size else default)


class Segments:
    """The strips or tiles of one directory: how many, how large, and each one's samples.

    size     (H, W) of the image;  samples  of a pixel in a segment, 1 where planes are stored apart
    rows, columns  of a whole segment;  down, across  how many there are of a plane
    nbytes   of a whole segment, its samples unpacked
    """

    def __init__(self, directory: Directory, limits: Limits) -> None:
        self.directory, self.size, self._limits = directory, directory.size, limits
        limits.check_size(*self.size)
        height, width = self.size
        self.sample = sample_of(directory)
        self.dtype = self.sample.dtype
        self.compression = directory.number(COMPRESSION, 1)
        if self.compression not in COMPRESSIONS:
            name = _REFUSED.get(self.compression, f"number {self.compression}")
            raise UnsupportedImage(f"TIFF compression {name} is not opened; write it with Deflate, LZW or JPEG")
        self.bands = max(1, directory.number(SAMPLES, 1))
        if self.bands > _MOST_BANDS:
            raise ImageError(f"the TIFF is damaged: {self.bands} samples a pixel")
        self.planar = directory.number(PLANAR, 1) == 2 and self.bands > 1
        self.samples = 1 if self.planar else self.bands
        self.tiled = TILE_WIDTH in directory or TILE_OFFSETS in directory
        if self.tiled:
            self.rows, self.columns = directory.number(TILE_LENGTH, 0), directory.number(TILE_WIDTH, 0)
            if self.rows < 1 or self.columns < 1:
                raise ImageError("the TIFF is damaged: its tiles have no size")
            larger = self.rows > _up(height, 16) or self.columns > _up(width, 16)
            if larger and self.rows * self.columns > _TILE_PX:
                raise ImageError(f"the TIFF is damaged: tiles of {self.columns}×{self.rows} in {width}×{height} pixels")
        else:
            whole = directory.number(ROWS_PER_STRIP, height)
            self.rows, self.columns = min(max(1, whole), height), width
        self.down, self.across = math.ceil(height / self.rows), math.ceil(width / self.columns)
        self.nbytes = self.rows * self.columns * self.samples * self.dtype.itemsize
        self._offsets = directory.numbers(TILE_OFFSETS if self.tiled else STRIP_OFFSETS)
        self._counts = directory.numbers(TILE_BYTES if self.tiled else STRIP_BYTES)
        self._chroma = self._subsampling()

    @property
    def decodes_color(self) -> bool:
        """Whether segments come as RGB although the file holds YCbCr: JPEG's decoders do that."""
        return self.compression in (*_JPEG, 34712, 50001) and self.directory.photometric == _YCBCR

    def check(self, planes: int) -> None:
        """Raises ImageTooLarge or ImageError where reading so many planes takes more than may be spent."""
        count, pixels = self.down * self.across * planes, planes * self.size[0] * self.size[1]
        most = min(_MOST_SEGMENTS, _FEW_SEGMENTS + pixels // _SEGMENT_PX)
        if count > most:
            raise ImageTooLarge(
                f"the TIFF is cut into {count} pieces, and of its size at most {most} are read: write it with larger"
                " strips or tiles"
            )
        image = pixels * self.samples * self.dtype.itemsize
        if self.nbytes > max(_SEGMENT_BYTES, 2 * image) or self.nbytes * count > 4 * (_SEGMENT_BYTES + image):
            raise ImageTooLarge(
                f"the TIFF's pieces of {self.columns}×{self.rows} pixels are far larger than its {self.size[1]}×"
                f"{self.size[0]}: write it with smaller strips or tiles"
            )
        if self._bytes_read() > _TIMES_READ * len(self.directory.data) + 2**16:
            raise ImageError(
                f"the TIFF's pieces share their data: together they have more than {_TIMES_READ} times the file's bytes"
            )
        if self.compression in _IMAGES and self.compression not in (6, 34887):  # a few before anything is decoded
            for at, length in zip(
                self._offsets[:_LOOKED_AT].tolist(), self._counts[:_LOOKED_AT].tolist(), strict=False
            ):
                if 0 < at < at + length <= len(self.directory.data):
                    self._stated(_IMAGES[self.compression], memoryview(piece(self.directory.data, at, length)))
        if self.nbytes * self.down * self.across * planes > self._limits.max_held_bytes:
            raise ImageTooLarge(
                f"{self.size[1]}×{self.size[0]} with {self.bands} samples of {self.sample.bits} bits is more than the"
                f" limit of 8 bytes a pixel at {self._limits.max_mpx:g} Mpx (TESSERA_MAX_MPX): send fewer bands or a"
                " smaller image"
            )

    def cut_strips(self, plain_bytes: int, most_bytes: int) -> None:
        """Takes plain strips for several smaller ones, of so many bytes at most or one row: nothing is packed in them.

        Raises ImageTooLarge for packed ones, and tiles, of more than `most_bytes`: they are read as a whole.
        """
        plain = not self.tiled and self.compression == 1 and self._chroma == (1, 1)
        if self.nbytes <= (plain_bytes if plain else most_bytes):
            return
        if not plain:
            kind = "tiles" if self.tiled else "strips"
            raise ImageTooLarge(
                f"the TIFF's {kind} of {self.columns}×{self.rows} pixels have {self.nbytes / 2**20:.0f} MiB each, and a"
                f" large file is read in pieces of {most_bytes / 2**20:.0f} MiB at most; write it with tiles:"
                " gdal_translate -of COG -co COMPRESS=DEFLATE in.tif out.tif"
            )
        packed = math.ceil(self.columns * self.samples * self.sample.bits / 8)
        rows = max(1, plain_bytes * self.rows // self.nbytes)
        if self.down > 1:
            rows = next(n for n in range(rows, 0, -1) if self.rows % n == 0)
        planes = self.bands if self.planar else 1
        if len(self._offsets) < planes * self.down:
            raise self._damaged(len(self._offsets), "is not in the file")
        begin = np.arange(0, self.size[0], rows)
        offsets = self._offsets[: planes * self.down].astype(np.int64).reshape(planes, self.down)[:, begin // self.rows]
        self._offsets = np.where(offsets > 0, offsets + begin % self.rows * packed, 0).ravel()
        self._counts = np.empty(0, np.int64)
        self.rows, self.down = rows, len(begin)
        self.nbytes = rows * self.columns * self.samples * self.dtype.itemsize

    def _bytes_read(self) -> float:
        """Of the file by all segments together, as often as they read them."""
        offsets = self._offsets.astype(np.float64)
        counts = np.zeros(len(offsets))
        counts[: len(self._counts)] = self._counts[: len(offsets)]
        if self.compression != 1:  # what says no length is read to the file's end
            counts = np.where(counts == 0, np.maximum(len(self.directory.data) - offsets, 0), counts)
        return float(counts[offsets > 0].sum())

    def read(self, plane: int, row: int, column: int) -> Array | None:
        """One segment's samples inside the image: [rows, columns, samples] of `dtype`; None where none are stored.

        Raises ImageError, UnsupportedImage.
        """
        index = (plane * self.down + row) * self.across + column
        rows = self.rows if self.tiled else min(self.rows, self.size[0] - row * self.rows)
        if index >= len(self._offsets):
            raise self._damaged(index, "is not in the file")
        at = int(self._offsets[index])
        packed = rows * math.ceil(self.columns * self.samples * self.sample.bits / 8)
        if not at:
            return None  # GDAL leaves out what holds nothing
        count = int(self._counts[index]) if index < len(self._counts) else 0
        count = count or (packed if self.compression == 1 else len(self.directory.data) - at)
        if at + count > len(self.directory.data):
            if self.compression != 1 or at + packed > len(self.directory.data):
                raise self._damaged(index, "lies beyond the end of the file")
            count = packed
        data = memoryview(piece(self.directory.data, at, count))
        try:
            whole = self._decoded(data, rows)
        except (ImageError, MemoryError):
            raise
        except Exception:  # imagecodecs' codecs raise their own errors, all of them for damaged data
            raise self._damaged(index, "cannot be decoded") from None
        inside = whole[: self.size[0] - row * self.rows, : self.size[1] - column * self.columns]
        if inside.shape[0] < min(rows, self.size[0] - row * self.rows):
            raise self._damaged(index, "is cut short")
        return inside

    def read_all(self) -> Array:
        """All samples as they are stored: [H, W, bands]; 0 where nothing is. Raises what `check` and `read` raise."""
        planes = self.bands if self.planar else 1
        self.check(planes)
        found = np.zeros((*self.size, self.bands), self.dtype)
        for plane in range(planes):
            bands = slice(plane, plane + 1) if self.planar else slice(None)
            for row in range(self.down):
                for column in range(self.across):
                    if (block := self.read(plane, row, column)) is not None:
                        rows = slice(row * self.rows, row * self.rows + block.shape[0])
                        columns = slice(column * self.columns, column * self.columns + block.shape[1])
                        found[rows, columns, bands] = block
        return found

    def _decoded(self, data: memoryview, rows: int) -> Array:
        if self.compression in _PACKED:
            return self._unpacked(self._bytes(data), rows)
        import imagecodecs

        if self.compression in _FAX:
            options = {"t4options": self.directory.number(_T4_OPTIONS, 0)} if self.compression == 3 else {}
            decode = getattr(imagecodecs, f"{_FAX[self.compression]}_decode")
            found = decode(self._ordered(data), rows, self.columns, **options)
            return np.asarray(found).astype(np.uint8).reshape(-1, self.columns, 1)[:rows]
        codec = _IMAGES[self.compression]
        if self.compression == 6 and bytes(data[:2]) != b"\xff\xd8":
            raise UnsupportedImage(
                "TIFF compression JPEG in its first form is not opened; write it with Deflate or JPEG"
            )
        if codec == "lerc":
            data = self._lerc(data)
        height, width = self._stated(codec, data)
        shape = (height, width, self.samples) if self.samples > 1 else (height, width)
        out = np.empty(shape, self.dtype)  # the codec writes into it, or nothing
        if self.compression in _JPEG:
            found = self._jpeg(data, out)
        else:
            extra = {"hasalpha": True} if self.compression == 50001 and self.samples == 4 else {}
            found = getattr(imagecodecs, f"{codec}_decode")(bytes(data), out=out, **extra)
        return np.asarray(found).reshape(height, width, self.samples)

    def _stated(self, codec: str, data: memoryview) -> Size:
        """(H, W) by a segment's own header. Raises ImageError where it has more, or others, than its directory says."""
        height, width, samples = tiff_embedded.stated(codec, bytes(data), self._limits)
        if height > self.rows or width > self.columns:
            raise ImageError(
                f"the TIFF is damaged: a piece of {self.columns}×{self.rows} pixels says that it has {width}×{height}"
            )
        if samples not in (None, self.samples):
            raise ImageError("the TIFF is damaged: a piece holds other samples than its directory says")
        return height, width

    def _lerc(self, data: memoryview) -> memoryview:
        """LERC's own bytes, where a second codec packed them. Source: GDAL's LERC in TIFF, LercParameters."""
        parameters = self.directory.numbers(_LERC_PARAMETERS, 2).tolist()
        codec = {1: "deflate", 2: "zstd"}.get(parameters[1] if len(parameters) > 1 else 0)
        if codec is None:
            return data
        import imagecodecs

        room = np.empty(self.nbytes + _LERC_EXTRA, np.uint8)  # LERC stores plainly what it cannot pack
        return memoryview(getattr(imagecodecs, f"{codec}_decode")(data, out=room)).cast("B")

    def _jpeg(self, data: memoryview, out: Array) -> Array:
        """JPEG as Technical Note 2 has it: tables apart, colors as the directory says."""
        import imagecodecs

        photometric, options = self.directory.photometric, dict[str, Any]()
        if self.planar:
            options["outcolorspace"] = "GRAYSCALE"
        elif EXTRA_SAMPLES not in self.directory and self.samples == 3:
            options["outcolorspace"] = "RGB"
            if photometric == 2 and b"JFIF\0" not in bytes(data[:32]):
                options["colorspace"] = "RGB"
        elif photometric == 5:
            options["outcolorspace"] = "CMYK"
        found: Array = imagecodecs.jpeg_decode(
            bytes(data), bitspersample=self.sample.bits, tables=self._tables, out=out, **options
        )
        return found

    @cached_property
    def _tables(self) -> bytes | None:
        """JPEG's, which all segments share."""
        tables = self.directory.numbers(_JPEG_TABLES, _MOST_TABLES).tobytes() or None
        if tables and tiff_embedded.has_picture(tables):
            raise ImageError("the TIFF is damaged: its JPEG tables hold a picture")
        return tables

    def _bytes(self, data: memoryview) -> Array:
        """The segment as it was packed, uint8; in memory of its own where a codec wrote it."""
        codec = _PACKED[self.compression]
        if not codec:
            return np.frombuffer(self._ordered(data), np.uint8)
        import imagecodecs

        room = np.empty(self.rows * math.ceil(self.columns * self.samples * self.sample.bits / 8), np.uint8)
        decode: Callable[..., Array] = getattr(imagecodecs, f"{codec}_decode")
        return np.frombuffer(decode(self._ordered(data), out=room), np.uint8)

    def _ordered(self, data: memoryview) -> memoryview | bytes:
        if self.directory.number(_FILL_ORDER, 1) != 2:
            return data
        import imagecodecs

        return bytes(imagecodecs.bitorder_decode(bytes(data)))

    def _unpacked(self, data: Array, rows: int) -> Array:
        """Bytes to samples: bits apart, in this machine's order, the predictor undone; in place where that is ours."""
        import imagecodecs

        if self._chroma != (1, 1):
            return self._full_chroma(data, rows)
        (kind, bits), line = self.sample, self.columns * self.samples
        predictor = self.directory.number(PREDICTOR, 1)
        if predictor not in (1, 2, 3):
            raise UnsupportedImage(f"TIFF predictor {predictor} is not opened; write it with predictor 1, 2 or 3")
        if kind == "float" and bits == 24:
            little = self.directory.order == "<"
            values = np.asarray(imagecodecs.float24_decode(data.tobytes(), byteorder="<" if little else ">"))
        elif bits in (8, 16, 32, 64):
            values = data[: len(data) // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype)
            if np.dtype(f"{self.directory.order}u2") != np.dtype("u2") and predictor != 3:
                values = values.byteswap(inplace=data.flags.writeable)
        else:
            values = np.asarray(imagecodecs.packints_decode(data.tobytes(), self.dtype.char, bits, runlen=line))
            values = values.view(np.uint8) if values.dtype == bool else values
        found = len(values) // line
        values = values[: found * line].reshape(found, self.columns, self.samples)[:rows]
        if predictor == 1:
            return values
        undo = imagecodecs.delta_decode if predictor == 2 else imagecodecs.floatpred_decode
        return np.asarray(undo(values, axis=-2, out=values if values.flags.writeable else None))

    @property
    def working_bytes(self) -> int:
        """Held while one segment is read."""
        plain = self.compression in _PACKED and self.sample.bits in (8, 16, 32, 64)
        return self.nbytes * (1 if plain else 2)

    def _subsampling(self) -> Size:
        """(down, across): pixels that share their chroma, where the codec leaves that to us."""
        if self.directory.photometric != _YCBCR or self.compression not in _PACKED or self.planar:
            return 1, 1
        given = [*self.directory.numbers(SUBSAMPLING, 2).tolist(), 2, 2][:2]
        if given == [1, 1]:
            return 1, 1
        if self.samples != 3 or self.sample != ("uint", 8) or not set(given) <= {1, 2, 4}:
            raise UnsupportedImage("this TIFF's YCbCr is stored in a way that is not opened; send it as RGB")
        return given[1], given[0]

    def _full_chroma(self, data: Array, rows: int) -> Array:
        """Units of down × across lumas and their two chromas to [rows, columns, 3]."""
        down, across = self._chroma
        wide, high = math.ceil(self.columns / across), math.ceil(rows / down)
        unit = down * across + 2
        units = data[: high * wide * unit].reshape(high, wide, unit)
        luma = units[..., :-2].reshape(high, wide, down, across).transpose(0, 2, 1, 3).reshape(high * down, -1)
        chroma = units[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
        return np.concatenate([luma[..., None], chroma], axis=2)[:rows, : self.columns]

    def _damaged(self, index: int, what: str) -> ImageError:
        kind = "tile" if self.tiled else "strip"
        return ImageError(f"the TIFF is damaged or truncated: {kind} {index + 1} of {len(self._offsets)} {what}")


def _up(length: int, step: int) -> int:
    return -(-length // step) * step
