"""bfloat16 where the machine multiplies it: networks' products in half the bits, weights, sums and losses in float32.

Knows nothing of networks or methods.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.optim import Adam

from models import hardware
from training.config.recipe import Precision

_PROCESSOR = {"avx512_bf16", "amx_bf16"}  # either; elsewhere bfloat16 is slower than float32
_LEAST_CAPABILITY = (8, 0)  # of a GPU: NVIDIA's Ampere and later


def reduced(asked: Precision, device: torch.device) -> bool:
    """Whether networks run in bfloat16: where it was asked for, or by "auto" where it is faster."""
    if asked != "auto":
        return asked == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY
    return device.type == "cpu" and bool(_PROCESSOR & hardware.flags())


def autocast(asked: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Where a network runs; its answer may be bfloat16: it is made float32 before anything is added up."""
    return torch.autocast(device.type, torch.bfloat16) if reduced(asked, device) else nullcontext()


def memory_format(asked: Precision, device: torch.device) -> torch.memory_format:
    """How images lie in memory for convolutions: bfloat16's are made for channels last; float32 stays as it was."""
    return torch.channels_last if reduced(asked, device) else torch.contiguous_format


def adam(asked: Precision, device: torch.device) -> "partial[Adam]":
    """Adam, which rounds otherwise in one pass over all weights than in eight; float32 stays as it was."""
    options: dict[str, Any] = {"fused": True} if reduced(asked, device) else {}
    return partial(Adam, **options)
