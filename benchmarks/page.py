"""What the page costs a browser.

    python -m benchmarks.page [--photo FILE] [--times 100]

A photo of 12 megapixels (drawn, unless one is named) on the page at 1366×768 in headless Chromium, with the embedded
default: milliseconds of script of one redraw, by what was done, with the requests that this made; and the time from a
choice of files to what is seen of it. The exit code is 1 where a redraw takes longer than a frame. Needs Debian's
chromium.
"""

import argparse
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.own_server import serving
from models.io.encode import encode
from service.settings import embedded
from training.data.synthetic import street

FRAME_MS = 16.0
ARGUMENTS = ("--no-sandbox", "--disable-background-networking")

# Every callback of a frame is timed, and every task of more than 50 ms is kept.
WATCH = """
window.spent = 0;
window.longest = [];
const frame = requestAnimationFrame;
window.requestAnimationFrame = (work) => frame((now) => {
  const began = performance.now();
  work(now);
  window.spent += performance.now() - began;
});
const keep = (list) => longest.push(...list.getEntries().map((one) => one.duration));
new PerformanceObserver(keep).observe({ type: "longtask" });
"""

# One step of everything that is painted anew from the one label map, by the functions that pointer and keys call.
REDRAWS = """
async ([name, times]) => {
  const of = (file) => import(new URL(`web/${file}.js`, document.baseURI));
  const [{ set, state }, photo, names] = await Promise.all(["state", "photo", "names"].map(of));
  names.setLocal(true); // hiding is then told to nobody
  const ids = [...state.current.answer.found.keys()], [one, other] = ids;
  const slide = (id, value) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const steps = {
    opacity: (n) => slide("fill", 0.2 + (n % 60) / 100),
    outlines: () => document.getElementById("outlines").click(),
    hover: (n) => photo.light(ids[n % ids.length]),
    hide: (n) => names.change(one, { hidden: n % 2 === 0 }),
    "merge preview": (n) => set({ preview: n % 2 ? null : new Map([[other, one]]) }, "look"),
    k: (n) => set({ k: 2 + (n % (state.clusters.size - 1)) }, "look"),
    zoom: (n) => photo.zoom(n % 2 ? 1 / 1.3 : 1.3),
    pan: (n) => photo.pan(n % 2 ? 40 : -40, n % 2 ? -25 : 25),
  };
  if (name === "pan") photo.zoom(2.5);
  const frames = (n) => new Promise((done) => {
    const next = () => (n-- > 0 ? requestAnimationFrame(next) : done());
    next();
  });
  const took = [];
  for (let n = 0; n < times; n++) {
    await frames(2);
    spent = 0;
    const began = performance.now();
    steps[name](n);
    for (let turn = 0; turn < 5; turn++) await null; // who is told of a change is told in a microtask
    const now = performance.now() - began;
    await frames(2);
    took.push(now + spent);
  }
  photo.fit();
  photo.light(null);
  set({ k: null, preview: null }, "look");
  return took;
}
"""
STEPS = ("opacity", "outlines", "hover", "hide", "merge preview", "k", "zoom", "pan")


@dataclass(frozen=True)
class Redraw:
    """One way to have the canvas painted anew: milliseconds of script each time, and requests of all times together."""

    took_ms: list[float]
    requests: int

    @property
    def median_ms(self) -> float:
        return statistics.median(self.took_ms)


@dataclass(frozen=True)
class Opening:
    """From a choice of files: seconds until labels are painted, and the longest task meanwhile, in milliseconds."""

    seconds: float
    longest_task_ms: float


def opening(page: Any, files: Sequence[Path]) -> Opening:
    """Choose files on a page with WATCH; ends when the labels of the first of them are painted."""
    page.evaluate("longest.length = 0")
    began = time.perf_counter()
    page.set_input_files("#file", [str(file) for file in files])
    page.locator("#legend li").first.wait_for(timeout=60_000)
    page.wait_for_function("document.getElementById('photo').naturalWidth > 0")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seconds = time.perf_counter() - began
    page.wait_for_timeout(200)  # a task is told once it has ended
    return Opening(seconds, page.evaluate("Math.max(0, ...longest)"))


def redraws(page: Any, times: int = 100) -> dict[str, Redraw]:
    """STEPS, so many times each, on a page with WATCH that shows a photo."""
    asked: list[str] = []
    page.evaluate(REDRAWS, ["outlines", 2])  # compiled, and its modules are there
    page.on("request", lambda request: asked.append(request.url) if request.method != "GET" else None)  # others poll
    found = {}
    for name in STEPS:
        before = len(asked)
        took = page.evaluate(REDRAWS, [name, times])
        found[name] = Redraw(took, len(asked) - before)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--photo", type=Path, help="an image file (default: a drawn street of 4000×3000)")
    parser.add_argument("--times", type=int, default=100, help="of every redraw (default: 100)")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        photo = given.photo or Path(folder) / "street.jpg"
        if given.photo is None:
            photo.write_bytes(encode(street((3000, 4000), seed=0), "jpeg"))
        several = [Path(folder) / f"{n}.jpg" for n in range(300)]
        small = encode(street((240, 320), seed=1), "jpeg")
        for file in several:
            file.write_bytes(small)
        state = {"TESSERA_STATE": str(Path(folder) / "state")}
        with serving(embedded()[0], Path(folder) / "log", port=free_port(), env=state) as server:
            slow = _show(f"http://127.0.0.1:{server.port}/", photo, several, given.times)
    return int(slow)


def _show(home: str, photo: Path, several: Sequence[Path], times: int) -> bool:
    """Print all figures. Returns whether one of the redraws took longer than a frame."""
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.add_init_script(WATCH)
        page.goto(home)
        one = opening(page, [photo])
        size = page.evaluate("[document.getElementById('labels').width, document.getElementById('labels').height]")
        found = redraws(page, times)
        page.goto(home)
        many = opening(page, several)
        browser.close()
    print(f"one redraw of {size[0]}×{size[1]} pixels, ms of script (of {times})\n")
    print(f"{'':16}{'median':>8}{'p95':>8}{'most':>8}{'requests':>10}")
    for name, redraw in found.items():
        took = sorted(redraw.took_ms)
        p95 = took[min(len(took) - 1, round(0.95 * len(took)))]
        print(f"{name:16}{redraw.median_ms:8.1f}{p95:8.1f}{took[-1]:8.1f}{redraw.requests:10}")
    print(f"\n{'':24}{'s to labels':>12}{'longest task, ms':>18}")
    for name, opened in ((photo.name, one), (f"{len(several)} photos at once", many)):
        print(f"{name:24}{opened.seconds:12.2f}{opened.longest_task_ms:18.0f}")
    return any(redraw.median_ms > FRAME_MS or redraw.requests for redraw in found.values())


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
