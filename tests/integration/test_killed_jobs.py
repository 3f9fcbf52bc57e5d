"""A server that is killed while a job runs, thrice: every image is there once, as a request for it is answered."""

import asyncio
import io
import json
import zipfile
from pathlib import Path

import pytest

from models.io.encode import encode
from tests.service.server import proved
from tests.tiny import bands
from tests.torture.process import Server, ready, start

IMAGES = 160


def _zip() -> tuple[bytes, dict[str, bytes]]:
    files = {
        f"{i % 7}/{i:04d}.png": encode(bands(40 + i % 30, 60 + i % 50, tuple((i + k) % 5 for k in range(5))), "png")
        for i in range(IMAGES)
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue(), files


async def _job(server: Server, path: str) -> dict[str, object]:
    answer = await server.ask("GET", path)
    assert answer.status == 200, answer.body
    return dict(answer.json())


async def _until_done(server: Server, path: str, least: int, limit_s: float = 60) -> dict[str, object]:
    async with asyncio.timeout(limit_s):
        while True:
            job = await _job(server, path)
            if job["state"] == "done" or (job["state"] == "running" and job["progress"]["done"] >= least):  # type: ignore[index]
                return job
            await asyncio.sleep(0.05)


@pytest.mark.slow
def test_killed_thrice_every_image_is_there_once(tiny_bundle: Path, tmp_path: Path) -> None:
    data, files = _zip()
    state = proved(tiny_bundle, tmp_path / "state")

    async def scenario() -> None:
        path, done = "", 0
        for kill in range(4):
            server = start([tiny_bundle], state, engine="slow", job_images=2)
            try:
                await ready(server)
                if not path:
                    answer = await server.ask("POST", "/jobs?format=png,npy&k=4", data)
                    assert answer.status == 202, answer.body
                    path = f"/jobs/{answer.json()['id']}"
                if kill < 3:
                    job = await _until_done(server, path, done + 20)
                    done = int(job["progress"]["done"])  # type: ignore[index, call-overload]
                    assert job["state"] == "running", "the job was too short to be killed"
                    continue
                job = await _until_done(server, path, IMAGES + 1)
                assert job["progress"]["done"] == IMAGES, json.dumps(job)  # type: ignore[index]
                assert job["progress"]["failed"] == 0  # type: ignore[index]
                whole = await server.ask("GET", f"{path}/result")
                assert whole.status == 200
                with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
                    names = archive.namelist()
                    assert len(names) == len(set(names)) == 2 * IMAGES
                    assert archive.testzip() is None
                    for name, image in list(files.items())[::16]:
                        for format, end in (("png", ".png"), ("npy", ".npy")):
                            asked = await server.ask("POST", f"/segment?format={format}&k=4", image)
                            assert archive.read(name.removesuffix(".png") + end) == asked.body, name
            finally:
                server.kill()

    asyncio.run(scenario())
