"""Writes docs/formats.md from the decoders' own tables: python -m docs.formats

A test holds the page against them, so that it cannot say what the code does not do.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peer_files import EXCEPTIONS, PACKAGES
from models.io import heif, jpeg2000, jpegxl, kinds, photometric, tiff_segments
from models.io.samples import Limits

PAGE = Path(__file__).with_suffix(".md")

_INTRODUCTION = """\
# What is opened, and how it is read

<!-- made by `python -m docs.formats` from the code's tables; a test holds it against them -->

Every command and every request reads pictures with the same decoder (`models/io/decode.py`). What is not opened is
refused with 415 and the format's name; 400 is for bytes that nobody can read, 413 for what is beyond a limit.
"""

_RULES = """\
## What TIFF files say besides

| | rule |
|---|---|
| alpha | by ExtraSamples alone, wherever it stands: 1 is associated (the colors were multiplied by it), 2 unassociated, 0 is another band |
| bands | `bands=` (request, or `data.bands` in training, which the bundle keeps), counted from 1; else the file's own color names (GDAL's `COLORINTERP`); else the first three, or the first where there are fewer. `warnings` names what was left out |
| channels | OME's and ImageJ's channels are one picture: the first three are red, green and blue, one alone is gray; `warnings` says so |
| no data | GDAL's tag 42113, read from its text; what is not finite: shown black, in no range. A pixel holds data where any of its shown bands does |
| transparency | alpha and mask pages: shown on white; what is wholly transparent holds no data, and is in no range |
| depth | 8-bit samples stay; deeper ones by `depth`: the 2nd to 98th percentile of the shown bands together (`percentile`), the extremes (`minmax`), all that the type can say (`full`) |
| color | an ICC profile that is not sRGB is followed (littleCMS, perceptual, black point compensated); one that is damaged or of another kind of samples is left out, with a warning. Without one, as browsers do: PNG's cICP (it goes before a profile), else sRGB, else gAMA and cHRM; the code points (nclx) of AVIF and HEIC. BT.601's, BT.709's and BT.2020's curves are taken as sRGB's; HDR (PQ, HLG) is not converted, with a warning |
| pages | `page` counts full images: no thumbnails, no masks, no levels of a pyramid; the full image of a preview may lie in its SubIFDs |
| pyramids | the smallest level that suffices for the network is read, and answered at full size, with a warning; `pyramid=full` reads the whole, `pyramid=1`, `2`, … a level |
| turns | Orientation is followed, as EXIF's is in other formats |
| damage | strips or tiles that lie outside the file, or unpack to more than they are declared, refuse it |
"""  # noqa: E501

_DICOM = """\
## DICOM

Gray by its VOI lookup table or its window (the first one), which `depth_rule` then names; without one, or with another
`depth`, as deep samples elsewhere. MONOCHROME1 is inverted, PixelPaddingValue is no data, palettes and YCbCr are turned
to RGB, and `page` counts frames from 0.
"""

_BOUNDS = """\
## Bounds

Judged from the header, before a pixel is decoded: `TESSERA_MAX_BYTES` of a file, `TESSERA_MAX_MPX` and
`TESSERA_MAX_SIDE_PX` of a picture, and 8 bytes of samples for each of those pixels. A TIFF may be cut into 4,096
strips or tiles and one more for each 1,024 pixels (65,536 at most), none larger than twice the image or 8 MiB, whose
bytes are read four times at most where they are shared; it may have 4,096 directories. A JPEG may have 4,096 segments
and 100 scans, PNG and WebP 32,768 chunks, the others 8,192 boxes beside each other. What a picture holds while it is
worked on counts against `TESSERA_MAX_WORKING_BYTES` ([serving.md](serving.md)); `python -m benchmarks.large` measures
it.

