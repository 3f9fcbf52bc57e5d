"""Pixels and arrays to files, and back."""

import io

import numpy as np
import pytest

from models.io.decode import decode
from models.io.encode import encode, npy
from tests.models.io.drawn import PHOTO, packed, textured


def test_jpegs_are_written_as_pillow_writes_them() -> None:
    photo = textured(45, 70)
    for quality in (75, 90):
        assert encode(np.asarray(photo), "jpeg", quality) == packed(photo, "JPEG", quality=quality, subsampling=0)
    gray = np.asarray(photo.convert("L"))
    assert np.abs(decode(encode(gray, "jpeg")).image.astype(int) - gray[..., None]).max() < 60
    with pytest.raises(ValueError, match="PNG"):
        encode(np.zeros((4, 4, 4), np.uint8), "jpeg")


def test_pngs_lose_nothing() -> None:
    assert (decode(encode(PHOTO, "png")).image == PHOTO).all()


def test_arrays_come_back_and_objects_are_refused() -> None:
    assert (np.load(io.BytesIO(npy(PHOTO)), allow_pickle=False) == PHOTO).all()
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        npy(np.array([{}]))
