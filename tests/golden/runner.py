"""Runs the cases of a golden folder, arrays that the authors' own code gave once, against our functions.

Knows nothing of any method: which function answers which case is in `cases_*.py`, everything else (names, parameters,
shapes, digests) in the folder's manifest.json. Another folder with other seeds and shapes runs the same way.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"
RELATIVE = 2e-5  # of the largest number in the array: float32, and sums in another order

Function = Callable[["Case"], None]


class GoldenError(Exception):
    """A folder that cannot be run, or a case that did not come out as it must; the message says how."""


class Case:
    """One case's arrays and parameters, and what has been found of them so far.

    params  of the official call
    error   the largest absolute difference of all comparisons
    notes   what is to be said in the case's line
    """

    def __init__(self, name: str, params: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        self.name, self.params, self._arrays = name, params, arrays
        self.error = 0.0
        self.notes: list[str] = []
        self._failures: list[str] = []
        self._looked_at: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        """An array of the case: floats as float32, integers as int64."""
        if key not in self._arrays:
            raise GoldenError(f"the case holds no array {key!r}")
        self._looked_at.add(key)
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def keys(self, prefix: str = "") -> list[str]:
        """Names of the arrays that begin so, in the file's order."""
        return [key for key in self._arrays if key.startswith(prefix)]

    def parameters(self, prefix: str = "p:") -> dict[str, Tensor]:
        """The arrays that begin so, under their names without it."""
        return {key.removeprefix(prefix): self[key] for key in self.keys(prefix)}

    def same(self, key: str, ours: Any, *, terms: Tensor | None = None) -> None:
        """Holds ours against an array: integers exactly, floats to RELATIVE of the array's largest number.

        terms  what `ours` is a mean or a difference of: rounding is on their scale, which may be far larger
        """
        theirs = self[key]
        ours = ours.detach() if isinstance(ours, Tensor) else torch.from_numpy(np.array(ours))
        if ours.shape != theirs.shape:
            self.fail(f"{key} is {list(ours.shape)}, {list(theirs.shape)} is wanted")
        elif not theirs.is_floating_point():
            wrong = int((ours.long() != theirs).sum())
            self.error = max(self.error, float((ours.long() - theirs).abs().max()) if theirs.numel() else 0.0)
            if wrong:
                self.fail(f"{key}: {wrong} of {theirs.numel()} integers differ")
        else:
            self._same_floats(key, ours.to(theirs.dtype), theirs, terms)

    def _same_floats(self, key: str, ours: Tensor, theirs: Tensor, terms: Tensor | None) -> None:
        odd = ~theirs.isfinite()
        if not torch.equal(odd, ~ours.isfinite()) or not torch.equal(theirs[odd].nan_to_num(), ours[odd].nan_to_num()):
            self.fail(f"{key}: NaN or infinity elsewhere")
            return
        if odd.all():
            return
        scale = max(float(t[t.isfinite()].abs().max()) for t in (theirs, *(() if terms is None else (terms.detach(),))))
        worst = float((ours[~odd] - theirs[~odd]).abs().max())
        self.error = max(self.error, worst)
        if worst > RELATIVE * scale:
            self.fail(f"{key} is off by {worst:.2e} on a scale of {scale:.2e}")

    def fail(self, why: str) -> None:
        """Counts the case as failed and goes on."""
        self._failures.append(why)

    def require(self, holds: bool, why: str) -> None:
        """Fails unless it holds."""
        if not holds:
            self.fail(why)

    def note(self, text: str) -> None:
        """Something to be said in the case's line."""
        self.notes.append(text)

    def differs(self, upstream: Any, ours: Any, reason: str) -> None:
        """Asserts that a known upstream bug is not ours; the reason goes into the case's line."""
        upstream, ours = (np.asarray(v, np.float64) for v in (upstream, ours))
        if upstream.shape == ours.shape and np.allclose(upstream, ours, rtol=RELATIVE, atol=0, equal_nan=True):
            self.fail(f"ours should differ from upstream, but does not: {reason}")
        self.note(reason)

    def result(self) -> "Result":
        """What is to be said in the end."""
        unseen = [key for key in self._arrays if key not in self._looked_at]
        if unseen:
            self.note(f"not looked at: {', '.join(unseen)}")
        return Result(self.name, self.error, not self._failures, "; ".join([*self._failures, *self.notes]))


@dataclass(frozen=True)
class Result:
    """One case's outcome; `note` says why it failed, or what is worth knowing."""

    name: str
    error: float
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        line = f"{self.name:<28} {self.error:.1e}  {'pass' if self.passed else 'FAIL'}"
        return f"{line}  {self.note}" if self.note else line


def entries(folder: Path) -> list[dict[str, Any]]:
    """The cases of a folder's manifest. Raises GoldenError."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cases"]
        named = [{**entry, "case": str(entry["case"])} for entry in found]
    except OSError as error:
        raise GoldenError(f"{folder / 'manifest.json'}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise GoldenError(f"{folder / 'manifest.json'} is not a golden manifest: {error}") from None
    return named


def run(entry: Mapping[str, Any], folder: Path, functions: Mapping[str, Function]) -> Result:
    """One case of a manifest; whatever goes wrong is a failed result, never an exception."""
    name = entry["case"]
    if name not in functions:
        return Result(name, float("nan"), False, "there is no function of ours for this case")
    try:
        case = Case(name, entry.get("params", {}), _arrays(entry, folder))
        functions[name](case)
    except Exception as error:  # a broken file, a changed shape, a bug of ours: the other cases are still to be run
        said = " ".join(str(error).split())
        return Result(name, float("nan"), False, said if isinstance(error, GoldenError) else f"{_kind(error)}: {said}")
    return case.result()


def _arrays(entry: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """The arrays of a case's file, once it is the file the manifest speaks of."""
    path = folder / entry.get("file", f"{entry['case']}.npz")
    if not path.is_file():
        raise GoldenError(f"{path.name}: no such file")
    raw = path.read_bytes()
    if "sha256" in entry and hashlib.sha256(raw).hexdigest() != entry["sha256"]:
        raise GoldenError(f"{path.name} is not the manifest's file: its sha256 differs")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(np.array(arrays[key])) for key in arrays.files}
    missing = [key for key in entry.get("arrays", {}) if key not in tensors]
    if missing:
        raise GoldenError(f"{path.name} lacks {', '.join(missing)}")
    return {key: t.float() if t.is_floating_point() else t.long() for key, t in tensors.items()}


def _kind(error: Exception) -> str:
    return type(error).__name__
