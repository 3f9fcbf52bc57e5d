"""The tensors of a checkpoint somebody else wrote: nothing in the file is executed, what is no tensor is left.

Knows nothing of networks. Read are torch's files of both kinds (the archive since 1.6, the chain of pickles
before it), .safetensors and .npy. Sizes are held against the file's own before anything is allocated.

Source of the two layouts: the documentation of torch.save (notes on serialization semantics).
"""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import TesseraError
from models.nets.checkpoints import inert_pickle
from models.nets.checkpoints.inert_pickle import Declared, Inert, PickleError, Storage

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file older than torch 1.6
_PROTOCOL = 1001
_LONGEST_LINE = 2**16  # of a name in a pickle
_DEEPEST = 16  # of the dicts and lists around a tensor
_ZIP, _NPY, _PICKLE = b"PK\x03\x04", b"\x93NUMPY", b"\x80"
_MISTAKEN = {
    b"<": "a web page: the download did not give the file itself",
    b"version https://git-lfs": "a git-lfs pointer: fetch the file it points to",
    b"\x1f\x8b": "gzip: unpack it first",
    b"\x89HDF": "HDF5, as Keras writes it",
}
_MALFORMED = (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, KeyError, ValueError, struct.error)


class ForeignCheckpointError(TesseraError):
    """A file that is no checkpoint, a damaged one, or one without tensors; the message says which."""


class Checkpoint(NamedTuple):
    """What a file holds.

    tensors  by their dotted way through the dicts around them: "state_dict.net.cluster1.0.weight"; "" is the whole file
    value    everything in a pickle, as inert_pickle has it; None of files that hold tensors alone
    """

    tensors: dict[str, Tensor]
    value: object = None

    def settings(self, name: str) -> set[str | float | None]:
        """The plain values that stand under a key anywhere in the file, in objects that are not made, too."""
        found: set[str | float | None] = set()
        entered: set[int] = set()
        waiting = [self.value]
        while waiting:
            one = waiting.pop()
            one = one.state if isinstance(one, Inert) else one
            if id(one) in entered or not isinstance(one, dict | list | tuple):
                continue
            entered.add(id(one))
            if isinstance(one, dict) and name in one:
                value = one[name]
                value = value.state.get("_val", value) if isinstance(value, Inert) else value  # OmegaConf's nodes
                if value is None or isinstance(value, str | int | float):
                    found.add(value)
            waiting.extend(one.values() if isinstance(one, dict) else one)
        return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, as `Checkpoint` has them. Raises ForeignCheckpointError."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a file, and what stands beside them. Raises ForeignCheckpointError."""
    if not path.is_file():
        raise ForeignCheckpointError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(64)
    try:
        if path.suffix == ".safetensors":
            found = Checkpoint(load_file(path))
        elif start.startswith(_NPY):
            found = Checkpoint({"": torch.from_numpy(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))})
        elif start.startswith(_ZIP):
            found = _archive(path)
        elif start.startswith(_PICKLE):
            found = _chain(path)
        else:
            raise ForeignCheckpointError(f"{path}: not a readable checkpoint, but {_guess(start)}")
    except (SafetensorError, TypeError, *_MALFORMED) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ForeignCheckpointError(f"{path}: not a readable checkpoint: {said[:200]}") from None
    if not found.tensors:
        raise ForeignCheckpointError(f"{path}: no tensors in it; of a network saved whole, save its state_dict")
    return found


def _guess(start: bytes) -> str:
    if not start:
        return "an empty one"
    head = start.lstrip()
    return next(
        (what for magic, what in _MISTAKEN.items() if head.startswith(magic)),
        "something that is neither torch's nor safetensors",
    )


