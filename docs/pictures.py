"""Makes the pictures of the docs with the program itself: python -m docs.pictures

A street drawn by `training/data/synthetic` (no photo stands in this repository) beside what the embedded default
makes of it, and beside that the clusters it names, largest first. Where Debian's chromium is there, also the page that
shows it.
"""

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

from benchmarks.own_server import serving
from benchmarks.page import ARGUMENTS, free_port
from models import palette
from models.bundle import Bundle
from models.inference import segment
from models.io.encode import encode
from service.engines import open_engine
from service.settings import Settings, embedded
from training.data.synthetic import street

HERE = Path(__file__).resolve().parent
PAGE = (1280, 800)
# What somebody calls a few of the things in the street, by a place of each in shares of the photo.
CALLED = {"sky": (0.5, 0.2), "road": (0.5, 0.85), "houses, trees": (0.07, 0.58), "car": (0.78, 0.77)}


def main() -> None:
    """Writes docs/street.jpg, a photo to try the service with, and docs/street.webp, the README's picture."""
    bundle = Bundle.load(embedded()[0])
    photo = street((360, 480), seed=0)
    (HERE / "street.jpg").write_bytes(encode(photo, "jpeg"))
    labels = segment(bundle, open_engine(bundle, Settings(engine="onnxruntime")), photo)
    over = palette.overlay(photo, labels, bundle.colors, 0.6)
    legend = _legend(bundle, labels, len(photo))
    (HERE / "street.webp").write_bytes(encode(np.hstack([photo, over, legend]), "webp"))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("docs/page.webp stays as it is: it needs Debian's chromium")
    else:
        (HERE / "page.webp").write_bytes(_page(chromium))


def _page(chromium: str) -> bytes:
    """The page with the street, four things of it named, as WebP."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        state = {"TESSERA_STATE": str(Path(folder) / "state")}
        browser = driver.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        with serving(embedded()[0], Path(folder) / "log", port=free_port(), env=state) as server:
            page = browser.new_page(viewport={"width": PAGE[0], "height": PAGE[1]}, device_scale_factor=1)
            page.goto(f"http://127.0.0.1:{server.port}/")
            page.set_input_files("#file", HERE / "street.jpg")
            page.locator("#legend li").first.wait_for()
            canvas = page.locator("#labels")
            view = canvas.bounding_box()
            assert view is not None
            side = min(view["width"] / 480, view["height"] / 360)
            for name, (x, y) in CALLED.items():
                place = (view["width"] / 2 + (x - 0.5) * 480 * side, view["height"] / 2 + (y - 0.5) * 360 * side)
                canvas.click(position={"x": place[0], "y": place[1]})
                page.keyboard.press("n")
                page.keyboard.type(name)
                page.keyboard.press("Enter")
                page.get_by_role("button", name=name, exact=True).wait_for()
            page.keyboard.press("Escape")
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur()")
            page.wait_for_timeout(500)
            shown = page.screenshot()
        browser.close()
    out = io.BytesIO()
    Image.open(io.BytesIO(shown)).save(out, "webp", quality=72, method=6)
    return out.getvalue()


def _legend(bundle: Bundle, labels: np.ndarray, height: int) -> np.ndarray:
    shares = np.bincount(labels.ravel(), minlength=len(bundle.manifest.clusters)) / labels.size
    page = Image.new("RGB", (190, height), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(15)
    for row, cluster in enumerate(np.argsort(-shares)[: height // 30 - 1]):
        top = 14 + 30 * row
        draw.rectangle([16, top, 36, top + 20], fill=tuple(int(v) for v in bundle.colors[cluster]))
        name = bundle.manifest.clusters[cluster].name
        draw.text((46, top + 1), f"{name}  {shares[cluster]:.0%}", fill="black", font=font)
    return np.asarray(page)


if __name__ == "__main__":
    main()
