"""Arrays that the authors' own code gave once, and how close ours have to come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

DATA = Path(__file__).parent / "data"
CASES = {entry["case"]: entry for entry in json.loads((DATA / "manifest.json").read_text())["cases"]}
RELATIVE = 2e-5  # of the largest number in the array: float32, and sums in another order


@pytest.fixture
def golden() -> Callable[[str], SimpleNamespace]:
    """Opens a case: floats as float32 tensors, integers as int64 tensors, `params` beside them."""

    def load(case: str) -> SimpleNamespace:
        raw = (DATA / f"{case}.npz").read_bytes()
        assert hashlib.sha256(raw).hexdigest() == CASES[case]["sha256"], f"{case}.npz was changed"
        arrays = np.load(DATA / f"{case}.npz", allow_pickle=False)
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
        whole = {k: t if t.is_floating_point() else t.long() for k, t in tensors.items()}
        return SimpleNamespace(params=CASES[case]["params"], **whole)

    return load


@pytest.fixture
def same() -> Callable[[Any, Any], None]:
    """Asserts that ours equals theirs: integers exactly, floats to 2e-5 of the array's scale."""

    def check(ours: Any, theirs: torch.Tensor) -> None:
        ours = torch.as_tensor(np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours))
        assert ours.shape == theirs.shape
        if not theirs.is_floating_point():
            assert torch.equal(ours.long(), theirs)
            return
        ours = ours.to(theirs.dtype)
        assert torch.equal(ours.isnan(), theirs.isnan())
        scale = max(float(theirs.nan_to_num().abs().max()), 1e-12)
        worst = float((ours - theirs).nan_to_num().abs().max())
        assert worst <= RELATIVE * scale, f"off by {worst:.2e} on a scale of {scale:.2e}"

    return check
