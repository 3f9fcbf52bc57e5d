"""Tests 15, I, J and K: what people named, on disks that are full, shut or damaged, and through kill -9.

Acknowledged: PATCH was answered 200, and not `"kept": false`. Nothing acknowledged may be forgotten.

Knows nothing of how names are kept.
"""

import asyncio
import io
import json
import os
import random
import resource
import shutil
import zipfile
from collections.abc import Callable
from typing import Any

from tests.torture.client import Answer, request, said, together
from tests.torture.pictures import PNG
from tests.torture.process import NotReadyError, Server, ready, serving, start
from tests.torture.verdict import Found, Place, torture

_WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


async def name_it(server: Server, cluster: int, name: str) -> Answer | None:
    """PATCH; None where nobody answered."""
    return await said(server.port, request("PATCH", f"/clusters/{cluster}", json.dumps({"name": name}).encode()))


def acknowledged(answer: Answer | None) -> bool:
    """Whether the server has said that it keeps this."""
    return answer is not None and answer.status == 200 and answer.json().get("kept") is not False


def told(answer: Answer | None) -> bool:
    """Whether the server has said that it could not keep this: 507, or 200 with `kept: false` and a Warning."""
    if answer is None:
        return False
    with_warning = answer.status == 200 and answer.json().get("kept") is False and "warning" in answer.headers
    return with_warning or (answer.status == 507 and answer.is_problem)


async def names(server: Server) -> dict[int, str]:
    """What /clusters says."""
    listed = (await server.ask("GET", "/clusters")).json()["clusters"]
    return {cluster["id"]: cluster["name"] for cluster in listed}


def writable(server: Server, bytes_: int) -> None:
    """From now on a file of the server's may not grow beyond this: what a full disk does, for one process."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))


@torture("15", "clock jumps, full disk, read-only disk, another user: nothing acknowledged is lost; told")
async def failing_machine(place: Place, found: Found) -> None:
    await _jumping_clock(place, found)
    await _full_disk(place, found)
    await _read_only(place, found)
    await _full_disk_under_a_job(place, found)


async def _jumping_clock(place: Place, found: Found) -> None:
    state = place.folder("state")
    async with serving([place.bundle], state, engine="clock", timeout_s=10) as server:
        answers = await together(40, lambda _: said(server.port, request("POST", "/segment?crf=fast", PNG)), 8)
        fine = all(a is not None and a.status == 200 and a.json()["refined"] for a in answers)
        found.must(fine, f"on a clock that jumps: {[a and a.status for a in answers][:8]}", 40)
        found.must(acknowledged(await name_it(server, 1, "clock")), "a name is not kept on a clock that jumps")
        found.must((await server.ask("GET", "/readyz")).status == 200, "unready on a clock that jumps")
        server.terminate()
        found.must(await server.ended(28) == 0, "does not end on a clock that jumps")


async def _full_disk(place: Place, found: Found) -> None:
    state = place.folder("state")
    async with serving([place.bundle], state) as server:
        found.must(acknowledged(await name_it(server, 0, "before")), "a name is not kept on a sound disk")
        writable(server, 0)
        during = await name_it(server, 1, "during")
        found.must(told(during), f"full disk: PATCH says {during and (during.status, during.body[:120])}")
        found.must((await names(server))[0] == "before", "full disk: a name is gone at once")
        photo = await said(server.port, request("POST", "/segment", PNG))
        found.must(
            photo is not None and photo.status == 200, f"full disk: a photo is answered {photo and photo.status}"
        )
        writable(server, resource.RLIM_INFINITY)
        found.must(acknowledged(await name_it(server, 2, "after")), "with room again the next name is not kept")
        shown = await names(server)
        healthy = (await server.ask("GET", "/healthz")).json()
        found.must(healthy.get("names_kept") is True, "/healthz still says that names are not kept")
        server.kill()
    async with serving([place.bundle], state) as server:
        again = await names(server)
        found.must((again[0], again[2]) == ("before", "after"), f"after a restart: {again}")
        found.must(again[1] == shown[1], f"the name shown as {shown[1]!r} is {again[1]!r} after a restart")


async def _full_disk_under_a_job(place: Place, found: Found) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(40):
            archive.writestr(f"{number}.png", PNG)
    async with serving([place.bundle], place.folder("state"), engine="slow") as server:
        begun = await server.ask("POST", "/jobs?format=png", buffer.getvalue())
        found.must(begun.status == 202, f"a job is not begun: {begun.status}")
        job = f"/jobs/{begun.json()['id']}"
        await _job_has(server, job, lambda known: known["progress"]["done"] >= 2)
        writable(server, 0)
        paused = await _job_has(server, job, lambda known: known["state"] == "paused")
        found.must(bool(paused["note"]), f"full disk: the job says {paused}")
        another = await said(server.port, request("POST", "/jobs", buffer.getvalue()))
        found.must(told(another), f"full disk: POST /jobs says {another and another.status}")
        asked = await said(server.port, request("POST", "/segment", PNG))
        found.must(asked is not None and asked.status == 200, "full disk: a request is not answered")
        writable(server, resource.RLIM_INFINITY)
        done = await _job_has(server, job, lambda known: known["state"] == "done")
        found.must(
            done["progress"]["done"] == 40 and not done["progress"]["failed"], f"a job did not go on: {done}", 40
        )


async def _job_has(server: Server, job: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job, once this is true of it, or as it is after half a minute."""
    known: dict[str, Any] = (await server.ask("GET", job)).json()
    for _ in range(300):
        if true(known):
            break
        await asyncio.sleep(0.1)
        known = (await server.ask("GET", job)).json()
    return known


