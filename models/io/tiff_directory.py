"""The directories of a TIFF file, before anything in them is believed: tags, pages, pyramids, masks, channels.

Knows nothing of samples: no segment is read here. Values stay in the file's bytes until they are asked for, so a
directory costs what its entries cost, whatever they claim.
Source: TIFF 6.0; BigTIFF (awaresystems.be); TIFF supplement 1 (SubIFDs); OME-TIFF 6.3; ImageJ's TiffDecoder.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from models.io.file_bytes import FileBytes, piece
from models.io.samples import ImageError, Size
from models.types import Array

Data = bytes | FileBytes

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the first four bytes of a file, either byte order, BigTIFF too

SUBFILE, OLD_SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
DESCRIPTION, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 270, 273, 274, 277, 278, 279
PLANAR, PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 284, 317, 320, 322, 323, 324, 325
SUB_DIRECTORIES, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 330, 332, 338, 339
LUMA, SUBSAMPLING, REFERENCE = 529, 530, 532
DEPTH, ICC_PROFILE, GDAL_METADATA, GDAL_NODATA, DNG_VERSION = 32997, 34675, 42112, 42113, 50706

_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4"} | {
    16: "u8", 17: "i8", 18: "u8"
}  # fmt: skip
_PLAIN = {3: 2, 4: 4}  # bytes of unsigned integers
_RATIONALS = {5: "u4", 10: "i4"}
_MOST_DIRECTORIES = 4096
_MOST_ENTRIES = 4096
_MOST_ENTRIES_IN_ALL = 32 * _MOST_DIRECTORIES
_MOST_TEXT = 2**20  # bytes of a tag that are looked at as text
_NEAR = 8  # pictures before a directory whose smaller version it may be, unless it says so itself
_REDUCED, _MASK = 1, 4
_RAW = (32803, 34892)  # color filter array, linear raw


class Directory:
    """One image file directory: numbers and texts by tag, bounded by the file's own length."""

    def __init__(self, data: Data, order: str, big: bool, at: int) -> None:
        self.data, self.order, self.big, self.at = data, order, big, at
        self._byte_order: Literal["little", "big"] = "little" if order == "<" else "big"
        head, form, size = ("Q", "HHQ8s", 20) if big else ("H", "HHI4s", 12)
        if at >= len(data):
            raise ImageError("the TIFF is truncated: a directory lies beyond its end")
        try:
            (count,) = struct.unpack(order + head, data[at : at + struct.calcsize(head)])
            if not 0 < count <= _MOST_ENTRIES:
                raise ImageError(f"the TIFF is damaged: a directory of {count} entries")
            first = at + struct.calcsize(head)
            block, end = piece(data, first, count * size), first + count * size
            (self.next,) = struct.unpack(order + ("Q" if big else "I"), data[end : end + (8 if big else 4)])
        except struct.error:
            raise ImageError("the TIFF is truncated: a directory lies beyond its end") from None
        self._length: int = count
        self._entries: dict[int, tuple[int, int, bytes]] = {}
        for tag, kind, many, value in struct.iter_unpack(order + form, block):
            self._entries.setdefault(tag, (kind, many, value))

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def __len__(self) -> int:
        return self._length

    def count(self, tag: int) -> int:
        """How many values a tag claims to have."""
        return self._entries[tag][1] if tag in self._entries else 0

    def numbers(self, tag: int, most: int | None = None) -> Array:
        """The values of a tag, the first `most` of them; none where it is absent or lies beyond the file's end."""
        kind, count, inline = self._entries.get(tag, (1, 0, b""))
        per = 2 if kind in _RATIONALS else 1
        dtype = np.dtype(self.order + (_RATIONALS.get(kind) or _TYPES.get(kind, "u1")))
        items = per * (count if most is None else min(count, most))
        length = items * dtype.itemsize
        if per * count * dtype.itemsize <= len(inline):
            values = np.frombuffer(inline, dtype, items)
        else:
            (at,) = struct.unpack(self.order + ("Q" if self.big else "I"), inline)
            if at + length > len(self.data):
                return np.empty(0, dtype)
            values = np.frombuffer(piece(self.data, at, length), dtype, items)
        return values[0::2] / np.maximum(values[1::2], 1) if per == 2 else values

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        kind, count, inline = self._entries.get(tag, (0, 0, b""))
        if kind in _PLAIN and 0 < count * _PLAIN[kind] <= len(inline):  # nearly all of them, and ten times as fast
            return int.from_bytes(inline[: _PLAIN[kind]], self._byte_order)
        found = self.numbers(tag, 1)
        return int(found[0]) if found.size else default

    def raw(self, tag: int) -> bytes:
        """The bytes of a tag."""
        return self.numbers(tag).tobytes()

    def text(self, tag: int) -> str:
        """A tag's text, up to its end mark; of a long one the beginning."""
        return self.numbers(tag, _MOST_TEXT).tobytes().partition(b"\0")[0].decode("utf-8", "replace").strip()

    @cached_property
    def size(self) -> Size:
        """(H, W) in pixels."""
        return self.number(LENGTH, 0), self.number(WIDTH, 0)

    @cached_property
    def photometric(self) -> int:
        """The photometric interpretation; where the tag is missing, what its samples are most likely."""
        if PHOTOMETRIC in self:
            return self.number(PHOTOMETRIC, 1)
        return 2 if self.number(SAMPLES, 1) >= 3 else 1

    @cached_property
    def subfile(self) -> int:
        """NewSubfileType's bits, or what the old tag says in its place."""
        if SUBFILE in self:
            return self.number(SUBFILE, 0)
        return _REDUCED if self.number(OLD_SUBFILE, 1) == 2 else 0

    @cached_property
    def reduced(self) -> bool:
        """Whether it is a smaller version of another image in the file."""
        return bool(self.subfile & _REDUCED)

    @cached_property
    def mask(self) -> bool:
        """Whether it says which pixels of another image hold data."""
        return bool(self.subfile & _MASK) or self.photometric == 4

    @cached_property
    def layout(self) -> tuple[object, ...]:
        """What a smaller version of an image shares with it."""
        return self.photometric, self.number(SAMPLES, 1), self.numbers(BITS, 1).tolist(), self.number(SAMPLE_FORMAT, 1)


