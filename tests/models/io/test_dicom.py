"""DICOM: windows, padding, signs, frames, palettes, and the codecs of its frames, by value."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from imagecodecs import jpeg2k_encode, jpeg8_encode, jpegls_encode

from models.io.decode import decode, inspect
from models.io.samples import Choice, ImageError, ImageTooLarge, Limits, UnsupportedImage
from tests.models.io import profiles
from tests.models.io.drawn import PHOTO, textured

pydicom = pytest.importorskip("pydicom")
UID = "1.2.840.10008.1.2."
LITTLE, BIG, DEFLATED, RLE = UID + "1", UID + "2", UID + "1.99", UID + "5"
RAMP = np.arange(-1000, 1048, 2).reshape(32, 32)  # Hounsfield units


def dicom(samples: np.ndarray, syntax: str = LITTLE, frames: list[bytes] | None = None, **elements: Any) -> bytes:
    """A file of samples [H, W], [frames, H, W] or [H, W, 3], or of compressed frames of that shape."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID as Uid

    color = samples.ndim == 3 and samples.shape[-1] == 3
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = Uid(syntax), Uid("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = Uid("1.2.3")
    order = {"is_implicit_VR": False, "is_little_endian": syntax != BIG}
    dataset = FileDataset("x", {}, file_meta=meta, preamble=bytes(128), **order)
    dataset.Rows, dataset.Columns = samples.shape[:2] if color else samples.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if color else (1, "MONOCHROME2")
    if color:
        dataset.PlanarConfiguration = 0
    elif samples.ndim == 3:
        dataset.NumberOfFrames = len(samples)
    dataset.BitsAllocated = dataset.BitsStored = 8 * samples.itemsize
    dataset.PixelRepresentation = int(samples.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    if frames is None:
        dataset.PixelData = samples.astype(samples.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    else:
        dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB" if frames or samples.itemsize == 1 else "OW"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def windowed(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """PS3.3, C.11.2.1.2.1, word for word."""
    shown = np.rint((((values - (center - 0.5)) / (width - 1)) + 0.5).clip(0, 1) * 255)
    return np.repeat(shown[..., None], 3, axis=2)


@pytest.mark.parametrize("syntax", [LITTLE, BIG, DEFLATED])
def test_a_window_says_what_is_shown(syntax: str) -> None:
    stored = (RAMP + 1024).astype(np.uint16)
    data = dicom(stored, syntax, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    shown = decode(data)
    assert inspect(data).size == (32, 32)
    assert np.abs(shown.image - windowed(RAMP, 40, 400)).max() <= 1
    assert "window: -160..240" in (shown.depth_rule or "")
    signed = decode(dicom(RAMP.astype(np.int16), syntax, WindowCenter=[40, 1], WindowWidth=[400, 2]))
    assert (signed.image == shown.image).all()
    inverted = dicom(RAMP.astype(np.int16), WindowCenter=40, WindowWidth=400, PhotometricInterpretation="MONOCHROME1")
    assert (decode(inverted).image == 255 - shown.image).all()
    assert "minmax" in (decode(data, depth="minmax").depth_rule or "")


def test_other_functions_of_a_window() -> None:
    stored = RAMP.astype(np.int16)
    exact = decode(dicom(stored, WindowCenter=0, WindowWidth=2000, VOILUTFunction="LINEAR_EXACT")).image[..., 0]
    assert np.abs(exact - np.rint((RAMP / 2000 + 0.5).clip(0, 1) * 255)).max() <= 1
    sigmoid = decode(dicom(stored, WindowCenter=0, WindowWidth=500, VOILUTFunction="SIGMOID")).image[..., 0]
    assert np.abs(sigmoid - np.rint(255 / (1 + np.exp(-4 * RAMP / 500)))).max() <= 1


def test_without_a_window_it_is_stretched_and_padding_is_left_out() -> None:
    stored = RAMP.astype(np.int16)
    stored[:4] = -2000
    shown = decode(dicom(stored, PixelPaddingValue=-2000), depth="minmax")
    assert shown.valid is not None
    assert not shown.valid[:4].any()
    assert shown.valid[4:].all()
    assert f"{RAMP[4, 0]}..{RAMP[-1, -1]}" in (shown.depth_rule or "")
    assert (shown.image[:4] == 0).all()
    inverted = decode(dicom(stored, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"), depth="minmax")
    assert (inverted.image[:4] == 0).all()
    assert inverted.image[4, 0, 0] == 255
    ranged = decode(dicom(stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=int(RAMP[7, -1])))
    assert not ranged.valid[:8].any()
    twelve = (np.arange(1024).reshape(32, 32) * 4).astype(np.uint16)
    assert "0..4095" in (decode(dicom(twelve, BitsStored=12), depth="full").depth_rule or "")


def test_frames_are_pages() -> None:
    frames = np.stack([np.full((8, 9), value, np.uint8) for value in (10, 20, 30)])
    data = dicom(frames)
    assert [int(decode(data, page=n).image[0, 0, 0]) for n in range(3)] == [10, 20, 30]
    assert decode(data).pages == 3
    with pytest.raises(ImageError, match="3 frame"):
        inspect(data, choice=Choice(page=3))


def test_colors() -> None:
    assert (decode(dicom(PHOTO)).image == PHOTO).all()
    planes = np.ascontiguousarray(np.moveaxis(PHOTO, 2, 0)).reshape(24, 36, 3)
    assert (decode(dicom(planes, PlanarConfiguration=1)).image == PHOTO).all()
    ycbcr = np.asarray(textured(24, 36).convert("YCbCr"))
    shown = decode(dicom(ycbcr, PhotometricInterpretation="YBR_FULL")).image
    assert np.abs(shown.astype(int) - np.asarray(textured(24, 36))).max() <= 3
    wide = decode(dicom(PHOTO, ICCProfile=profiles.rgb())).image
    assert np.abs(wide.astype(int) - profiles.shown(PHOTO)).max() <= 2
    colors = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint16) << 8
    lut = {}
    for n, name in enumerate(("Red", "Green", "Blue")):
        lut[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        lut[f"{name}PaletteColorLookupTableData"] = colors[:, n].astype("<u2").tobytes()
    indexed = decode(dicom(PHOTO[..., 0], PhotometricInterpretation="PALETTE COLOR", **lut)).image
    assert (indexed == (colors >> 8)[PHOTO[..., 0]]).all()


def rle(plane: np.ndarray) -> bytes:
    """Literal runs alone, one segment a byte of the samples. Source: PS3.5, annex G."""
    segments = []
    for byte in plane.reshape(-1, 1).view(np.uint8).T[::-1]:
        raw = byte.tobytes()
        packed = b"".join(bytes((len(raw[at : at + 128]) - 1,)) + raw[at : at + 128] for at in range(0, len(raw), 128))
        segments.append(packed + bytes(len(packed) % 2))
    starts = np.cumsum([64, *map(len, segments[:-1])])
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


@pytest.mark.parametrize(
    ("syntax", "packed"),
    [
        (RLE, rle),
        (UID + "4.70", lambda a: bytes(jpeg8_encode(a, lossless=True, bitspersample=16))),
        (UID + "4.80", lambda a: bytes(jpegls_encode(a))),
        (UID + "4.90", lambda a: bytes(jpeg2k_encode(a, level=0, codecformat="J2K"))),
    ],
)
def test_compressed_frames_are_the_plain_ones(syntax: str, packed: Any) -> None:
    stored = (RAMP + 1024).astype(np.uint16)
    how = {"RescaleIntercept": -1024, "RescaleSlope": 1, "WindowCenter": 40, "WindowWidth": 400}
    assert (decode(dicom(stored, syntax, [packed(stored)], **how)).image == decode(dicom(stored, **how)).image).all()
    with pytest.raises(ImageError, match="damaged"):
        decode(dicom(stored[:16], syntax, [packed(stored)], **how))  # another size than the frame's


def test_jpeg_frames() -> None:
    photo = np.asarray(textured(48, 64))
    baseline = bytes(jpeg8_encode(photo, level=95))
    shown = decode(dicom(photo, UID + "4.50", [baseline], PhotometricInterpretation="YBR_FULL_422")).image
    assert (shown == decode(baseline).image).all()
    ramp = np.linspace(0, 4095, 48 * 64).reshape(48, 64).astype(np.uint16)
    twelve = bytes(jpeg8_encode(ramp, level=98, bitspersample=12))
    shown = decode(dicom(ramp, UID + "4.51", [twelve], BitsStored=12), depth="full").image
    assert np.abs(shown[..., 0] - ramp / 4095 * 255).max() < 3


def test_what_holds_no_picture_or_cannot_be_read() -> None:
    with pytest.raises(UnsupportedImage, match="no picture"):
        decode(bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0")
    stored = RAMP.astype(np.int16)
    whole = dicom(stored)
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode(whole[:-500])
    with pytest.raises(UnsupportedImage, match="YBR_PARTIAL"):
        inspect(dicom(PHOTO, PhotometricInterpretation="YBR_PARTIAL_420"))
    with pytest.raises(UnsupportedImage, match="compressed in a way"):
        decode(dicom(stored, UID + "4.100", [b"video"]))
    with pytest.raises(ImageTooLarge, match="Mpx"):
        inspect(dicom(stored, Rows=60000, Columns=60000))


def test_what_inflates_without_end_is_refused() -> None:
    data = dicom(np.zeros((32, 32), np.uint8), DEFLATED)
    head = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = data[:head] + packer.compress(bytes(10_000_000)) + packer.flush()
    with pytest.raises(ImageTooLarge, match="inflates"):
        inspect(bomb, limits=Limits(max_mpx=1))