def _archive(path: Path) -> Checkpoint:
    """torch's archive: one pickle, and one file a storage beside it."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
            raise ValueError("its parts are longer than the file")
        pickles = [n for n in entries if n == "data.pkl" or (n.count("/") == 1 and n.endswith("/data.pkl"))]
        if len(pickles) != 1:
            raise ForeignCheckpointError(f"{path}: an archive, but not one that torch.save wrote: it holds no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise ForeignCheckpointError(f"{path}: a TorchScript program; its state_dict, saved alone, can be read")

        def entry(name: str) -> bytes:
            stored = entries[name]
            if stored.compress_type != zipfile.ZIP_STORED or stored.flag_bits & 1:
                raise ValueError(
                    f"{name} is compressed or encrypted, which torch.save never does: repacked by something"
                )
            return archive.read(stored)

        if f"{root}byteorder" in entries and entry(f"{root}byteorder") != b"little":
            raise ValueError("written on a big-endian machine")
        loaded = inert_pickle.load(io.BytesIO(entry(pickles[0])))
        tensors = _tensors(loaded.value, lambda storage: bytearray(entry(f"{root}data/{storage.key}")))
        return Checkpoint(tensors, loaded.value)


def _chain(path: Path) -> Checkpoint:
    """The older files: magic number, protocol, system, the pickle, the storages' keys, then each with its length."""
    with path.open("rb") as file:
        stream = _Bounded(file, path.stat().st_size)
        if inert_pickle.load(stream).value != _MAGIC:
            raise PickleError("a pickle, but not one that torch.save wrote")
        if inert_pickle.load(stream).value != _PROTOCOL:
            raise PickleError("of a protocol that is not torch's")
        system = inert_pickle.load(stream).value
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise PickleError("written on a big-endian machine")
        loaded = inert_pickle.load(stream)
        keys = inert_pickle.load(stream).value
        if not isinstance(keys, list):
            raise PickleError("the list of storages is none")
        places: dict[str, tuple[int, int]] = {}
        for key in keys:
            storage = loaded.storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise PickleError("holds numbers of a type that is not read here")
            (count,) = struct.unpack("<q", stream.exactly(8))
            places[storage.key] = stream.skip(count * storage.dtype.itemsize), count

        def numbers(storage: Storage) -> bytearray:
            start, count = places[storage.key]
            file.seek(start)
            return bytearray(file.read(count * storage.dtype.itemsize))

        return Checkpoint(_tensors(loaded.value, numbers), loaded.value)


class _Bounded:
    """A file that never gives, or allocates, more than it has."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)

    def tell(self) -> int:
        return self._file.tell()

    def exactly(self, count: int) -> bytes:
        if len(found := self.read(count)) < count:
            raise EOFError("the file ends early: the download is not complete")
        return found

    def skip(self, count: int) -> int:
        """Over so many bytes; answers where they begin."""
        start = self._file.tell()
        if not 0 <= count <= self._size - start:
            raise EOFError("the file ends early: the download is not complete")
        self._file.seek(count, io.SEEK_CUR)
        return start


def _tensors(value: object, numbers: Callable[[Storage], bytearray]) -> dict[str, Tensor]:
    """What was declared, filled. Tensors of one storage share it, as they did where they were saved."""
    filled: dict[str, Tensor] = {}
    found = {}
    for name, declared in _flat(value).items():
        storage = declared.storage
        if storage.key not in filled:
            raw, wanted = numbers(storage), storage.count * storage.dtype.itemsize
            if len(raw) < wanted:
                raise EOFError(f"storage {storage.key[:20]} has {len(raw)} of {wanted} bytes")
            filled[storage.key] = torch.frombuffer(raw, dtype=torch.uint8)[:wanted] if wanted else torch.empty(0)
        whole = filled[storage.key].view(storage.dtype) if storage.count else torch.empty(0, dtype=storage.dtype)
        at = declared.offset if whole.numel() else 0
        found[name] = whole.as_strided(declared.size, declared.stride, at)
    return found


def _flat(value: object) -> dict[str, Declared]:
    """Every tensor in dicts and lists within each other; what contains itself is entered once."""
    found: dict[str, Declared] = {}
    entered: set[int] = set()
    waiting: list[tuple[str, object, int]] = [("", value, 0)]
    while waiting:
        name, one, depth = waiting.pop()
        if isinstance(one, Declared):
            found[name] = one
        elif isinstance(one, dict | list | tuple) and id(one) not in entered and depth < _DEEPEST:
            entered.add(id(one))
            items = one.items() if isinstance(one, Mapping) else enumerate(one)
            below = [(f"{name}.{key}" if name else str(key), item, depth + 1) for key, item in items]
            waiting.extend(reversed(below))
    return found
