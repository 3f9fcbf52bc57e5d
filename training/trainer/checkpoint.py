"""Weights and the facts that belong to them, in one file.

Knows nothing of what is trained. The file is a safetensors file whose header carries the facts as JSON:
one file, so that it can be replaced in one move, and no pickle, so that opening one never runs code.
"""

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.errors import TesseraError
from models.files import write_atomically

_KEY = "tessera"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes both, whole or not at all: whoever reads meets the old file or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A copy of each: safetensors refuses two names for one memory, and tied weights are just that.
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    def write(file: IO[bytes]) -> None:
        # Not `save` and file.write, which would hold all weights twice more; save_file puts a new file in this one's
        # place, and it is that one the disk must have.
        try:
            save_file(plain, file.name, metadata={_KEY: json.dumps(facts)})
        except SafetensorError as error:  # of the disk: there is nothing else to it here
            number = re.search(r"(?:code: |os error )(\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from None
        with open(file.name, "rb") as written:
            os.fsync(written.fileno())

    write_atomically(path, write)


def is_pickle(path: Path) -> bool:
    """Whether a file is one of torch.save's: opening it can run any program."""
    with path.open("rb") as opened:
        start = opened.read(9)
    # A safetensors file begins with its header's length, whose lowest byte may be any, and then the header.
    return (start[:1] == b"\x80" or start[:2] == b"PK") and start[8:] != b"{"


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, facts) of a file written by `save`. Raises TesseraError."""
    if not path.is_file():
        raise TesseraError(f"{path}: there is no such checkpoint")
    if is_pickle(path):
        raise TesseraError(
            f"{path} is a pickle: opening one can run any program, so it is refused. Checkpoints are .safetensors files"
        )
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise TesseraError(f"{path} is damaged or no safetensors file: {error}") from None
    if not isinstance(facts, dict):
        raise TesseraError(f"{path} holds weights but no facts: it was not written by a training run")
    return tensors, facts
