"""What `--device` means on this machine and in this one of several processes.

Knows nothing of what is computed there.
"""

import torch

from models.errors import UsageError
from training import distributed

_KINDS = ("cpu", "cuda", "mps")


def device(name: str) -> torch.device:
    """The device of a name: cpu, cuda, cuda:1, mps, or auto, a GPU of CUDA where there is one. Raises UsageError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    if found is None or found.type not in _KINDS:
        raise UsageError(f"--device {name}: write cpu, cuda, cuda:1 or mps")
    if found.type == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("--device mps: torch sees no GPU of Apple's here; leave --device out")
        if distributed.world() > 1:
            raise UsageError("--device mps trains in one process: leave torchrun out, or take --device cpu")
    return _of_cuda(found) if found.type == "cuda" else found


def _of_cuda(found: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        raise UsageError(f"--device {found}: torch sees no GPU here; leave --device out, or install torch for CUDA")
    if distributed.world() > 1:
        found = torch.device("cuda", distributed.local_rank())
    if found.index is not None:
        count = torch.cuda.device_count()
        if found.index >= count:
            raise UsageError(f"{found}: this machine has {count} GPUs; name another, or start fewer processes on it")
        torch.cuda.set_device(found)
    return found
