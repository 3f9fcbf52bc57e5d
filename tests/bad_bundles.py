"""Bundles that have to be refused: every file damaged, every number of the manifest at its extremes, and worse.

Knows nothing of the service. Each case is a change of a copy of the tiny bundle (tests/tiny.py); where the digests are
put right afterwards, only the content itself can be refused. Sizes are harmless: a limit that refuses twice itself
refuses a thousand times itself.
"""

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tests.bad_networks import bad_networks

FILES = (
    "manifest.json",
    "encoder.onnx",
    "centroids.npy",
    "golden.npz",
    "report.json",
    "NOTICE",
    "exemplars/000_0.webp",
)
_MARK = "\x00number\x00"
_EXTREMES = ["NaN", "Infinity", "-Infinity", "1e400", "1" + 30 * "0", "-1" + 30 * "0", '"1"', "true", "null", "[]"]


class BadBundle(NamedTuple):
    """One way to spoil a bundle's folder.

    found  by what: reading its `files`, the `rules` for its graph, or the `proof` on its golden image
    """

    name: str
    spoil: Callable[[Path], object]
    found: Literal["files", "rules", "proof"] = "files"

    def write(self, sound: Path, folder: Path) -> Path:
        """A spoiled copy of a sound bundle."""
        shutil.copytree(sound, folder)
        self.spoil(folder)
        return folder


def bad_bundles(sound: Path) -> Iterator[BadBundle]:
    """Every case, each of another name that is a folder's name; several hundred."""
    yield from _damaged()
    yield from _numbers(sound)
    yield from _manifests()
    yield from _arrays(sound)
    yield from _graphs(sound)


def write_all(sound: Path, home: Path) -> list[Path]:
    """The folder of every case, in `home`."""
    return [case.write(sound, home / case.name) for case in bad_bundles(sound)]


