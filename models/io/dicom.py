"""DICOM files to pixels. Needs the extra `dicom`.

Gray frames are shown as their window says (VOI LUT), and stretched like other deep samples where they have none; what
is padding is no data. Knows nothing of other formats.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.7.5.1.1.2 (padding), C.11.1 (modality), C.11.2 (VOI), C.7.6.16.2 (frames).
"""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from models.io.dicom_frames import are_rgb, stored_values
from models.io.picture import RESIZING_BYTES, RGB_BYTES, Channels, all_of_a_byte, check_bands, show
from models.io.samples import Choice, Decoded, Encoded, ImageError, ImageTooLarge, Limits, UnsupportedImage
from models.types import Array

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_GRAY, _PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
_RGB, _YCBCR = ("RGB", "YBR_ICT", "YBR_RCT"), ("YBR_FULL", "YBR_FULL_422")
_STRIP = 2**18  # pixels converted at once
_META = 2**16  # bytes of the file that name its transfer syntax


def inspect(data: bytes, limits: Limits, choice: Choice) -> Encoded:
    """A DICOM file, as `models.io.decode.inspect` has it. `page` is a frame."""
    with _damage():
        _check_inflated(data, limits)
        dataset = _read(data)
        if dataset.get("Rows") is None or not any(name in dataset for name in ("PixelData", "FloatPixelData")):
            raise UnsupportedImage("this DICOM file holds no picture; send one that does, or JPEG, PNG or TIFF")
        size = (int(dataset.Rows), int(dataset.Columns))
        limits.check_size(*size)
        frames, parts = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
        kind = str(dataset.PhotometricInterpretation)
        if kind not in (*_GRAY, _PALETTE, *_RGB, *_YCBCR) or parts != (1 if kind in (*_GRAY, _PALETTE) else 3):
            raise UnsupportedImage(f"DICOM of {parts} {kind} samples is not opened; save it as RGB or MONOCHROME2")
        sample = max(1, int(dataset.get("BitsAllocated") or 32) // 8)
    if choice.page >= frames:
        raise ImageError(f"page {choice.page}: this file has {frames} frame(s), counted from 0")
    check_bands(choice.bands, 1 if kind in _GRAY else 3)
    held = size[0] * size[1] * max(parts * (2 * sample + 4) + RGB_BYTES, RESIZING_BYTES)
    if held > 2 * limits.max_held_bytes:
        raise ImageTooLarge(
            f"{size[1]}×{size[0]} with {parts} samples of {8 * sample} bits takes {held / 1e6:.0f} MB; the limit is"
            f" {2 * limits.max_held_bytes / 1e6:.0f} MB: send a smaller image"
        )

    def decode() -> Decoded:
        with _damage():
            values = stored_values(dataset, choice.page)
            if values.shape[:2] != size:
                raise ImageError("the DICOM file is damaged: it states two sizes")
            shown = _gray(values, dataset, kind, choice) if kind in _GRAY else _color(values, dataset, kind, choice)
        return replace(shown, pages=frames)

    return Encoded(size, held, decode)


@contextmanager
def _damage() -> Iterator[None]:
    """What pydicom and the codecs raise is raised as ImageError; what they warn of is not heard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageError:
            raise
        except Exception:  # pydicom raises what its many parsers meet
            raise ImageError(
                "the DICOM file is damaged or truncated, or uses what is not read; send it again, or as PNG or TIFF"
            ) from None


def _check_inflated(data: bytes, limits: Limits) -> None:
    """Raises ImageTooLarge where a deflated file has more bytes than may be held, before pydicom inflates it."""
    if _DEFLATED not in data[:_META] or data[128:132] != b"DICM":
        return
    start = 144 + int.from_bytes(data[140:144], "little")  # behind the group of the file's own elements
    inflate, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), data[start:], 0
    while rest and not inflate.eof:
        size += len(inflate.decompress(rest, 2**20))
        rest = inflate.unconsumed_tail
        if size > limits.max_held_bytes:
            raise ImageTooLarge(f"this DICOM inflates to more than {limits.max_held_bytes / 1e6:.0f} MB: send it plain")


def _read(data: bytes) -> Any:
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _gray(values: Array, dataset: Any, kind: str, choice: Choice) -> Decoded:
    valid, bits = _not_padding(values, dataset), int(dataset.get("BitsStored") or 0)
    window = _window(dataset, choice.page) if choice.depth == "percentile" else None
    if window and values.dtype.kind in "ui" and values.itemsize <= 2:
        table, rule = window(values.dtype)
        shown = show(Channels(np.take(table, values.view(f"u{values.itemsize}")), valid=valid), choice)
        shown = replace(shown, depth_rule=rule)
    else:
        unsigned = bits if values.dtype.kind == "u" else None
        shown = show(Channels(all_of_a_byte(values, bits), bits=unsigned, valid=valid), choice)
    if kind == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
        image = np.subtract(255, shown.image)
        if shown.valid is not None:
            image[~shown.valid] = 0
        shown = replace(shown, image=image)
    return shown


def _not_padding(values: Array, dataset: Any) -> Array | None:
    """bool [H, W]: False where a value is padding; None where none is."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return None
    last = dataset.get("PixelPaddingRangeLimit", first)
    low, high = min(int(first), int(last)), max(int(first), int(last))
    valid: Array = (values < low) | (values > high)
    return None if valid.all() else valid


def _window(dataset: Any, page: int) -> Any:
    """The function from a type of stored values to a table of 8-bit grays, and the rule; None without a window.

    The table has a gray for each pattern of bits, from 0.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    voi = _functional(dataset, page, "FrameVOILUTSequence", "WindowCenter")
    modality = _functional(dataset, page, "PixelValueTransformationSequence", "RescaleSlope")
    if voi.get("WindowCenter") is None and "VOILUTSequence" not in voi:
        return None

    def table(kind: np.dtype[Any]) -> tuple[Array, str]:
        info = np.iinfo(kind)
        every = np.arange(info.min, info.max + 1, dtype=np.int32)
        levels = apply_modality_lut(every, dataset if "ModalityLUTSequence" in dataset else modality)
        if "VOILUTSequence" in voi:
            bits = int(voi.VOILUTSequence[0].LUTDescriptor[2])
            grays, rule = apply_voi_lut(levels.astype(np.int32), voi, prefer_lut=True) / (2**bits - 1), "VOI LUT"
        else:
            grays, rule = _windowed(levels.astype(np.float64), voi)
        shown = np.rint(grays.clip(0, 1) * 255).astype(np.uint8)
        return np.roll(shown, info.min), rule  # negative numbers have the higher patterns

    return table


def _windowed(levels: Array, voi: Any) -> tuple[Array, str]:
    """0..1 of levels in the first window. Source: PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    center, width = (_first(voi.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(voi.get("VOILUTFunction") or "LINEAR")
    rule = f"window: {center - width / 2:g}..{center + width / 2:g} → 0..255"
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (levels - center) / max(width, 1e-9))), rule
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-9)
    return (levels - center) / max(width, 1e-9) + 0.5, rule


def _first(value: Any) -> float:
    return float(value if isinstance(value, (int, float, str)) else value[0])


def _functional(dataset: Any, page: int, sequence: str, name: str) -> Any:
    """The dataset that holds the element for a frame: its own group, the one all frames share, or the file's."""
    if name in dataset:
        return dataset
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*frames[page : page + 1], *shared[:1]):
        for item in group.get(sequence) or []:
            if name in item:
                return item
    return dataset


def _color(values: Array, dataset: Any, kind: str, choice: Choice) -> Decoded:
    if kind == _PALETTE:
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)[..., :3]
        values = (values >> 8).astype(np.uint8) if values.itemsize == 2 else values
    if kind in _YCBCR and values.dtype == np.uint8 and not are_rgb(dataset):
        values = np.array(values)
        rows = max(1, _STRIP // values.shape[1])
        for top in range(0, len(values), rows):
            strip = np.ascontiguousarray(values[top : top + rows])
            image = Image.frombytes("YCbCr", (strip.shape[1], len(strip)), strip.tobytes())
            values[top : top + rows] = np.asarray(image.convert("RGB"))
    profile = dataset.get("ICCProfile")
    return show(Channels(values, bytes(profile) if profile else None), choice)
