"""The arrays of a bundle, judged by their headers before a byte of them is decompressed or laid out.

Knows nothing of clusters or of the other files. Only what numpy's own `save` and `savez` write is read: version 1.0 of
the format, whose header is at most 64 kB, and zip members that are stored or deflated. Nothing is unpickled.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from models.bundle_files import BundleError
from models.types import Array

Judge = Callable[[np.dtype, tuple[int, ...]], str | None]  # what is wrong with an array of this type and shape
_ENTRY = b"PK\x01\x02"  # opens each entry of a zip's directory
_MAX_ENTRIES = 64  # chance may write those four bytes into deflated data now and then


def read_npy(data: bytes, name: str, judge: Judge) -> Array:
    """The array of a .npy file. Raises BundleError with what `judge` says, or where the bytes are not what it says."""
    try:
        return _array(io.BytesIO(data), name, judge)
    except BundleError:
        raise
    except Exception as error:  # numpy's parser raises what it meets
        raise _unreadable(name, error) from None


def read_npz(data: bytes, name: str, judges: dict[str, Judge]) -> dict[str, Array]:
    """The arrays of a .npz file, which has exactly the members judged. Raises as `read_npy` does."""
    try:
        if data.count(_ENTRY) > _MAX_ENTRIES:
            raise BundleError(f"{name} holds more than {', '.join(judges)}")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = sorted(member.filename for member in archive.infolist())
            if found != sorted(f"{member}.npy" for member in judges):
                raise BundleError(f"{name} has to hold {' and '.join(judges)} and nothing else")
            arrays = {}
            for member, judge in judges.items():
                entry = archive.getinfo(f"{member}.npy")
                if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise BundleError(f"{name}: {member} is encrypted, or compressed by something else than deflate")
                with archive.open(entry) as file:
                    arrays[member] = _array(file, f"{name}: {member}", judge)
            return arrays
    except BundleError:
        raise
    except (Exception, zlib.error) as error:  # zipfile's parser raises what it meets
        raise _unreadable(name, error) from None


def _array(file: IO[bytes], name: str, judge: Judge) -> Array:
    version = npy_format.read_magic(file)
    if version != (1, 0):
        raise BundleError(f"{name} cannot be read: version {version[0]}.{version[1]} of the format, 1.0 is needed")
    shape, fortran, dtype = npy_format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise BundleError(f"{name} cannot be read: pickled arrays are refused")
    if wrong := judge(dtype, shape):
        raise BundleError(f"{name} is {dtype} {shape}; {wrong}")
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size + 1)  # the end is read too: zipfile then holds its checksum against the bytes
    if len(data) != size:
        raise BundleError(f"{name} cannot be read: it has {'more' if len(data) > size else 'fewer'} bytes than it says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _unreadable(name: str, error: Exception) -> BundleError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BundleError(f"{name} cannot be read: {said[:200]}")
