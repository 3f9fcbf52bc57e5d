"""What the service's container is asked, from its start to its end and over a restart.

Knows nothing of how it was built or how it is run. Each step is a line of what was seen, or an AssertionError.
"""

import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image as Picture

from models.types import Array
from tests.image_check import container
from tests.image_check.image import Image
from tests.tiny import write_tiny_bundle

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "docs" / "street.jpg"
STATE, BUNDLES = "/var/lib/tessera", "/bundles"
_ADMIN = {"X-API-Key": "of the image check"}
_READY_S = 240.0  # on a busy machine, with the CRF compiled for a processor that the image was not built on
_SAME = 0.999


def service(image: Image, work: Path, health: list[str]) -> Iterator[str]:
    """A line for each thing that was seen; `health` is the image's own check, as the Dockerfile gives it."""
    volumes = {STATE: container.volume(work / "state", image), BUNDLES: container.volume(work / "bundles", image)}
    write_tiny_bundle(volumes[BUNDLES] / "another", name="another")
    expected = here(work)
    port = free_port()
    command = ["serve", "--host", "0.0.0.0", "--port", str(port), "--open"]
    environment = {"TESSERA_ADMIN_KEY": _ADMIN["X-API-Key"], "TESSERA_MODELS": BUNDLES}
    with container.running(image, work, command, volumes, **environment) as first:
        yield f"ready after {ready(first, port):.1f} s"
        yield refuses_writing(first)
        checked = first.execute(*(part.replace(":8000", f":{port}") for part in health))
        assert checked.returncode == 0, f"the health check fails: {checked.stderr}"
        yield "the health check passes"
        yield segments(port, expected)
        yield from every_kind(port, expected)
        yield loads(port)
        yield job(port)
        assert ask(port, "PATCH", "/clusters/0", b'{"name": "kept"}', json_body=True)[0] == 200
        yield drains(first, port)
    with container.running(image, work, command, volumes, **environment) as second:
        seconds = ready(second, port)
        said = json.loads(ask(port, "GET", "/clusters/0")[1])["name"]
        assert said == "kept", f"the name is {said!r} after a restart, and was 'kept'"
        yield f"started again in {seconds:.1f} s, the name is kept"
        status = second.stop()
        assert status == 0, f"exit code {status} after SIGTERM:\n{second.log.read_text()}"
        yield "SIGTERM: exit code 0"
    yield commands(image, work, volumes, expected)