@dataclass
class Picture:
    """One full image of a file.

    channels  its directories: one, or one for each channel where they are told to belong together
    levels    the same smaller, the largest first: each of as many directories
    masks     of the image and its levels: where they hold data
    """

    channels: list[Directory]
    levels: list[list[Directory]] = field(default_factory=list)
    masks: list[Directory] = field(default_factory=list)

    @property
    def size(self) -> Size:
        """(H, W) in pixels, as stored."""
        return self.channels[0].size

    def mask_for(self, size: Size) -> Directory | None:
        """The mask of this size (H, W)."""
        return next((mask for mask in self.masks if mask.size == size), None)


class Contents:
    """What a file holds.

    pictures  its full images, in order;  raw  whether it is a camera's raw file
    grouped   why several directories make one picture: "OME" or "ImageJ", else ""
    """

    def __init__(self, data: Data) -> None:
        order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
        try:
            (first,) = struct.unpack(order + ("Q" if big else "I"), data[8:16] if big else data[4:8])
        except struct.error:
            raise ImageError("the TIFF is truncated: it ends within its header") from None
        _check_chain(data, order, big, first)
        self._seen: set[int] = set()
        self._entries = 0
        chain = list(self._chain(data, order, big, first))
        below = [[d for at in one.numbers(SUB_DIRECTORIES, 64) for d in self._chain(data, order, big, int(at))]
                 for one in chain]  # fmt: skip
        if not chain:
            raise ImageError("the TIFF is damaged: it has no directory")
        everything = [*chain, *(d for sub in below for d in sub)]
        self.raw = any(d.photometric in _RAW for d in everything) or DNG_VERSION in chain[0]
        self.pictures = _pictures(chain, below)
        self.grouped, self.pictures = _grouped(self.pictures, chain[0].text(DESCRIPTION))

    def _chain(self, data: Data, order: str, big: bool, at: int) -> Iterator[Directory]:
        """Directories from one to the next; an offset met before ends it."""
        while at and at not in self._seen:
            if len(self._seen) >= _MOST_DIRECTORIES:
                raise _too_many()
            self._seen.add(at)
            try:
                directory = Directory(data, order, big, at)
            except ImageError:
                if len(self._seen) == 1:
                    raise
                return  # what follows a picture cannot take it away
            self._entries += len(directory)
            if self._entries > _MOST_ENTRIES_IN_ALL:
                raise _too_many()
            yield directory
            at = directory.next


def _too_many() -> ImageError:
    return ImageError(
        f"the TIFF has more than {_MOST_DIRECTORIES} directories, or {_MOST_ENTRIES_IN_ALL} entries: send fewer pages"
    )


def _check_chain(data: Data, order: str, big: bool, at: int) -> None:
    """Raises ImageError where directories behind each other are more than are read, before any of them is."""
    many, following, size = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    seen, entries = set[int](), 0
    try:
        while 0 < at < len(data) and at not in seen:
            seen.add(at)
            (count,) = struct.unpack(many, data[at : at + struct.calcsize(many)])
            if count > _MOST_ENTRIES:  # damaged: nothing behind it is read
                return
            entries += count
            if len(seen) > _MOST_DIRECTORIES or entries > _MOST_ENTRIES_IN_ALL:
                raise _too_many()
            end = at + struct.calcsize(many) + size * count
            (at,) = struct.unpack(following, data[end : end + struct.calcsize(following)])
    except struct.error:  # where a chain is cut is looked at when it is read
        pass