async def _read_only(place: Place, found: Found) -> None:
    """A state folder that may not be written; where this is root, by a root who may do no more than others."""
    state = place.folder("state")
    async with serving([place.bundle], state) as server:
        await name_it(server, 0, "old")
        server.kill()
    for path in [state, *state.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.getuid() == 0
    if root and not shutil.which("setpriv"):
        found.not_built("a read-only state folder: this is root, and there is no setpriv to be less")
        return
    server = start([place.bundle], state, through=_WITHOUT_PRIVILEGES if root else ())
    try:
        await ready(server)
        answer = await name_it(server, 1, "new")
        found.must(told(answer), f"read-only: PATCH says {answer and (answer.status, answer.body[:120])}")
        found.must((await names(server))[0] == "old", "read-only: what was kept before is not read")
        healthy = (await server.ask("GET", "/healthz")).json()
        found.must(healthy.get("names_kept") is False, "read-only: /healthz says that names are kept")
        found.must(
            any("TESSERA_STATE" in line for line in server.log), "read-only: the log does not name TESSERA_STATE"
        )
        photo = await said(server.port, request("POST", "/segment?crf=true", PNG))
        found.must(
            photo is not None and photo.status == 200, f"read-only: a photo is answered {photo and photo.status}"
        )
    except NotReadyError as error:
        found.must(False, f"read-only: {error}")
    finally:
        server.kill()
        for path in [state, *state.rglob("*")]:
            path.chmod(0o755)


def spoils() -> dict[str, bytes | None]:
    """What a file may be after an accident; None: half of it."""
    return {"emptied": b"", "cut": None, "zeros": bytes(4096), "noise": random.Random(0).randbytes(5000), "text": b"{}"}


@torture("I", "damaged state: moved aside, the start goes on, a log line says what was lost")
async def damaged(place: Place, found: Found) -> None:
    for how, content in spoils().items():
        state = place.folder("state")
        async with serving([place.bundle], state) as server:
            for cluster in range(5):
                await name_it(server, cluster, f"named {cluster}")
            server.terminate()
            await server.ended()
        files = [path for path in state.rglob("*") if path.is_file() and path.suffix not in (".wal", ".lock")]
        found.must(bool(files), "nothing was kept")
        for path in files:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if content is None else content)
        server = start([place.bundle], state)
        try:
            await ready(server, 20)
            await asyncio.sleep(0.2)
            told_so = any(word in line for line in server.log for word in ("damaged", "aside", "lost"))
            found.must(told_so, f"{how}: the log does not say so: {server.log[-2:]}")
            found.must(acknowledged(await name_it(server, 1, "anew")), f"{how}: no name can be kept afterwards")
            photo = await said(server.port, request("POST", "/segment", PNG))
            found.must(
                photo is not None and photo.status == 200, f"{how}: a photo is answered {photo and photo.status}"
            )
        except NotReadyError as error:
            found.must(False, f"{how}: {error}")
        finally:
            server.kill()
        aside = [path.name for path in state.rglob("*") if path.is_file() and path not in files]
        found.must(bool(aside) or how == "emptied", f"{how}: what was damaged is not kept aside")
        async with serving([place.bundle], state) as server:
            found.must((await names(server))[1] == "anew", f"{how}: the name given afterwards is gone")


