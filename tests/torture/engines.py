"""Tests 14 and F: what the server does when its network has no room, hangs, dies, or answers what is no number.

Knows nothing of the engines but their doubles' names.
"""

import asyncio
import subprocess
import sys
from contextlib import suppress

import numpy as np

from models.io.encode import encode
from tests.torture.client import BROKEN, ask, request, said
from tests.torture.doubles import SIGNAL
from tests.torture.load import everybodys_own
from tests.torture.pictures import PNG
from tests.torture.process import ROOT, Server, serving
from tests.torture.verdict import Found, Place, torture

CALLED = encode(np.full((64, 64, 3), SIGNAL, np.uint8), "png")
_NOTICED_S = 20.0
_TIMEOUT_S = 2.0


@torture("14", "a device without room: batches halve, nobody fails; a provider that is lost leaves the CPU")
async def no_room(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state"), engine="small", cache_bytes=0) as server:
        await everybodys_own(server, found, place.rounds(300))
    by = ["tests/service/engines/test_onnxruntime_cuda.py", "tests/service/refiners/test_gpu_batcher.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *by]
    ran = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    last = (ran.stdout.strip().splitlines() or ["nothing ran"])[-1]
    broken = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    found.must(ran.returncode == 0, f"a lost provider, with doubles of the GPU: {last} {broken[:2]}")
    found.figure(f"doubles of the GPU: {last}")


async def _until(server: Server, status: int, limit_s: float = _NOTICED_S) -> tuple[float, str] | None:
    """Seconds until /readyz has that status, and what it says; None where it never has."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + limit_s:
        with suppress(*BROKEN, TimeoutError):
            answer = await server.ask("GET", "/readyz", timeout_s=2.0)
            if answer.status == status:
                return loop.time() - began, answer.body.decode()
        if server.process.poll() is not None:
            return None
        await asyncio.sleep(0.05)
    return None


@torture("F", "an engine that hangs or whose thread dies: unready with a reason, a fresh one, SIGTERM ends it")
async def stuck(place: Place, found: Found) -> None:
    for engine in ("hang", "dies"):
        async with serving(
            [place.bundle],
            place.folder("state"),
            engine=engine,
            timeout_s=_TIMEOUT_S,
            engine_timeout_s=_TIMEOUT_S,
            drain_s=5,
        ) as server:
            asking = asyncio.create_task(said(server.port, request("POST", "/segment", CALLED), timeout_s=30))
            off = await _until(server, 503)
            found.must(off is not None, f"{engine}: /readyz still says 200 after {_NOTICED_S:.0f} s")
            if off:
                found.figure(f"{engine}: unready after {off[0]:.1f} s")
                found.must("engine" in off[1] or "network" in off[1], f"{engine}: the reason is {off[1][:120]!r}")
                live = await said(server.port, request("GET", "/livez"))
                found.must(live is not None and live.status == 200, f"{engine}: /livez {live and live.status}")
            on = await _until(server, 200)
            again = await said(server.port, request("POST", "/segment?format=png", PNG), timeout_s=20)
            fresh = on is not None and again is not None and again.status == 200
            found.must(fresh, f"{engine}: no fresh engine answers: {again and again.status}")
            answer = await asking
            told = answer is not None and answer.status in (500, 503, 504) and answer.is_problem
            found.must(told, f"{engine}: who called it was told {answer and answer.status}")
            stuck_again = asyncio.create_task(said(server.port, request("POST", "/segment", CALLED), timeout_s=30))
            await asyncio.sleep(0.3)
            server.terminate()
            code = await server.ended(12.0)
            found.must(code == 0, f"{engine}: SIGTERM while it hangs ends in {code}, drain_s is 5")
            await stuck_again


@torture("G", "NaN from a network: a problem of class 500 that names the model, counted; never a label")
async def not_finite(place: Place, found: Found) -> None:
    async with serving([place.bundle], place.folder("state"), engine="nan") as server:
        for path in ("/segment", "/segment?format=png", "/segment?crf=true", "/segment?crf=fast", "/segment?k=2"):
            answer = await ask(server.port, "POST", path, CALLED)
            found.must(500 <= answer.status < 600 and answer.is_problem, f"{path}: {answer.status}")
            found.must(b"tiny" in answer.body, f"{path}: the model is not named: {answer.body[:160]!r}")
        several = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n' % data
            for data in (PNG, CALLED)
        )
        head = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await ask(server.port, "POST", "/segment", several + b"--b--\r\n", head)
        results = answer.json().get("results", [{}]) if answer.status == 200 else [{}]
        apart = len(results) == 2 and "label_map" in results[0] and results[1].get("status", 0) >= 500
        found.must(apart, f"beside a sound image: {answer.status} {answer.body[:200]!r}")
        counters = await server.counters()
        bad = [name for name, value in counters.items() if not np.isfinite(value)]
        found.must(not bad, f"metrics that are not finite: {bad[:3]}")
        counted = {n: v for n, v in counters.items() if v and ("finite" in n or "nan" in n.lower().split("_"))}
        found.must(bool(counted), "nothing in /metrics counts them")
        sound = await ask(server.port, "POST", "/segment?format=png", PNG)
        found.must(sound.status == 200, f"a sound image afterwards: {sound.status}")