JPEG, PNG and WebP are decoded in the server while their headers promise that it takes half a second. Everything else,
and their odd kinds (animated, many scans, lossless or arithmetic-coded JPEG, one without an end), is decoded in
processes of its own, one for each core and two at least, which have 2 s of a core and 1 s for each 8 MB they work on
(413), and end at the request's deadline or when its client leaves. They are started when they are needed and end
after a minute without work. `python -m benchmarks.hostile` shows what files cost that ask for more than they should,
and a neighbor beside them.

Some decoders need more for a pixel than others, and what they may take grows with `TESSERA_MAX_MPX`. So at the default
of {mpx:g} Mpx an intact picture of fewer may be refused with 413:

{table}
JPEG XL, AVIF and HEIC above that size are tried, as many need less: a lossy JPEG XL of 36 Mpx opens, a lossless one of
30 Mpx does not. Where the attempt fails the answer is 413, as damage cannot be told from want of memory; below that
size it is 400.
"""


def page() -> str:
    """The page's text."""
    opened = [kind for kind in kinds.KINDS if kind.reader]
    names = list(dict.fromkeys(kind.reader for kind in opened))
    by_reader = {reader: next(kind.name for kind in opened if kind.reader == reader) for reader in names}
    extras = {reader: f"with the extra `{extra}`" for reader, (_, extra) in kinds.EXTRAS.items()}
    refused = dict.fromkeys(kind.name for kind in kinds.KINDS if not kind.reader)
    return "\n".join(
        [
            _INTRODUCTION,
            _table(
                ("format", "suffixes in folders", "opened"),
                (
                    (by_reader[reader], " ".join(kinds.SUFFIXES_OF[reader]), extras.get(reader, "always"))
                    for reader in names
                ),
            ),
            f"Refused by name: {', '.join(refused)}.\n",
            "## What TIFF samples mean\n",
            _table(
                ("photometric", "samples", "bits", "shown"),
                (
                    (
                        f"{row.name} ({row.photometric})",
                        f"{row.colors if row.colors > 1 else '1 or more' if row.photometric < 2 else 1} × {row.format}",
                        _ranges(row.bits),
                        row.shown,
                    )
                    for row in photometric.TABLE
                ),
            ),
            "Three or more bands of a black- or white-is-zero picture are shown as RGB. Refused by name: "
            + ", ".join(photometric.REFUSED.values())
            + "; complex samples; any other pair.\n",
            "## Compressions of TIFF\n",
            ", ".join(dict.fromkeys(tiff_segments.COMPRESSIONS.values()))
            + "; predictors 1, 2 and 3. Others are refused by name.\n",
            _RULES,
            _DICOM,
            _bounds(),
            "## Shown otherwise than elsewhere\n",
            f"Of the pictures inside the source packages of {', '.join(PACKAGES)}\n(`make peer-files`), each"
            " of which is opened or refused, these get other labels than what ImageMagick or GDAL\nshows of them:\n",
            _table(("files", "why"), ((f"`{name}`", why) for name, why in EXCEPTIONS.items())),
        ]
    )


def _bounds() -> str:
    limits = Limits()
    one, two = limits.max_held_bytes, 2 * limits.max_held_bytes
    rows = [
        (f"JPEG 2000, {what}", jpeg2000.bytes_a_pixel(parts, bits), one, 0)
        for what, parts, bits in (("gray", 1, 8), ("RGB", 3, 8), ("RGB of 16 bits", 3, 16), ("RGB and alpha", 4, 8))
    ]
    rows.append(("JPEG XL", jpegxl.DECODING_BYTES, one, jpegxl.ALWAYS_BYTES))
    rows.append(("AVIF, HEIC", heif.DECODING_BYTES, two, heif.ALWAYS_BYTES))
    table = _table(
        ("format", "bytes a pixel, at most", "of", "surely opened up to about"),
        (
            (name, str(each), f"{held / 1e6:.0f} MB", f"{int(min((held - always) / each / 1e6, limits.max_mpx))} Mpx")
            for name, each, held, always in rows
        ),
    )
    return _BOUNDS.format(mpx=limits.max_mpx, table=table)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 8 as "1–3, 8"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