@torture("J", "two servers on one state folder: neither loses the other's names; If-Match tells who was late")
async def two_servers(place: Place, found: Found) -> None:
    state = place.folder("state")
    kept: dict[int, set[str]] = {cluster: set() for cluster in range(5)}
    async with serving([place.bundle], state) as one, serving([place.bundle], state) as two:

        async def writer(i: int) -> None:
            """Each server has clusters of its own, and one that both name."""
            server, own = ((one, (0, 1)), (two, (2, 3)))[i % 2]
            for turn in range(place.rounds(40)):
                cluster = own[turn % 2] if turn % 4 else 4
                name = f"{i} {turn}"
                if acknowledged(await name_it(server, cluster, name)):
                    kept[cluster] = {name} if cluster != 4 else {*kept[4], name}

        await together(2, writer)
        seen = await asyncio.gather(names(one), names(two))
        found.must(all(kept.values()), "not every cluster was named")
        one.kill()
        two.kill()
    async with serving([place.bundle], state) as again:
        after = await names(again)
        for cluster, might in kept.items():
            found.must(after[cluster] in might, f"cluster {cluster} is {after[cluster]!r}, acknowledged was {might}")
        for cluster in range(4):
            both = {before[cluster] for before in seen}
            found.must(both == {after[cluster]}, f"cluster {cluster}: the two servers show {sorted(both)}")
        first = await again.ask("GET", "/clusters/0")
        etag = first.headers.get("etag")
        if found.must(etag is not None, "GET /clusters/0 has no ETag"):
            head = {"If-Match": etag or ""}
            change = request("PATCH", "/clusters/0", b'{"name": "mine"}', head)
            answers = [await said(again.port, change), await said(again.port, change)]
            statuses = [answer and answer.status for answer in answers]
            found.must(statuses == [200, 412], f"If-Match with an old ETag: {statuses}, not [200, 412]")


@torture("K", "kill -9 × 50 while names are given: no acknowledged one is lost", limit_s=400.0)
async def kill_nine(place: Place, found: Found) -> None:
    state, chance = place.folder("state"), random.Random(0)
    may_be: dict[
        int, set[str]
    ] = {}  # cluster → the name acknowledged last, and one that was sent after it and not answered
    acknowledgements = 0

    async def give(server: Server, cluster: int, round_: int) -> None:
        nonlocal acknowledgements
        for turn in range(10_000):
            name = f"{round_}.{turn}"
            may_be[cluster].add(name)
            answer = await name_it(server, cluster, name)
            if answer is None:
                return
            if acknowledged(answer):
                may_be[cluster] = {name}
                acknowledgements += 1

    for round_ in range(place.rounds(50)):
        server = start([place.bundle], state)
        try:
            await ready(server)
            now = await names(server)
            may_be = may_be or {cluster: {own} for cluster, own in now.items()}
            for cluster, allowed in may_be.items():
                found.must(
                    now[cluster] in allowed,
                    f"round {round_}: cluster {cluster} is {now[cluster]!r}, not one of {sorted(allowed)}",
                )
                may_be[cluster] = {now[cluster]}
            giving = [asyncio.create_task(give(server, cluster, round_)) for cluster in range(5)]
            await asyncio.sleep(chance.uniform(0.02, 0.5))
        finally:
            server.kill()
        await asyncio.gather(*giving)
    found.figure(f"{acknowledgements} names acknowledged")
