"""A model is a folder. This file is its specification, its reader and its writer.

Knows nothing of how a bundle is trained or served, and runs nothing from it: `models.inference` does that.

    manifest.json   `models.manifest.Manifest`, UTF-8 JSON, unknown keys refused; its sha256 is the bundle's digest
    encoder.onnx    `pixels` uint8 [B, H, W, 3] → `scores` float32 [B, K, h, w], `code` float32 [B, D, h, w]
    centroids.npy   float32 little-endian [K, D]; rows of length 1 ± 1e-4 where assignment is `cosine`
    golden.npz      `image` uint8 [H, W, 3] and `labels` uint8 [H, W]: what training got for it
    report.json     metrics, curves, seconds
    NOTICE          licences of the pretrained weights and of the data
    exemplars/      KKK_N.webp: patch N of cluster KKK, its region outlined

Every file stands in `manifest.files` with its sha256. Refused, each with a sentence: a file that is
missing or not listed, a digest that differs, a symlink, a path that leaves the folder or is not one of the
names above, pickled arrays, K > 255, two clusters of one name, fractions that do not sum to 1, a hierarchy
that does not lead from K to 2.
"""

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from models.errors import TesseraError
from models.io.encode import npy
from models.manifest import Cluster, CodeSpec, Manifest, Merge, Provenance
from models.preprocess import InputSpec, Normalization
from models.types import Array

_REQUIRED = ("encoder.onnx", "centroids.npy", "golden.npz", "report.json", "NOTICE")
_EXEMPLAR = re.compile(r"^exemplars/(\d{3})_(\d{1,2})\.webp$")


class BundleError(TesseraError):
    """A folder that is not a sound bundle; the message says which file and why."""


class Golden(NamedTuple):
    """An image uint8 [H, W, 3] and the labels uint8 [H, W] training got for it."""

    image: Array
    labels: Array


@dataclass(frozen=True)
class Bundle:
    """A folder that passed every check of this file.

    digest     sha256 of manifest.json, which holds the sha256 of every other file
    centroids  float32 [K, D]
    """

    path: Path
    manifest: Manifest
    digest: str
    centroids: Array
    golden: Golden

    @classmethod
    def load(cls, path: Path | str) -> "Bundle":
        """The bundle in a folder. Raises BundleError, naming the file and the reason."""
        path = Path(path)
        if not path.is_dir():
            raise BundleError(f"{path.name}: no such bundle folder; train one or name another")
        raw = _read(path, "manifest.json")
        try:
            manifest = Manifest.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "manifest"
            raise BundleError(f"{path.name}/manifest.json: {where}: {first['msg']}") from None
        _check_files(path, manifest)
        try:
            centroids = np.load(io.BytesIO(_read(path, "centroids.npy")), allow_pickle=False)
            with np.load(io.BytesIO(_read(path, "golden.npz")), allow_pickle=False) as arrays:
                golden = Golden(arrays["image"], arrays["labels"])
        except (ValueError, KeyError, OSError) as error:
            raise BundleError(f"{path.name}: centroids.npy or golden.npz cannot be read: {error}") from None
        _check_arrays(manifest, centroids, golden)
        return cls(path, manifest, hashlib.sha256(raw).hexdigest(), centroids, golden)

    @property
    def ref(self) -> str:
        """`name@digest12`, as answers and logs show it."""
        return f"{self.manifest.name}@{self.digest[:12]}"

    @property
    def encoder_path(self) -> Path:
        """The network's file."""
        return self.path / "encoder.onnx"

    def encoder_bytes(self) -> bytes:
        """The network, its digest checked once more: what was verified is what runs."""
        data = _read(self.path, "encoder.onnx")
        if hashlib.sha256(data).hexdigest() != self.manifest.files["encoder.onnx"]:
            raise BundleError(f"{self.path.name}/encoder.onnx changed since the bundle was loaded")
        return data

    @property
    def colors(self) -> Array:
        """uint8 [K, 3]."""
        return np.array([list(bytes.fromhex(c.color[1:])) for c in self.manifest.clusters], np.uint8)

    def exemplars(self, cluster: int) -> list[Path]:
        """The patches of one cluster, in order; empty where training kept none."""
        listed = sorted(name for name in self.manifest.files if _EXEMPLAR.match(name))
        return [self.path / name for name in listed if name.startswith(f"exemplars/{cluster:03d}_")]

    def report(self) -> dict[str, Any]:
        """report.json as it stands."""
        report: dict[str, Any] = json.loads(_read(self.path, "report.json"))
        return report