def _pictures(chain: Sequence[Directory], below: Sequence[Sequence[Directory]]) -> list[Picture]:
    """Full images, each with what belongs to it; a directory that is a smaller version of nothing is an image."""
    pictures: list[Picture] = []
    for directory, inside in zip(chain, below, strict=True):
        full = [directory] if not directory.reduced and not directory.mask else []
        if not full:  # the full image of a preview may lie below it
            full = [d for d in inside if not d.reduced and not d.mask and min(d.size) > 0]
        owner = next((p for p in reversed(pictures[-_NEAR:]) if full and _is_level(full[0], p)), None)
        rest = [directory, *inside]
        if full and owner is None:
            pictures += [Picture([d]) for d in full]
            rest = [d for d in inside if d.reduced or d.mask or min(d.size) <= 0]
        if pictures:
            owner = owner or pictures[-1]
            owner.levels += [[d] for d in rest if not d.mask and _smaller(d, owner.channels[0])]
            owner.masks += [d for d in rest if d.mask]
    if not pictures:
        candidates = [d for d in chain if not d.mask] or list(chain)
        pictures = [Picture([max(candidates, key=lambda d: d.size[0] * d.size[1])])]
    for picture in pictures:
        picture.levels.sort(key=lambda level: -level[0].size[0] * level[0].size[1])
    return pictures


def _smaller(one: Directory, full: Directory) -> bool:
    """Whether one directory is the other image at a smaller size: same samples, same shape."""
    (h, w), (height, width) = one.size, full.size
    if not (0 < h < height and 0 < w < width) or one.layout != full.layout:
        return False
    return abs(h * width / (w * height) - 1) < 2 / min(h, w) + 0.005


def _is_level(one: Directory, picture: Picture) -> bool:
    """Whether a directory not marked as smaller belongs to a tiled image before it: slide scanners write them so."""
    full = picture.channels[0]
    return (
        TILE_WIDTH in full and len(picture.channels) == 1 and _smaller(one, full) and one.size[0] <= 0.6 * full.size[0]
    )


def _grouped(pictures: list[Picture], description: str) -> tuple[str, list[Picture]]:
    """Pictures whose directories are the channels of one, as OME's and ImageJ's descriptions tell."""
    if "<OME" in description[:4096] and (pixels := re.search(r"<(?:\w+:)?Pixels\b([^<>]*)>", description)):
        facts = dict(re.findall(r'\b(\w+)="([^"]*)"', pixels[1]))
        sizes = {axis: int(found) for axis in "CZT" if re.fullmatch(r"\d{1,9}", found := facts.get(f"Size{axis}", "1"))}
        order = facts.get("DimensionOrder", "XYCZT")[2:]
        # RGB planes count their samples as channels
        interleaved = max((int(n) for n in re.findall(r'SamplesPerPixel="(\d{1,3})"', description)), default=1)
        sizes["C"] = sizes.get("C", 1) // max(1, interleaved)
        return "OME", _by_channel(pictures, [(axis, sizes.get(axis, 1)) for axis in order if axis in "CZT"])
    if description.startswith("ImageJ="):
        facts = dict(re.findall(r"^(\w+)=(\d{1,9})\s*$", description, re.MULTILINE))
        axes = (("C", "channels"), ("Z", "slices"), ("T", "frames"))
        return "ImageJ", _by_channel(pictures, [(axis, int(facts.get(name, "1"))) for axis, name in axes])
    return "", pictures


def _by_channel(pictures: list[Picture], axes: list[tuple[str, int]]) -> list[Picture]:
    """Planes whose axes are given, the fastest first, as pictures of all channels; unchanged where they do not fit."""
    total = int(np.prod([n for _, n in axes], dtype=object))
    channels = dict(axes).get("C", 1)
    alike = len({(p.size, str(p.channels[0].layout)) for p in pictures[:total]}) == 1
    if channels < 2 or not 0 < total <= len(pictures) or not alike:
        return pictures
    names = [axis for axis, _ in reversed(axes)]
    planes = np.arange(total).reshape([n for _, n in reversed(axes)])
    rows = np.moveaxis(planes, names.index("C"), -1).reshape(-1, channels)
    return [_merged([pictures[i] for i in row]) for row in rows.tolist()] + pictures[total:]


def _merged(channels: Sequence[Picture]) -> Picture:
    """One picture of several, each a channel of it; with the levels that all of them have."""
    levels = [[d for level in same for d in level] for same in zip(*(c.levels for c in channels), strict=False)]
    alike = [level for level in levels if len({d.size for d in level}) == 1]
    return Picture([d for c in channels for d in c.channels], alike, channels[0].masks)
