"""Tests 17 (swaps), 22, 23 and L: bundles that are damaged, that lie, that ask for too much; and 200 good ones in turn.

Knows nothing of how a bundle is read.
"""

import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from models.bundle import Bundle
from tests.service.variants import variant
from tests.torture.client import Answer, company, request, said
from tests.torture.pictures import PNG
from tests.torture.process import Server, serving
from tests.torture.verdict import Found, Place, torture
from tests.torture.watching import memory

PHOTO = request("POST", "/segment?format=png", PNG)
ADMIN = {"X-API-Key": "admin"}
_SETTINGS = {"admin_key": "admin", "keys": "", "cache_bytes": 0}
Spoil = Callable[[Path], None]
_EXTREMES = (
    "0",
    "-1",
    "1",
    "2147483648",
    "9223372036854775808",
    "1" + "0" * 30,
    "1e308",
    "-1e308",
    "1e-300",
    "NaN",
    "Infinity",
)


async def load(server: Server, folder: str) -> Answer | None:
    """POST /models/FOLDER/load."""
    return await said(server.port, request("POST", f"/models/{folder}/load", b"", ADMIN), timeout_s=120)


def seal(folder: Path) -> None:
    """The manifest's digests made right again: what a thoughtful attacker does."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_bytes())
    for name in manifest["files"]:
        if (folder / name).is_file():
            manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    file.write_text(json.dumps(manifest))


def _files(bundle: Path) -> list[str]:
    """One of each kind."""
    names = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    return [name for name in names if not name.startswith("exemplars/")] + [
        name for name in names if name.startswith("exemplars/")
    ][:1]


def damaged(bundle: Path, seed: int = 0) -> Iterator[tuple[str, Spoil]]:
    """Every file cut, flipped, emptied and taken away, under old digests and under new ones: (what, does it)."""
    chance = random.Random(seed)

    def cut(name: str, share: float) -> Spoil:
        def do(folder: Path) -> None:
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(data[: int(len(data) * share)])

        return do

    def flip(name: str, share: float, bit: int) -> Spoil:
        def do(folder: Path) -> None:
            data = bytearray((folder / name).read_bytes())
            data[min(int(len(data) * share), len(data) - 1)] ^= 1 << bit
            (folder / name).write_bytes(data)

        return do

    def absent(name: str) -> Spoil:
        return lambda folder: (folder / name).unlink()

    def sealed(spoil: Spoil) -> Spoil:
        def do(folder: Path) -> None:
            spoil(folder)
            seal(folder)

        return do

    for name in _files(bundle):
        ways = {f"cut at {share:.0%}": cut(name, share) for share in (0.1, 0.5, 0.99)}
        ways |= {f"emptied {i}": cut(name, 0.0) for i in range(1)} | {"absent": absent(name)}
        ways |= {f"bit {i} flipped": flip(name, chance.random(), chance.randrange(8)) for i in range(3)}
        for how, spoil in ways.items():
            yield f"{name} {how}", spoil
            if name != "manifest.json" and how != "absent":
                yield f"{name} {how}, sealed", sealed(spoil)


def _numbers(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every number of a document; of a list, its first and last members."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield way
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, (*way, key))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1} if value else set()):
            yield from _numbers(value[i], (*way, i))


def extremes(bundle: Path) -> Iterator[tuple[str, Spoil]]:
    """Every number of the manifest at its extremes: (what, does it)."""
    whole = json.loads((bundle / "manifest.json").read_bytes())
    for way, extreme in itertools.product(_numbers(whole), _EXTREMES):

        def do(folder: Path, way: tuple[Any, ...] = way, extreme: str = extreme) -> None:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            at = manifest
            for step in way[:-1]:
                at = at[step]
            at[way[-1]] = "MARK"
            (folder / "manifest.json").write_text(json.dumps(manifest).replace('"MARK"', extreme))

        yield f"{'.'.join(map(str, way))} = {extreme}", do


def bad_bundles(bundle: Path, count: int = 200) -> list[tuple[str, Spoil]]:
    """So many, of both kinds, evenly."""
    files, numbers = list(damaged(bundle)), list(extremes(bundle))
    numbers = random.Random(0).sample(numbers, min(len(numbers), max(count - len(files), count // 2)))
    chosen = files + numbers
    random.Random(1).shuffle(chosen)
    return chosen[: max(count, 1)]


@torture("L", "200 bad bundles loaded over HTTP under load: answers byte-equal, memory flat, no restart", limit_s=600.0)
async def bad_loads(place: Place, found: Found) -> None:
    models = place.folder("models")
    other = variant(Bundle.load(place.bundle), models / "sound", name="other").path
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        right = (await server.ask("POST", "/segment?format=png", PNG)).body
        statuses: list[int] = []
        async with company(server.port, 4, [(PHOTO, right)], pause_s=0.02) as others:
            with memory(server, 0.25) as held:
                for i, (what, spoil) in enumerate(bad_bundles(other, place.rounds(200))):
                    folder = models / f"bad-{i}"
                    shutil.copytree(other, folder)
                    spoil(folder)
                    answer = await load(server, folder.name)
                    status = answer.status if answer else 0
                    statuses.append(status)
                    refused = 400 <= status < 500 and answer is not None and answer.is_problem
                    # What is sealed anew may be sound: a letter of the notice, a metric of the report.
                    harmless = status == 200 and ("sealed" in what or " = " in what)
                    found.must(refused or harmless, f"{what}: {status} {answer and answer.body[:120]!r}")
                    if server.process.poll() is not None:
                        found.must(False, f"{what}: the server ended")
                        return
                    shutil.rmtree(folder)
        found.must(not others.not_200 and not others.wrong, f"others: {others}, {others.wrong} wrong", others.asked)
        found.must(held.drift <= 0.05 or place.quick, f"memory of the last third {100 * held.drift:+.1f} %")
        loaded = statuses.count(200)
        found.figure(f"{len(statuses) - loaded} refused, {loaded} sound after all", f"others: {others}",
                     f"memory of the last third {100 * held.drift:+.1f} %")  # fmt: skip


@torture(
    "17b", "200 swaps of a bundle under load: answers byte-equal, memory of the last third within 5 %", limit_s=400.0
)
async def swaps(place: Place, found: Found) -> None:
    models = place.folder("models")
    tiny = Bundle.load(place.bundle)
    pair = [variant(tiny, models / f"swap-{i}", notice=f"swap {i}") for i in range(2)]
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        right = (await server.ask("POST", "/segment?format=png", PNG)).body
        async with company(server.port, 4, [(PHOTO, right)], pause_s=0.02) as others:
            with memory(server, 0.25) as held:
                for i in range(place.rounds(200)):
                    answer = await load(server, pair[i % 2].path.name)
                    sound = answer is not None and answer.status == 200 and bool(answer.json()["replaced"])
                    found.must(sound, f"swap {i}: {answer and (answer.status, answer.body[:120])}")
        found.must(not others.not_200 and not others.wrong, f"others: {others}, {others.wrong} wrong", others.asked)
        found.must(held.drift <= 0.05 or place.quick, f"memory of the last third {100 * held.drift:+.1f} %")
        left = (await server.ask("GET", "/models")).json()["models"]
        found.must(len([m for m in left if m["state"] == "ready"]) == 1, f"{len(left)} models are left")
        found.figure(f"others: {others}", f"memory {held.samples[0]:.0f} → {held.samples[-1]:.0f} MB, last third "
                     f"{100 * held.drift:+.1f} %")  # fmt: skip


def _external(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "60")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def hostile_networks(network: bytes) -> Iterator[tuple[str, bytes]]:
    """The tiny network with one thing in it that a bundle may not have."""

    def changed(change: Callable[[onnx.ModelProto], Any]) -> bytes:
        model = onnx.load_from_string(network)
        change(model)
        return bytes(model.SerializeToString())

    def node(op: str, domain: str = "") -> Callable[[onnx.ModelProto], Any]:
        extra = helper.make_node(op, ["code"], ["unused"], domain=domain)

        def change(model: onnx.ModelProto) -> None:
            model.graph.node.append(extra)
            if domain:
                model.opset_import.append(helper.make_opsetid(domain, 1))

        return change

    for location in ("weights.bin", "../weights.bin", "/etc/hostname"):
        yield f"external data in {location}", changed(lambda model, at=location: _external(model, at))  # type: ignore[misc]
    yield "a node of a domain of its own", changed(node("Anything", "com.example"))
    yield "a node of the runtime's own domain", changed(node("Gelu", "com.microsoft"))
    yield "a node that nobody knows", changed(node("NoSuchOperator"))
    yield "an opset of the future", changed(lambda model: setattr(model.opset_import[0], "version", 99))
    yield "an opset of the past", changed(lambda model: setattr(model.opset_import[0], "version", 1))
    yield "an output of another name", changed(lambda model: setattr(model.graph.output[0], "name", "code2"))
    yield (
        "an input of another type",
        changed(lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT)),
    )
    yield "no network", b""
    yield "text", b"not a network"


@torture("22", "ONNX with external data, foreign domains, unknown nodes, other opsets or ports: refused, one goes on")
async def networks(place: Place, found: Found) -> None:
    models = place.folder("models")
    other = variant(Bundle.load(place.bundle), models / "sound", name="other")
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        for i, (what, network) in enumerate(hostile_networks(other.encoder_bytes())):
            folder = models / f"bad-{i}"
            shutil.copytree(other.path, folder)
            (folder / "encoder.onnx").write_bytes(network)
            seal(folder)
            answer = await load(server, folder.name)
            refused = answer is not None and answer.status == 422 and answer.is_problem
            found.must(refused, f"{what}: {answer and (answer.status, answer.body[:160])}")
        found.must((await server.ask("POST", "/segment", PNG)).status == 200, "the old one does not answer")


@torture("23", "a file that is not the manifest's: refused, the old bundle stays; the digest stands in X-Model")
async def digests(place: Place, found: Found) -> None:
    models = place.folder("models")
    newer = variant(Bundle.load(place.bundle), models / "newer")
    tiny = Bundle.load(place.bundle)
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        for i, name in enumerate(_files(newer.path)):
            folder = models / f"changed-{i}"
            shutil.copytree(newer.path, folder)
            with (folder / name).open("ab") as file:
                file.write(b" ")
            answer = await load(server, folder.name)
            if name != "manifest.json":  # a space after it is another digest of the same manifest
                found.must(answer is not None and answer.status == 422, f"{name}: {answer and answer.status}")
        for kind in ("link", "more"):
            folder = models / kind
            shutil.copytree(newer.path, folder)
            if kind == "link":
                (folder / "NOTICE").unlink()
                (folder / "NOTICE").symlink_to(newer.path / "NOTICE")
            else:
                (folder / "more.py").write_text("print()")
            answer = await load(server, folder.name)
            found.must(answer is not None and answer.status == 422, f"{kind}: {answer and answer.status}")
        answered = await server.ask("POST", "/segment", PNG)
        model = answered.headers.get("x-model")
        shown = json.loads((await server.ask("GET", "/models")).body)["models"][0]
        found.must(model is not None and model.startswith("tiny@"), f"X-Model: {model}")
        found.must(str(shown["digest"])[:12] == str(model).partition("@")[2], f"/models says {shown['digest']}")
        found.must(tiny.manifest.name == shown["name"], "another bundle serves")
        found.figure("zip bundles: struck")
