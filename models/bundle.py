"""A model is a folder. This file is its specification, its reader and its writer.

Knows nothing of how a bundle is trained or served, and runs nothing from it: `models.inference` does that.

    manifest.json   `models.manifest.Manifest`, UTF-8 JSON, unknown keys refused; its sha256 is the bundle's digest
    encoder.onnx    `pixels` uint8 [B, H, W, 3] → `scores` float32 [B, K, h, w], `code` float32 [B, D, h, w]
    centroids.npy   float32 little-endian [K, D]; rows of length 1 ± 1e-4 where assignment is `cosine`
    positions.npy   float32 little-endian [D, r], columns of length 1 ± 1e-4 at right angles: what of the code says
                    where a place is (models/debias.py); may be absent
    golden.npz      `image` uint8 [H, W, 3] and `labels` uint8 [H, W]: what training got for it
    report.json     metrics, curves, seconds
    NOTICE          licences of the pretrained weights and of the data
    exemplars/      KKK_N.webp: patch N of cluster KKK, its region outlined

Every file stands in `manifest.files` with its sha256. Refused, each with a sentence: a file that is
missing or not listed, a digest that differs, a symlink, a pipe, a folder but `exemplars`, a path that leaves the folder
or is not one of the names above, pickled arrays, K > 255, two clusters of one name, fractions that do not sum to 1, a
hierarchy that does not lead from K to 2, a key that stands twice, a number in quotes.

A bundle may come from anybody. Whatever one asks for has a bound, judged before anything is allocated for it:

    files           at most 8192; manifest.json 2 MiB, encoder.onnx 2 GiB, centroids.npy 8 MiB, positions.npy 16 MiB,
                    golden.npz 40 MiB, report.json 8 MiB, NOTICE and each exemplar 1 MiB (models/bundle_files.py)
    the manifest    at most 20,000 lists and objects, every number finite (models/manifest.py)
    input           sides 1..8192, `multiple` 1..1024 and no more than `max_side_px`; the largest image that can come of
                    them 2^25 pixels; bands 1..65535; mean -1000..1000, std 1e-6..1000 (models/preprocess.py)
    positions       r 1..1024, and fewer than dim
    code            dim 1..4096, stride 1..1024, temperature 1e-4..1e4; scores and code of the largest image 2 GiB
    golden image    sides 1..32768, at most 2^23 pixels, types and shapes judged by the arrays' own headers
                    (models/bundle_arrays.py)
    hierarchy       k 1..254, heights -1e9..1e9; where `hierarchy_by` is `belonging` 0..1, none below the one before
    familiarity     2..1001 quantiles 0..1 that ascend, threshold 0..1; may be absent, and then nothing is said of it
    provenance      seed and images of 64 bits; texts of 4096 characters; a recipe of 10,000 values, 16 deep
    the network     models/onnx_rules.py says which graphs are taken; serving opens none before it has been proved
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from models import bundle_files, debias
from models import manifest as manifests
from models.bundle_arrays import read_npy, read_npz
from models.bundle_files import OPTIONAL, REQUIRED, exemplar_of, shown
from models.bundle_files import BundleError as BundleError
from models.io.encode import npy
from models.manifest import Cluster, CodeSpec, Familiarity, Manifest, Merge, Provenance, TreeBy
from models.preprocess import InputSpec, Normalization
from models.types import Array

MAX_GOLDEN_SIDE_PX = 32768
MAX_GOLDEN_PX = 2**23
MAX_POSITIONS = 1024


class Golden(NamedTuple):
    """An image uint8 [H, W, 3] and the labels uint8 [H, W] training got for it."""

    image: Array
    labels: Array


@dataclass(frozen=True)
class Bundle:
    """A folder that passed every check of this file.

    digest     sha256 of manifest.json, which holds the sha256 of every other file
    centroids  float32 [K, D]
    positions  float32 [D, r], what of the code says where a place is; None where the bundle does not tell
    """

    path: Path
    manifest: Manifest
    digest: str
    centroids: Array
    golden: Golden
    positions: Array | None = None

    @classmethod
    def load(cls, path: Path | str, accept: Callable[[str], object] | None = None) -> "Bundle":
        """The bundle in a folder. Raises BundleError, naming the file and the reason.

        accept  is called with the digest before anything else is looked at, and raises where it does not want it
        """
        path = Path(path)
        if not path.is_dir():
            raise BundleError(f"{path.name}: no such bundle folder; train one or name another")
        raw = bundle_files.read(path, "manifest.json")
        digest = hashlib.sha256(raw).hexdigest()
        if accept:
            accept(digest)
        try:
            manifest = manifests.parse(raw)
        except ValueError as error:
            raise BundleError(f"{path.name}/manifest.json: {shown(str(error), 300)}") from None
        arrays = _check_files(path, manifest)
        centroids = read_npy(arrays["centroids.npy"], "centroids.npy", lambda *got: _centroids_judged(manifest, *got))
        golden = Golden(**read_npz(arrays["golden.npz"], "golden.npz", {"image": _image_judged, "labels": _map_judged}))
        _check_arrays(manifest, centroids, golden)
        positions = None
        if "positions.npy" in arrays:
            positions = read_npy(
                arrays["positions.npy"], "positions.npy", lambda *got: _positions_judged(manifest, *got)
            )
            _check_positions(positions)
        return cls(path, manifest, digest, centroids, golden, positions)

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
        data = bundle_files.read(self.path, "encoder.onnx")
        if hashlib.sha256(data).hexdigest() != self.manifest.files["encoder.onnx"]:
            raise BundleError(f"{self.path.name}/encoder.onnx changed since the bundle was loaded")
        return data

    @property
    def colors(self) -> Array:
        """uint8 [K, 3]."""
        return np.array([list(bytes.fromhex(c.color[1:])) for c in self.manifest.clusters], np.uint8)

    def matched(self, code: Array) -> Array:
        """Codes float32 [D, …] as places of different images are compared by: without what says where they are."""
        return code if self.positions is None else debias.without(code, self.positions)

    def exemplars(self, cluster: int) -> list[Path]:
        """The patches of one cluster, in order; empty where training kept none."""
        return [self.path / name for name in sorted(self.manifest.files) if exemplar_of(name) == cluster]

    def report(self) -> dict[str, Any]:
        """report.json as it stands."""
        report: dict[str, Any] = json.loads(bundle_files.read(self.path, "report.json"))
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
    hierarchy_by: TreeBy = "centroids",
    familiarity: Familiarity | None = None,
    provenance: Provenance,
    encoder_onnx: bytes,
    centroids: Array,
    positions: Array | None = None,
    golden: Golden,
    exemplars: Mapping[int, Sequence[bytes]],
    report: Mapping[str, Any],
    notice: str,
) -> Bundle:
    """Write a bundle, read it back, and only then put it where `folder` says.

    hierarchy_by  what its heights are, see models.manifest.Manifest
    positions     float32 [D, r], see Bundle
    exemplars     cluster id → WebP files' bytes, at most 100 each
    returns       the loaded bundle; an older one in the same place is replaced in one move

    Raises BundleError when what was given is not sound; `folder` is then untouched.
    """
    files: dict[str, bytes] = {
        "encoder.onnx": encoder_onnx,
        "centroids.npy": npy(centroids.astype("<f4")),
        "golden.npz": _npz(image=golden.image, labels=golden.labels),
        "report.json": json.dumps(report, indent=1, sort_keys=True, allow_nan=False).encode(),
        "NOTICE": notice.encode(),
    }
    if positions is not None:
        files["positions.npy"] = npy(positions.astype("<f4"))
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
            hierarchy_by=hierarchy_by,
            familiarity=familiarity,
            provenance=provenance,
            files={path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())},
        )
    except ValidationError as error:
        raise BundleError(f"manifest: {error.errors()[0]['msg']}") from None
    files["manifest.json"] = (manifest.model_dump_json(indent=1) + "\n").encode()
    return _place(Path(folder), files)


def rewrite(
    bundle: Bundle, changes: Mapping[str, Any], folder: Path | str | None = None, *, positions: Array | None = None
) -> Bundle:
    """The bundle with other values of some keys of its manifest; every other key, and every other file, stays as it is.

    changes    key of the manifest → value as JSON has it
    folder     where it is written as `save` would; None: its own, whose manifest is replaced in one move
    positions  float32 [D, r] in place of those it has; its own folder is then replaced as `save` does it

    Raises BundleError where that is no sound manifest, or the bundle is another than when it was loaded.
    """
    raw = bundle_files.read(bundle.path, "manifest.json")
    if hashlib.sha256(raw).hexdigest() != bundle.digest:
        raise BundleError(f"{bundle.path.name}: its manifest changed since the bundle was loaded")
    found = {**json.loads(raw), **changes}
    added = {} if positions is None else {"positions.npy": npy(positions.astype("<f4"))}
    if added:
        listed = found["files"] | {name: hashlib.sha256(data).hexdigest() for name, data in added.items()}
        found["files"] = dict(sorted(listed.items()))
    ordered = {key: found[key] for key in sorted(found, key=list(Manifest.model_fields).index)}
    written = (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode()
    try:
        manifest = manifests.parse(written)
    except ValueError as error:
        raise BundleError(f"manifest: {shown(str(error), 300)}") from None
    if folder is None and not added:
        home = bundle.path.resolve()
        # Beside the folder, not in it: nobody who loads the bundle meanwhile, or after a crash, finds a file too many.
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}.") as scratch:
            (Path(scratch) / "manifest.json").write_bytes(written)
            os.replace(Path(scratch) / "manifest.json", home / "manifest.json")
        return Bundle.load(bundle.path)
    files = {name: bundle_files.read(bundle.path, name) for name in manifest.files if name not in added}
    return _place(
        bundle.path.resolve() if folder is None else Path(folder), {**files, **added, "manifest.json": written}
    )


def _place(folder: Path, files: Mapping[str, bytes]) -> Bundle:
    """The bundle of these files, read back and only then put where `folder` says."""
    folder.parent.mkdir(parents=True, exist_ok=True)
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


def _check_files(path: Path, manifest: Manifest) -> dict[str, bytes]:
    """What was read of the files of arrays, once every file's digest is the manifest's."""
    for name in REQUIRED:
        if name not in manifest.files:
            raise BundleError(f"{path.name}/manifest.json: files: {name} is not listed")
    for name in manifest.files:
        cluster = exemplar_of(name)
        if name not in REQUIRED + OPTIONAL and not (cluster is not None and cluster < len(manifest.clusters)):
            raise BundleError(f"{path.name}/manifest.json: files: {shown(name)!r} has no place in a bundle")
    bundle_files.check_listing(path, manifest.files)
    named = [name for name in ("centroids.npy", "golden.npz", "positions.npy") if name in manifest.files]
    arrays: dict[str, bytes] = {name: bundle_files.read(path, name) for name in named}
    for name, digest in manifest.files.items():
        found = hashlib.sha256(arrays[name]).hexdigest() if name in arrays else bundle_files.sha256(path, name)
        if found != digest:
            raise BundleError(f"{path.name}/{name}: its sha256 is not the manifest's: damaged or changed")
    return arrays


def _centroids_judged(manifest: Manifest, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    wanted = (len(manifest.clusters), manifest.code.dim)
    return None if dtype == np.dtype("<f4") and shape == wanted else f"float32 {wanted} is needed"


def _positions_judged(manifest: Manifest, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    dim = manifest.code.dim
    if (
        dtype != np.dtype("<f4")
        or len(shape) != 2
        or shape[0] != dim
        or not 1 <= shape[1] < min(dim, MAX_POSITIONS + 1)
    ):
        return f"float32 ({dim}, r) with r from 1 to {min(dim - 1, MAX_POSITIONS)} is needed"
    return None


def _check_positions(positions: Array) -> None:
    if not np.isfinite(positions).all():
        raise BundleError("positions.npy holds values that are not finite")
    exact = positions.astype(np.float64)
    if np.abs(exact.T @ exact - np.eye(exact.shape[1])).max() > 1e-4:
        raise BundleError("positions.npy: columns have length 1 and stand at right angles")


def _image_judged(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        return "uint8 [H, W, 3] is needed"
    return _size_judged(shape)


def _map_judged(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
    if dtype != np.uint8 or len(shape) != 2:
        return "uint8 [H, W] is needed"
    return _size_judged(shape)


def _size_judged(shape: tuple[int, ...]) -> str | None:
    sides = shape[:2]
    if min(sides) >= 1 and max(sides) <= MAX_GOLDEN_SIDE_PX and sides[0] * sides[1] <= MAX_GOLDEN_PX:
        return None
    return f"sides of 1 to {MAX_GOLDEN_SIDE_PX} and at most {MAX_GOLDEN_PX} pixels are taken"


def _check_arrays(manifest: Manifest, centroids: Array, golden: Golden) -> None:
    if not np.isfinite(centroids).all():
        raise BundleError("centroids.npy holds values that are not finite")
    norms = np.linalg.norm(centroids.astype(np.float64), axis=1)
    if manifest.code.assignment == "cosine" and np.abs(norms - 1).max() > 1e-4:
        raise BundleError("centroids.npy: rows have length 1 where assignment is cosine")
    image, labels = golden
    if labels.shape != image.shape[:2] or labels.max() >= len(manifest.clusters):
        raise BundleError("golden.npz: labels are uint8 [H, W] of cluster ids, of the image's size")


def _npz(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