def save(
    folder: Path | str,
    *,
    name: str,
    method: str,
    input: InputSpec,
    normalization: Normalization | None = None,
    code: CodeSpec,
    clusters: Sequence[Cluster],
    hierarchy: Sequence[Merge],
    provenance: Provenance,
    encoder_onnx: bytes,
    centroids: Array,
    golden: Golden,
    exemplars: Mapping[int, Sequence[bytes]],
    report: Mapping[str, Any],
    notice: str,
) -> Bundle:
    """Write a bundle, read it back, and only then put it where `folder` says.

    exemplars  cluster id → WebP files' bytes, at most 100 each
    returns    the loaded bundle; an older one in the same place is replaced in one move

    Raises BundleError when what was given is not sound; `folder` is then untouched.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {
        "encoder.onnx": encoder_onnx,
        "centroids.npy": npy(centroids.astype("<f4")),
        "golden.npz": _npz(image=golden.image, labels=golden.labels),
        "report.json": json.dumps(report, indent=1, sort_keys=True, allow_nan=False).encode(),
        "NOTICE": notice.encode(),
    }
    for cluster, patches in exemplars.items():
        for n, patch in enumerate(patches):
            files[f"exemplars/{cluster:03d}_{n}.webp"] = patch
    try:
        manifest = Manifest(
            name=name,
            method=method,
            input=input,
            normalization=normalization,
            code=code,
            clusters=tuple(clusters),
            hierarchy=tuple(hierarchy),
            provenance=provenance,
            files={path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())},
        )
    except ValidationError as error:
        raise BundleError(f"manifest: {error.errors()[0]['msg']}") from None
    files["manifest.json"] = (manifest.model_dump_json(indent=1) + "\n").encode()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        written = Path(scratch) / "bundle"
        for path, data in files.items():
            (written / path).parent.mkdir(parents=True, exist_ok=True)
            (written / path).write_bytes(data)
        Bundle.load(written)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        written.rename(folder)
    return Bundle.load(folder)


def _read(path: Path, name: str) -> bytes:
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise BundleError(f"{path.name}/{name} is missing or not a plain file")
    return file.read_bytes()


def _check_files(path: Path, manifest: Manifest) -> None:
    for name in _REQUIRED:
        if name not in manifest.files:
            raise BundleError(f"{path.name}/manifest.json: files: {name} is not listed")
    for name in manifest.files:
        patch = _EXEMPLAR.match(name)
        if name not in _REQUIRED and not (patch and int(patch[1]) < len(manifest.clusters)):
            raise BundleError(f"{path.name}/manifest.json: files: {name!r} has no place in a bundle")
    for found in path.rglob("*"):
        name = found.relative_to(path).as_posix()
        if found.is_symlink():
            raise BundleError(f"{path.name}/{name} is a symlink; bundles hold plain files only")
        if found.is_file() and name != "manifest.json" and name not in manifest.files:
            raise BundleError(f"{path.name}/{name} is not listed in the manifest")
    for name, digest in manifest.files.items():
        if hashlib.sha256(_read(path, name)).hexdigest() != digest:
            raise BundleError(f"{path.name}/{name}: its sha256 is not the manifest's: damaged or changed")


def _check_arrays(manifest: Manifest, centroids: Array, golden: Golden) -> None:
    wanted = (len(manifest.clusters), manifest.code.dim)
    if centroids.dtype != np.dtype("<f4") or centroids.shape != wanted:
        raise BundleError(f"centroids.npy is {centroids.dtype} {centroids.shape}; float32 {wanted} is needed")
    if not np.isfinite(centroids).all():
        raise BundleError("centroids.npy holds values that are not finite")
    norms = np.linalg.norm(centroids, axis=1)
    if manifest.code.assignment == "cosine" and np.abs(norms - 1).max() > 1e-4:
        raise BundleError("centroids.npy: rows have length 1 where assignment is cosine")
    image, labels = golden
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BundleError(f"golden.npz: image is {image.dtype} {image.shape}; uint8 [H, W, 3] is needed")
    if labels.dtype != np.uint8 or labels.shape != image.shape[:2] or labels.max() >= len(manifest.clusters):
        raise BundleError("golden.npz: labels are uint8 [H, W] of cluster ids, of the image's size")


def _npz(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
