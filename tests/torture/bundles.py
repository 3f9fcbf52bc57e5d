"""Tests 17 (swaps), 22, 23 and L: bundles that are damaged, that lie, that ask for too much; and 200 good ones in turn.

Knows nothing of how a bundle is read.
"""

import json
import shutil

from models.bundle import Bundle
from tests.bad_bundles import FILES, bad_bundles
from tests.service.variants import variant
from tests.torture.client import Answer, company, request, said
from tests.torture.pictures import PNG
from tests.torture.process import Server, serving
from tests.torture.verdict import Found, Place, torture
from tests.torture.watching import memory

PHOTO = request("POST", "/segment?format=png", PNG)
ADMIN = {"X-API-Key": "admin"}
_SETTINGS = {"admin_key": "admin", "keys": "", "cache_bytes": 0}


async def load(server: Server, folder: str) -> Answer | None:
    """POST /models/FOLDER/load."""
    return await said(server.port, request("POST", f"/models/{folder}/load", b"", ADMIN), timeout_s=120)


@torture(
    "L", "bad bundles loaded over HTTP under load: refused, answers byte-equal, memory flat, no restart", limit_s=900.0
)
async def bad_loads(place: Place, found: Found) -> None:
    models = place.folder("models")
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        right = (await server.ask("POST", "/segment?format=png", PNG)).body
        cases = list(bad_bundles(place.bundle))
        cases = cases[:: 10 if place.quick else 1]
        async with company(server.port, 4, [(PHOTO, right)], pause_s=0.02) as others:
            with memory(server, 0.25) as held:
                for case in cases:
                    folder = case.write(place.bundle, models / case.name)
                    answer = await load(server, folder.name)
                    refused = answer is not None and 400 <= answer.status < 500 and answer.is_problem
                    found.must(refused, f"{case.name}: {answer and (answer.status, answer.body[:120])}")
                    if server.process.poll() is not None:
                        found.must(False, f"{case.name}: the server ended")
                        return
        found.must(not others.not_200 and not others.wrong, f"others: {others}, {others.wrong} wrong", others.asked)
        found.must(held.drift <= 0.05 or place.quick, f"memory of the last third {100 * held.drift:+.1f} %")
        found.figure(
            f"{len(cases)} bundles", f"others: {others}", f"memory of the last third {100 * held.drift:+.1f} %"
        )


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


@torture("22", "ONNX with external data, foreign domains, unknown nodes, other opsets or ports: refused, one goes on")
async def networks(place: Place, found: Found) -> None:
    models = place.folder("models")
    cases = [case for case in bad_bundles(place.bundle) if case.name.startswith("network-")]
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        for case in cases[:: 4 if place.quick else 1]:
            answer = await load(server, case.write(place.bundle, models / case.name).name)
            refused = answer is not None and answer.status == 422 and answer.is_problem
            found.must(refused, f"{case.name}: {answer and (answer.status, answer.body[:160])}")
        found.must((await server.ask("POST", "/segment", PNG)).status == 200, "the old one does not answer")


@torture("23", "a file that is not the manifest's: refused, the old bundle stays; the digest stands in X-Model")
async def digests(place: Place, found: Found) -> None:
    models = place.folder("models")
    newer = variant(Bundle.load(place.bundle), models / "newer")
    tiny = Bundle.load(place.bundle)
    async with serving([place.bundle], place.folder("state"), models=models, **_SETTINGS) as server:
        for i, name in enumerate(FILES):
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