def put_right(folder: Path) -> None:
    """The manifest's digests are those of the files as they are now."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    file.write_text(json.dumps(manifest))


def _damaged() -> Iterator[BadBundle]:
    """Files cut, emptied, turned, missing, and things that are no files in their places."""

    def to(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))

    def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
        return lambda folder: ((folder / name).unlink(), make(folder / name))

    for name in FILES:
        plain = name.replace("/", "-")
        yield BadBundle(f"emptied-{plain}", to(name, lambda data: b""))
        yield BadBundle(f"halved-{plain}", to(name, lambda data: data[: len(data) // 2]))
        yield BadBundle(f"shortened-{plain}", to(name, lambda data: data[:-2]))
        yield BadBundle(f"longer-{plain}", to(name, lambda data: data + b"\x00"))
        for part in range(4):
            yield BadBundle(f"flipped-{plain}-{part}", to(name, lambda data, part=part: _flipped(data, part)))
        yield BadBundle(f"missing-{plain}", lambda folder, name=name: (folder / name).unlink())
        yield BadBundle(f"link-{plain}", instead(name, lambda path: path.symlink_to("/dev/zero")))
        yield BadBundle(f"pipe-{plain}", instead(name, os.mkfifo))
        yield BadBundle(f"folder-{plain}", instead(name, Path.mkdir))
    for name in ("more.py", "exemplars/more.webp", ".hidden", "\udcff"):
        plain = name.replace("/", "-").replace("\udcff", "no-text")
        yield BadBundle(f"unlisted-{plain}", lambda folder, name=name: (folder / name).write_bytes(b"x"))
    yield BadBundle("unlisted-pipe", lambda folder: os.mkfifo(folder / "pipe"))
    yield BadBundle("unlisted-folder", lambda folder: (folder / "more").mkdir())
    yield BadBundle("exemplars-elsewhere", lambda folder: _moved_away(folder / "exemplars"))


def _flipped(data: bytes, part: int) -> bytes:
    """One byte of `part` quarters in with its highest bit turned: no ASCII any more."""
    at = len(data) * part // 4
    return data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :]


def _moved_away(folder: Path) -> None:
    elsewhere = folder.rename(folder.parent.parent / f"{folder.parent.name}.patches")
    folder.symlink_to(elsewhere)


def _numbers(sound: Path) -> Iterator[BadBundle]:
    """Every number of the manifest as each extreme, and those that only some numbers may not be."""
    manifest = json.loads((sound / "manifest.json").read_text())
    places = list(_places(manifest))
    for place in places:
        for i, extreme in enumerate(_EXTREMES):
            yield BadBundle(f"number-{'-'.join(map(str, place))}-{i}", _number(place, extreme))
    beyond: dict[tuple[Any, ...], list[str]] = {
        ("input", "size", 0): ["0", "-1", "8193", "1.5"],
        ("input", "size", 1): ["0", "8193"],
        ("input", "multiple"): ["0", "-1", "1025", "513"],  # 513: more than max_side_px
        ("input", "max_side_px"): ["0", "8193"],
        ("code", "dim"): ["0", "4097", "2", "4"],
        ("code", "stride"): ["0", "1025"],
        ("code", "temperature"): ["0", "-1", "1e-5", "1e5", "5e-324", "1e308"],
        ("clusters", 0, "fraction"): ["-0.1", "1.1", "0", "5e-324"],
        ("hierarchy", 0, "k"): ["0", "255", "3"],
        ("hierarchy", 0, "merge", 0): ["-1", "5", "2"],
        ("hierarchy", 0, "into"): ["0", "-1"],
        ("hierarchy", 0, "height"): ["1e10", "-1e308"],
        ("provenance", "seed"): [str(2**63), str(-(2**63) - 1), "0.5"],
        ("provenance", "images"): ["-1", str(2**63)],
        ("schema_version",): ["0", "2", "1.5"],
    }
    for place, values in beyond.items():
        assert place in places, place
        for i, value in enumerate(values):
            yield BadBundle(f"beyond-{'-'.join(map(str, place))}-{i}", _number(place, value))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))
    elif isinstance(value, int | float):
        yield path


def _set(manifest: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        manifest = manifest[key]
    manifest[place[-1]] = value


def _number(place: tuple[Any, ...], text: str) -> Callable[[Path], object]:
    """Writes a number as it is spelled, which no JSON writer might do."""

    def spoil(folder: Path) -> None:
        file = folder / "manifest.json"
        manifest = json.loads(file.read_text())
        _set(manifest, place, _MARK)
        file.write_text(json.dumps(manifest).replace(json.dumps(_MARK), text))

    return spoil


def _manifests() -> Iterator[BadBundle]:
    def rewritten(name: str, change: Callable[[dict[str, Any]], object]) -> BadBundle:
        def spoil(folder: Path) -> None:
            manifest = json.loads((folder / "manifest.json").read_text())
            change(manifest)
            (folder / "manifest.json").write_text(json.dumps(manifest))

        return BadBundle(f"manifest-{name}", spoil)

    def spelled(name: str, change: Callable[[str], str | bytes]) -> BadBundle:
        def spoil(folder: Path) -> None:
            text = change((folder / "manifest.json").read_text())
            (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())

        return BadBundle(f"spelled-{name}", spoil)

    for key in ("name", "method", "input", "code", "clusters", "hierarchy", "provenance", "files"):
        yield rewritten(f"without-{key}", lambda manifest, key=key: manifest.pop(key))
        for i, value in enumerate((None, [], {}, 0, "x" * 5000)):
            yield rewritten(f"{key}-{i}", lambda manifest, key=key, value=value: manifest.update({key: value}))
    deep: list[Any] = []
    for _ in range(20):
        deep = [deep]
    recipes = {"deep": {"a": deep}, "wide": {"a": [0] * 10_001}, "long": {"a": "x" * 5000}, "huge": {"a": 2**64}}
    for name, recipe in recipes.items():
        yield rewritten(f"recipe-{name}", lambda m, recipe=recipe: m["provenance"].update(recipe=recipe))
    yield rewritten("unknown-key", lambda m: m["code"].update(surprise=1))
    yield rewritten(
        "many-files", lambda m: m["files"].update({f"exemplars/000_{i}.webp": "0" * 64 for i in range(9000)})
    )
    for i, name in enumerate(("../out", "/etc/passwd", "exemplars/../x.webp", "exemplars/000_0.webp\n", "x" * 3000)):
        yield rewritten(f"file-name-{i}", lambda m, name=name: m["files"].update({name: "0" * 64}))
    yield rewritten(
        "map-too-large",
        lambda m: (m["input"].update(size=[2048, 2048], max_side_px=8192), m["code"].update(stride=1, dim=4096)),
    )
    yield rewritten("area-too-large", lambda m: m["input"].update(size=[8192, 8192], max_side_px=8192))
    yield spelled("twice", lambda text: text.replace("{", '{"name": "tiny",', 1))
    yield spelled("twice-inside", lambda text: text.replace('"multiple"', '"multiple": 8, "multiple"', 1))
    yield spelled("twice-in-recipe", lambda text: text.replace('"recipe": {', '"recipe": {"a": 1, "a": 2', 1))
    yield spelled("nan-in-recipe", lambda text: text.replace('"recipe": {', '"recipe": {"a": NaN', 1))
    yield spelled("inf-in-recipe", lambda text: text.replace('"recipe": {', '"recipe": {"a": 1e999', 1))
    yield spelled("digits-in-recipe", lambda text: text.replace('"recipe": {', '"recipe": {"a": 1' + "0" * 6000, 1))
    yield spelled(
        "nested", lambda text: text.replace('"recipe": {', '"recipe": {"a": ' + "[" * 15_000 + "]" * 15_000, 1)
    )
    yield spelled("brackets", lambda text: text.replace('"recipe": {', '"recipe": {"a": [' + "[]," * 30_000 + "0]", 1))
    yield spelled("too-long", lambda text: text + " " * (2 * 2**20))
    yield spelled("utf-16", lambda text: text.encode("utf-16"))
    yield spelled("surrogate", lambda text: text.replace('"tiny"', '"\\ud800"', 1))
    yield spelled("nul", lambda text: text + "\x00")
    yield spelled("list", lambda text: f"[{text}]")


def _arrays(sound: Path) -> Iterator[BadBundle]:
    """Centroids and golden images whose digests are right."""

    def put(name: str, label: str, data: bytes, found: Literal["files", "proof"] = "files") -> BadBundle:
        return BadBundle(label, lambda folder: ((folder / name).write_bytes(data), put_right(folder)), found)

    for name in ("centroids.npy", "golden.npz"):
        data = (sound / name).read_bytes()
        for part in range(8):
            yield put(name, f"right-cut-{name}-{part}", data[: len(data) * part // 8])
        yield (
            put(name, f"right-longer-{name}", data + bytes(4))
            if name == "centroids.npy"
            else put(name, f"right-flipped-{name}", _flipped(data, 0))
        )
    centroids = np.load(sound / "centroids.npy")
    for label, array in {
        "float64": centroids.astype("<f8"), "big-endian": centroids.astype(">f4"), "one-row-less": centroids[:-1],
        "infinite": centroids * np.float32(np.inf), "nan": centroids * np.nan, "zero": centroids * 0,
        "huge": centroids * np.float32(1e38), "flat": centroids.ravel(), "scalar": np.float32(1),
        "empty": centroids[:0],
    }.items():  # fmt: skip
        yield put("centroids.npy", f"centroids-{label}", npy(np.asarray(array)))
    yield put("centroids.npy", "centroids-pickled", npy(np.array([{"a": 1}], object)))
    yield put("centroids.npy", "centroids-claim", claiming("(1000000, 1000000)", "<f4"))
    yield put("centroids.npy", "centroids-negative", claiming("(-5, -3)", "<f4"))
    yield put("centroids.npy", "centroids-nested", claiming("(" * 3000 + ")" * 3000, "<f4"))
    with np.load(sound / "golden.npz") as arrays:
        image, labels = arrays["image"], arrays["labels"]
    members = {"image.npy": npy(image), "labels.npy": npy(labels)}
    tall = np.zeros((40_000, 1, 3), np.uint8)
    for label, changed in {
        "claim": {"image.npy": claiming("(1000000, 1000000, 3)", "|u1")},
        "more-than-said": {"image.npy": members["image.npy"] + bytes(2**20)},
        "fewer-than-said": {"labels.npy": members["labels.npy"][:-1]},
        "version-2": {"image.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(2**20)},
        "floats": {"image.npy": npy(image.astype(np.float32))},
        "gray": {"image.npy": npy(image[..., 0])},
        "no-rows": {"image.npy": npy(image[:0]), "labels.npy": npy(labels[:0])},
        "other-size": {"labels.npy": npy(labels[1:])},
        "no-cluster": {"labels.npy": npy(labels + 200)},
        "tall": {"image.npy": npy(tall), "labels.npy": npy(tall[..., 0])},
        "pickled": {"labels.npy": npy(np.array([{"a": 1}], object))},
        "third": {"more.npy": b""},
    }.items():
        yield put("golden.npz", f"golden-{label}", zipped(members | changed))
    yield put("golden.npz", "golden-without-labels", zipped({"image.npy": members["image.npy"]}))
    yield put("golden.npz", "golden-lzma", zipped(members, zipfile.ZIP_LZMA))
    yield put("golden.npz", "golden-many", zipped(members | {f"{i}": b"" for i in range(200)}))
    encrypted = bytearray(zipped(members))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    yield put("golden.npz", "golden-encrypted", bytes(encrypted))
    yield put("golden.npz", "golden-of-another", zipped(members | {"labels.npy": npy((labels + 1) % 5)}), "proof")


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def claiming(shape: str, kind: str) -> bytes:
    """An array that brings sixteen bytes, whatever its header claims."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def _graphs(sound: Path) -> Iterator[BadBundle]:
    """Networks whose digests are right."""
    for name, network, found in bad_networks((sound / "encoder.onnx").read_bytes()):
        yield BadBundle(
            f"network-{name}",
            lambda folder, network=network: ((folder / "encoder.onnx").write_bytes(network), put_right(folder)),
            found,
        )
