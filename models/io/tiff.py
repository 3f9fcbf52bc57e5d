"""TIFF files to RGB uint8, by tifffile: pages, bands, palettes, CMYK, 16-bit and float samples.

Knows nothing of other formats, of clusters, of networks.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from models.io.samples import (
    Choice,
    Decoded,
    Depth,
    Encoded,
    ImageError,
    ImageTooLarge,
    Limits,
    UnsupportedImage,
    reason,
    to_rgb8,
)
from models.types import Array

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the first four bytes of a file, either byte order, BigTIFF too


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A file that begins with MAGIC, as `models.io.decode.inspect` has it."""
    return Encoded((0, 0), 0, lambda: decode(data, limits, choice.depth, choice.page))


def decode(data: bytes, limits: Limits, depth: Depth, page: int) -> Decoded:
    """One page of a file that begins with MAGIC, counted from 0; the rest as `models.io.decode.decode` has it."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = file.pages
            if page:
                count = len(pages)  # walks the chain of directories, at most the file's own length
                if page >= count:
                    raise ImageError(f"page {page}: this file has {count} page(s), counted from 0")
            tiff = pages[page]
            if not isinstance(tiff, tifffile.TiffPage):
                tiff = tiff.aspage()
            limits.check_size(tiff.imagelength, tiff.imagewidth)
            if tiff.imagedepth > 1:
                raise UnsupportedImage("volumetric TIFF pages are not opened; send one plane")
            per_pixel = tiff.samplesperpixel * np.dtype(tiff.dtype).itemsize
            if tiff.imagelength * tiff.imagewidth * per_pixel > 8 * limits.max_mpx * 1e6:
                raise ImageTooLarge(
                    f"{tiff.imagewidth}×{tiff.imagelength} with {tiff.samplesperpixel} samples of"
                    f" {np.dtype(tiff.dtype).itemsize} bytes is more than the limit of 8 bytes a pixel at"
                    f" {limits.max_mpx:g} Mpx: send fewer bands or a smaller image"
                )
            samples = _samples(tiff)
            orientation = int(getattr(tiff.tags.get("Orientation"), "value", 1) or 1)
            photometric = int(tiff.photometric)
    except ImageError:
        raise
    except Exception as error:  # tifffile raises what its many parsers meet
        raise ImageError(f"the TIFF is damaged or uses what we cannot read: {reason(error)}") from None
    if photometric == 0:  # white is zero
        samples = samples.max() - samples if samples.dtype.kind == "f" else ~samples
    if photometric == 5 and samples.ndim == 3 and samples.shape[2] >= 4:  # separated: CMYK
        if samples.dtype != np.uint8:
            raise UnsupportedImage("CMYK TIFF is opened at 8 bits a sample only")
        rgb = Image.fromarray(np.ascontiguousarray(samples[..., :4]), "CMYK").convert("RGB")
        samples = np.asarray(rgb)
    return to_rgb8(samples, depth, orientation)


def _samples(page: Any) -> Array:
    """Samples of one page: [H, W] or [H, W, bands]; palettes looked up, chroma decoded."""
    samples: Array = np.asarray(page.asarray())
    if int(page.photometric) == 3 and page.colormap is not None:
        samples = (np.asarray(page.colormap)[:, samples] >> 8).astype(np.uint8).transpose(1, 2, 0)
    elif samples.ndim == 3 and int(page.planarconfig) == 2:  # bands first on disk
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim not in (2, 3):
        raise UnsupportedImage(f"a page with {samples.ndim} dimensions is not an image")
    return samples.astype(np.uint8) * 255 if samples.dtype == bool else samples