def here(work: Path) -> Array:
    """The photo's labels as this checkout computes them, without an image: uint8 [H, W]."""
    out = work / "expected"
    command = [sys.executable, "-P", "-c", "from tessera.cli import main; main()"]
    done = [*command, "segment", str(PHOTO), "--out", str(out), "--format", "png"]
    subprocess.run(done, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (found,) = out.rglob("*.png")
    return labels(found.read_bytes())


def labels(png: bytes) -> Array:
    """The values of a palette PNG."""
    return np.asarray(Picture.open(io.BytesIO(png)))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def ready(running: container.Running, port: int) -> float:
    def answers() -> bool:
        try:
            return ask(port, "GET", "/readyz")[0] == 200
        except OSError:
            return False

    return container.wait_until("ready", answers, _READY_S, running)


def refuses_writing(running: container.Running) -> str:
    """The root is read-only, and no user's own."""
    for path in ("/written", "/opt/tessera/written", "/home/written"):
        done = running.execute("sh", "-c", f"echo > {path}")
        assert done.returncode != 0, f"{path} can be written"
    user = running.execute("id", "-u").stdout.strip()
    assert user == "10001", f"it runs as {user}"
    capable = running.execute("grep", "CapEff", "/proc/1/status").stdout.split()[-1]
    assert int(capable, 16) == 0, f"it has capabilities: {capable}"
    return "runs as 10001 on a read-only root, without capabilities"


def segments(port: int, expected: Array) -> str:
    """The label map is the one that was computed here."""
    status, body = ask(port, "POST", "/segment?format=png", PHOTO.read_bytes())
    assert status == 200, body
    found = labels(body)
    assert found.shape == expected.shape, f"a label map of {found.shape}, of a photo of {expected.shape}"
    same = float((found == expected).mean())
    assert same >= _SAME, f"{same:.2%} of the labels are those computed here"
    assert len(np.unique(expected)) > 2, "the photo shows nothing by which label maps could be told apart"
    return f"/segment: {same:.2%} of {found.size} labels are those computed here"


def every_kind(port: int, expected: Array) -> Iterator[str]:
    """Answers in every kind of format, edges both ways, and pictures of every codec that the image brings."""
    photo = PHOTO.read_bytes()
    status, body = ask(port, "POST", "/segment", photo)
    assert status == 200, body
    shares = {one["id"]: one["fraction"] for one in json.loads(body)["clusters"]}
    counted = {int(label): float((expected == label).mean()) for label in np.unique(expected)}
    assert shares.keys() == counted.keys(), f"JSON has {sorted(shares)}, and the map {sorted(counted)}"
    assert all(abs(shares[label] - share) < 0.002 for label, share in counted.items()), (shares, counted)
    for options in ("format=overlay", "format=rle", "format=geojson", "format=zip&formats=png,json"):
        status, body = ask(port, "POST", f"/segment?{options}", photo)
        assert (status, bool(body)) == (200, True), f"{options}: {status} {body[:300]!r}"
    for crf in ("true", "fast"):
        status, body = ask(port, "POST", f"/segment?format=png&crf={crf}&timeout_ms=60000", photo)
        refined = labels(body)
        changed = float((refined != expected).mean())
        assert status == 200, body
        assert 0 < changed < 0.3, f"crf={crf} changes {changed:.1%} of the labels"
    yield "JSON, overlay, rle, geojson, zip; crf=true and crf=fast"
    pixels = np.asarray(Picture.open(PHOTO).convert("RGB"))
    for name, encoded, least in pictures(pixels):
        status, body = ask(port, "POST", "/segment?format=png", encoded)
        assert status == 200, f"{name}: {body[:300]!r}"
        same = float((labels(body) == expected).mean())
        assert same >= least, f"{name}: {same:.2%} of the labels are those of the JPEG file"
    yield f"decodes JPEG, {', '.join(name for name, _, _ in pictures(pixels[:64, :64]))}"


def pictures(pixels: Array) -> list[tuple[str, bytes, float]]:
    """The same pixels in other files: name, bytes, and the least share of labels that has to be the same."""

    def pillow(kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        Picture.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return [
        ("PNG", pillow("PNG"), _SAME),
        ("TIFF", pillow("TIFF"), _SAME),
        ("TIFF (LZW)", pillow("TIFF", compression="tiff_lzw"), _SAME),
        ("WebP", pillow("WEBP", lossless=True), _SAME),
        ("AVIF", pillow("AVIF", quality=90), 0.9),
        ("JPEG 2000", imagecodecs.jpeg2k_encode(pixels, level=0), 0.9),
        ("JPEG XL", imagecodecs.jpegxl_encode(pixels, lossless=True), _SAME),
    ]


def loads(port: int) -> str:
    """A bundle over HTTP: its network is proved in a process of its own before it is served."""
    status, body = ask(port, "POST", "/models/another/load", b"{}", json_body=True, **_ADMIN)
    assert status == 200, body
    status, body = ask(port, "POST", "/segment?format=png&model=another", PHOTO.read_bytes())
    assert status == 200, body
    return "a bundle is loaded over HTTP, proved, and answers"


def job(port: int) -> str:
    """A job's file is what /segment answers."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.write(PHOTO, "photos/street.jpg")
    status, body = ask(port, "POST", "/jobs?format=png", archive.getvalue())
    assert status == 202, body
    where = f"/jobs/{json.loads(body)['id']}"
    end = time.monotonic() + 60
    while json.loads(ask(port, "GET", where)[1])["state"] != "done":
        assert time.monotonic() < end, "the job is not done after a minute"
        time.sleep(0.2)
    result = zipfile.ZipFile(io.BytesIO(ask(port, "GET", f"{where}/result")[1]))
    assert result.read("photos/street.png") == ask(port, "POST", "/segment?format=png", PHOTO.read_bytes())[1]
    return "a job's label map is that of /segment"


def drains(running: container.Running, port: int) -> str:
    """A request that is under way when SIGTERM comes is answered, and the container ends with 0."""
    slow = "/segment?format=png&crf=true&crf_size=source&crf_iterations=50&timeout_ms=60000"
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        asked = pool.submit(ask, port, "POST", slow, PHOTO.read_bytes())
        time.sleep(0.5)
        assert not asked.done(), "the request was answered before it could be under way"
        status = running.stop()
        answer, _ = asked.result(60)
    assert answer == 200, f"a request under way is answered with {answer} after SIGTERM"
    assert status == 0, f"exit code {status} after SIGTERM:\n{running.log.read_text()[-4000:]}"
    return f"SIGTERM: the request under way is answered, exit code 0 after {time.monotonic() - begun:.1f} s"


def commands(image: Image, work: Path, volumes: dict[str, Path], expected: Array) -> str:
    """`tessera segment`, `doctor` and `--version`, each in a container of its own."""
    shutil.copy(PHOTO, volumes[STATE] / "street.jpg")
    container.output(
        image, work, ["segment", f"{STATE}/street.jpg", "--out", f"{STATE}/out", "--format", "png"], volumes
    )
    (found,) = (volumes[STATE] / "out").rglob("*.png")
    assert float((labels(found.read_bytes()) == expected).mean()) >= _SAME
    said = container.output(image, work, ["doctor"], volumes)
    assert "serving works here" in said, said
    version = container.output(image, work, ["--version"], volumes).strip()
    return f"tessera segment, tessera doctor; {version}"


def ask(
    port: int, method: str, path: str, body: bytes | None = None, *, json_body: bool = False, **headers: str
) -> tuple[int, bytes]:
    """Status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(
            method, path, body, {**({"Content-Type": "application/json"} if json_body else {}), **headers}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
